package docker

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// watched is a watcher with one log, and what it told.
type watched struct {
	w     *watcher
	s     *sandbox
	path  string
	found []string
	woken int
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	dir := t.TempDir()
	x := &watched{path: filepath.Join(dir, "x-json.log"), s: &sandbox{id: "x", tail: newTail(dir, "x-json.log")}}
	x.w = newWatcher(hclog.NewNullLogger(), func(_, name string) { x.found = append(x.found, name) }, func(*sandbox) { x.woken++ })
	t.Cleanup(x.w.close)
	t.Cleanup(x.s.close)
	return x
}

// Where the kernel grants no watch, new files and new lines are still found.
func TestWithoutInotify(t *testing.T) {
	x := newWatched(t)
	x.w.close()
	x.w.f = nil
	if err := x.w.follow(x.s); err != nil {
		t.Fatal(err)
	}
	x.woken = 0
	writeFile(t, x.path, appendRecord(nil, "one\n", "stdout", time.Now()))
	x.w.poll()
	if !slices.Contains(x.found, "x-json.log") || x.s.tail.held() != 1 || x.woken == 0 {
		t.Errorf("found %v, %d files held, woken %d times", x.found, x.s.tail.held(), x.woken)
	}
	if x.w.arm(x.s) {
		t.Error("a log was armed without a kernel to wake it")
	}
}

// When the kernel's queue of events overflows, everything is looked at.
func TestALostFileEvent(t *testing.T) {
	x := newWatched(t)
	if err := x.w.follow(x.s); err != nil {
		t.Fatal(err)
	}
	writeFile(t, x.path, nil)
	overflow := make([]byte, unix.SizeofInotifyEvent)
	binary.NativeEndian.PutUint32(overflow[4:], unix.IN_Q_OVERFLOW)
	x.w.take(overflow, map[*sandbox]bool{})
	if x.s.tail.held() != 1 {
		t.Errorf("%d files held", x.s.tail.held())
	}
}

// Two files created, of which one was gone before anybody looked: that is told.
func TestAFileThatCameAndWent(t *testing.T) {
	x := newWatched(t)
	if err := x.w.follow(x.s); err != nil {
		t.Fatal(err)
	}
	writeFile(t, x.path, appendRecord(nil, "lost\n", "stdout", time.Now()))
	if err := os.Remove(x.path); err != nil {
		t.Fatal(err)
	}
	writeFile(t, x.path, appendRecord(nil, "kept\n", "stdout", time.Now()))
	buf := make([]byte, inotifyBytes)
	n, err := x.w.f.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	created := map[*sandbox]bool{}
	x.w.take(buf[:n], created)
	if !created[x.s] || !x.s.tail.settle() {
		t.Fatal("the missing file went unnoticed")
	}
	var b block
	b.reset()
	if _, err := x.s.tail.next(&b, nil); err != nil {
		t.Fatal(err)
	}
	if len(b.gaps) != 1 || len(b.out.lines) != 1 || string(b.out.lines[0].Text) != "kept" {
		t.Errorf("gaps %+v, lines %+v", b.gaps, b.out.lines)
	}
}

// A log wakes once at its next line, whatever its name is by then, and a
// rotated log is read before the new one.
func TestALogWakesItsReader(t *testing.T) {
	x := newWatched(t)
	l := newEngineLog(t, x.path, 0, 3)
	if err := x.w.follow(x.s); err != nil {
		t.Fatal(err)
	}
	if !x.w.arm(x.s) || x.w.arm(x.s) {
		t.Fatal("a log is armed once")
	}
	x.woken = 0
	if err := os.Rename(x.path, x.path+".1"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := l.line(1, "line"); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, inotifyBytes)
	n, err := x.w.idle.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	x.w.takeIdle(buf[:n])
	if x.woken != 1 {
		t.Errorf("woken %d times by three lines", x.woken)
	}
	if !x.w.arm(x.s) {
		t.Error("a log that has woken its reader cannot be armed again")
	}
}
