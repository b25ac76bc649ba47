package spool

import (
	"context"
	"fmt"
	"strconv"
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
	s     *Spool
	epoch uint64

	appends int // numbers given out
	last    int // the last one accepted
	maybe   map[int]func()
	frames  map[streamKey][]Frame
	acked   map[streamKey]uint64
	offered map[streamKey]uint64 // last sequence offered since the last Reset
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newModel(t failer, seed uint64) *model {
	m := &model{
		fs: newCrashFS(seed), maybe: map[int]func(){}, frames: map[streamKey][]Frame{},
		acked: map[streamKey]uint64{}, offered: map[streamKey]uint64{},
	}
	m.open(t)
	return m
}

func (m *model) open(t failer) {
	t.Helper()
	s, err := Open(Options{FS: m.fs, SegmentBytes: 4 << 10, Budget: 1 << 20, SaveEvery: time.Hour})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	m.s, m.epoch = s, s.Epoch()
	clear(m.offered)
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
// frame that is not acknowledged, in order, as it was appended.
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
		key := streamKey{epoch: f.Epoch, org: f.Org, lane: f.Lane}
		want, ok := m.frameAt(key, f.First)
		if !ok || f.Tombstone || string(f.Body) != string(want.Body) || f.Count != want.Count || f.Class != want.Class || f.Test != want.Test {
			t.Fatalf("offered %v %.40q, appended was %v %.40q (%v)", f.Tombstone, f.Body, want.Tombstone, want.Body, ok)
		}
		if before, ok := m.offered[key]; ok && f.First != before+1 || !ok && f.First > m.acked[key]+1 {
			t.Fatalf("%v: offered %d after %d, acknowledged %d", key, f.First, before, m.acked[key])
		}
		m.offered[key] = f.Last()
	}
	for key, list := range m.frames {
		if end := list[len(list)-1].Last(); m.offered[key] < end && m.acked[key] < end {
			t.Fatalf("%v: offered up to %d, appended up to %d, acknowledged %d", key, m.offered[key], end, m.acked[key])
		}
	}
}

func (m *model) frameAt(key streamKey, first uint64) (Frame, bool) {
	for _, f := range m.frames[key] {
		if f.First == first {
			return f, true
		}
	}
	return Frame{}, false
}

func (m *model) checkUndamaged(t failer) {
	t.Helper()
	st := m.s.Stats()
	if st.Lost != 0 {
		t.Fatalf("%d records lost without damage", st.Lost)
	}
	if st.Disk > st.Budget {
		t.Fatalf("%d bytes on disk of %d", st.Disk, st.Budget)
	}
}

func (m *model) restart(t failer) {
	t.Helper()
	m.open(t)
	m.decide(t)
	m.checkOffers(t)
	m.checkUndamaged(t)
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

// TestModel plays appends, acknowledgements, saves, faults, power cuts and
// restarts against the model.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, rapid.Uint64().Draw(t, "seed"))
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				if err := m.append(drafts(t, m.appends+1)); err != nil && !m.fs.failing() {
					t.Fatalf("append: %v", err)
				}
			},
			"offer": func(t *rapid.T) { m.checkOffers(t) },
			"reset": func(*rapid.T) {
				m.s.Reset()
				clear(m.offered)
			},
			"ack": func(t *rapid.T) {
				m.checkOffers(t)
				for key, list := range m.frames {
					last := list[rapid.IntRange(0, len(list)-1).Draw(t, "acknowledged")].Last()
					if err := m.s.Ack(key.org, key.epoch, key.lane, last); err != nil {
						t.Fatalf("ack: %v", err)
					}
					m.acked[key] = max(m.acked[key], last)
				}
			},
			"save": func(t *rapid.T) {
				if err := m.s.tidy(); err != nil && !m.fs.failing() {
					t.Fatalf("save: %v", err)
				}
			},
			"fault": func(t *rapid.T) {
				m.fs.fail(rapid.IntRange(1, 6).Draw(t, "call"), rapid.SampledFrom([]int{1, 2, 1000}).Draw(t, "calls"),
					rapid.SampledFrom([]error{syscall.EIO, syscall.ENOSPC}).Draw(t, "error"))
			},
			"mend": func(*rapid.T) { m.fs.mend() },
			"power cut": func(t *rapid.T) {
				old := m.s
				m.fs = m.fs.crash()
				_ = old.Close() // its file system is gone
				m.restart(t)
			},
			"restart": func(t *rapid.T) {
				m.fs.mend()
				if err := m.s.Close(); err != nil {
					t.Fatalf("close: %v", err)
				}
				m.restart(t)
			},
		})
		_ = m.s.Close()
	})
}

// TestEveryCallFails plays one script again and again, with the n-th call that
// changes the disk failing, once and for good, then cuts the power.
func TestEveryCallFails(t *testing.T) {
	for _, howMany := range []int{1, 1 << 30} {
		for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
			n := 1
			for ; ; n++ {
				m := newModel(t, uint64(n))
				m.fs.fail(n, howMany, cause)
				before := m.fs.calls
				script(m)
				reached := m.fs.calls-before >= n
				old := m.s
				m.fs = m.fs.crash()
				_ = old.Close()
				m.restart(t)
				if err := m.s.Close(); err != nil {
					t.Fatal(err)
				}
				if !reached {
					break
				}
			}
			if n < 50 {
				t.Errorf("%d calls only", n)
			}
			t.Logf("%v, %d calls in a row: %d places", cause, howMany, n-1)
		}
	}
}

// script appends, acknowledges and saves; the errors are what the test injects.
func script(m *model) {
	for i := range 24 {
		_ = m.append([]Draft{
			draft("a", 0, 2, fmt.Sprintf("log %d %s", i, make([]byte, 900))),
			draft("b", 1, 1, fmt.Sprintf("event %d", i)),
		})
		if i%3 == 2 {
			for key, list := range m.frames {
				last := list[len(list)-1].Last()
				if m.s.Ack(key.org, key.epoch, key.lane, last) == nil {
					m.acked[key] = last
				}
			}
		}
		if i%4 == 3 {
			_ = m.s.tidy()
		}
	}
}
