package frame

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Published is a run of records with their places in the organisation's
// stream: what the store publishes after a commit, and what it reads back.
// Lines hold the positions from Position on, then come the gaps, each with
// its own Position. Once its lines are decoded it is safe for concurrent reading.
type Published struct {
	Scope      telemetry.Scope
	Position   int64 // of the first line, or of the first gap where there is no line
	Node       telemetry.NodeID
	FirstSeq   uint64
	ObservedAt time.Time
	Lines      *segment.Lines // to be decoded by who shows them; nil: none
	Gaps       []telemetry.Gap
	// Absent says that so many positions from Position on hold nothing any more
	// that may be shown, and that nobody missed anything: there are neither lines
	// nor gaps.
	Absent int64

	source uint64 // ids.SourceHash
	agents *agentHashes
}

// agentHashes are ids.AgentHash of each origin, made when they are asked for:
// most lines are committed and never shown, and most pages show a few.
type agentHashes struct {
	once sync.Once
	of   []atomic.Uint32 // 0: not made yet; otherwise 1 more
}

func (h *agentHashes) hash(origins []telemetry.Origin, i uint32) uint16 {
	h.once.Do(func() { h.of = make([]atomic.Uint32, len(origins)) })
	if v := h.of[i].Load(); v != 0 {
		return uint16(v - 1) //nolint:gosec // stored from one
	}
	v := ids.AgentHash(origins[i].Agent)
	h.of[i].Store(uint32(v) + 1)
	return v
}

// NewPublished describes the lines of one part of a row. They must be decoded
// before an Entry is asked for.
func NewPublished(scope telemetry.Scope, position int64, observed time.Time, p *segment.Part, lines *segment.Lines) *Published {
	return &Published{
		Scope: scope, Position: position, Node: p.Node, FirstSeq: p.FirstSeq, ObservedAt: observed, Lines: lines,
		source: ids.SourceHash(p.Node, p.Epoch), agents: &agentHashes{},
	}
}

// Count is the number of lines.
func (c *Published) Count() int {
	if c.Lines == nil {
		return 0
	}
	return c.Lines.Segment.Lines
}

// Next is the position after the last record.
func (c *Published) Next() int64 { return c.Position + c.Absent + int64(c.Count()+len(c.Gaps)) }

// Entry fills e with line i and with what makes it unique: id, node,
// sequence, position.
func (c *Published) Entry(i int, e *telemetry.LogEntry) {
	c.Lines.Entry(i, e)
	e.Node, e.Seq, e.ObservedAt, e.Position = c.Node, c.FirstSeq+uint64(i), c.ObservedAt, c.Position+int64(i) //nolint:gosec // i counts lines
	e.ID = ids.Log(ids.LogKey{Micros: c.Lines.Micros(i), Agent: c.agents.hash(c.Lines.Origins, c.Lines.OriginIndex(i)), Source: c.source, Seq: e.Seq})
}
