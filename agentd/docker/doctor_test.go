package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/theazo/observability/shared/health"
	"github.com/theazo/observability/test/dockertest"
)

// findings are what was found, by check.
func findings(t *testing.T, found []health.Finding) map[string]health.Finding {
	t.Helper()
	by := map[string]health.Finding{}
	for _, f := range found {
		if f.Detail == "" || f.Check == "" || f.Mend == "" && (f.Level == health.Warn || f.Level == health.Fail) || f.Mend != "" && f.Level == health.OK {
			t.Errorf("%+v says not what is the matter, or not what to do", f)
		}
		if before, ok := by[f.Check]; ok {
			f.Detail = before.Detail + "\n" + f.Detail
		}
		by[f.Check] = f
	}
	return by
}

// A healthy engine, and one container whose log is kept nowhere.
func TestDoctorOnAnEngine(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	cfg := Config{Endpoint: e.Host(), Include: []string{"label=test=" + t.Name()}}
	e.Run(t, dockertest.RunOptions{
		Image: image, Cmd: []string{"-sleep-after", "1h"}, Labels: labels(t), LogOpts: map[string]string{"max-size": "50m", "max-file": "5"},
	})
	by := findings(t, Doctor(t.Context(), cfg))
	for _, check := range []string{
		"docker engine", "docker log files", "docker containers", "docker log driver", "container log rotation", "inotify limits", "open file limit",
	} {
		if by[check].Level != health.OK {
			t.Errorf("%s: %+v", check, by[check])
		}
	}
	e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-sleep-after", "1h"}, Labels: labels(t, "theazo.agent_id", "no id"), LogDriver: "none"})
	e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-sleep-after", "1h"}, Labels: labels(t)})
	by = findings(t, Doctor(t.Context(), cfg))
	for check, level := range map[string]health.Level{
		"container log driver": health.Fail, "container log rotation": health.Warn, "container labels": health.Warn,
	} {
		if by[check].Level != level {
			t.Errorf("%s: %+v, want %s", check, by[check], level)
		}
	}
}

func TestDoctorWithoutAnEngine(t *testing.T) {
	found := Doctor(t.Context(), Config{Endpoint: "unix://" + filepath.Join(t.TempDir(), "no.sock")})
	if len(found) != 1 || findings(t, found)["docker engine"].Level != health.Fail {
		t.Errorf("%+v", found)
	}
}

// What the doctor makes of what an engine says.
func TestDoctorsFindings(t *testing.T) {
	healthy := func() (*scripted, *details) {
		d := &details{ID: id64("a"), Name: "agent", Driver: jsonFile, Running: true, LogOpts: map[string]string{"max-size": "50m", "max-file": "5"}}
		e := &scripted{info: engineInfo{Version: "29.7.2", LogDriver: jsonFile, LiveRestore: true}}
		e.list = func() []listed { return []listed{{ID: d.ID, State: "running"}, {ID: id64("b"), State: "exited"}} }
		e.inspect = func(context.Context, string) (*details, error) { return d, nil }
		return e, d
	}
	for name, c := range map[string]struct {
		change func(*Config, *scripted, *details)
		check  string
		level  health.Level
		says   string
	}{
		"healthy":        {func(*Config, *scripted, *details) {}, "container log rotation", health.OK, ""},
		"live-restore":   {func(_ *Config, e *scripted, _ *details) { e.info.LiveRestore = false }, "docker live-restore", health.Note, "stops every container"},
		"default driver": {func(_ *Config, e *scripted, _ *details) { e.info.LogDriver = "journald" }, "docker log driver", health.Warn, `"journald"`},
		"no driver":      {func(_ *Config, _ *scripted, d *details) { d.Driver = "none" }, "container log driver", health.Fail, "agent: "},
		"fluentd":        {func(_ *Config, _ *scripted, d *details) { d.Driver = "fluentd" }, "container log driver", health.Warn, "silently"},
		"endless":        {func(_ *Config, _ *scripted, d *details) { d.LogOpts = nil }, "container log rotation", health.Warn, "disk is full"},
		"one file":       {func(_ *Config, _ *scripted, d *details) { delete(d.LogOpts, "max-file") }, "container log rotation", health.Warn, "max-file is 1"},
		"short":          {func(_ *Config, _ *scripted, d *details) { d.LogOpts["max-size"] = "1m" }, "container log rotation", health.Warn, "less than 25 MB"},
		"local":          {func(_ *Config, _ *scripted, d *details) { d.Driver, d.LogOpts = localDriver, nil }, "container log rotation", health.OK, ""},
		"label":          {func(_ *Config, _ *scripted, d *details) { d.Labels = map[string]string{labelOrg: "a b"} }, "container labels", health.Warn, "theazo.org_id"},
		"left out":       {func(c *Config, _ *scripted, _ *details) { c.Exclude = []string{"name=agent"} }, "docker containers", health.Note, "1 are left out"},
		"remote":         {func(*Config, *scripted, *details) {}, "docker log files", health.Warn, "another machine"},
		"unreadable":     {func(c *Config, _ *scripted, _ *details) { c.LogRoot = "/nowhere" }, "docker log files", health.Warn, "CAP_DAC_READ_SEARCH"},
		"refusing": {func(_ *Config, e *scripted, _ *details) {
			e.inspect = func(context.Context, string) (*details, error) { return nil, errors.New("403 forbidden") }
		}, "docker containers", health.Fail, "403"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &Config{}
			e, d := healthy()
			c.change(cfg, e, d)
			got := findings(t, examine(t.Context(), cfg, func(string) (engine, error) { return e, nil }))[c.check]
			if got.Level != c.level || !strings.Contains(got.Detail+got.Mend, c.says) {
				t.Errorf("%+v", got)
			}
		})
	}
	t.Run("readable", func(t *testing.T) {
		e, d := healthy()
		dir := filepath.Join(t.TempDir(), d.ID)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, configFile), []byte("{}"))
		cfg := &Config{LogRoot: filepath.Dir(dir)}
		if got := findings(t, examine(t.Context(), cfg, func(string) (engine, error) { return e, nil })); got["docker log files"].Level != health.OK {
			t.Errorf("%+v", got)
		}
	})
}

func TestEngineSize(t *testing.T) {
	for s, want := range map[string]int64{
		"10m": 10 << 20, "10MB": 10 << 20, "1.5k": 1536, "100": 100, "2g": 2 << 30, "": 0, "-1": 0, "x": 0, "m": 0, "9999999999999g": 0, "0": 0,
	} {
		if got := engineSize(s); got != want {
			t.Error(fmt.Sprint(s, ": ", got, ", want ", want))
		}
	}
}
