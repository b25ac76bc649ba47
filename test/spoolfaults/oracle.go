package spoolfaults

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/theazo/observability/agentd/spool"
)

// Oracle is what outlives the program: its receiver, and who remembers what it
// was told. It is safe for concurrent use.
type Oracle struct {
	mu       sync.Mutex
	deaf     bool // the power goes or is gone: what is told is no evidence
	accepted int
	marks    map[mark]uint64
	seen     map[string]map[int]int // by organisation and append: how often taken
	given    map[string]uint64      // records in tombstones
	reasons  map[string]int
	wrong    []string
}

type mark struct {
	org   string
	epoch uint64
	lane  uint8
}

// NewOracle returns one that has heard of nothing.
func NewOracle() *Oracle {
	return &Oracle{
		marks: map[mark]uint64{}, given: map[string]uint64{}, reasons: map[string]int{},
		seen: map[string]map[int]int{orgLogs: {}, orgEvents: {}},
	}
}

// Accepted implements Teller.
func (o *Oracle) Accepted(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.deaf {
		o.accepted = max(o.accepted, n)
	}
}

// Offered implements Teller: the receiver takes what follows its mark, and knows
// a repeat by it.
func (o *Oracle) Offered(f Offer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.deaf { // a machine without power says nothing; its last reads may fail
		return
	}
	k := mark{org: f.Org, epoch: f.Epoch, lane: f.Lane}
	last, have := f.First+uint64(f.Count)-1, o.marks[k]
	switch {
	case last <= have:
		return
	case f.First > have+1:
		o.fault("%v: %d follows %d", k, f.First, have)
	case f.First <= have && f.Append != 0:
		o.fault("%v: a frame of %d to %d, the mark is %d", k, f.First, last, have)
	}
	o.marks[k] = last
	switch {
	case f.Append < 0:
		o.fault("%v: %d to %d holds bytes that nobody wrote", k, f.First, last)
	case f.Append == 0:
		o.given[f.Org] += last - have
		o.reasons[f.Reason]++
	default:
		o.seen[f.Org][f.Append]++
	}
}

func (o *Oracle) fault(format string, args ...any) {
	if len(o.wrong) < 20 {
		o.wrong = append(o.wrong, fmt.Sprintf(format, args...))
	}
}

// hush makes the oracle hear nothing until it listens again.
func (o *Oracle) hush(deaf bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deaf = deaf
}

// Verdict is what became of all that was accepted.
type Verdict struct {
	Accepted   int // appends, at least
	Lost       int // of them, neither taken nor in a tombstone
	Duplicated int // taken twice
	GaveWay    uint64
	Wrong      []string // whatever else is not as promised
}

// Good reports whether every promise was kept.
func (v Verdict) Good() bool { return v.Lost == 0 && v.Duplicated == 0 && len(v.Wrong) == 0 }

// Finish takes all that is left in the spool and judges.
func (o *Oracle) Finish(ctx context.Context, s *spool.Spool) (Verdict, error) {
	o.hush(false)
	s.Reset()
	if err := offer(ctx, s, math.MaxInt, o); err != nil {
		return Verdict{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	there := appended(s)
	if there < o.accepted {
		o.fault("the positions are those of append %d, %d was accepted", there, o.accepted)
	}
	v := Verdict{Accepted: o.accepted}
	for org, seen := range o.seen {
		missing, records := 0, uint64(0)
		for n := 1; n <= max(there, o.accepted); n++ {
			switch times := seen[n]; {
			case times == 0:
				missing, records = missing+1, records+uint64(countOf(org, n))
			case times > 1:
				v.Duplicated++
			}
		}
		for n := range seen {
			if n > there {
				o.fault("%s: append %d was taken, the positions are those of %d", org, n, there)
			}
		}
		if records != o.given[org] {
			o.fault("%s: %d records are missing, tombstones count %d", org, records, o.given[org])
			v.Lost += missing
		}
		v.GaveWay += o.given[org]
	}
	for reason, n := range o.reasons {
		if reason != spool.ReasonEvicted {
			o.fault("%d tombstones say %q", n, reason)
		}
	}
	if st := s.Stats(); st.Disk > st.Budget {
		o.fault("%d bytes on disk of %d", st.Disk, st.Budget)
	}
	v.Wrong = o.wrong
	return v, nil
}
