package spool

import (
	"fmt"
	"strings"
	"testing"
)

// hookFS runs something while a copy is made: before it gets its name.
type hookFS struct {
	*crashFS
	copied func()
}

func (h *hookFS) Rename(from, to string) error {
	if h.copied != nil && h.names[to] != nil {
		h.copied()
	}
	return h.crashFS.Rename(from, to)
}

// TestChangesDuringACopy acknowledges, gives up and reads frames while their file
// is copied: the copy has them, and they are not wanted there.
func TestChangesDuringACopy(t *testing.T) {
	fs := &hookFS{crashFS: newCrashFS(1)}
	s := open(t, small(fs))
	for range 18 {
		mustAppend(t, s, nil, frameOf("a", 0, 1), frameOf("b", 0, 2))
	}
	frames := drain(t, s)
	if err := s.Ack("a", s.Epoch(), 0, 140); err != nil {
		t.Fatal(err)
	}
	copies := 0
	fs.copied = func() {
		copies++
		last := uint64(10 * copies)
		if err := s.Ack("b", s.Epoch(), 0, last); err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		st := s.streams[streamKey{epoch: s.epoch, org: "b"}]
		st.lose(len(st.entries)-copies, evicted, trace{})
		st.merge()
		s.mu.Unlock()
		s.Rewind("b", s.Epoch(), 0, last+1)
		if f, err := s.Next(t.Context(), func(org string) bool { return org == "a" }); err != nil || f.Tombstone || f.First != last+1 {
			t.Errorf("offered %+v: %v", show([]Frame{f}), err)
		}
	}
	s.seal()
	for range 3 {
		if err := s.reclaim(1<<20, halfDead); err != nil {
			t.Fatal(err)
		}
	}
	if copies == 0 {
		t.Fatal("nothing was copied")
	}
	used := int64(0)
	for _, seg := range s.segments {
		if used += seg.charge; seg.size > seg.charge {
			t.Errorf("%s has %d bytes and is charged %d", seg.id.name(), seg.size, seg.charge)
		}
	}
	if used != s.budget.used {
		t.Errorf("%d bytes used, the files are charged %d", s.budget.used, used)
	}
	if err := s.tidy(); err != nil {
		t.Fatal(err)
	}
	s.Reset()
	want := drain(t, s)
	again := open(t, small(fs.crash()))
	got := drain(t, again)
	if fmt.Sprint(show(got)) != fmt.Sprint(show(want)) || len(got) >= len(frames) {
		t.Errorf("after a power cut %d frames are offered, before it %d", len(got), len(want))
	}
}

// TestACopyLeavesDamageBehind: a damaged frame is told as missing, and the
// others of its file go on.
func TestACopyLeavesDamageBehind(t *testing.T) {
	fs := newCrashFS(1)
	s := open(t, small(fs))
	for range 3 {
		mustAppend(t, s, nil, frameOf("a", 0, 1), frameOf("b", 0, 2))
	}
	s.seal()
	e := s.streams[streamKey{epoch: s.epoch, org: "b"}].entries[1]
	fs.names[e.seg.id.name()].data[e.at+1000] ^= 1
	if err := s.Ack("a", s.Epoch(), 0, 30); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.reclaim(1, partlyDead); err != nil {
			t.Fatal(err)
		}
	}
	got := drain(t, s)
	if len(got) != 3 || !got[1].Tombstone || !strings.HasSuffix(string(got[1].Body), ReasonCorrupt) || got[1].Count != 10 || got[2].Tombstone {
		t.Errorf("offered %d frames, %+v", len(got), s.Stats())
	}
}
