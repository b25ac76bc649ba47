package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// small returns options of a spool that 180 frames of kib(1) fill.
func small(fs FS) Options {
	return Options{FS: fs, Budget: 256 << 10, SegmentBytes: 16 << 10, SaveEvery: time.Hour, TombstoneBody: sayMissing}
}

// frameOf is a frame that takes 4 KiB of the budget, more or less.
func frameOf(org string, lane, class uint8) Draft {
	return Draft{Key: Key{Org: org}, Lane: lane, Class: class, Count: 10, Body: make([]byte, 4000)}
}

// kept counts the frames of an organisation, lane and class that are not gone.
func kept(s *Spool, org string, lane, class uint8) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, st := range s.streams {
		for i := range st.entries {
			e := &st.entries[i]
			if key.org == org && key.lane == lane && e.class == class && e.seg != nil && e.flags&flagTombstone == 0 {
				n++
			}
		}
	}
	return n
}

// TestOrderOfEviction fills the spool with all kinds of frames and goes on with
// warnings: bulk goes first, then normal, then the oldest warnings, and metrics
// and events not at all.
func TestOrderOfEviction(t *testing.T) {
	s := open(t, small(newCrashFS(1)))
	for range 8 {
		mustAppend(t, s, nil, frameOf("a", 0, 0), frameOf("a", 0, 1), frameOf("a", 0, 2))
	}
	mustAppend(t, s, nil, frameOf("a", 1, 1), frameOf("a", 1, 2))
	last := [Classes]int{8, 8, 8}
	for range 100 {
		mustAppend(t, s, nil, frameOf("a", 0, 2))
		now := [Classes]int{kept(s, "a", 0, 0), kept(s, "a", 0, 1), kept(s, "a", 0, 2)}
		if now[1] < last[1] && now[0] > 0 || now[2] < last[2] && now[0]+now[1] > 0 {
			t.Fatalf("%v frames of each class, before the last append %v", now, last)
		}
		last = now
	}
	if last[0]+last[1] != 0 {
		t.Errorf("%v frames of each class", last)
	}
	if kept(s, "a", 1, 1) != 1 || kept(s, "a", 1, 2) != 1 {
		t.Error("the events lane gave way to logs")
	}
	st := s.Stats()
	if st.Evicted[0][0].Frames != 8 || st.Evicted[0][0].Records != 80 || st.Evicted[0][1].Frames != 8 || st.Evicted[0][0].Bytes < 32000 {
		t.Errorf("counted %+v", st.Evicted)
	}
	// One tombstone for each run of what is gone, in its place.
	frames := drain(t, s)
	if f := frames[2]; !f.Tombstone || f.First != 1 || !strings.Contains(string(f.Body), ReasonEvicted) {
		t.Errorf("first of the logs: %+v", show(frames[2:3]))
	}
}

// TestWhatArrivesIsWorthLeast: where all that is here is worth more, it is the
// frame that arrives that gives way, with its place in the sequence kept.
func TestWhatArrivesIsWorthLeast(t *testing.T) {
	fs := newCrashFS(1)
	o := small(fs)
	s := open(t, o)
	for s.Stats().Evicted[0][2].Frames == 0 {
		mustAppend(t, s, nil, frameOf("a", 0, 2))
	}
	for s.wanted() <= s.o.SegmentBytes/2-8<<10 {
		mustAppend(t, s, nil, frameOf("a", 0, 2))
	}
	before := kept(s, "a", 0, 2)
	for s.Stats().Evicted[0][0].Frames == 0 {
		mustAppend(t, s, map[string][]byte{"p": {1}}, frameOf("a", 0, 0))
	}
	if got := kept(s, "a", 0, 2); got != before {
		t.Errorf("%d warnings, before debug lines came %d", got, before)
	}
	want := s.Ledger()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, small(fs.crash()))
	got := s.Ledger()
	if got[0].Assigned != want[0].Assigned || got[0].Lost != want[0].Lost || got[0].InFlight != want[0].InFlight {
		t.Errorf("ledger %+v, before the restart %+v", got, want)
	}
}

// TestFairShares: whoever is below its share loses nothing to whoever is above.
func TestFairShares(t *testing.T) {
	s := open(t, small(newCrashFS(1)))
	for range 5 {
		mustAppend(t, s, nil, frameOf("b", 0, 0), frameOf("c", 0, 0))
	}
	for i := range 200 { // warnings of one against debug lines of others
		mustAppend(t, s, nil, frameOf("a", 0, 2))
		if i%20 == 0 {
			mustAppend(t, s, nil, frameOf("b", 0, 0))
		}
	}
	if b, c := kept(s, "b", 0, 0), kept(s, "c", 0, 0); b != 15 || c != 5 {
		t.Errorf("%d and %d frames of those below their shares, want 15 and 5", b, c)
	}
	for range 200 { // now another one is the loud one: both get equal parts, c keeps its own
		mustAppend(t, s, nil, frameOf("b", 0, 0))
	}
	a, b, c := kept(s, "a", 0, 2), kept(s, "b", 0, 0), kept(s, "c", 0, 0)
	if c != 5 || a < 14 || b < 14 {
		t.Errorf("%d, %d and %d frames", a, b, c)
	}
}

// TestEventsAreNeverRefused: they make room at once even where log frames may
// not, and keep the reserve for themselves.
func TestEventsAreNeverRefused(t *testing.T) {
	o := small(newCrashFS(1))
	o.EvictAfter = -1
	s := open(t, o)
	var err error
	for err == nil {
		err = s.Append([]Draft{frameOf("a", 0, 2)}, nil)
	}
	if !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	for range 300 {
		mustAppend(t, s, nil, frameOf("a", 1, 2))
	}
	if got := kept(s, "a", 1, 2); got < 40 {
		t.Errorf("%d events", got)
	}
	if got := kept(s, "a", 0, 2); got != 0 {
		t.Errorf("%d log frames are here, and events gave way", got)
	}
	if peak := o.FS.(*crashFS).peak; peak > o.Budget {
		t.Errorf("%d bytes at most, the budget is %d", peak, o.Budget)
	}
}

// TestThrottledOrganisationPinsNothing: one frame of an organisation that is
// throttled lies in each file. What the others had acknowledged gives its room
// back all the same, and nothing is given up.
func TestThrottledOrganisationPinsNothing(t *testing.T) {
	o := small(newCrashFS(1))
	o.SaveEvery = time.Millisecond
	o.EvictAfter = -1
	s := open(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 300 {
		if err := s.Room(ctx); err != nil {
			t.Fatalf("append %d: %v, %+v", i, err, s.Stats())
		}
		list := []Draft{frameOf("loud", 0, 1)}
		if i%10 == 0 {
			list = append(list, draft("throttled", 0, 1, "x"))
		}
		mustAppend(t, s, nil, list...)
		for {
			f, err := s.Next(t.Context(), func(org string) bool { return org == "throttled" })
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Ack(f.Org, f.Epoch, f.Lane, f.Last()); err != nil {
				t.Fatal(err)
			}
			if s.streams[streamKey{epoch: f.Epoch, org: "loud"}].entries == nil || f.Last() == uint64(10*(i+1)) {
				break
			}
		}
	}
	st := s.Stats()
	if st.Lost != 0 || st.Rewrote == 0 || st.Lane[0].Frames != 30 {
		t.Errorf("%+v", st)
	}
}

// TestPatience: while one organisation's frames are the only ones, log frames
// wait for EvictAfter before others give way; once they had to, they need not
// wait again until something is acknowledged.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := small(newCrashFS(1))
		o.EvictAfter = time.Minute
		s := open(t, o)
		began := time.Now()
		roomAndAppend := func(org string) time.Duration {
			start := time.Now()
			if err := s.Room(t.Context()); err != nil {
				t.Fatal(err)
			}
			mustAppend(t, s, nil, frameOf(org, 0, 1))
			return time.Since(start)
		}
		for s.Stats().Lost == 0 {
			roomAndAppend("a")
		}
		if got := time.Since(began); got != time.Minute {
			t.Errorf("frames gave way after %s", got)
		}
		for range 50 {
			if got := roomAndAppend("a"); got != 0 {
				t.Fatalf("waited for %s again", got)
			}
		}
		f := drain(t, s)
		if err := s.Ack("a", f[0].Epoch, 0, f[0].Last()); err != nil {
			t.Fatal(err)
		}
		waited, lost := time.Duration(0), s.Stats().Lost
		for s.Stats().Lost == lost {
			waited += roomAndAppend("a")
		}
		if waited != time.Minute {
			t.Errorf("after an acknowledgement waited for %s", waited)
		}
		// Several organisations: nobody's wait is another's.
		if err := s.Ack("a", f[0].Epoch, 0, f[1].Last()); err != nil {
			t.Fatal(err)
		}
		waited = roomAndAppend("b")
		for range 100 {
			waited += roomAndAppend("b")
		}
		if waited > time.Minute { // until the first of b's was in
			t.Errorf("waited for %s beside another organisation", waited)
		}
	})
}

// TestSentFramesGiveWayLast, of two that are otherwise alike.
func TestSentFramesGiveWayLast(t *testing.T) {
	s := open(t, small(newCrashFS(1)))
	for range 10 {
		mustAppend(t, s, nil, frameOf("a", 0, 1))
	}
	sent := drain(t, s)
	for s.Stats().Evicted[0][1].Frames < 20 {
		mustAppend(t, s, nil, frameOf("a", 0, 1))
	}
	st := s.streams[streamKey{epoch: s.Epoch(), org: "a"}]
	for i := range sent {
		if e := &st.entries[i]; e.seg == nil {
			t.Fatalf("frame %d was on its way and gave way first", i)
		}
	}
	// Once they are gone, too, a late acknowledgement may end in the middle of a tombstone.
	s.Reset()
	for st.entries[0].seg != nil || st.entries[0].count < 50 {
		mustAppend(t, s, nil, frameOf("a", 0, 2))
	}
	if err := s.Ack("a", s.Epoch(), 0, 15); err != nil {
		t.Fatal(err)
	}
	if l := s.Ledger()[0]; l.Acked != 15 || st.entries[0].first != 16 || l.InFlight != l.Assigned-15 {
		t.Errorf("ledger %+v, the first entry begins with %d", l, st.entries[0].first)
	}
	if got := drain(t, s)[0]; got.First != 16 || !got.Tombstone {
		t.Errorf("offered %s", show([]Frame{got}))
	}
}

// TestEvictionIsRemembered: the same ranges, with what is known of them, after
// a power cut.
func TestEvictionIsRemembered(t *testing.T) {
	fs := newCrashFS(3)
	var told []Missing
	o := small(fs)
	o.TombstoneBody = func(m Missing) []byte {
		told = append(told, m)
		return sayMissing(m)
	}
	s := open(t, o)
	for i := range 150 {
		mustAppend(t, s, nil, frameOf("a", 0, uint8(i/10%3)), draft("b", 1, 1, "event"))
	}
	if err := s.tidy(); err != nil {
		t.Fatal(err)
	}
	told = nil
	drain(t, s)
	before := told
	o.FS, told = fs.crash(), nil
	s = open(t, o)
	drain(t, s)
	if got, want := fmt.Sprintf("%+v", told), fmt.Sprintf("%+v", before); got != want || len(told) < 2 {
		t.Errorf("told %s\nbefore the crash %s", got, want)
	}
	for _, m := range told {
		if m.Org == "a" && m.Bytes < 100*int64(m.Count) || m.Since.IsZero() || m.Until.Before(m.Since) || m.Reason != ReasonEvicted {
			t.Errorf("told %+v", m)
		}
	}
}

// TestFloor: the spool does not grow into the last part of a file system that
// others fill, still takes events, and grows again when there is room.
func TestFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newCrashFS(1)
		fs.total = 1 << 20 // the floor is a quarter of it
		o := small(fs)
		o.Budget, o.EvictAfter = 512<<10, -1
		s := open(t, o)
		fill := func() error {
			for {
				time.Sleep(time.Second) //nolint:forbidigo // of the bubble's time: the file system is asked again
				if err := s.Append([]Draft{frameOf("a", 0, 1)}, nil); err != nil {
					return err
				}
			}
		}
		fs.others = 512 << 10
		if err := fill(); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		st := s.Stats()
		if st.Free < 256<<10 || st.Disk < 128<<10 {
			t.Errorf("%d bytes are free, the spool has %d", st.Free, st.Disk)
		}
		fs.others = 1<<20 - st.Disk - 100<<10 // others take of what was left free
		for range 200 {
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // of the bubble's time
			mustAppend(t, s, nil, draft("a", 1, 1, strings.Repeat("event", 200)))
		}
		if st := s.Stats(); !st.Low || st.Evicted[1][1].Frames == 200 || st.Disk > 256<<10 {
			t.Errorf("%+v", st)
		}
		fs.others = 0
		if err := fill(); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		if st := s.Stats(); st.Low || st.Disk < 300<<10 || st.Disk > 512<<10 {
			t.Errorf("%+v", st)
		}
	})
}

// TestFullDiskGivesRoomBack: with not one byte left, acknowledged files still
// go, because the cursor is overwritten in place.
func TestFullDiskGivesRoomBack(t *testing.T) {
	fs := newCrashFS(1)
	s := open(t, small(fs))
	for range 20 {
		mustAppend(t, s, nil, frameOf("a", 0, 1))
	}
	if err := s.tidy(); err != nil { // the second slot, too, has its room now
		t.Fatal(err)
	}
	fs.total, fs.others = 1<<20, 1<<20
	if err := s.Append([]Draft{frameOf("a", 0, 1)}, nil); !errors.Is(err, ErrFull) {
		t.Fatalf("append to a full disk: %v", err)
	}
	f := drain(t, s)
	if err := s.Ack("a", f[0].Epoch, 0, f[15].Last()); err != nil {
		t.Fatal(err)
	}
	before := s.Stats().Disk
	if err := s.tidy(); err != nil {
		t.Fatal(err)
	}
	if after := s.Stats().Disk; after >= before {
		t.Errorf("%d bytes on disk, before the acknowledgement %d", after, before)
	}
}

// TestManyOrganisations: with any mix, the budget holds, nothing is unaccounted
// for, and no organisation below its share has lost anything.
func TestManyOrganisations(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	o := small(newCrashFS(1))
	o.Budget = 1 << 20
	s := open(t, o)
	assigned := map[string]uint64{}
	for range 1500 {
		n := min(random.ExpFloat64()*3, 19) // most is of a few
		d := frameOf(fmt.Sprintf("org_%02d", int(n)), uint8(random.IntN(20)/19), uint8(random.IntN(3)))
		d.Count = uint32(1 + random.IntN(50))
		d.Body = make([]byte, random.IntN(9000))
		assigned[d.Org] += uint64(d.Count)
		mustAppend(t, s, nil, d)
	}
	lost := map[string]uint64{}
	for _, l := range s.Ledger() {
		lost[l.Org] += l.Lost
		assigned[l.Org] -= l.Assigned
		if l.InFlight != l.Assigned-l.Acked || l.Lost > l.InFlight {
			t.Errorf("%+v", l)
		}
	}
	share := s.limit(true) / int64(len(s.order))
	for _, tn := range s.order {
		if assigned[tn.org] != 0 {
			t.Errorf("%s: %d records are not in the ledger", tn.org, assigned[tn.org])
		}
		if tn.charge() < share/2 && lost[tn.org] > 0 {
			t.Errorf("%s has %d of its share of %d and lost %d records", tn.org, tn.charge(), share, lost[tn.org])
		}
	}
	if peak := o.FS.(*crashFS).peak; peak > o.Budget || peak < o.Budget*7/10 {
		t.Errorf("%d bytes at most, the budget is %d", peak, o.Budget)
	}
}
