package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/theazo/observability/test/dockertest"
	"github.com/theazo/observability/test/stack"
)

// bin holds the daemons, built once for all tests.
var bin string

func TestMain(m *testing.M) {
	os.Exit(dockertest.Main(m, func() int {
		dir, err := os.MkdirTemp("/var/tmp", "theazo-test-bin-")
		if err == nil {
			bin, err = stack.Build(context.Background(), dir)
		}
		if err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		return m.Run()
	}))
}

// directory is a test's own, which PostgreSQL's user can reach; t.TempDir is
// closed to it. Not in /tmp, which may be memory.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "theazo-test-") //nolint:usetesting // see above
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // see above
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
			return
		}
		t.Logf("logs and data are kept in %s", dir)
	})
	return dir
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// aggregator starts one with a private PostgreSQL.
func aggregator(t *testing.T, dir string, env ...string) *stack.Aggregator {
	t.Helper()
	a := must(stack.NewAggregator(bin, filepath.Join(dir, "aggregator")))(t)
	a.Env = env
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(time.Minute); err != nil {
			t.Error(err)
		}
	})
	return a
}

// agent starts an agentd of a tenant ("" is a platform node).
func agent(t *testing.T, dir, name, org string, env []string, to ...*stack.Aggregator) *stack.Agent {
	t.Helper()
	args := []string{"node", "token", "-org", org}
	if org == "" {
		args = []string{"node", "token", "-platform"}
	}
	g := &stack.Agent{
		Bin: bin, Dir: filepath.Join(dir, name), Aggregator: to, Token: must(to[0].Command(t.Context(), args...))(t),
		// Tests count lines: no canary among them.
		Env: append([]string{"AGENTD_NODE_NAME=" + name, "AGENTD_CANARY_INTERVAL=0s"}, env...),
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(time.Minute); err != nil {
			t.Error(err)
		}
	})
	return g
}

// container runs a program of ours in a container, until the test ends.
func container(t *testing.T, e *dockertest.Engine, program string, options []string, args ...string) {
	t.Helper()
	image(t, e, program)
	argv := append([]string{"run", "-d", "--network", "none"}, options...)
	argv = append(append(argv, "theazo/"+program), args...)
	id := docker(t, e, argv...)
	t.Cleanup(func() {
		cmd := dockerCommand(context.Background(), e, "rm", "-f", id)
		_ = cmd.Run() // a container that was run with --rm is gone
	})
}

var images sync.Map

func image(t *testing.T, e *dockertest.Engine, program string) {
	t.Helper()
	if _, made := images.LoadOrStore(program, true); made {
		return
	}
	tar := filepath.Join(t.TempDir(), program+".tar")
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", bin, "-cf", tar, program).CombinedOutput(); err != nil { //nolint:gosec // fixed arguments
		t.Fatalf("tar: %v: %s", err, out)
	}
	docker(t, e, "import", "--change", `ENTRYPOINT ["/`+program+`"]`, tar, "theazo/"+program)
}

func dockerCommand(ctx context.Context, e *dockertest.Engine, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...) //nolint:gosec // fixed arguments
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.Host())
	return cmd
}

func docker(t *testing.T, e *dockertest.Engine, args ...string) string {
	t.Helper()
	var errOut strings.Builder
	cmd := dockerCommand(t.Context(), e, args...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, errOut.String())
	}
	return strings.TrimSpace(string(out))
}

// awaitTotal waits until a query counts n lines, and fails when it counts more.
func awaitTotal(t *testing.T, c *stack.Client, n int64, params ...string) {
	t.Helper()
	var last error
	var total int64
	began := time.Now()
	for limit := time.After(3 * stack.Patience); ; {
		page, err := c.Logs(t.Context(), append([]string{"limit", "1"}, params...)...)
		if last, total = err, page.Total; err == nil && total >= n {
			break
		}
		select {
		case <-limit:
			t.Fatalf("%d of %d lines are there after %s (%v)", total, n, time.Since(began).Round(time.Second), last)
		case <-time.After(100 * time.Millisecond):
		}
	}
	if total > n {
		t.Fatalf("%d lines are there, only %d were written", total, n)
	}
}
