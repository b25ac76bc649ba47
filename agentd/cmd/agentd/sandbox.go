package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/theazo/observability/agentd"
	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/program"
	"github.com/theazo/observability/shared/telemetry"
)

// sandboxToken prints an address that says whose a sandbox is.
func (c *cli) sandboxToken(context.Context) error {
	var agent, session, user, org, box, env, address string
	var ttl time.Duration
	loader, err := c.loader("sandbox-token -agent agt_… [flags]", "Prints the THEAZO_ENDPOINT of a sandbox that neither a container's address nor its labels tell apart:\nwhoever has it reports as that agent. Containers on this node's own networks need none.", func(fs *flag.FlagSet) {
		fs.StringVar(&agent, "agent", "", "agent that the sandbox is (needed)")
		fs.StringVar(&session, "session", "", "its session")
		fs.StringVar(&user, "user", "", "your own end user that it works for")
		fs.StringVar(&org, "org", "", "its organisation, on platform nodes")
		fs.StringVar(&env, "env", telemetry.Live.String(), "its environment: live or test")
		fs.StringVar(&box, "sandbox", "", "the provider's id of the sandbox")
		fs.StringVar(&address, "address", "127.0.0.1:7070", "address of this node's endpoint, as the sandbox sees it (see sandbox.listen)")
		fs.DurationVar(&ttl, "ttl", 0, "how long it is valid; 0: always")
	})
	if err != nil {
		return err
	}
	t := source.Target{Org: telemetry.OrgID(org), Origin: telemetry.Origin{
		Agent: telemetry.AgentID(agent), Session: telemetry.SessionID(session), User: telemetry.UserID(user), Sandbox: telemetry.SandboxID(box),
	}}
	if t.Env, err = telemetry.ParseEnvironment(env); err != nil {
		return program.Usagef("-env: %w", err)
	}
	for name, id := range map[string]string{"agent": agent, "session": session, "org": org, "sandbox": box} {
		if id == "" && name != "agent" {
			continue
		}
		if err := telemetry.CheckID(id); err != nil {
			return program.Usagef("-%s: %q %w", name, id, err)
		}
	}
	if user != "" {
		if err := telemetry.CheckUser(user); err != nil {
			return program.Usagef("-user: %w", err)
		}
	}
	if ttl < 0 {
		return program.Usagef("-ttl: %s is in the past", ttl)
	}
	stateDir, err := loader.StateDir()
	if err != nil {
		return err
	}
	var expires time.Time
	if ttl > 0 {
		expires = time.Now().Add(ttl)
	}
	endpoint, err := agentd.SandboxEndpoint(stateDir, address, t, expires)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.Out, endpoint)
	return err
}
