package test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/theazo/observability/test/dockertest"
	"github.com/theazo/observability/test/proc"
	"github.com/theazo/observability/test/stack"
)

// A container prints numbered lines while agentd, the aggregator and
// PostgreSQL are killed in turn: every line is there exactly once, and whoever
// followed the stream has seen every line exactly once.
func TestFaultEachPartIsKilledInTurn(t *testing.T) {
	const lines = 100_000
	e := dockertest.NewEngine(t)
	dir := directory(t)
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "faults"))(t)
	g := agent(t, dir, "node", tenant.Org, []string{"DOCKER_HOST=" + e.Host()}, a)
	f := follow(t, a.Client(tenant), "/v1/logs/stream?agentId=agt_numbers")

	container(t, e, "linegen", []string{"--label", "theazo.agent_id=agt_numbers", "--label", "theazo.session_id=ses_numbers"},
		"-n", strconv.Itoa(lines), "-rate", "5000", "-stderr-every", "7")
	pause := func() {
		select {
		case <-time.After(time.Duration(1000+rand.IntN(1500)) * time.Millisecond): //nolint:gosec // any pause will do
		case <-t.Context().Done():
		}
	}
	kills := 0
	for range 3 {
		pause()
		g.Kill()
		if err := g.Start(); err != nil {
			t.Fatal(err)
		}
		pause()
		a.Kill()
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		pause()
		pid := must(a.PostgresPID())(t)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		kills += 3
	}
	awaitTotal(t, a.Client(tenant), lines, "agentId", "agt_numbers")
	checkNumbered(t, "GET /v1/logs", must(a.Client(tenant).AllLogs(t.Context(), "agentId", "agt_numbers"))(t), lines)
	checkNumbered(t, "the stream", f.await(t, lines), lines)
	auditLedger(t, a.Client(tenant), must(a.Client(tenant).Logs(t.Context(), "limit", "1"))(t).Total)
	t.Logf("%d kills; the stream was opened %d times, gaps %v", kills, f.opened, f.gaps)
	if f.opened < 3 {
		t.Errorf("the stream was opened %d times: the aggregator's kills did not reach it", f.opened)
	}
}

// The engine is restarted, and agentd with a backlog: nothing is lost.
func TestFaultTheEngineIsRestarted(t *testing.T) {
	const lines = 3000
	e := dockertest.NewEngine(t)
	dir := directory(t)
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "engine"))(t)
	agent(t, dir, "node", tenant.Org, []string{"DOCKER_HOST=" + e.Host()}, a)
	client := a.Client(tenant)
	container(t, e, "linegen", []string{"--label", "theazo.agent_id=agt_before"}, "-n", strconv.Itoa(lines))
	awaitTotal(t, client, lines, "agentId", "agt_before")
	e.Restart(t)
	container(t, e, "linegen", []string{"--label", "theazo.agent_id=agt_after"}, "-n", strconv.Itoa(lines))
	awaitTotal(t, client, lines, "agentId", "agt_after")
	awaitTotal(t, client, lines, "agentId", "agt_before")
	checkNumbered(t, "after the restart", must(client.AllLogs(t.Context(), "agentId", "agt_after"))(t), lines)
}

// Logs rotate under load, with the settings that docs recommend.
func TestFaultRotationUnderLoad(t *testing.T) {
	const lines = 60_000
	e := dockertest.NewEngine(t)
	dir := directory(t)
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "rotation"))(t)
	agent(t, dir, "node", tenant.Org, []string{"DOCKER_HOST=" + e.Host()}, a)
	container(t, e, "linegen", []string{"--label", "theazo.agent_id=agt_rotated", "--log-opt", "max-size=1m", "--log-opt", "max-file=5"},
		"-n", strconv.Itoa(lines), "-rate", "15000", "-size", "120")
	awaitTotal(t, a.Client(tenant), lines, "agentId", "agt_rotated")
	checkNumbered(t, "rotated logs", must(a.Client(tenant).AllLogs(t.Context(), "agentId", "agt_rotated"))(t), lines)
}

// The disk of a node is full: agentd goes on when there is room again.
func TestFaultTheNodesDiskIsFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	const lines = 20_000
	e := dockertest.NewEngine(t)
	dir := directory(t)
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "disk"))(t)
	small := filepath.Join(dir, "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	g := agent(t, small, "node", tenant.Org, []string{"DOCKER_HOST=" + e.Host(), "AGENTD_BUFFER_SEGMENT=1MiB", "AGENTD_BUFFER_BUDGET=16MiB"}, a)
	if err := proc.Poll(t.Context(), stack.Patience, g.Done(), func() error { _, err := g.Status(t.Context()); return err }); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(small, "filler")
	fill(t, filler)
	container(t, e, "linegen", []string{"--label", "theazo.agent_id=agt_full"}, "-n", strconv.Itoa(lines), "-rate", "10000")
	select {
	case <-g.Done():
		t.Fatalf("agentd ended on a full disk: %v\n%s", g.Err(), g.Tail())
	case <-time.After(4 * time.Second):
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	awaitTotal(t, a.Client(tenant), lines, "agentId", "agt_full")
	checkNumbered(t, "after the full disk", must(a.Client(tenant).AllLogs(t.Context(), "agentId", "agt_full"))(t), lines)
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path) //nolint:gosec // the test's own directory
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for block := make([]byte, 64<<10); ; {
		if _, err := f.Write(block); err != nil {
			if len(block) == 1 {
				return
			}
			block = block[:len(block)/2]
		}
	}
}
