package spool

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"
)

// streamKey names one sequence.
type streamKey struct {
	epoch uint64
	org   string
	lane  uint8
}

// stream is one sequence: what of it is not acknowledged, in order and without
// a hole, because a tombstone stands where frames are missing.
//
//	1 … acked │ entries[0] … entries[sent-1] │ entries[sent] … │ next
//	  gone    │           offered            │     unsent      │ not assigned
type stream struct {
	streamKey
	entries []entry
	sent    int
	acked   uint64
	next    uint64 // the next sequence to assign
}

// entry is one frame: where it lies, or that it is missing.
type entry struct {
	first uint64
	at    int64
	seg   *segment // nil: a tombstone that lies in no file
	size  uint32
	count uint32
	class uint8
	flags uint8
	lost  lostReason
}

// lostReason says why an entry is offered as a tombstone of the spool's making.
type lostReason uint8

const (
	notLost lostReason = iota
	corrupt
	forgotten
)

func (r lostReason) String() string {
	if r == forgotten {
		return ReasonForgotten
	}
	return ReasonCorrupt
}

func (e *entry) last() uint64 { return e.first + uint64(e.count) - 1 }

func entryOf(b *found, seg *segment) entry {
	return entry{first: b.first, at: b.at, seg: seg, size: uint32(b.size()), count: b.count, class: b.class, flags: b.flags} //nolint:gosec // a block is below 4 GiB
}

// tenant is one organisation's streams, by lane, old epochs first.
type tenant struct {
	org   string
	lanes [Lanes][]*stream
}

// stream returns the sequence, made where it is new. Called under mu.
func (s *Spool) stream(key streamKey) *stream {
	if st := s.streams[key]; st != nil {
		return st
	}
	st := &stream{streamKey: key, next: 1}
	s.streams[key] = st
	t := s.tenants[key.org]
	if t == nil {
		t = &tenant{org: key.org}
		s.tenants[key.org] = t
		s.order = append(s.order, t)
	}
	t.lanes[key.lane] = append(t.lanes[key.lane], st)
	return st
}

// push takes a frame in at the end. Called under mu.
func (st *stream) push(e entry) {
	if e.seg != nil {
		e.seg.live++
	}
	st.entries = append(st.entries, e)
}

// pop forgets the first n frames. Called under mu.
func (st *stream) pop(n int) {
	for i := range st.entries[:n] {
		if seg := st.entries[i].seg; seg != nil {
			seg.live--
		}
	}
	st.acked = st.entries[n-1].last()
	st.sent = max(st.sent-n, 0)
	if n == len(st.entries) {
		st.entries = st.entries[:0]
		if cap(st.entries) > 1<<12 {
			st.entries = nil // a backlog is over: give its index back
		}
		return
	}
	st.entries = st.entries[n:]
}

func (st *stream) count(to *LaneStats) {
	to.Frames += len(st.entries)
	to.Unsent += len(st.entries) - st.sent
	for i := range st.entries {
		e := &st.entries[i]
		to.Bytes += int64(e.size)
		if e.seg != nil && !e.seg.begun.IsZero() && (to.Oldest.IsZero() || e.seg.begun.Before(to.Oldest)) {
			to.Oldest = e.seg.begun
		}
	}
}

// Next returns the next frame that was not offered yet, and waits for one. It
// leaves out organisations for which skip says true; skip runs under the
// spool's lock and must not call it. Body belongs to the caller.
func (s *Spool) Next(ctx context.Context, skip func(org string) bool) (Frame, error) {
	s.mu.Lock()
	for {
		if s.closed {
			s.mu.Unlock()
			return Frame{}, ErrClosed
		}
		if err := ctx.Err(); err != nil {
			s.mu.Unlock()
			return Frame{}, fmt.Errorf("wait for a frame: %w", err)
		}
		if st, at := s.pick(skip); st != nil {
			s.turn[st.lane] = at + 1
			e := st.entries[st.sent]
			st.sent++
			if e.seg != nil {
				e.seg.readers++
			}
			s.mu.Unlock()
			return s.read(st, e), nil
		}
		if err := s.wait(ctx); err != nil {
			s.mu.Unlock()
			return Frame{}, fmt.Errorf("wait for a frame: %w", err)
		}
	}
}

// pick returns the stream whose turn it is and the place of its organisation
// in the order, or nil. Called under mu.
func (s *Spool) pick(skip func(org string) bool) (*stream, int) {
	for lane := Lanes - 1; lane >= 0; lane-- {
		for i := range s.order {
			at := (s.turn[lane] + i) % len(s.order)
			t := s.order[at]
			st := t.unsent(lane)
			if st == nil || skip != nil && skip(t.org) {
				continue
			}
			return st, at
		}
	}
	return nil, 0
}

func (t *tenant) unsent(lane int) *stream {
	for _, st := range t.lanes[lane] {
		if st.sent < len(st.entries) {
			return st
		}
	}
	return nil
}

// read makes the frame of an entry. What cannot be read undamaged is offered
// as a tombstone, now and until it is acknowledged.
func (s *Spool) read(st *stream, e entry) Frame {
	var body []byte
	var err error
	if e.lost == notLost {
		var b block
		b, body, err = readBlock(e.seg.id, e.seg.file, e.at, int64(e.size), nil)
		if err == nil && (b.first != e.first || b.count != e.count || b.org != st.org || b.lane != st.lane) {
			err = errNoBlock
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.seg != nil {
		e.seg.readers--
	}
	if err != nil {
		s.log.Error("a frame of the spool is damaged; a tombstone takes its place",
			"file", e.seg.id.name(), "organisation", st.org, "first", e.first, "count", e.count, "error", err)
		e.lost = corrupt
		s.lose(st, &e)
	}
	f := Frame{Epoch: st.epoch, First: e.first, Draft: Draft{
		Key: Key{Org: st.org, Test: e.flags&flagTest != 0}, Lane: st.lane, Class: e.class,
		Tombstone: e.flags&flagTombstone != 0, Count: e.count, Body: body,
	}}
	if e.lost != notLost {
		f.Tombstone = true
		f.Body = s.o.TombstoneBody(f.Key, f.Lane, f.Epoch, f.First, f.Count, e.lost.String())
	}
	return f
}

// lose marks an entry as lost, where it is still there. Called under mu.
func (s *Spool) lose(st *stream, lost *entry) {
	s.stats.Corrupt++
	if i, ok := st.find(lost.first); ok && st.entries[i].lost == notLost {
		st.entries[i].lost = lost.lost
		s.stats.Lost += uint64(lost.count)
	}
}

// find returns the index of the entry that holds a sequence, else that of the
// first one after it.
func (st *stream) find(sequence uint64) (int, bool) {
	i := sort.Search(len(st.entries), func(i int) bool { return st.entries[i].last() >= sequence })
	return i, i < len(st.entries) && st.entries[i].first <= sequence
}

// Wake lets a blocked Next ask skip again.
func (s *Spool) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broadcast()
}

// Ack takes all frames up to the sequence last as delivered for good. Repeated
// and old acknowledgements change nothing.
func (s *Spool) Ack(org string, epoch uint64, lane uint8, last uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	st := s.streams[streamKey{epoch: epoch, org: org, lane: lane}]
	if st == nil {
		return nil // of an epoch of which nothing is here any more
	}
	if last >= st.next {
		return fmt.Errorf("acknowledgement of sequence %d of %q, epoch %016x, lane %d: only %d were assigned", last, org, epoch, lane, st.next-1)
	}
	n, within := st.find(last)
	if within && st.entries[n].last() == last {
		n++
	}
	if n == 0 {
		return nil
	}
	st.pop(n)
	s.dirty = true
	s.wakeKeeper()
	return nil
}

// Rewind makes the frames from the sequence next on unsent again. Where they
// were acknowledged and are gone, a tombstone says so.
func (s *Spool) Rewind(org string, epoch uint64, lane uint8, next uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[streamKey{epoch: epoch, org: org, lane: lane}]
	if st == nil || next == 0 || next >= st.next {
		return
	}
	if next <= st.acked {
		s.log.Warn("the aggregator asks again for records that it had acknowledged; a tombstone takes their place",
			"organisation", org, "epoch", fmt.Sprintf("%016x", epoch), "first", next, "last", st.acked)
		st.entries = slices.Insert(st.entries, 0, tombstones(next, st.acked, forgotten, 0)...)
		s.stats.Lost += st.acked - next + 1
		st.acked = next - 1
		s.dirty = true
	}
	st.sent, _ = st.find(next)
	s.broadcast()
}

// tombstones are entries for the sequences first to last; more than one where
// the count does not fit into a frame.
func tombstones(first, last uint64, why lostReason, flags uint8) []entry {
	var list []entry
	for first <= last {
		n := min(last-first+1, math.MaxUint32)
		list = append(list, entry{first: first, count: uint32(n), lost: why, flags: flags&flagTest | flagTombstone, class: tombstoneClass})
		first += n
	}
	return list
}

// tombstoneClass is the highest class of the product's: what is missing is
// never what is given up next.
const tombstoneClass = 2

// Reset makes everything that is not acknowledged unsent again: there is a new
// connection.
func (s *Spool) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		st.sent = 0
	}
	s.broadcast()
}

// keep saves the cursor now and then, and frees what it allows. It is the one
// goroutine of a spool; Close ends it and waits for it.
func (s *Spool) keep() {
	saved := time.Now() // by Open
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-s.nudge:
		case <-timer.C:
		}
		due, unsaved := s.due()
		if !unsaved {
			continue
		}
		if wait := time.Until(saved.Add(due)); wait > 0 {
			timer.Reset(wait)
			continue
		}
		if err := s.tidy(); err != nil {
			s.log.Warn("the spool's cursor could not be saved; acknowledged frames keep their disk space until it can", "error", err)
			timer.Reset(s.o.SaveEvery)
		}
		saved = time.Now()
	}
}

// due says whether there is something to save, and how long after the last
// save it may wait: not long when it frees a file, least when somebody waits
// for that room. A cursor that frees nothing only spares the receiver some
// frames that it knows, after a crash.
func (s *Spool) due() (after time.Duration, unsaved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch frees := slices.ContainsFunc(s.segments, (*segment).free); {
	case !frees:
		return 5 * s.o.SaveEvery, s.dirty
	case s.waiting > 0:
		return s.o.SaveEvery / 20, true
	default:
		return s.o.SaveEvery, true
	}
}

// wakeKeeper is called under mu.
func (s *Spool) wakeKeeper() {
	select {
	case s.nudge <- struct{}{}:
	default: // it is awake
	}
}
