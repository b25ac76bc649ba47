package spool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is what a spool has promised: a slice of what it accepted. Every
// append carries a position "n" with its number, so that after a crash the
// positions say which appends are there.
type model struct {
	fs    *crashFS
	o     Options
	s     *Spool
	epoch uint64

	appends int // numbers given out
	last    int // the last one accepted
	maybe   map[int]func()
	frames  map[streamKey][]Frame
	acked   map[streamKey]uint64
	offered map[streamKey]uint64          // last sequence offered since the last Reset
	gone    map[streamKey]map[uint64]bool // frames of which a durable cursor says that they gave way
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newModel(t failer, seed uint64, o Options) *model {
	o.SegmentBytes, o.SaveEvery, o.TombstoneBody = 4<<10, time.Hour, sayMissing
	m := &model{
		fs: newCrashFS(seed), o: o, maybe: map[int]func(){}, frames: map[streamKey][]Frame{},
		acked: map[streamKey]uint64{}, offered: map[streamKey]uint64{}, gone: map[streamKey]map[uint64]bool{},
	}
	if err := m.open(); err != nil {
		t.Fatalf("open: %v", err)
	}
	return m
}

func sayMissing(m Missing) []byte {
	return fmt.Appendf(nil, "missing %s %d %d+%d %s", m.Org, m.Lane, m.First, m.Count, m.Reason)
}

func (m *model) open() error {
	o := m.o
	o.FS = m.fs
	s, err := Open(o)
	if err == nil {
		s.epoch = m.fs.random.Uint64() | 1 // the same at every replay
		m.s, m.epoch = s, s.epoch
	}
	return err
}

// append tries one append; an error leaves it undecided until the next start.
func (m *model) append(drafts []Draft) error {
	m.appends++
	n := m.appends
	err := m.s.Append(drafts, map[string][]byte{"n": []byte(strconv.Itoa(n))})
	epoch := m.epoch
	accept := func() {
		m.last = n
		for _, d := range drafts {
			key := streamKey{epoch: epoch, org: d.Org, lane: d.Lane}
			first := uint64(1)
			if list := m.frames[key]; len(list) > 0 {
				first = list[len(list)-1].Last() + 1
			}
			m.frames[key] = append(m.frames[key], Frame{Draft: d, Epoch: epoch, First: first})
		}
	}
	if err != nil {
		m.maybe[n] = accept
		return err
	}
	clear(m.maybe) // what failed before is void for good
	accept()
	return nil
}

// save makes the cursor durable; what gave way by then never comes back.
func (m *model) save() error {
	m.s.mu.Lock()
	now := map[streamKey]map[uint64]bool{}
	for key, st := range m.s.streams {
		for i := range st.entries {
			if e := &st.entries[i]; e.lost == evicted {
				for _, f := range m.framesIn(key, e.first, e.last()) {
					if now[key] == nil {
						now[key] = map[uint64]bool{}
					}
					now[key][f.First] = true
				}
			}
		}
	}
	m.s.mu.Unlock()
	err := m.s.tidy()
	if err == nil {
		m.gone = now
	}
	return err
}

func (m *model) ack(t failer, pick func(n int) int) {
	t.Helper()
	for _, key := range sortedStreams(m.frames) {
		list := m.frames[key]
		last := list[pick(len(list))].Last()
		if last > m.offered[key] { // a receiver acknowledges what it was offered
			continue
		}
		if err := m.s.Ack(key.org, key.epoch, key.lane, last); err != nil {
			t.Fatalf("ack: %v", err)
		}
		m.acked[key] = max(m.acked[key], last)
	}
}

func sortedStreams[V any](of map[streamKey]V) []streamKey {
	return slices.SortedFunc(maps.Keys(of), func(a, b streamKey) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
}

// decide finds out, after a start, what became of the append that failed.
func (m *model) decide(t failer) {
	t.Helper()
	got := 0
	if b, ok := m.s.Positions()["n"]; ok {
		got, _ = strconv.Atoi(string(b))
	}
	if accept, ok := m.maybe[got]; ok {
		accept()
	}
	clear(m.maybe)
	if got != m.last {
		t.Fatalf("positions are those of append %d, the last accepted is %d", got, m.last)
	}
}

// checkOffers reads all that is unsent and holds it against the model: every
// frame that is not acknowledged, in order, as it was appended, or in a tombstone
// that says that it gave way.
func (m *model) checkOffers(t failer) {
	t.Helper()
	for {
		m.s.mu.Lock()
		st, _ := m.s.pick(nil)
		m.s.mu.Unlock()
		if st == nil {
			break
		}
		f, err := m.s.Next(context.Background(), nil)
		if err != nil {
			t.Fatalf("next: %v", err)
		}
		m.checkFrame(t, &f)
	}
	for key, list := range m.frames {
		if end := list[len(list)-1].Last(); m.offered[key] < end && m.acked[key] < end {
			t.Fatalf("%v: offered up to %d, appended up to %d, acknowledged %d", key, m.offered[key], end, m.acked[key])
		}
	}
}

func (m *model) checkFrame(t failer, f *Frame) {
	t.Helper()
	key := streamKey{epoch: f.Epoch, org: f.Org, lane: f.Lane}
	if f.Tombstone {
		if !strings.HasSuffix(string(f.Body), ReasonEvicted) || len(m.framesIn(key, f.First, f.Last())) == 0 {
			t.Fatalf("offered %+v %q", f, f.Body)
		}
	} else {
		want, ok := m.frameAt(key, f.First)
		if !ok || string(f.Body) != string(want.Body) || f.Count != want.Count || f.Class != want.Class || f.Test != want.Test {
			t.Fatalf("offered %.40q, appended was %.40q (%v)", f.Body, want.Body, ok)
		}
		if m.gone[key][f.First] {
			t.Fatalf("offered %.40q, which had given way", f.Body)
		}
	}
	if before, ok := m.offered[key]; ok && f.First != before+1 || !ok && f.First > m.acked[key]+1 {
		t.Fatalf("%v: offered %d after %d, acknowledged %d", key, f.First, before, m.acked[key])
	}
	m.offered[key] = f.Last()
}

func (m *model) frameAt(key streamKey, first uint64) (Frame, bool) {
	for _, f := range m.frames[key] {
		if f.First == first {
			return f, true
		}
	}
	return Frame{}, false
}

// framesIn returns the frames that a range of sequences ends with; it begins
// with one of them, or where an acknowledgement ended.
func (m *model) framesIn(key streamKey, first, last uint64) (list []Frame) {
	whole := false
	for _, f := range m.frames[key] {
		if f.Last() >= first && f.First <= last {
			list = append(list, f)
			whole = f.Last() == last
		}
	}
	if !whole {
		return nil
	}
	return list
}

// check holds sums against what is there.
func (m *model) check(t failer) {
	t.Helper()
	st := m.s.Stats()
	if st.Corrupt != 0 {
		t.Fatalf("%d places damaged without damage", st.Corrupt)
	}
	if m.fs.peak > st.Budget {
		t.Fatalf("%d bytes on disk of %d", m.fs.peak, st.Budget)
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	used := int64(0)
	for _, seg := range m.s.segments {
		wanted, live := int64(0), 0
		for _, st := range m.s.streams {
			for i := range st.entries {
				if e := &st.entries[i]; e.seg == seg {
					wanted, live = wanted+e.charge(), live+1
				}
			}
		}
		if seg.wanted != wanted || seg.live != live || seg.moving || seg.retired {
			t.Fatalf("%s: %d of %d bytes wanted, %d of %d frames", seg.id.name(), seg.wanted, wanted, seg.live, live)
		}
		used += seg.charge
	}
	if used != m.s.budget.used {
		t.Fatalf("%d bytes used, the files are charged %d", m.s.budget.used, used)
	}
	for key, st := range m.s.streams {
		missing, next := uint64(0), st.acked+1
		for i := range st.entries {
			e := &st.entries[i]
			if e.first != next {
				t.Fatalf("%v: entry %d begins with %d after %d", key, i, e.first, next-1)
			}
			if next = e.last() + 1; e.flags&flagTombstone != 0 {
				missing += uint64(e.count)
			}
		}
		if missing != st.missing || next != st.next || st.sent > len(st.entries) {
			t.Fatalf("%v: %d of %d records missing, %d assigned, next is %d", key, st.missing, missing, next, st.next)
		}
	}
}

func (m *model) restart(t failer) {
	t.Helper()
	if err := m.open(); err != nil {
		t.Fatalf("open: %v", err)
	}
	clear(m.offered)
	m.decide(t)
	m.checkOffers(t)
	m.check(t)
}

// powerCut turns the power off, lets it go again at each call of the recovery up
// to the given one, and starts again.
func (m *model) powerCut(t failer, keep survival, again int) {
	t.Helper()
	old := m.s
	m.fs = m.fs.cut(keep)
	_ = old.Close() // its file system is gone
	for n := 1; n <= again; n++ {
		m.fs.die(n)
		if err := m.open(); err == nil {
			_ = m.s.Close()
		}
		m.fs = m.fs.cut(keep)
	}
	m.restart(t)
}

func drafts(t *rapid.T, id int) []Draft {
	n := rapid.IntRange(0, 4).Draw(t, "frames")
	list := make([]Draft, n)
	for i := range list {
		list[i] = Draft{
			Key:  Key{Org: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "org"), Test: rapid.Bool().Draw(t, "test")},
			Lane: rapid.Uint8Range(0, Lanes-1).Draw(t, "lane"), Class: rapid.Uint8Range(0, 2).Draw(t, "class"),
			Count: rapid.Uint32Range(1, 5).Draw(t, "count"),
			Body:  fmt.Appendf(nil, "append %d frame %d %s", id, i, make([]byte, rapid.SampledFrom([]int{0, 9, 700, 3000}).Draw(t, "size"))),
		}
	}
	return list
}

// TestModel plays appends, acknowledgements, saves, evictions, faults, a file
// system that others fill, power cuts and restarts against the model.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, rapid.Uint64().Draw(t, "seed"), Options{
			Budget:     rapid.SampledFrom([]int64{48 << 10, 128 << 10, 1 << 20}).Draw(t, "budget"),
			EvictAfter: rapid.SampledFrom([]time.Duration{0, -1}).Draw(t, "patience"),
			Floor:      16 << 10,
		})
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				if err := m.append(drafts(t, m.appends+1)); err != nil && !errors.Is(err, ErrFull) && !m.fs.failing() {
					t.Fatalf("append: %v", err)
				}
			},
			"flood": func(t *rapid.T) {
				for range 10 {
					_ = m.append([]Draft{{Key: Key{Org: "a"}, Class: rapid.Uint8Range(0, 2).Draw(t, "class"), Count: 2, Body: make([]byte, 2000)}})
				}
			},
			"offer": func(t *rapid.T) { m.checkOffers(t) },
			"reset": func(*rapid.T) {
				m.s.Reset()
				clear(m.offered)
			},
			"rewind": func(t *rapid.T) {
				for _, key := range sortedStreams(m.s.streams) {
					if st := m.s.streams[key]; len(st.entries) > 0 {
						next := st.entries[rapid.IntRange(0, len(st.entries)-1).Draw(t, "next")].first
						m.s.Rewind(key.org, key.epoch, key.lane, next)
						m.offered[key] = next - 1
					}
				}
			},
			"ack": func(t *rapid.T) {
				m.checkOffers(t)
				m.ack(t, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "acknowledged") })
			},
			"save": func(t *rapid.T) {
				if err := m.save(); err != nil && !m.fs.failing() && !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("save: %v", err)
				}
			},
			"fault": func(t *rapid.T) {
				m.fs.fail(rapid.IntRange(1, 6).Draw(t, "call"), rapid.SampledFrom([]int{1, 2, 1000}).Draw(t, "calls"),
					rapid.SampledFrom([]error{syscall.EIO, syscall.ENOSPC}).Draw(t, "error"))
			},
			"mend": func(*rapid.T) { m.fs.mend() },
			"others fill the disk": func(t *rapid.T) {
				m.fs.mu.Lock()
				m.fs.total, m.fs.others = 512<<10, rapid.Int64Range(0, 512<<10).Draw(t, "others")
				m.fs.mu.Unlock()
				m.s.mu.Lock()
				m.s.budget.asked = time.Time{} // a second later
				m.s.mu.Unlock()
			},
			"power cut": func(t *rapid.T) {
				m.powerCut(t, survival(rapid.IntRange(0, int(survivals)-1).Draw(t, "survives")), rapid.IntRange(0, 6).Draw(t, "again"))
			},
			"restart": func(t *rapid.T) {
				m.fs.mend()
				m.fs.total = 0
				if err := m.s.Close(); err != nil {
					t.Fatalf("close: %v", err)
				}
				m.restart(t)
			},
			"": func(t *rapid.T) { m.check(t) },
		})
		_ = m.s.Close()
	})
}
