package localpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no process to signal: %d", pid)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("signal %v to %d: %v", sig, pid, err)
	}
}

// answers waits until the server answers again.
func answers(t *testing.T, dsn string) {
	t.Helper()
	begun := time.Now()
	until(t, "PostgreSQL answers", func() bool { return query(within(t), dsn, "select 1") == nil })
	t.Logf("answered after %v", time.Since(begun))
}

// busy runs a query that does not look up for a long time, and returns when it runs.
func busy(t *testing.T, dsn string) {
	t.Helper()
	ctx, cancel := context.WithCancel(within(t))
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = conn.Exec(ctx, "select count(*) from generate_series(1, 1000000000000) n")
	}()
	t.Cleanup(func() { cancel(); <-done; conn.Close(ctx) })
	until(t, "the query runs", func() bool {
		return value(t, dsn, "select count(*)::text from pg_stat_activity where state = 'active' and query like '%generate_series%' and pid <> pg_backend_pid()") == "1"
	})
}

func TestKilledPostmasterIsStartedAgain(t *testing.T) {
	t.Parallel()
	s := start(t, options(t))
	busy(t, s.DSN())
	for range 3 {
		pid := s.PID()
		kill(t, pid, syscall.SIGKILL)
		until(t, "a new postmaster", func() bool { return s.PID() != pid && s.PID() != 0 })
		answers(t, s.DSN())
	}
	checkKept(t, s.DSN())
	select {
	case err := <-s.Wait():
		t.Errorf("lost: %v", err)
	default:
	}
}

func TestStoppedFromOutsideIsStartedAgain(t *testing.T) {
	t.Parallel()
	s := start(t, options(t))
	pid := s.PID()
	kill(t, pid, syscall.SIGINT)
	until(t, "a new postmaster", func() bool { return s.PID() != pid && s.PID() != 0 })
	answers(t, s.DSN())
}

func TestStopWhileStartingAgain(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := start(t, o)
	kill(t, s.PID(), syscall.SIGKILL)
	stop(t, s)
	noProcessIn(t, o.Dir)
	if _, open := <-s.Wait(); open {
		t.Error("Wait reported a loss, want it closed")
	}
}

func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	o := options(t)
	s, err := Start(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	busy(t, s.DSN())
	kill(t, s.PID(), syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(within(t), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := s.Stop(ctx); err == nil || !strings.Contains(err.Error(), "had to be killed") {
		t.Errorf("Stop of a stopped postmaster: %v", err)
	}
	t.Logf("stop took %v", time.Since(begun))
	noProcessIn(t, o.Dir)

	start(t, o)
}

func TestLostCluster(t *testing.T) {
	t.Parallel()
	s := start(t, options(t))
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(s.layout.cluster, moved); err != nil {
		t.Fatal(err)
	}
	kill(t, s.PID(), syscall.SIGKILL)
	select {
	case err := <-s.Wait():
		if err == nil || !strings.Contains(err.Error(), "is gone") {
			t.Errorf("Wait: %v", err)
		}
	case <-within(t).Done():
		t.Error("the loss was not reported")
	}
	stop(t, s)
	if err := os.Rename(moved, s.layout.cluster); err != nil {
		t.Fatal(err)
	}
}

// parent is this test binary as another process that owns a server.
type parent struct {
	cmd        *exec.Cmd
	stdin      io.Closer
	postmaster int
	dsn        string
}

func startParent(t *testing.T, dir string, cred *syscall.Credential, env ...string) *parent {
	t.Helper()
	cmd := exec.CommandContext(within(t), "/proc/self/exe", "-test.run=^$") // Readable by any user, unlike its directory.
	cmd.Env = append(append(os.Environ(), helperDir+"="+dir), env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	w := &testWriter{t: t}
	t.Cleanup(w.end)
	cmd.Stderr = w
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &parent{cmd: cmd, stdin: stdin}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(line, "ready %d %s\n", &p.postmaster, &p.dsn)
	}
	if err != nil {
		t.Fatalf("the parent process did not start its server: %q, %v", line, err)
	}
	return p
}

// end lets the process stop its server by itself.
func (p *parent) end(t *testing.T) {
	t.Helper()
	p.stdin.Close()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("parent process: %v", err)
	}
}

// kill9 ends the process as an operator or the kernel would.
func (p *parent) kill9(t *testing.T) {
	t.Helper()
	kill(t, p.cmd.Process.Pid, syscall.SIGKILL)
	_ = p.cmd.Wait()
}

func TestKilledParent(t *testing.T) {
	t.Parallel()
	o := options(t)
	p := startParent(t, o.Dir, nil)
	if dsn, ok := FindRunning(o.Dir); !ok || dsn != p.dsn {
		t.Errorf("FindRunning beside it: %q, %v, want %s", dsn, ok, p.dsn)
	}
	if _, err := Start(within(t), o); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(p.cmd.Process.Pid)) {
		t.Errorf("Start beside it: %v", err)
	}
	busy(t, p.dsn)
	p.kill9(t)
	if _, ok := FindRunning(o.Dir); ok {
		t.Error("FindRunning after the kill")
	}
	s := start(t, o) // At once: the orphan is still stopping.
	checkKept(t, s.DSN())
}

func TestOrphanStopsByItself(t *testing.T) {
	t.Parallel()
	o := options(t)
	p := startParent(t, o.Dir, nil)
	p.kill9(t)
	until(t, "the orphan has stopped", func() bool {
		_, err := os.Stat(filepath.Join(o.Dir, clusterName, "postmaster.pid"))
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestKilledParentAndPostmaster(t *testing.T) {
	t.Parallel()
	o := options(t)
	p := startParent(t, o.Dir, nil)
	busy(t, p.dsn) // This backend outlives both.
	kill(t, p.postmaster, syscall.SIGKILL)
	p.kill9(t)
	s := start(t, o)
	checkKept(t, s.DSN())
}

func TestKilledWhileInitdbRuns(t *testing.T) {
	t.Parallel()
	o := empty(t)
	cmd := exec.CommandContext(within(t), "/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), helperDir+"="+o.Dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "initdb has begun", func() bool {
		_, err := os.Stat(filepath.Join(o.Dir, unfinished, "PG_VERSION"))
		return err == nil
	})
	kill(t, cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
	s := start(t, o)
	if got := value(t, s.DSN(), "select 'ok'"); got != "ok" {
		t.Errorf("answer %q", got)
	}
}
