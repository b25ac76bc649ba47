package frame

import (
	"time"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Published is a run of records with their places in the organisation's
// stream: what the store publishes after a commit, and what it reads back.
// Lines hold the positions from Position on, then come the gaps, each with
// its own Position. It is safe for concurrent reading.
type Published struct {
	Scope      telemetry.Scope
	Position   int64 // of the first line, or of the first gap where there is no line
	Node       telemetry.NodeID
	FirstSeq   uint64
	ObservedAt time.Time
	Lines      *segment.Lines // every column decoded; nil: none
	Gaps       []telemetry.Gap
	// Absent says that so many positions from Position on hold nothing any more
	// that may be shown, and that nobody missed anything: there are neither lines
	// nor gaps.
	Absent int64

	source uint64   // ids.SourceHash
	agents []uint16 // ids.AgentHash, by origin
}

// NewPublished describes the lines of one part of a row. They must be decoded
// before an Entry is asked for.
func NewPublished(scope telemetry.Scope, position int64, observed time.Time, p *segment.Part, lines *segment.Lines) *Published {
	c := &Published{
		Scope: scope, Position: position, Node: p.Node, FirstSeq: p.FirstSeq, ObservedAt: observed, Lines: lines,
		source: ids.SourceHash(p.Node, p.Epoch), agents: make([]uint16, len(p.Origins)),
	}
	for i := range p.Origins {
		c.agents[i] = ids.AgentHash(p.Origins[i].Agent)
	}
	return c
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
	e.ID = ids.Log(ids.LogKey{Micros: c.Lines.Micros(i), Agent: c.agents[c.Lines.OriginIndex(i)], Source: c.source, Seq: e.Seq})
}
