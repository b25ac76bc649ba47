package test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/theazo/observability/test/dockertest"
)

// docker exec's output never reaches the container's log; run through
// agentd-exec it does reach us, as the container's, by the mounted socket alone.
func TestDockerExecIsCollected(t *testing.T) {
	e := dockertest.NewEngine(t)
	dir := directory(t)
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "containers"))(t)
	agent(t, dir, "node", tenant.Org, []string{"DOCKER_HOST=" + e.Host()}, a)
	awaitConnected(t, dir)
	client := a.Client(tenant)
	container(t, e, "linegen", []string{
		"--name", "box", "--label", "theazo.agent_id=agt_box", "--label", "theazo.session_id=ses_box",
		"-v", bin + ":/theazo:ro", "-v", filepath.Join(dir, "node", "sandbox") + ":/run/theazo:ro", "-e", "THEAZO_ENDPOINT=unix:///run/theazo/agentd.sock",
	}, "-n", "1", "-sleep-after", "10m")
	awaitTotal(t, client, 1, "agentId", "agt_box")

	run := func(options ...string) string {
		argv := append(append([]string{"exec"}, options...), "box", "/theazo/agentd-exec", "--", "/theazo/linegen", "-n", "1000", "-stderr-every", "4", "-exit-code", "5")
		out, err := dockerCommand(t.Context(), e, argv...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 5 {
			t.Fatalf("docker exec: %v: %.300s", err, out)
		}
		return string(out)
	}
	if out := run(); strings.Count(out, "\n") != 1000 {
		t.Errorf("%d lines passed", strings.Count(out, "\n"))
	}
	awaitTotal(t, client, 1001, "agentId", "agt_box")
	page := must(client.Logs(t.Context(), "agentId", "agt_box", "limit", "1"))(t)
	if page.Data[0].Session != "ses_box" {
		t.Errorf("the session is %q", page.Data[0].Session)
	}
	// One that says it is another agent runs as well, and is not believed.
	run("-e", "THEAZO_AGENT_ID=agt_other")
	run("-e", "THEAZO_AGENT_ID=agt_box", "-e", "THEAZO_SESSION_ID=ses_box")
	awaitTotal(t, client, 2001, "agentId", "agt_box")
	if other := must(client.Logs(t.Context(), "agentId", "agt_other"))(t); other.Total != 0 {
		t.Errorf("%d lines of an agent that is not there", other.Total)
	}
}
