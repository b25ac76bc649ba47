package spool

import (
	"math"
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

	bytes   int64            // of entries, as they lie on disk
	missing uint64           // records of entries that are tombstones
	charge  [Classes]int64   // what entries take of the budget
	gone    map[uint64]trace // of entries that lie in no file, by their first sequence
}

// entry is one frame: where it lies, or that it is missing.
type entry struct {
	first uint64
	at    int64
	seg   *segment // nil: a tombstone that lies in no file
	size  uint32   // there; 0 without a file
	count uint32
	class uint8
	flags uint8
	lost  lostReason
}

// trace is what is left of frames that are gone.
type trace struct {
	bytes        int64
	since, until int64 // when they were appended, in microseconds; 0: not known
}

// lostReason says why an entry is offered as a tombstone of the spool's making.
// The numbers are on disk: never renumber.
type lostReason uint8

const (
	notLost lostReason = iota
	corrupt
	forgotten
	evicted
	lostReasons
)

func (r lostReason) String() string {
	switch r {
	case forgotten:
		return ReasonForgotten
	case evicted:
		return ReasonEvicted
	default:
		return ReasonCorrupt
	}
}

func (e *entry) last() uint64 { return e.first + uint64(e.count) - 1 }

// charge is what the entry takes of the budget.
func (e *entry) charge() int64 {
	if e.seg == nil {
		return 0
	}
	return max(int64(e.size), frameCharge)
}

func entryOf(b *found, seg *segment) entry {
	return entry{first: b.first, at: b.at, seg: seg, size: uint32(b.size()), count: b.count, class: b.class, flags: b.flags} //nolint:gosec // a block is below 4 GiB
}

// account adds an entry to the sums (sign 1) or takes it out of them (-1).
// Whoever changes an entry does so in between.
func (st *stream) account(e *entry, sign int64) {
	st.bytes += sign * int64(e.size)
	if e.lost != notLost || e.flags&flagTombstone != 0 {
		st.missing += uint64(sign) * uint64(e.count) //nolint:gosec // two's complement: -1 subtracts
	}
	if e.seg != nil {
		st.charge[min(e.class, Classes-1)] += sign * e.charge()
		e.seg.wanted += sign * e.charge()
		e.seg.live += int(sign)
	}
}

// push takes a frame in at the end. Called under mu.
func (st *stream) push(e entry) {
	st.account(&e, 1)
	st.entries = append(st.entries, e)
}

// pop forgets the first n frames. Called under mu.
func (st *stream) pop(n int) {
	for i := range st.entries[:n] {
		st.account(&st.entries[i], -1)
		delete(st.gone, st.entries[i].first)
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

// trim forgets the part up to last of the tombstone that is the first entry.
// Called under mu.
func (st *stream) trim(last uint64) {
	e := &st.entries[0]
	st.account(e, -1)
	t, known := st.gone[e.first]
	delete(st.gone, e.first)
	e.count -= uint32(last + 1 - e.first) //nolint:gosec // less than count
	e.first, st.acked = last+1, last
	if known {
		st.leave(e.first, t)
	}
	st.account(e, 1)
}

// lose makes a tombstone of an entry: its file may go. Called under mu.
func (st *stream) lose(i int, why lostReason, t trace) {
	e := &st.entries[i]
	st.account(e, -1)
	*e = entry{first: e.first, count: e.count, lost: why, class: tombstoneClass, flags: e.flags&flagTest | flagTombstone}
	st.account(e, 1)
	st.leave(e.first, t)
}

func (st *stream) leave(first uint64, t trace) {
	if st.gone == nil {
		st.gone = map[uint64]trace{}
	}
	st.gone[first] = t
}

// merge joins neighbouring tombstones that tell of the same, so that a long loss
// is one of them. Offered and unsent ones stay apart. Called under mu.
func (st *stream) merge() {
	kept, sent := st.entries[:0], st.sent
	for i := range st.entries {
		e := st.entries[i]
		if n := len(kept); n > 0 && i != sent && kept[n-1].joins(&e) {
			st.join(&kept[n-1], &e)
			if i < sent {
				st.sent--
			}
			continue
		}
		kept = append(kept, e)
	}
	clear(st.entries[len(kept):])
	st.entries = kept
}

func (e *entry) joins(next *entry) bool {
	return e.seg == nil && next.seg == nil && e.lost == next.lost && e.flags == next.flags && uint64(e.count)+uint64(next.count) <= math.MaxUint32
}

// join makes one entry of two that touch. The sums stay as they are.
func (st *stream) join(e, next *entry) {
	a, known := st.gone[e.first]
	b := st.gone[next.first]
	delete(st.gone, next.first)
	e.count += next.count
	if !known {
		a = b
	} else if b != (trace{}) {
		a = trace{bytes: a.bytes + b.bytes, since: earlier(a.since, b.since), until: max(a.until, b.until)}
	}
	st.leave(e.first, a)
}

// earlier is the earlier of two times, of which 0 is not known.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// missingOf describes a tombstone. Called under mu.
func (st *stream) missingOf(e *entry) Missing {
	t := st.gone[e.first]
	return Missing{
		Key: Key{Org: st.org, Test: e.flags&flagTest != 0}, Lane: st.lane, Epoch: st.epoch, First: e.first, Count: e.count,
		Bytes: t.bytes, Since: timeOf(t.since), Until: timeOf(t.until), Reason: e.lost.String(),
	}
}

func timeOf(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

func microsOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// find returns the index of the entry that holds a sequence, else that of the
// first one after it.
func (st *stream) find(sequence uint64) (int, bool) {
	i := sort.Search(len(st.entries), func(i int) bool { return st.entries[i].last() >= sequence })
	return i, i < len(st.entries) && st.entries[i].first <= sequence
}

func (st *stream) count(to *LaneStats) {
	to.Frames += len(st.entries)
	to.Unsent += len(st.entries) - st.sent
	to.Bytes += st.bytes
	for i := range st.entries {
		e := &st.entries[i]
		if e.seg == nil {
			continue
		}
		if !e.seg.begun.IsZero() && (to.Oldest.IsZero() || e.seg.begun.Before(to.Oldest)) {
			to.Oldest = e.seg.begun
		}
		return // those after it are younger
	}
}

// tenant is one organisation's streams, by lane, old epochs first.
type tenant struct {
	org   string
	lanes [Lanes][]*stream
}

// charge is what the organisation's frames take of the budget.
func (t *tenant) charge() (sum int64) {
	for _, lane := range t.lanes {
		for _, st := range lane {
			for _, c := range st.charge {
				sum += c
			}
		}
	}
	return sum
}

func (t *tenant) unsent(lane int) *stream {
	for _, st := range t.lanes[lane] {
		if st.sent < len(st.entries) {
			return st
		}
	}
	return nil
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

// Sequence is the ledger of one (epoch, organisation, lane): what was assigned
// is acknowledged or in flight.
type Sequence struct {
	Epoch    uint64
	Org      string
	Lane     uint8
	Assigned uint64 // last sequence that a record was given
	Acked    uint64 // last sequence that was acknowledged
	InFlight uint64 // Assigned - Acked: on disk or on the way
	Lost     uint64 // of those in flight: gone, a tombstone goes for them
}

// Ledger returns the ledger of every sequence of which this spool knows: this
// epoch's and those of which a file is left.
func (s *Spool) Ledger() []Sequence {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Sequence, 0, len(s.streams))
	for _, t := range s.order {
		for _, lane := range t.lanes {
			for _, st := range lane {
				list = append(list, Sequence{
					Epoch: st.epoch, Org: st.org, Lane: st.lane, Assigned: st.next - 1, Acked: st.acked,
					InFlight: st.next - 1 - st.acked, Lost: st.missing,
				})
			}
		}
	}
	return list
}
