package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test binary be agentd itself.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_AS_AGENTD") != "" {
		main()
	}
	os.Exit(m.Run())
}

// A write to a closed stdout ends a Go program by default, without a word: the
// child would be orphaned and what it wrote lost.
func TestExecOutlivesTheReaderOfItsOutput(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "exec", "-state_dir", t.TempDir(), "-aggregator.addresses", "127.0.0.1:1",
		"--", "sh", "-c", "trap 'exit 5' PIPE; while echo line 2>/dev/null; do :; done; exit 5")
	cmd.Env = append(os.Environ(), "TEST_AS_AGENTD=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "line\n" {
		t.Fatalf("%q %v", line, err)
	}
	_ = out.Close()
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Fatalf("agentd ended with %v instead of its child's exit code", err)
	}
}

// Whoever waits for the command acts on its exit code: that our disk was full is
// not the command's failure.
func TestExecEndsAsItsCommandDidWhateverBecameOfTheOutput(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("SKIPPED, a full disk needs a file system of its own: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "exec", "-state_dir", filepath.Join(dir, "state"), "-aggregator.addresses", "127.0.0.1:1",
		"--", "sh", "-c", "echo it ran")
	cmd.Env = append(os.Environ(), "TEST_AS_AGENTD=1")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || string(out) != "it ran\n" {
		t.Fatalf("%v, %q: %s", err, out, said.String())
	}
	if !strings.Contains(said.String(), "no space left") {
		t.Errorf("nobody said that the output was lost: %s", said.String())
	}
}

// Where agentd itself cannot work, the command does, and somebody says so.
func TestExecRunsItsCommandThoughAgentdCannot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string][]string{
		"a setting":            {"-state_dir", t.TempDir(), "-buffer.budget", "1B"},
		"no directory":         {"-state_dir", filepath.Join(file, "state"), "-aggregator.addresses", "127.0.0.1:1"},
		"nobody to send it to": {"-state_dir", t.TempDir()},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], append(append([]string{"exec"}, flags...), "--", "sh", "-c", "echo it ran ${AGENTD_AGGREGATOR_JOIN_TOKEN-without}; exit 3")...)
		cmd.Env = append(os.Environ(), "TEST_AS_AGENTD=1", "AGENTD_AGGREGATOR_JOIN_TOKEN=thj_secret")
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		var exit *exec.ExitError
		if string(out) != "it ran without\n" || !errors.As(err, &exit) || exit.ExitCode() != 3 {
			t.Errorf("%s: %v, %q: %s", name, err, out, said.String())
		}
		if !strings.Contains(said.String(), "nothing is collected") {
			t.Errorf("%s: nobody said that nothing is collected: %s", name, said.String())
		}
	}
}

// The first process of a container gets the processes that lost their parents,
// and has to wait for them.
func TestExecWaitsForOrphans(t *testing.T) {
	const script = `orphan=$(sh -c "sleep 300 >/dev/null & echo \$!")
parent() { grep "^PPid:[[:space:]]*$PPID$" /proc/$1/status >/dev/null; }
i=0; until parent $orphan; do sleep 0.05; i=$((i+1)); [ $i -lt 600 ] || exit 8; done
kill -9 $orphan
i=0; while [ -e /proc/$orphan ]; do sleep 0.05; i=$((i+1)); [ $i -lt 600 ] || exit 9; done; exit 6`
	cmd := exec.CommandContext(t.Context(), os.Args[0], "exec", "-state_dir", t.TempDir(), "-aggregator.addresses", "127.0.0.1:1", "--", "sh", "-c", script)
	cmd.Env = append(os.Environ(), "TEST_AS_AGENTD=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 6 {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestASandboxTokenIsAnAddress(t *testing.T) {
	var out strings.Builder
	dir := t.TempDir()
	if code := agentdProgram().Run(t.Context(), []string{"sandbox-token", "-state_dir", dir, "-agent", "agt_1", "-address", "172.17.0.1:7070"}, &out, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if !strings.HasPrefix(out.String(), "http://172.17.0.1:7070/t/tht_") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%q", out.String())
	}
	if code := agentdProgram().Run(t.Context(), []string{"sandbox-token", "-state_dir", dir}, io.Discard, io.Discard); code != 2 {
		t.Errorf("without an agent it ends with %d", code)
	}
	if code := agentdProgram().Run(t.Context(), []string{"sandbox-token", "-state_dir", dir, "-agent", "agt_1", "-ttl", "-1h"}, io.Discard, io.Discard); code != 2 {
		t.Errorf("for a time that is over it ends with %d", code)
	}
}

func TestMistakesInACallComeBeforeTheConfiguration(t *testing.T) {
	for _, args := range [][]string{{"exec"}, {"exec", "--"}, {"run", "extra"}, {"bogus"}, {}} {
		if code := agentdProgram().Run(t.Context(), args, io.Discard, io.Discard); code != 2 {
			t.Errorf("agentd %q ends with %d, not 2", args, code)
		}
	}
}

func TestRedactShowsWhatTheRulesTake(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "redact", "-redact.rules", "ticket=TICKET-([0-9]+)")
	cmd.Env = append(os.Environ(), "TEST_AS_AGENTD=1")
	cmd.Stdin = strings.NewReader("db postgres://app:correcthorse@db/x\nTICKET-77\nplain\n-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n")
	var taken strings.Builder
	cmd.Stderr = &taken
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err, taken.String())
	}
	text := string(out)
	if strings.Contains(text, "correcthorse") || strings.Contains(text, "77") || strings.Contains(text, "MIIEvQ") || !strings.Contains(text, "\nplain\n") || !strings.Contains(taken.String(), "ticket") {
		t.Fatalf("%s%s", text, taken.String())
	}
}
