package health_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/shared/health"
)

// store plays systemd: it takes descriptors and hands them to the next process.
type store struct {
	l     *net.UnixConn
	path  string
	names []string
	files []*os.File
}

func newStore(t *testing.T) *store {
	t.Helper()
	s := &store{path: filepath.Join(t.TempDir(), "n")}
	var err error
	if s.l, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.l.Close()
		for _, f := range s.files {
			f.Close()
		}
	})
	return s
}

// take takes one message.
func (s *store) take(t *testing.T) string {
	t.Helper()
	if err := s.l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	n, m, _, _, err := s.l.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	state := string(buf[:n])
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			_, name, _ := strings.Cut(state, "FDNAME=")
			s.names, s.files = append(s.names, name), append(s.files, os.NewFile(uintptr(fd), name))
		}
	}
	return state
}

// The environment by which the test binary knows that it is the second process.
const nextProcess = "HEALTH_TEST_NEXT"

// TestTheNextProcess is that process: it says what it inherited.
func TestTheNextProcess(t *testing.T) {
	if os.Getenv(nextProcess) == "" {
		return // it has no work in the first one
	}
	// As a shell would exec it: only the process itself knows its id.
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	d, err := health.Inherit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	taken := d.Take("log.")
	for _, name := range []string{"log.a", "log.b"} {
		text, err := io.ReadAll(taken[name])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(os.Stderr, "%s=%s\n", name, text)
	}
	if len(taken) != 2 || len(d.Take("")) != 1 || os.Getenv("LISTEN_FDS") != "" {
		t.Fatalf("took %v", taken)
	}
}

// Files that were deleted reach the next process through systemd's store, at the
// place where they were read to.
func TestFilesReachTheNextProcess(t *testing.T) {
	systemd := newStore(t)
	t.Setenv("NOTIFY_SOCKET", systemd.path)
	t.Setenv("FDSTORE", "3")
	var d health.Descriptors
	for _, name := range []string{"log.a", "log.b", "other", "one.too.many"} {
		d.Put(name, deleted(t, name))
	}
	given, err := d.HandOver(t.Context())
	if err != nil || given != 3 {
		t.Fatal(given, err)
	}
	for range given {
		if state := systemd.take(t); !strings.Contains(state, "FDSTORE=1\n") || !strings.Contains(state, "FDPOLL=0\n") {
			t.Errorf("said %q", state)
		}
	}
	if !slices.Equal(systemd.names, []string{"log.a", "log.b", "other"}) {
		t.Fatalf("stored %v", systemd.names)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	next := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestTheNextProcess$")
	next.Env = append(os.Environ(), nextProcess+"=1", "LISTEN_FDS=3", "LISTEN_FDNAMES="+strings.Join(systemd.names, ":"))
	next.ExtraFiles = systemd.files
	out, err := next.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "log.a=text of log.a\n") || !strings.Contains(string(out), "log.b=text of log.b\n") {
		t.Fatalf("the next process: %v\n%s", err, out)
	}
	for range given {
		if state := systemd.take(t); !strings.HasPrefix(state, "FDSTOREREMOVE=1\nFDNAME=") {
			t.Errorf("said %q", state)
		}
	}
}

func deleted(t *testing.T, name string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("text of "+name), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	return f
}

// Without systemd files are kept within the process, and closed at its end.
func TestFilesWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	d, err := health.Inherit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, twice, bad := deleted(t, "x"), deleted(t, "x"), deleted(t, "x")
	d.Put("a.1", first)
	d.Put("a.1", twice)
	d.Put("a:1", bad)
	if _, err := twice.Stat(); err == nil {
		t.Error("a name was given twice")
	}
	if _, err := bad.Stat(); err == nil {
		t.Error("a name that systemd does not take was taken")
	}
	if taken := d.Take("a."); len(taken) != 1 || taken["a.1"] != first {
		t.Errorf("took %v", taken)
	}
	d.Put("a.2", first)
	if given, err := d.HandOver(t.Context()); given != 0 || err != nil {
		t.Errorf("gave %d, %v", given, err)
	}
	if _, err := first.Stat(); err == nil {
		t.Error("a file was left open")
	}
}

// A foreign or broken environment is refused, without harm.
func TestInheritingNonsense(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "3")
	if d, err := health.Inherit(t.Context()); err != nil || len(d.Take("")) != 0 {
		t.Errorf("took another process's: %v", err)
	}
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("LISTEN_FDS", "-3")
	if _, err := health.Inherit(t.Context()); err == nil {
		t.Error("took a negative number")
	}
}
