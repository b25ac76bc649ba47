package docker

import (
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

// Commands in a container are events too: their output is in no log.
func TestExec(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	id := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-sleep-after", "1h"}, Labels: labels(t)})
	made, err := e.Client().ExecCreate(t.Context(), id, client.ExecCreateOptions{Cmd: []string{"/linegen", "-exit-code", "9"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Client().ExecStart(t.Context(), made.ID, client.ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	l.awaitEvent(t, telemetry.ExecExited, id)
	for _, ev := range sourcetest.EventsOf(l.stop(), telemetry.SandboxID(id)) {
		if ev.Type == telemetry.ExecStarted {
			if !strings.Contains(ev.Attributes["command"], "/linegen -exit-code 9") {
				t.Errorf("the command is %q", ev.Attributes["command"])
			}
		}
		if ev.Type == telemetry.ExecExited {
			if ev.ExitCode == nil || *ev.ExitCode != 9 || ev.Attributes["execId"] != made.ID {
				t.Errorf("the end of a command: %+v", ev)
			}
		}
	}
}
