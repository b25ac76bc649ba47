package docker

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/shared/telemetry"
)

// held is a tail that has pinned so many files of 1 KiB, of which all but two are
// deleted, before it reads any.
func held(t *testing.T, files int, l limits) *tail {
	t.Helper()
	dir := t.TempDir()
	log := newEngineLog(t, filepath.Join(dir, "x.log"), 1<<10, 1)
	held := newTail(dir, "x.log")
	held.limits = l
	t.Cleanup(held.close)
	for i := range files {
		if i > 0 {
			if err := log.rotate(); err != nil {
				t.Fatal(err)
			}
		}
		if err := log.line(telemetry.Stdout, fmt.Sprintf("file %d %s", i, strings.Repeat("x", 1<<10))); err != nil {
			t.Fatal(err)
		}
		if fresh, err := held.pin(); err != nil || !fresh {
			t.Fatal(fresh, err)
		}
	}
	return held
}

// Past half of the limits a log is to be read first; past all of them the oldest
// files are given up but for the one being read, and a gap says how much.
func TestTooMuchIsHeld(t *testing.T) {
	const record = 1<<10 + 100 // about
	for _, c := range []struct {
		files   int
		limits  limits
		crowded bool
		lost    int
	}{
		{7, limits{files: 10, bytes: 20 * record}, false, 0},
		{9, limits{files: 10}, true, 0},
		{20, limits{files: 10}, true, 8},
		{20, limits{bytes: 10 * record}, true, 8},
		{20, limits{}, false, 0},
		{20, limits{bytes: 1}, true, 17},
	} {
		l := held(t, c.files, c.limits)
		if l.crowded.Load() != c.crowded || l.held() != c.files-c.lost {
			t.Errorf("%+v: crowded %v, %d files held", c, l.crowded.Load(), l.held())
		}
		texts, gaps := readAll(t, l)
		if len(texts) != c.files-c.lost || !strings.HasPrefix(texts[0], "stdout file 0 ") || !strings.HasPrefix(texts[len(texts)-1], fmt.Sprintf("stdout file %d ", c.files-1)) {
			t.Errorf("%+v: %d lines", c, len(texts))
		}
		if c.lost == 0 {
			if len(gaps) != 0 {
				t.Errorf("%+v: gaps %+v", c, gaps)
			}
			continue
		}
		size, err := l.files[len(l.files)-1].size()
		if err != nil {
			t.Fatal(err)
		}
		least := int64(c.lost) * (size - 10)
		if len(gaps) != 1 || gaps[0].Reason != telemetry.GapRotated || gaps[0].Bytes < least || gaps[0].Bytes > int64(c.lost)*size ||
			!strings.HasPrefix(gaps[0].Detail, fmt.Sprintf("%d rotated log files", c.lost)) {
			t.Errorf("%+v: gaps %+v", c, gaps)
		}
		if l.crowded.Load() {
			t.Errorf("%+v: still crowded after all was read", c)
		}
	}
}

// Logs that hold too much have every other turn, and not all of them.
func TestUrgentTurns(t *testing.T) {
	r := &reader{wake: make(chan struct{}, 1)}
	with := func(id string, crowded bool) *sandbox {
		s := &sandbox{id: id, tail: newTail("", "")}
		s.tail.crowded.Store(crowded)
		return s
	}
	for _, id := range []string{"a", "b", "c"} {
		r.push(with(id, false))
	}
	for _, id := range []string{"X", "Y", "Z", "W"} {
		r.push(with(id, true))
	}
	var order strings.Builder
	for s := r.pop(); s != nil; s = r.pop() {
		order.WriteString(s.id)
	}
	if order.String() != "XaYbZcW" {
		t.Errorf("turns %s", &order)
	}
}

// Where no more files can be open, those that wait are opened when there is room.
func TestWithoutDescriptors(t *testing.T) {
	x := newWatched(t)
	x.s.tail.budget = &budget{most: 1}
	if err := x.s.tail.budget.take(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, x.path, appendRecord(nil, "one\n", "stdout", someTime))
	if err := x.w.follow(x.s); !noDescriptors(err) {
		t.Fatalf("error %v", err)
	}
	x.w.pinLog(x.s)
	if !x.w.refusedAny() || x.s.tail.held() != 0 {
		t.Fatal("nobody looks again")
	}
	x.s.tail.budget.give()
	x.w.poll()
	if x.s.tail.held() != 1 || x.s.tail.budget.used.Load() != 1 {
		t.Errorf("%d files held", x.s.tail.held())
	}
	x.s.close()
	if used := x.s.tail.budget.used.Load(); used != 0 {
		t.Errorf("%d descriptors are counted for ever", used)
	}
	if b := newBudget(); b.most <= 0 || !noDescriptors(errors.Join(unix.EMFILE)) {
		t.Errorf("budget %d", b.most)
	}
}
