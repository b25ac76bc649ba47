// Command agentd collects what AI agents do on one host and sends it to the
// aggregator. See `agentd help`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/logging"
	"github.com/theazo/observability/shared/program"
)

// version is set by the Makefile.
var version = "dev"

const usage = `agentd collects what AI agents do on this host and sends it to the aggregator.

  agentd run                 collect until stopped: container logs and events, kept on disk until acknowledged
  agentd exec -- CMD ARG…    run one process, collect its output, end with its exit code
  agentd sandbox-token       the THEAZO_ENDPOINT of a sandbox that nothing else tells apart
  agentd enroll              trade a join token for this node's certificate, then stop
  agentd status              how the agentd that runs here is doing (-json, -metrics)
  agentd doctor              look at everything between the containers here and the aggregator; what is wrong, and how to mend it (-o json)
  agentd redact              copy stdin to stdout with secrets taken out, as they would be before anything is stored (-rules)
  agentd check-config        read the configuration, say what is wrong with it or what it is
  agentd version

Start here (the aggregator prints the addresses; 'aggregator node token -org org_…' makes the token):
  agentd run -aggregator.addresses HOST:7444 -aggregator.enrolment HOST:7443 -aggregator.join_token thj_…

Containers say whom their output belongs to by labels, all optional:
  theazo.agent_id  theazo.session_id  theazo.user_id  theazo.environment (live, test)
  theazo.org_id (only the platform's own nodes may use it)

Every setting can stand in the file given by -config, in the environment or in a flag;
'agentd COMMAND -help' lists them.
`

func main() { agentdProgram().Main() }

func agentdProgram() *program.Program {
	commands := map[string]func(*cli, context.Context) error{
		"run": (*cli).collect, "exec": (*cli).exec, "enroll": (*cli).enroll, "status": (*cli).status, "doctor": (*cli).doctor, "check-config": (*cli).checkConfig,
		"sandbox-token": (*cli).sandboxToken,
		"redact":        (*cli).redact,
	}
	p := &program.Program{Name: "agentd", Version: version, Usage: usage, Commands: map[string]func(context.Context, *program.Call) error{}}
	for name, run := range commands {
		p.Commands[name] = func(ctx context.Context, c *program.Call) error { return run(&cli{c}, ctx) }
	}
	return p
}

// cli is one call of a command.
type cli struct{ *program.Call }

// load parses the flags of a command and reads the configuration.
func (c *cli) load(name, what string) (agentd.Config, error) {
	loader, err := c.loader(name, what, nil)
	if err != nil {
		return agentd.Config{}, err
	}
	return loader.Load()
}

func (c *cli) loader(name, what string, more func(*flag.FlagSet)) (*agentd.Loader, error) {
	loader, rest, err := agentd.NewLoader(name, c.Args, more)
	if errors.Is(err, flag.ErrHelp) {
		defaults := agentd.Default()
		c.Help("agentd "+name, what, more, config.New("agentd", &defaults), "AGENTD_CONFIG")
	}
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			err = program.Usagef("%w", err)
		}
		return nil, err
	}
	c.Args = rest
	return loader, nil
}

func (c *cli) collect(ctx context.Context) error {
	loader, err := c.loader("run [flags]", "Collects until SIGINT or SIGTERM; a second one ends it at once. A changed file is applied without a restart.", nil)
	if err != nil {
		return err
	}
	if len(c.Args) > 0 {
		return program.Usagef("run takes no arguments, found %q (for a process: agentd exec -- %s)", c.Args[0], c.Args[0])
	}
	cfg, err := loader.Load()
	if err != nil {
		return err
	}
	log := logging.New("agentd", cfg.Log, c.Err)
	return agentd.Run(ctx, agentd.Options{Config: cfg, Version: version, Log: log, Reload: loader.Watch(ctx, log.Named("config"))})
}

func (c *cli) exec(ctx context.Context) error {
	// Whoever reads our output may leave; that must not end us before what the
	// child wrote is on disk. (Notify, not Ignore: a child would inherit that.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	loader, err := c.loader("exec [flags] -- CMD ARG…", "Runs CMD, passes its output and signals on, collects the output, ends with its exit code.\nTHEAZO_AGENT_ID, THEAZO_SESSION_ID, THEAZO_USER_ID, THEAZO_ORG_ID and THEAZO_ENVIRONMENT say whom it belongs to.", nil)
	if err != nil {
		return err
	}
	if len(c.Args) == 0 {
		return program.Usagef("exec: give the command after --")
	}
	cfg, err := loader.Load()
	if err != nil {
		return c.unobserved(agentd.NewCommand(c.Args, hclog.NewNullLogger()), err)
	}
	log := logging.New("agentd", cfg.Log, c.Err)
	child := agentd.NewCommand(c.Args, log.Named("exec"))
	child.Reap = true
	err = agentd.Run(ctx, agentd.Options{Config: cfg, Version: version, Log: log, Command: child})
	if err != nil && !child.Started() && ctx.Err() == nil {
		return c.unobserved(child, err)
	}
	if code := child.ExitCode(); code != 0 || child.Ended() {
		if err != nil {
			log.Error("exec", "error", err)
		}
		return program.Exit(code)
	}
	return err
}

// unobserved runs the command of exec without agentd, which says why: whoever
// made it the entrypoint wants the command above all.
func (c *cli) unobserved(child *agentd.Command, why error) error {
	_, _ = fmt.Fprintf(c.Err, "agentd exec: nothing is collected, the command runs alone: %v\n", why)
	err := child.Unobserved()
	_, _ = fmt.Fprintf(c.Err, "agentd exec: %v\n", err)
	return program.Exit(child.ExitCode())
}

func (c *cli) enroll(ctx context.Context) error {
	cfg, err := c.load("enroll [flags]", "Trades the join token for this node's certificate. The key is made here and never leaves.")
	if err != nil {
		return err
	}
	id, err := agentd.Enroll(ctx, cfg, version, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	kind := "its organisation is set by the certificate"
	if id.Platform {
		kind = "a platform node: labels name the organisation"
	}
	_, err = fmt.Fprintf(c.Out, "enrolled as %s (%s)\n", id.Node, kind)
	return err
}

func (c *cli) checkConfig(context.Context) error {
	cfg, err := c.load("check-config [flags]", "Reads the configuration and prints it as it will be used.")
	if err != nil {
		return err
	}
	return c.PrintConfig(&cfg)
}
