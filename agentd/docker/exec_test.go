package docker

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

// Commands in a container are events too: their output is in no log. Its health
// checks are none.
func TestExec(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	created, err := e.Client().ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config: &container.Config{
			Image: image, Cmd: []string{"-sleep-after", "1h"}, Labels: labels(t),
			Healthcheck: &container.HealthConfig{Test: []string{"CMD", "/linegen", "-n", "1"}, Interval: 300 * time.Millisecond, Timeout: time.Minute},
		},
		HostConfig: &container.HostConfig{NetworkMode: "none"},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := created.ID
	t.Cleanup(func() {
		_, _ = e.Client().ContainerRemove(context.WithoutCancel(t.Context()), id, client.ContainerRemoveOptions{Force: true})
	})
	e.StartContainer(t, id)
	l.awaitEvent(t, telemetry.SandboxHealth, id)
	made, err := e.Client().ExecCreate(t.Context(), id, client.ExecCreateOptions{Cmd: []string{"/linegen", "-exit-code", "9"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Client().ExecStart(t.Context(), made.ID, client.ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	l.awaitEvent(t, telemetry.ExecExited, id)
	probes := func() float64 { return counted(t, l.registry, "agentd_docker_health_checks_total") }
	before := probes()
	eventually(t, "two more health checks", func() bool { return probes() >= before+2 })
	started, exited := 0, 0
	for _, ev := range sourcetest.EventsOf(l.stop(), telemetry.SandboxID(id)) {
		if ev.Type != telemetry.ExecStarted && ev.Type != telemetry.ExecExited {
			continue
		}
		if ev.Attributes["command"] != "/linegen -exit-code 9" || ev.Attributes["execId"] != made.ID {
			t.Errorf("%s: %v", ev.Type, ev.Attributes)
		}
		if ev.Type == telemetry.ExecStarted {
			started++
			continue
		}
		exited++
		if ms, err := strconv.Atoi(ev.Attributes["durationMs"]); err != nil || ms < 0 || ev.ExitCode == nil || *ev.ExitCode != 9 {
			t.Errorf("the end of a command: %+v", ev)
		}
	}
	if started != 1 || exited != 1 {
		t.Errorf("%d commands were told to start and %d to end, want one", started, exited)
	}
}

func TestProbeOf(t *testing.T) {
	for _, c := range []struct {
		test, shell []string
		want        string
	}{
		{nil, nil, ""},
		{[]string{"NONE"}, nil, ""},
		{[]string{"CMD", "curl", "-f", "http://localhost/ "}, nil, "curl -f http://localhost/"},
		{[]string{"CMD-SHELL", "curl -f x || exit 1"}, nil, "/bin/sh -c curl -f x || exit 1"},
		{[]string{"CMD-SHELL", "x"}, []string{"/bin/bash", "-ec"}, "/bin/bash -ec x"},
	} {
		if got := probeOf(&container.Config{Healthcheck: &container.HealthConfig{Test: c.test}, Shell: c.shell}); got != c.want {
			t.Errorf("%v: %q, want %q", c.test, got, c.want)
		}
	}
	if probeOf(&container.Config{}) != "" {
		t.Error("a container without a health check has one")
	}
}

// Commands are remembered until they end, within bounds.
func TestCommandsThatNeverEnd(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := &run{probe: "/check"}
	event := func(action, argument, exec string, after time.Duration) *telemetry.Event {
		e := &engineEvent{At: at.Add(after), Attributes: map[string]string{"execID": exec, "exitCode": "0"}}
		if r.isProbe(action, argument, e) {
			return nil
		}
		return toEvent(action, argument, e, r)
	}
	for i := range 3 * maxCommands {
		event("exec_start", "/x "+strconv.Itoa(i), "exec"+strconv.Itoa(i), time.Duration(i)*time.Second)
	}
	if len(r.execs) > maxCommands {
		t.Errorf("%d commands are remembered", len(r.execs))
	}
	if event("exec_start", "/check ", "probe", time.Hour) != nil || event("exec_die", "", "probe", time.Hour) != nil {
		t.Error("a health check is told")
	}
	newest := "exec" + strconv.Itoa(3*maxCommands-1)
	if got := event("exec_die", "", newest, 3*maxCommands*time.Second); got.Attributes["durationMs"] != "1000" || !strings.HasPrefix(got.Attributes["command"], "/x ") {
		t.Errorf("the newest: %v", got.Attributes)
	}
	if got := event("exec_die", "", "exec0", time.Hour); got.Attributes["command"] != "" || got.Attributes["execId"] != "exec0" {
		t.Errorf("one that is forgotten: %v", got.Attributes)
	}
	for _, id := range []string{newest, "probe"} {
		if _, ok := r.execs[id]; ok {
			t.Errorf("%s is remembered after its end", id)
		}
	}
}
