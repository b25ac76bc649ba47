package docker

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// maxTold is how many events of a sandbox go in one batch.
const maxTold = 64

// teller hands over what happened to sandboxes. It waits for no line: an exit
// with its last words goes at once, though the reader is gigabytes behind. Only
// the end of a sandbox is the reader's to tell, after its last line.
type teller struct {
	sink    source.Sink
	engine  engine
	log     hclog.Logger
	metrics *metrics
	told    *told
	reader  *reader

	mu    sync.Mutex
	ready []*sandbox
	wake  chan struct{} // one slot
}

// push has s told about soon.
func (t *teller) push(s *sandbox) {
	t.mu.Lock()
	if !s.told {
		s.told = true
		t.ready = append(t.ready, s)
	}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *teller) pop() *sandbox {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ready) == 0 {
		return nil
	}
	s := t.ready[0]
	t.ready[0] = nil
	t.ready = t.ready[1:]
	s.told = false
	return s
}

// run tells until ctx ends or the sink refuses.
func (t *teller) run(ctx context.Context) error {
	for {
		if err := t.drain(ctx); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // what a closing sink answers to a source that ends is no failure
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		}
	}
}

// drain tells all that waits.
func (t *teller) drain(ctx context.Context) error {
	for s := t.pop(); s != nil; s = t.pop() {
		if err := t.tell(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// tell hands over what waits for one sandbox.
func (t *teller) tell(ctx context.Context, s *sandbox) error {
	target := s.whom()
	if target == nil {
		return nil // whoever identifies it pushes it again
	}
	for {
		ready, dropped := s.take(maxTold)
		if len(ready) == 0 {
			return nil
		}
		batch := source.Batch{Target: *target, Positions: source.Positions{}}
		if dropped > 0 {
			batch.Gaps = append(batch.Gaps, telemetry.Gap{
				Reason: telemetry.GapEvicted, Count: dropped,
				Detail: "Events of this sandbox, such as commands and health checks in it, were dropped because the node's buffer was full for long.",
			})
		}
		tickets := make([]ticket, 0, len(ready))
		for i := range ready {
			p := &ready[i]
			if p.ending != nil && p.event != nil {
				p.event.LastWords = t.lastWords(ctx, s, p.ending)
			}
			p.addTo(&batch, s)
			tickets = append(tickets, p.since)
		}
		t.told.note(&batch, tickets)
		err := t.emit(ctx, &batch)
		t.told.finish(tickets...)
		if s.taken() {
			t.reader.push(s) // its end waited for this
		}
		if err != nil {
			return err
		}
	}
}

// addTo puts what is to be told into a batch.
func (p *pending) addTo(batch *source.Batch, s *sandbox) {
	if p.event != nil {
		e := *p.event
		e.Origin = batch.Origin
		e.Stream, e.Source = telemetry.NoStream, telemetry.SourceProvider
		batch.Events = append(batch.Events, e)
	}
	if p.gap != nil {
		batch.Gaps = append(batch.Gaps, *p.gap)
	}
	batch.Metrics = append(batch.Metrics, p.metrics...)
	if p.run != nil {
		batch.Positions[runKey+s.id] = p.run
	}
}

func (t *teller) emit(ctx context.Context, batch *source.Batch) error {
	t.metrics.aboutGaps(batch)
	if err := t.sink.Emit(ctx, batch); err != nil {
		return fmt.Errorf("hand over what happened to sandbox %.12s: %w", batch.Origin.Sandbox, err)
	}
	t.metrics.count(batch)
	return nil
}
