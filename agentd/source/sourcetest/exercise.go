// Package sourcetest holds a source to what source.Source promises: whatever
// the moment at which agentd dies, the durable part of what the sink took and
// what a new process reads from its positions are together every line exactly
// once, in order.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/theazo/observability/agentd/source"
)

// Patience is how long a source may take on a loaded machine.
const Patience = 2 * time.Minute

// Subject is a source under exercise.
type Subject struct {
	// New makes the source of a new process over the same data.
	New func(t *testing.T) source.Source
	// Write writes the data, while the source runs and is crashed. nil: the
	// data is there.
	Write func(ctx context.Context) error
	// Want says, after Write, what the lines of each stream are.
	Want func() map[Stream][]string
	// Crashes is how often the process dies. 0: 20 times.
	Crashes int
	// Seed chooses the moments. 0: other ones each time.
	Seed uint64
}

// Exercise runs the subject, with crashes, until all lines have come.
func Exercise(t *testing.T, s Subject) {
	t.Helper()
	if s.Crashes == 0 {
		s.Crashes = 20
	}
	if s.Seed == 0 {
		s.Seed = rand.Uint64() //nolint:gosec // moments to crash at are no secret
	}
	t.Logf("seed %d", s.Seed)
	moments := rand.New(rand.NewPCG(s.Seed, 1)) //nolint:gosec // seeded, so that a failure can be repeated
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	written := make(chan error, 1)
	go func() {
		var err error
		if s.Write != nil {
			err = s.Write(ctx)
		}
		written <- err
	}()
	var durable []Record
	for range s.Crashes {
		durable = life(ctx, t, s, durable, moments)
	}
	if err := <-written; err != nil {
		t.Fatalf("write: %v", err)
	}
	check(t, s.Want(), toTheEnd(ctx, t, s, durable))
}

// life is one process, from its start to its crash.
func life(ctx context.Context, t *testing.T, s Subject, durable []Record, moments *rand.Rand) []Record {
	t.Helper()
	sink := NewSink(durable...)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := run(ctx, s.New(t), PositionsOf(durable), sink)
	// Dies after so many batches, or so much time, whichever comes first.
	batches := moments.IntN(1 + moments.IntN(40))
	patience, stop := context.WithTimeout(ctx, time.Duration(moments.IntN(200))*time.Millisecond)
	defer stop()
	sink.Await(patience, func(records []Record) bool { return len(records)-len(durable) >= batches })
	left := sink.Crash(moments.Float64())
	cancel()
	if err := <-done; err != nil && !errors.Is(err, ErrCrashed) && !errors.Is(err, context.Canceled) {
		t.Fatalf("the source failed: %v", err)
	}
	return left
}

// toTheEnd is the last process: it is stopped, not crashed, when all is there.
func toTheEnd(ctx context.Context, t *testing.T, s Subject, durable []Record) []Record {
	t.Helper()
	sink := NewSink(durable...)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := run(ctx, s.New(t), PositionsOf(durable), sink)
	missing := 0
	for _, lines := range s.Want() {
		missing += len(lines)
	}
	sink.Await(ctx, func(records []Record) bool {
		n := 0
		for i := range records {
			n += len(records[i].Lines)
		}
		return n >= missing
	})
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("the source failed: %v", err)
	}
	return sink.Records()
}

func run(ctx context.Context, src source.Source, from source.Positions, sink *Sink) <-chan error {
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, from, sink) }()
	return done
}

// check compares what came with what was written.
func check(t *testing.T, want map[Stream][]string, records []Record) {
	t.Helper()
	got := LinesOf(records)
	for stream, lines := range want {
		var texts []string
		for _, l := range got[stream] {
			texts = append(texts, string(l.Text))
		}
		if slices.Equal(texts, lines) {
			continue
		}
		t.Errorf("%.12s %s: %d lines came, %d were written; %s", stream.Sandbox, stream.Stream, len(texts), len(lines), difference(texts, lines))
	}
	for stream := range got {
		if _, ok := want[stream]; !ok {
			t.Errorf("%.12s %s: %d lines of a stream that nobody wrote", stream.Sandbox, stream.Stream, len(got[stream]))
		}
	}
	for _, g := range GapsOf(records) {
		t.Errorf("a gap was told though nothing is missing: %+v", g)
	}
}

func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("line %d is missing: %.60q", i, want[i])
		case i >= len(want):
			return fmt.Sprintf("line %d is too many: %.60q", i, got[i])
		case got[i] != want[i]:
			return fmt.Sprintf("line %d is %.60q, want %.60q", i, got[i], want[i])
		}
	}
	return "no difference"
}
