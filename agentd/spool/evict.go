package spool

import (
	"slices"
	"time"
)

// Order in which frames give way, within one organisation: by rank, then what
// is not on its way before what the receiver may have by now.
const (
	rankMetrics   = Classes     // events lane, below its highest class
	rankLifecycle = Classes + 1 // events lane: last, and never within the reserve
	ranks         = Classes + 2

	stepUnsent  = 0
	stepDraft   = 1 // of the Append that asks for room: younger than all that are here
	stepOffered = 2
	steps       = 3
)

func rankOf(lane, class uint8) int {
	class = min(class, Classes-1)
	switch {
	case lane == 0:
		return int(class)
	case class == Classes-1:
		return rankLifecycle
	default:
		return rankMetrics
	}
}

// eviction is one round of giving up frames, so that the rest and the drafts of
// one Append have room.
type eviction struct {
	*Spool
	drafts    []Draft // those given up are replaced by tombstones
	hoards    []*hoard
	share     int64 // what each organisation is due
	lifecycle int64 // what such frames take
	touched   map[*stream]struct{}
	freed     int64
	now       time.Time
}

// hoard is what one organisation has here, and how far it is given up.
type hoard struct {
	org    string
	charge int64
	lists  [ranks * steps]walk
	drafts []int
}

// walk goes over the frames of one rank and step, oldest first.
type walk struct {
	streams []*stream
	step, i int
	rank    int
}

// evict gives up frames until short bytes are free, and some more so that the
// next Append need not ask again, and returns the drafts as they are to be
// appended. Nothing was found where freed is 0. Called under writing.
//
// No organisation below its share loses anything while one above it has
// something to lose. Of those above, the one goes first whose frames are of the
// lowest rank, and of several the one that has the most.
func (s *Spool) evict(short int64, drafts []Draft) (kept []Draft, freed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ev := &eviction{Spool: s, drafts: drafts, touched: map[*stream]struct{}{}, now: time.Now()}
	ev.collect()
	target, rank := short+s.o.SegmentBytes, -1
	for ev.freed < target {
		h, at := ev.next()
		if h == nil {
			break
		}
		if ev.freed >= short && (at/steps > rank || at%steps == stepDraft) {
			break // no more than is needed of what is worth more
		}
		rank = max(rank, at/steps)
		ev.giveUp(h, at)
	}
	for st := range ev.touched {
		st.merge()
	}
	if ev.freed > 0 {
		s.dirty = true
		s.broadcast()
		s.sayEvicted(ev.now)
	}
	return ev.drafts, ev.freed
}

// sayEvery bounds how often the log says that frames give way.
const sayEvery = time.Minute

// sayEvicted tells the log that frames give way, now and then. Called under mu.
func (s *Spool) sayEvicted(now time.Time) {
	if now.Sub(s.budget.said) < sayEvery {
		return
	}
	s.budget.said = now
	var all Loss
	for lane := range s.stats.Evicted {
		for _, l := range s.stats.Evicted[lane] {
			all.Records += l.Records
			all.Bytes += l.Bytes
		}
	}
	s.log.Warn("the spool is full: the least important frames give way, and a gap tells of each",
		"budget", s.o.Budget, "may_use", s.budget.ceiling, "records_so_far", all.Records, "bytes_so_far", all.Bytes)
}

// collect finds out who has what.
func (ev *eviction) collect() {
	of := map[string]*hoard{}
	add := func(org string) *hoard {
		h := of[org]
		if h == nil {
			h = &hoard{org: org}
			of[org] = h
			ev.hoards = append(ev.hoards, h)
		}
		return h
	}
	for _, t := range ev.order {
		charge := t.charge()
		if charge == 0 {
			continue
		}
		h := add(t.org)
		h.charge = charge
		for i := range h.lists {
			rank, step := i/steps, i%steps
			lane := 0
			if rank >= rankMetrics {
				lane = 1
			}
			h.lists[i] = walk{streams: t.lanes[lane], rank: rank, step: step}
		}
		for _, st := range t.lanes[1] {
			ev.lifecycle += st.charge[Classes-1]
		}
	}
	for i := range ev.drafts {
		d := &ev.drafts[i]
		h := add(d.Org)
		h.charge += draftCharge(d)
		if rankOf(d.Lane, d.Class) < rankMetrics && !d.Tombstone && draftCharge(d) > 2*frameCharge { // a tombstone takes room, too
			h.drafts = append(h.drafts, i)
		}
	}
	ev.share = ev.limit(true) / int64(max(len(ev.hoards), 1))
}

func draftCharge(d *Draft) int64 { return max(blockSize(len(d.Org), len(d.Body)), frameCharge) }

// next returns who gives something up next, and from which list; nil: nobody.
func (ev *eviction) next() (*hoard, int) {
	var best *hoard
	bestAt := 0
	for _, above := range []bool{true, false} {
		for _, h := range ev.hoards {
			if above && h.charge <= ev.share {
				continue
			}
			at, ok := ev.lowest(h)
			if !ok {
				continue
			}
			if best == nil || at/steps < bestAt/steps || at/steps == bestAt/steps && h.charge > best.charge {
				best, bestAt = h, at
			}
		}
		if best != nil {
			return best, bestAt
		}
	}
	return nil, 0
}

// lowest returns the first list that has something.
func (ev *eviction) lowest(h *hoard) (int, bool) {
	for at := range h.lists {
		if at%steps == stepDraft {
			if at/steps < rankMetrics && ev.draft(h, at/steps) >= 0 {
				return at, true
			}
			continue
		}
		st, i := h.lists[at].peek()
		if st == nil || at/steps == rankLifecycle && ev.lifecycle-st.entries[i].charge() < ev.budget.reserve() {
			continue
		}
		return at, true
	}
	return 0, false
}

// draft returns the place in h.drafts of the first draft of a rank; -1: none.
func (ev *eviction) draft(h *hoard, rank int) int {
	return slices.IndexFunc(h.drafts, func(i int) bool { return rankOf(0, ev.drafts[i].Class) == rank })
}

// peek returns the next frame, nil where there is none.
func (w *walk) peek() (*stream, int) {
	for ; len(w.streams) > 0; w.streams, w.i = w.streams[1:], 0 {
		st := w.streams[0]
		end := len(st.entries)
		if w.step == stepOffered {
			end = st.sent
		} else {
			w.i = max(w.i, st.sent)
		}
		for ; w.i < end; w.i++ {
			if e := &st.entries[w.i]; e.seg != nil && rankOf(st.lane, e.class) == w.rank {
				return st, w.i
			}
		}
	}
	return nil, 0
}

// giveUp gives up the first frame of a list.
func (ev *eviction) giveUp(h *hoard, at int) {
	if at%steps == stepDraft {
		n := ev.draft(h, at/steps)
		ev.giveUpDraft(h, h.drafts[n])
		h.drafts = slices.Delete(h.drafts, n, n+1)
		return
	}
	st, i := h.lists[at].peek()
	e := st.entries[i]
	h.charge -= e.charge()
	ev.freed += e.charge()
	if at/steps == rankLifecycle {
		ev.lifecycle -= e.charge()
	}
	was := trace{since: microsOf(e.seg.begun)}
	if e.flags&flagTombstone == 0 { // what it stands for was counted when it was appended
		was.bytes = int64(e.size)
		ev.note(st.lane, e.class, e.count, was.bytes)
	}
	if was.until = microsOf(e.seg.ended); was.until == 0 {
		was.until = ev.now.UnixMicro()
	}
	st.lose(i, evicted, was)
	ev.touched[st] = struct{}{}
}

// giveUpDraft appends a tombstone in a draft's place: what arrives is worth less
// than what is here.
func (ev *eviction) giveUpDraft(h *hoard, i int) {
	d := ev.drafts[i]
	before := draftCharge(&d)
	ev.note(d.Lane, d.Class, d.Count, before)
	first := uint64(1)
	if st := ev.streams[streamKey{epoch: ev.epoch, org: d.Org, lane: d.Lane}]; st != nil {
		first = st.next
	}
	for j := range i {
		if o := &ev.drafts[j]; o.Org == d.Org && o.Lane == d.Lane {
			first += uint64(o.Count)
		}
	}
	d.Tombstone, d.Class = true, tombstoneClass
	d.Body = ev.o.TombstoneBody(Missing{
		Key: d.Key, Lane: d.Lane, Epoch: ev.epoch, First: first, Count: d.Count,
		Bytes: before, Since: ev.now.UTC(), Until: ev.now.UTC(), Reason: ReasonEvicted,
	})
	ev.drafts = slices.Clone(ev.drafts)
	ev.drafts[i] = d
	h.charge -= before - draftCharge(&d)
	ev.freed += before - draftCharge(&d)
}

// note counts what is given up.
func (ev *eviction) note(lane, class uint8, records uint32, bytes int64) {
	l := &ev.stats.Evicted[lane][min(class, Classes-1)]
	l.Frames++
	l.Records += uint64(records)
	l.Bytes += bytes
	ev.stats.Lost += uint64(records)
}
