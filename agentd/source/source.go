// Package source says what a source of records is: Docker today, Fly, E2B and
// the node's local endpoint beside it. A source reads, and hands what it read
// to a Sink together with the position after it; the sink makes both durable
// in one step, and the source goes on from the last durable position when it
// starts again. Nothing else remembers positions.
//
//	            Emit(batch, positions)              one checksummed unit
//	Source ─────────────────────────────▶ Sink ─────────────────────────▶ spool
//	   ▲                                                                    │
//	   └──────────────── Positions at the next start ◀──────────────────────┘
package source

import (
	"context"
	"encoding/json"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// Source reads records until its context ends. Run returns nil when the
// context has ended and every record read before was emitted, or an error
// that makes the source useless; Supervise starts it again after a pause.
type Source interface {
	// Name is stable and short ("docker"): it prefixes the source's positions.
	Name() string
	// Run reads. resume holds this source's positions as they were durable
	// when agentd started, by key.
	Run(ctx context.Context, resume Positions, to Sink) error
}

// Positions are a source's own opaque notes, by key: one for each file, cursor
// or sandbox that it reads. A null value forgets the key.
type Positions map[string]json.RawMessage

// Line is one line as a source read it, before intake has looked at it.
type Line struct {
	Timestamp time.Time // the source's own, nanoseconds
	Text      []byte    // without the final newline; any bytes; the sink copies what it keeps
	Truncated bool      // the source cut the line at telemetry.MaxMessage
	// Original is how many bytes a truncated line had; of one that goes on for
	// very long, how many had come when the source stopped counting.
	Original int64
	// Partial says that the line had no final newline when its stream ended.
	Partial bool
	Stream  telemetry.Stream
	// KeepRaw asks for the exact bytes to be kept where the message is not the
	// same as them: in the metadata, as "raw", in base64. Text then holds all of
	// the line but its final newline, a carriage return included.
	KeepRaw bool
	// Metadata is a JSON object that goes with what the line itself says, or nil.
	Metadata json.RawMessage
}

// Target says whom records are for and about. A platform node's source takes
// Org from the label that the orchestrator set; empty means the node's own.
type Target struct {
	Org    telemetry.OrgID
	Env    telemetry.Environment
	Origin telemetry.Origin // Stream is given by each line
}

// Batch is what a source read in one go of one sandbox.
type Batch struct {
	Target
	Lines []Line
	// Entries are log entries that came with their structure, after Lines. The
	// sink cleans and redacts their texts and does not look for more in them.
	Entries []telemetry.LogEntry
	// Records of the events lane. Where the agent of one is empty, its Origin is
	// that of Target.
	telemetry.Records
	// Once says that what is in it cannot be read again: less of that is held
	// before it is durable.
	Once bool
	// Positions after this batch, made durable with it. A batch may hold
	// positions alone.
	Positions Positions
}

// Sink takes what sources read. It is safe for concurrent use.
type Sink interface {
	// Emit hands the batch over: the sink has copied all it keeps when Emit
	// returns. It blocks while the node's buffer is full or behind, which is
	// how a source learns to stop reading; it returns an error only when ctx
	// ends or the sink has closed. When it returns, the batch is accepted for
	// intake but not yet durable: positions advance with it on disk.
	Emit(ctx context.Context, b *Batch) error
}

// RoundSink is a Sink that can be told when a source that reads in rounds has
// handed over all of one, and then does not wait for more.
type RoundSink interface {
	Sink
	InRounds() (rounds Sink, over func())
}

// InRounds returns the sink for batches of rounds. Whoever emits to it calls over
// soon after, when there is nothing more to emit for now.
func InRounds(to Sink) (rounds Sink, over func()) {
	if r, ok := to.(RoundSink); ok {
		return r.InRounds()
	}
	return to, func() {}
}
