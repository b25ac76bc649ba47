package docker

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// Labels by which the orchestrator names a container's agent.
const (
	labelAgent   = "theazo.agent_id"
	labelSession = "theazo.session_id"
	labelUser    = "theazo.user_id"
	labelOrg     = "theazo.org_id"
	labelEnv     = "theazo.environment"
)

// identify says whom a container's records are for and about. A label with a
// value that is no id is as if it were not there, and is passed to bad.
func identify(cfg *Config, d *details, bad func(label, value string, err error)) source.Target {
	label := func(name string, check func(string) error) string {
		value, ok := d.Labels[name]
		if !ok {
			return ""
		}
		if err := check(value); err != nil {
			bad(name, value, err)
			return ""
		}
		return value
	}
	target := source.Target{Org: cfg.DefaultOrg, Env: cfg.DefaultEnv}
	target.Origin = telemetry.Origin{
		Agent:    telemetry.AgentID(label(labelAgent, telemetry.CheckID)),
		Session:  telemetry.SessionID(label(labelSession, telemetry.CheckID)),
		User:     telemetry.UserID(label(labelUser, telemetry.CheckUser)),
		Provider: telemetry.Docker,
		Sandbox:  telemetry.SandboxID(d.ID),
		Source:   telemetry.SourceAgent,
	}
	if target.Origin.Agent == "" {
		target.Origin.Agent = ids.AgentOf(telemetry.Docker, target.Origin.Sandbox)
	}
	if org := label(labelOrg, telemetry.CheckID); org != "" {
		target.Org = telemetry.OrgID(org)
	}
	if env := label(labelEnv, isEnvironment); env != "" {
		target.Env, _ = telemetry.ParseEnvironment(env) // checked by label
	}
	return target
}

func isEnvironment(s string) error {
	_, err := telemetry.ParseEnvironment(s)
	return err
}

// configFile is the engine's own note of a container, beside its log. It tells
// of a container that was gone before anybody could ask the engine.
const configFile = "config.v2.json"

// maxConfigFile bounds what is read of it: the engine keeps it in memory whole.
const maxConfigFile = 4 << 20

// readConfigFile reads details from a config.v2.json. The state in it is as the
// engine last saved it.
func readConfigFile(f *os.File) (*details, error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxConfigFile))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	var c struct {
		ID      string
		Name    string
		LogPath string
		Created string
		Image   string // its digest
		Config  struct {
			Image  string
			Tty    bool
			Labels map[string]string
		}
		State struct {
			Running, Paused, OOMKilled bool
			ExitCode                   int
			StartedAt, FinishedAt      string
		}
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	d := &details{
		ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Image: c.Config.Image, Labels: c.Config.Labels,
		LogPath: c.LogPath, TTY: c.Config.Tty, Running: c.State.Running, Paused: c.State.Paused,
		Created: engineTime(c.Created), Started: engineTime(c.State.StartedAt), Finished: engineTime(c.State.FinishedAt),
		ExitCode: c.State.ExitCode, OOMKilled: c.State.OOMKilled, Digest: c.Image,
	}
	if c.LogPath != "" {
		d.Driver = jsonFile
	}
	return d, nil
}

// jsonFile is the engine's name of the driver whose files are read here.
const jsonFile = "json-file"

// localDriver is the engine's name of its other driver that keeps files.
const localDriver = "local"

// detailsOfEvent is the least that is known of a container: its labels, name
// and image come with each of its events.
func detailsOfEvent(e *engineEvent) *details {
	return &details{ID: e.ID, Name: e.Attributes["name"], Image: e.Attributes["image"], Labels: e.Attributes}
}

// isContainerID reports whether s is a container's full id. Directories and
// events are other people's: only such names become paths here.
func isContainerID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
