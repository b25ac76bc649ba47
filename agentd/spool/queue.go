package spool

import (
	"context"
	"fmt"
	"slices"
	"time"
)

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
			if e.seg == nil {
				f := s.tombstone(st, &e)
				s.mu.Unlock()
				return f, nil
			}
			e.seg.readers++
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

// read makes the frame of an entry. What cannot be read undamaged is offered
// as a tombstone, now and until it is acknowledged.
func (s *Spool) read(st *stream, e entry) Frame {
	b, body, err := readBlock(e.seg.id, e.seg.file, e.at, int64(e.size), nil)
	if err == nil && !e.is(st, &b) {
		err = errNoBlock
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.seg.readers--
	e.seg.release()
	if err != nil {
		s.damaged(st, &e, err)
		e.lost = corrupt
		return s.tombstone(st, &e)
	}
	return Frame{Epoch: st.epoch, First: e.first, Draft: Draft{
		Key: Key{Org: st.org, Test: e.flags&flagTest != 0}, Lane: st.lane, Class: e.class,
		Tombstone: e.flags&flagTombstone != 0, Count: e.count, Body: body,
	}}
}

// tombstone makes the frame that says what is missing. Called under mu.
func (s *Spool) tombstone(st *stream, e *entry) Frame {
	m := st.missingOf(e)
	return Frame{Epoch: st.epoch, First: e.first, Draft: Draft{
		Key: m.Key, Lane: st.lane, Class: e.class, Tombstone: true, Count: e.count, Body: s.o.TombstoneBody(m),
	}}
}

// damaged puts a tombstone in an entry's place, where it is still there. Called
// under mu.
func (s *Spool) damaged(st *stream, e *entry, err error) {
	s.log.Error("a frame of the spool is damaged; a tombstone takes its place",
		"file", e.seg.id.name(), "organisation", st.org, "first", e.first, "count", e.count, "error", err)
	s.stats.Corrupt++
	if i, ok := st.find(e.first); ok && st.entries[i].first == e.first && st.entries[i].lost == notLost {
		st.lose(i, corrupt, trace{bytes: int64(e.size), since: microsOf(e.seg.begun), until: microsOf(e.seg.ended)})
		s.stats.Lost += uint64(e.count)
		s.dirty = true
	}
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
		n, within = n+1, false
	}
	part := within && st.entries[n].seg == nil && st.entries[n].first <= last // joined of several that were sent apart
	if n == 0 && !part {
		return nil
	}
	if n > 0 {
		st.pop(n)
	}
	if part {
		st.trim(last)
	}
	s.budget.full = time.Time{} // the way is open: it is worth to wait for room
	s.dirty = true
	if len(st.entries) == 0 {
		s.forget(epoch)
	}
	s.acknowledged()
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
		list := tombstones(next, st.acked, forgotten, 0)
		for i := range list {
			st.account(&list[i], 1)
		}
		st.entries = slices.Insert(st.entries, 0, list...)
		s.stats.Lost += st.acked - next + 1
		st.acked = next - 1
		s.dirty = true
	}
	st.sent, _ = st.find(next)
	s.broadcast()
}

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
