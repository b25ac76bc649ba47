package execclient

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/theazo/observability/test/pty"
)

const patience = time.Minute

// TestMain lets the test binary be agentd-exec, and commands for it to run.
func TestMain(m *testing.M) {
	switch os.Getenv("TEST_AS") {
	case "agentd-exec":
		_ = os.Setenv("TEST_AS", "command")
		os.Exit(Main(os.Args[1:], "test"))
	case "command":
		os.Exit(command(os.Args[1], os.Args[2:]))
	}
	os.Exit(m.Run())
}

// command is what runs under agentd-exec in these tests.
func command(name string, args []string) int {
	switch name {
	case "burst": // N bytes on each stream, interleaved, all values, no newline at the end
		n, _ := strconv.Atoi(args[0])
		b := make([]byte, 1<<10)
		for i := range b {
			b[i] = byte(i * 7)
		}
		for range n / len(b) {
			_, _ = os.Stdout.Write(b)
			_, _ = os.Stderr.Write(b[:100])
		}
		return 3
	case "signals": // says which signals come, ends with SIGTERM
		signals := make(chan os.Signal, 8)
		signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGTERM)
		_, _ = io.WriteString(os.Stdout, "ready\n")
		for s := range signals {
			_, _ = fmt.Fprintln(os.Stdout, s)
			if s == syscall.SIGTERM {
				return 9
			}
		}
	}
	return 1
}

// agentdExec runs ourselves as agentd-exec.
func agentdExec(t *testing.T, endpoint string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"--"}, args...)...)
	cmd.Env = append(os.Environ(), "TEST_AS=agentd-exec", "THEAZO_ENDPOINT="+endpoint)
	return cmd
}

// endpoints are all that an endpoint can be but a good one, which package
// sandbox tests.
func endpoints(t *testing.T) map[string]string {
	t.Helper()
	serve := func(handle func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // returns at once
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { _ = c.Close() })
				go handle(c)
			}
		}()
		return "http://" + l.Addr().String()
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // returns at once
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	answer := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, text)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	return map[string]string{
		"none":          "",
		"not http":      "https://127.0.0.1:1",
		"dead":          "http://" + dead.Addr().String(),
		"no socket":     "unix://" + filepath.Join(t.TempDir(), "none.sock"),
		"hanging":       serve(func(net.Conn) {}),
		"slow":          serve(func(c net.Conn) { _, _ = io.Copy(&trickle{}, c) }),
		"refusing":      serve(answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")),
		"busy":          serve(answer("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")),
		"no http":       serve(answer("SSH-2.0-OpenSSH\r\n")),
		"endless head":  serve(answer("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 1<<20))),
		"bad chunks":    serve(answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")),
		"bad frames":    serve(answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nA\xff\xff\xff\xff\r\n")),
		"wrong acks":    serve(answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n15\r\nA\x00\x00\x00\x10" + strings.Repeat("\xff", 16) + "\r\n")),
		"hanging up":    serve(func(c net.Conn) { _ = c.Close() }),
		"done at once":  serve(answer("HTTP/1.1 200 OK\r\n\r\nD\x00\x00\x00\x00")),
		"100 and later": serve(answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")),
	}
}

// trickle takes a little now and then.
type trickle struct{}

func (*trickle) Write(b []byte) (int, error) {
	<-time.After(50 * time.Millisecond)
	return len(b), nil
}

// Whatever the endpoint is, the command's bytes and exit code pass untouched,
// and it does not wait.
func TestNoEndpointTouchesTheCommand(t *testing.T) {
	const size = 10 << 20
	direct := exec.CommandContext(t.Context(), os.Args[0], "burst", strconv.Itoa(size))
	direct.Env = append(os.Environ(), "TEST_AS=command")
	wantOut, wantErr := sha256.New(), sha256.New()
	direct.Stdout, direct.Stderr = wantOut, wantErr
	_ = direct.Run()
	for name, endpoint := range endpoints(t) {
		t.Run(name, func(t *testing.T) {
			cmd := agentdExec(t, endpoint, os.Args[0], "burst", strconv.Itoa(size))
			out, errOut := sha256.New(), sha256.New()
			cmd.Stdout, cmd.Stderr = out, errOut
			_ = cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != 3 {
				t.Errorf("exit code %d", code)
			}
			if !bytes.Equal(out.Sum(nil), wantOut.Sum(nil)) || !bytes.Equal(errOut.Sum(nil), wantErr.Sum(nil)) {
				t.Error("other bytes passed")
			}
		})
	}
}

func TestExitCodesAreTheCommands(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, endpoint := range []string{"", "http://127.0.0.1:1"} {
		for _, c := range []struct {
			args []string
			code int
		}{
			{[]string{"true"}, 0},
			{[]string{"sh", "-c", "exit 255"}, 255},
			{[]string{"sh", "-c", "kill -9 $$"}, 137},
			{[]string{"sh", "-c", "kill -TERM $$"}, 143},
			{[]string{"no-such-command"}, 127},
			{[]string{"/no/such/command"}, 127},
			{[]string{plain}, 126},
			{[]string{"plain"}, 126},
			{[]string{dir}, 126},
			{[]string{plain + "/x"}, 127},
		} {
			cmd := agentdExec(t, endpoint, c.args...)
			out, _ := cmd.CombinedOutput()
			code := cmd.ProcessState.ExitCode()
			if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() { // without an endpoint it became the command
				code = 128 + int(s.Signal())
			}
			if code != c.code || (code == 126 || code == 127) != (len(out) > 0) {
				t.Errorf("%q with %q: exit code %d, %q", c.args, endpoint, code, out)
			}
		}
	}
	for args, code := range map[string]int{"--help": 0, "--version": 0, "--bogus": 2, "--": 2} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], args)
		cmd.Env = append(os.Environ(), "TEST_AS=agentd-exec")
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != code || len(out) == 0 {
			t.Errorf("%s: exit code %d, %q", args, cmd.ProcessState.ExitCode(), out)
		}
	}
}

func TestSignalsPass(t *testing.T) {
	cmd := agentdExec(t, "http://127.0.0.1:1", os.Args[0], "signals")
	out := &watched{changed: make(chan struct{}, 100)}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	want := "ready\n"
	out.await(t, want)
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		want += s.String() + "\n"
		out.await(t, want)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d", code)
	}
}

func TestStdinPasses(t *testing.T) {
	cmd := agentdExec(t, "http://127.0.0.1:1", "cat")
	text := strings.Repeat("in\x00\xff\n", 100_000)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil || string(out) != text {
		t.Errorf("%d bytes of %d (%v)", len(out), len(text), err)
	}
}

func TestWhatTheCommandLeavesBehindHoldsNobody(t *testing.T) {
	cmd := agentdExec(t, "http://127.0.0.1:1", "sh", "-c", "head -c 60000 /dev/zero; sleep 300 & echo $! >&2; exit 4")
	var out, pid bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &pid
	_ = cmd.Run()
	if cmd.ProcessState.ExitCode() != 4 || out.Len() != 60000 {
		t.Errorf("exit code %d, %d bytes", cmd.ProcessState.ExitCode(), out.Len())
	}
	n, err := strconv.Atoi(strings.TrimSpace(pid.String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Errorf("the sleeper was not there: %v", err)
	}
}

func TestAReaderThatLeavesEndsTheCommand(t *testing.T) {
	cmd := agentdExec(t, "http://127.0.0.1:1", "sh", "-c", "while echo line; do :; done 2>/dev/null; exit 5")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code == 0 {
		t.Errorf("exit code %d", code)
	}
}

// inTerminal runs agentd-exec in a terminal of its own.
func inTerminal(t *testing.T, endpoint string, args ...string) (cmd *exec.Cmd, master *os.File, seen *watched) {
	t.Helper()
	master, slave, err := pty.Open(33, 111)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	cmd = agentdExec(t, endpoint, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	seen = &watched{changed: make(chan struct{}, 100), ended: make(chan struct{})}
	go func() {
		defer close(seen.ended)
		_, _ = io.Copy(seen, master)
	}()
	return cmd, master, seen
}

func TestACommandInATerminalHasOne(t *testing.T) {
	for _, endpoint := range []string{"", "http://127.0.0.1:1"} {
		cmd, master, seen := inTerminal(t, endpoint, "sh", "-c", `test -t 0 && test -t 1 && test -t 2 && echo yes; stty size; trap 'stty size; exit 6' WINCH; trap 'echo interrupted' INT; read line; echo "got $line"; while :; do sleep 0.05; done`)
		seen.await(t, "yes\r\n33 111\r\n")
		if _, err := io.WriteString(master, "typed\r"); err != nil {
			t.Fatal(err)
		}
		seen.await(t, "yes\r\n33 111\r\ntyped\r\ngot typed\r\n")
		if _, err := io.WriteString(master, "\x03"); err != nil {
			t.Fatal(err)
		}
		seen.await(t, "yes\r\n33 111\r\ntyped\r\ngot typed\r\n^Cinterrupted\r\n")
		if err := pty.Resize(master, 44, 122); err != nil {
			t.Fatal(err)
		}
		seen.await(t, "yes\r\n33 111\r\ntyped\r\ngot typed\r\n^Cinterrupted\r\n44 122\r\n")
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 6 {
			t.Errorf("exit code %d", code)
		}
	}
}

func TestATerminalSessionPassesByteForByte(t *testing.T) {
	const session = "../../test/testdata/session.tty"
	want, err := os.ReadFile(session)
	if err != nil {
		t.Fatal(err)
	}
	want = bytes.ReplaceAll(want, []byte("\n"), []byte("\r\n")) // as a terminal shows it
	for name, endpoint := range map[string]string{"dead": "http://127.0.0.1:1", "none": ""} {
		cmd, _, seen := inTerminal(t, endpoint, "cat", session)
		_ = cmd.Wait()
		select {
		case <-seen.ended:
		case <-time.After(patience):
			t.Fatal("the terminal did not end")
		}
		if got := seen.text(); got != string(want) {
			t.Errorf("%s: %d bytes of %d passed", name, len(got), len(want))
		}
	}
}

func TestTheTerminalIsGivenBackAsItWas(t *testing.T) {
	cmd, _, seen := inTerminal(t, "", "sh", "-c", "stty -a > /tmp/$$.a; THEAZO_ENDPOINT=http://127.0.0.1:1 TEST_AS=agentd-exec "+os.Args[0]+" -- sh -c 'stty -a; stty raw -echo'; stty -a > /tmp/$$.b; cmp /tmp/$$.a /tmp/$$.b && echo same; rm /tmp/$$.a /tmp/$$.b")
	_ = cmd.Wait()
	<-seen.ended
	if text := seen.text(); !strings.Contains(text, "speed") || !strings.HasSuffix(text, "same\r\n") {
		t.Errorf("%q", text)
	}
}

// watched keeps what is written to it.
type watched struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
	ended   chan struct{}
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return w.b.Write(b)
}

func (w *watched) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func (w *watched) await(t *testing.T, want string) {
	t.Helper()
	limit := time.After(patience)
	for w.text() != want {
		select {
		case <-w.changed:
		case <-limit:
			t.Fatalf("%q came, not %q", w.text(), want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for text, want := range map[string]endpoint{
		"http://172.17.0.1:7070":            {"tcp", "172.17.0.1:7070", "172.17.0.1:7070", ""},
		"http://host.docker.internal:7070/": {"tcp", "host.docker.internal:7070", "host.docker.internal:7070", ""},
		"http://127.0.0.1:7070/t/tht_x.y/":  {"tcp", "127.0.0.1:7070", "127.0.0.1:7070", "/t/tht_x.y"},
		"http://agentd":                     {"tcp", "agentd:80", "agentd", ""},
		"http://[::1]:7070":                 {"tcp", "[::1]:7070", "[::1]:7070", ""},
		"unix:///run/theazo/agentd.sock":    {"unix", "/run/theazo/agentd.sock", "agentd", ""},
	} {
		if got, ok := parseEndpoint(text); !ok || got != want {
			t.Errorf("%s: %+v %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "https://x", "unix://relative", "http://", "http:///x", "http://a\r\nb", "http://user@host:1", "127.0.0.1:7070"} {
		if e, ok := parseEndpoint(text); ok {
			t.Errorf("%q is taken for %+v", text, e)
		}
	}
}

func TestTheRecorderIsBounded(t *testing.T) {
	r := newRecorder()
	for range 3 {
		r.add(stdout, make([]byte, keepBytes))
		r.add(stderr, []byte("x"))
	}
	if r.bytes > keepBytes || r.offsets[stdout] != 3*keepBytes {
		t.Fatalf("%d bytes kept, offset %d", r.bytes, r.offsets[stdout])
	}
	chunks, _ := r.next(keepBytes)
	kept := 0
	for _, c := range chunks {
		kept += len(c.data)
	}
	if kept == 0 || kept > keepBytes || chunks[0].offset != 0 {
		t.Fatalf("%d bytes", kept)
	}
	r.add(stdout, make([]byte, 1000)) // what was sent makes room
	again, _ := r.next(keepBytes)
	if len(again) != 1 || again[0].offset != 3*keepBytes {
		t.Fatalf("%+v", again)
	}
	last := again[0]
	r.acknowledge([2]int64{last.offset + int64(len(last.data)), 3})
	if len(r.chunks) != 0 || r.bytes != 0 {
		t.Errorf("%d chunks and %d bytes are left", len(r.chunks), r.bytes)
	}
}
