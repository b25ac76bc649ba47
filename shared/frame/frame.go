// Package frame holds the unit that the whole path moves: records of exactly
// one organisation and environment, one lane and one class, encoded once. The
// spool appends a frame, the wire carries it, the aggregator acknowledges it
// and the store commits it; nobody in between looks inside.
//
// Sequences are gapless per (epoch, organisation, lane), so a frame says what
// it covers by First and Count alone. A tombstone stands where frames were
// lost or given up on the node: the same range, one gap record as its body.
//
// Bodies: lane logs holds one segment (shared/segment), lane events and every
// tombstone hold records (wire.EncodeRecords).
package frame

import (
	"fmt"
	"math"
	"time"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Limits of one frame. Intake cuts earlier (640 KiB of text); these are what
// a receiver accepts.
const (
	MaxBody  = 3 << 20 // bytes, encoded: below gRPC's 4 MiB message
	MaxCount = segment.MaxLines
)

// Header says what a frame covers. Org is empty on frames of a node whose
// certificate names its organisation.
type Header struct {
	Org       telemetry.OrgID
	Env       telemetry.Environment
	Lane      telemetry.Lane
	Class     telemetry.Class
	Tombstone bool
	Epoch     uint64 // random, new at every open of a spool
	First     uint64 // sequence of the first record, counted from 1
	Count     uint32 // records; a tombstone: records that are missing
}

// Last is the sequence of the last record.
func (h *Header) Last() uint64 { return h.First + uint64(h.Count) - 1 }

// Scope is the organisation and environment.
func (h *Header) Scope() telemetry.Scope { return telemetry.Scope{Org: h.Org, Env: h.Env} }

func (h *Header) String() string {
	return fmt.Sprintf("%s %s epoch %016x seq %d-%d", h.Scope(), h.Lane, h.Epoch, h.First, h.Last())
}

// Frame is a header and the encoded records.
type Frame struct {
	Header
	Body []byte
}

// Received is a frame that ingest has authenticated (Org and Node are the
// certificate's word), checked and decoded: what the store commits.
type Received struct {
	Frame
	Node       telemetry.NodeID
	ReceivedAt time.Time

	Segment           *segment.Segment // lane logs, no tombstone: parsed and validated
	Times             []Times          // by origin of Segment, whose columns were all decoded; nil: the store decodes them itself
	telemetry.Records                  // lane events; a tombstone: one gap

	Unknown int // records of kinds that this release does not know

	// Quarantine says why the body could not be taken: the store keeps the
	// bytes apart, advances the mark and records a gap. Empty: it is good.
	Quarantine string
}

// Times are the first and last of some timestamps, in microseconds since 1970.
type Times struct{ First, Last int64 }

// NoTimes is Times of nothing.
var NoTimes = Times{First: math.MaxInt64, Last: math.MinInt64}

// None reports whether there are none.
func (t Times) None() bool { return t.First > t.Last }

// With covers both.
func (t Times) With(o Times) Times {
	return Times{First: min(t.First, o.First), Last: max(t.Last, o.Last)}
}

// OriginTimes returns the times of each origin's lines. The columns Time and
// Origin must be decoded.
func OriginTimes(l *segment.Lines) []Times {
	times := make([]Times, len(l.Origins))
	for i := range times {
		times[i] = NoTimes
	}
	for i := range l.Segment.Lines {
		t, at := &times[l.OriginIndex(i)], l.Micros(i)
		t.First, t.Last = min(t.First, at), max(t.Last, at)
	}
	return times
}

// Verdict is what became of a received frame.
type Verdict uint8

// The verdicts.
const (
	Committed  Verdict = iota // its transaction has returned from COMMIT
	Duplicate                 // committed earlier: acknowledge again
	OutOfOrder                // frames before it are missing: the node must go back to Outcome.Next
)

// Outcome is the store's answer for one frame.
type Outcome struct {
	Verdict Verdict
	Next    uint64 // OutOfOrder: the sequence that the store waits for
}
