package sourcetest

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// Stream names one channel of one sandbox.
type Stream struct {
	Sandbox telemetry.SandboxID
	Stream  telemetry.Stream
}

// Record is a batch as a Sink keeps it: copied, for the source uses its memory
// again.
type Record struct {
	source.Target
	Lines   []source.Line
	Entries []telemetry.LogEntry
	telemetry.Records
	Positions source.Positions
}

// ErrCrashed is what a Sink answers after Crash.
var ErrCrashed = errors.New("the sink has crashed")

// Sink takes batches as agentd's own does: accepted at once, durable later, in
// order. It can crash at any point, and then only what was durable is left.
type Sink struct {
	mu       sync.Mutex
	durable  []Record
	accepted []Record // after durable
	crashed  bool
	blocked  chan struct{} // not nil: Emit waits for it
	changed  chan struct{} // closed and replaced at each batch
}

// NewSink returns a sink that has the durable batches of an earlier one.
func NewSink(durable ...Record) *Sink {
	return &Sink{durable: durable, changed: make(chan struct{})}
}

// Emit copies the batch.
func (s *Sink) Emit(ctx context.Context, b *source.Batch) error {
	s.mu.Lock()
	blocked := s.blocked
	s.mu.Unlock()
	if blocked != nil {
		select {
		case <-blocked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.crashed {
		return ErrCrashed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.accepted = append(s.accepted, copyOf(b))
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

func copyOf(b *source.Batch) Record {
	r := Record{
		Target: b.Target, Lines: slices.Clone(b.Lines), Entries: slices.Clone(b.Entries), Positions: maps.Clone(b.Positions),
		Records: telemetry.Records{
			Events: slices.Clone(b.Events), Spans: slices.Clone(b.Spans), ModelCalls: slices.Clone(b.ModelCalls),
			Metrics: slices.Clone(b.Metrics), Gaps: slices.Clone(b.Gaps),
		},
	}
	for i := range r.Lines {
		r.Lines[i].Text = slices.Clone(r.Lines[i].Text)
	}
	for key, value := range r.Positions {
		r.Positions[key] = append(json.RawMessage(nil), value...)
	}
	return r
}

// Block makes Emit wait until the function that it returns is called.
func (s *Sink) Block() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{})
	s.blocked = c
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.blocked = nil
		close(c)
	}
}

// Crash refuses all that comes and returns the batches that were durable: those
// of before, and the first share (0 to 1) of those accepted since.
func (s *Sink) Crash(share float64) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashed = true
	keep := min(int(share*float64(len(s.accepted)+1)), len(s.accepted))
	return append(slices.Clone(s.durable), s.accepted[:keep]...)
}

// Records are all batches taken.
func (s *Sink) Records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(slices.Clone(s.durable), s.accepted...)
}

// Await waits until done says yes to all batches taken so far, and reports
// whether it did before ctx ended.
func (s *Sink) Await(ctx context.Context, done func([]Record) bool) bool {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if done(s.Records()) {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return done(s.Records())
		}
	}
}

// PositionsOf are the positions after records.
func PositionsOf(records []Record) source.Positions {
	p := source.Positions{}
	for i := range records {
		p.Apply(records[i].Positions)
	}
	return p
}

// LinesOf are the lines in records by stream, in order.
func LinesOf(records []Record) map[Stream][]source.Line {
	lines := map[Stream][]source.Line{}
	for i := range records {
		for _, l := range records[i].Lines {
			key := Stream{records[i].Origin.Sandbox, l.Stream}
			lines[key] = append(lines[key], l)
		}
	}
	return lines
}

// EventsOf are the events in records about a sandbox, in order.
func EventsOf(records []Record, sandbox telemetry.SandboxID) []telemetry.Event {
	var events []telemetry.Event
	for i := range records {
		for _, e := range records[i].Events {
			if e.Sandbox == sandbox {
				events = append(events, e)
			}
		}
	}
	return events
}

// GapsOf are the gaps in records.
func GapsOf(records []Record) []telemetry.Gap {
	var gaps []telemetry.Gap
	for i := range records {
		gaps = append(gaps, records[i].Gaps...)
	}
	return gaps
}
