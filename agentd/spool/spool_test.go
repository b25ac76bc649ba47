package spool

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func open(tb testing.TB, o Options) *Spool {
	tb.Helper()
	if o.TombstoneBody == nil {
		o.TombstoneBody = func(m Missing) []byte {
			return fmt.Appendf(nil, "missing %s %d %d+%d %s", m.Org, m.Lane, m.First, m.Count, m.Reason)
		}
	}
	s, err := Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func draft(org string, lane uint8, count uint32, body string) Draft {
	return Draft{Key: Key{Org: org}, Lane: lane, Class: 1, Count: count, Body: []byte(body)}
}

func mustAppend(tb testing.TB, s *Spool, positions map[string][]byte, drafts ...Draft) {
	tb.Helper()
	if err := s.Append(drafts, positions); err != nil {
		tb.Fatal(err)
	}
}

// drain returns all frames that are unsent now, in order.
func drain(tb testing.TB, s *Spool) []Frame {
	tb.Helper()
	var out []Frame
	for {
		s.mu.Lock()
		next, _ := s.pick(nil)
		s.mu.Unlock()
		if next == nil {
			return out
		}
		f, err := s.Next(tb.Context(), nil)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, f)
	}
}

func show(frames []Frame) (out []string) {
	for i := range frames {
		f := &frames[i]
		out = append(out, fmt.Sprintf("%s/%d %d-%d %q", f.Org, f.Lane, f.First, f.Last(), f.Body))
	}
	return out
}

func TestEventsFirstOrganisationsInTurnSequencesInOrder(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	mustAppend(t, s, nil, draft("a", 0, 2, "a1"), draft("a", 0, 3, "a2"), draft("b", 0, 1, "b1"))
	mustAppend(t, s, map[string][]byte{"p": []byte("1")}, draft("a", 0, 1, "a3"), draft("b", 0, 4, "b2"), draft("b", 1, 1, "event"))
	got := fmt.Sprint(show(drain(t, s)))
	want := `[b/1 1-1 "event" a/0 1-2 "a1" b/0 1-1 "b1" a/0 3-5 "a2" b/0 2-5 "b2" a/0 6-6 "a3"]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if st := s.Stats(); st.Syncs != 2 || st.Appends != 2 {
		t.Errorf("%d fsyncs for %d appends", st.Syncs, st.Appends)
	}
}

func TestReopenKeepsEpochPositionsAndAcks(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	epoch := s.Epoch()
	mustAppend(t, s, map[string][]byte{"p": []byte("1"), "q": []byte("1"), "empty": {}}, draft("a", 0, 2, "a1"), draft("a", 0, 3, "a2"))
	mustAppend(t, s, map[string][]byte{"q": nil})
	if err := s.Ack("a", epoch, 0, 2); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack("a", epoch, 0, 99); err == nil {
		t.Error("an acknowledgement of what was never assigned was taken")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Append([]Draft{draft("a", 0, 1, "")}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	s = open(t, Options{Dir: dir})
	mustAppend(t, s, nil, draft("a", 0, 7, "new"))
	frames := drain(t, s)
	if got := fmt.Sprint(show(frames)); got != `[a/0 3-5 "a2" a/0 1-7 "new"]` {
		t.Errorf("frames: %s", got)
	}
	if frames[0].Epoch != epoch || frames[1].Epoch == epoch {
		t.Errorf("epochs %x and %x: the first should be the old one, %x", frames[0].Epoch, frames[1].Epoch, epoch)
	}
	if got := fmt.Sprintf("%q", s.Positions()); got != `map["empty":"" "p":"1"]` {
		t.Errorf("positions: %s", got)
	}
}

func TestLockNamesItsHolder(t *testing.T) {
	dir := t.TempDir()
	open(t, Options{Dir: dir})
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
}

func TestAcknowledgedFilesGo(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), SegmentBytes: 64 << 10, Budget: 1 << 20, SaveEvery: time.Millisecond})
	body := string(make([]byte, 30<<10))
	for range 200 {
		if err := s.Room(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, s, nil, draft("a", 0, 1, body))
		if f := drain(t, s); len(f) > 0 && s.Stats().Disk > 500<<10 {
			if err := s.Ack("a", f[0].Epoch, 0, f[len(f)-1].Last()); err != nil {
				t.Fatal(err)
			}
		}
		if st := s.Stats(); st.Disk > st.Budget {
			t.Fatalf("%d bytes on disk, the budget is %d", st.Disk, st.Budget)
		}
	}
}

// The cursor is saved some time after an acknowledgement, again and again.
func TestAcknowledgementsBecomeDurableByThemselves(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), SaveEvery: time.Millisecond})
	durable := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.dirty && s.idle
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for range 5 {
		mustAppend(t, s, nil, draft("a", 0, 1, "x"))
		f := drain(t, s)
		if err := s.Ack("a", f[0].Epoch, 0, f[0].Last()); err != nil {
			t.Fatal(err)
		}
		for !durable() {
			select {
			case <-tick.C:
			case <-late:
				t.Fatal("the keeper does not save what was acknowledged")
			}
		}
	}
}

// A small frame counts for more of the budget than it takes of its file: one
// file of them must not use up a budget that nothing then gives back.
func TestRoomForSmallFramesComesBack(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), SegmentBytes: 64 << 10, Budget: 256 << 10, SaveEvery: time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i := range 1000 {
		if err := s.Room(ctx); err != nil {
			t.Fatalf("append %d, everything before it is acknowledged: %v; %+v", i, err, s.Stats())
		}
		mustAppend(t, s, nil, draft("a", 0, 1, "x"))
		if f := drain(t, s); len(f) > 0 {
			if err := s.Ack("a", f[0].Epoch, 0, f[len(f)-1].Last()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
