package intake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/retry"
)

// lastFlush is how long Run goes on trying to make the rest durable after its
// context has ended. Sources read again what did not become durable.
const lastFlush = 5 * time.Second

// Run cuts and appends until ctx ends; then it flushes what was emitted, lets
// later Emits fail, and returns. The error says that the rest could not be made
// durable. Stop the sources first.
func (in *Intake) Run(ctx context.Context) error {
	var last time.Time // the last cut
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-in.arrived:
		case <-timer.C:
		}
		wait, some := in.due(last)
		switch {
		case !some:
		case wait > 0:
			timer.Reset(wait)
		default:
			last = time.Now()
			if err := in.flush(ctx); err != nil && ctx.Err() == nil {
				in.close()
				return err
			}
		}
	}
	return in.stop(ctx)
}

// due says whether there is something to cut, and how long that should wait
// for more: not at all where the last cut is MaxDelay ago, which is how a
// lone line leaves at once.
func (in *Intake) due(last time.Time) (wait time.Duration, some bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.flushing != nil || in.collecting.full:
		return 0, true
	case len(in.collecting.order) > 0:
		return time.Until(last.Add(in.cfg.MaxDelay)), true
	case len(in.collecting.positions) > 0:
		return time.Until(last.Add(positionsDelay)), true
	}
	return 0, false
}

// flush takes what was collected and appends it, however long that takes; only
// ctx ends it before. What is not appended stays in flushing.
func (in *Intake) flush(ctx context.Context) error {
	in.mu.Lock()
	if in.flushing == nil {
		in.flushing = in.collecting
		if in.collecting = in.spare; in.collecting == nil {
			in.collecting = newBatch()
		}
		in.spare = nil
	}
	b := in.flushing
	in.mu.Unlock()
	if !b.empty() {
		in.encode(b)
		if err := in.append(ctx, b.frames, b.positions); err != nil {
			return err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for k, v := range b.positions {
		if v == nil && in.latest[k] == nil {
			delete(in.latest, k)
		}
	}
	b.reset()
	in.flushing, in.spare = nil, b
	in.broadcast()
	return nil
}

func (in *Intake) append(ctx context.Context, frames []frame.Frame, positions map[string][]byte) error {
	backoff := retry.Backoff{Min: 50 * time.Millisecond, Max: 5 * time.Second}
	for {
		if err := in.queue.Room(ctx); err != nil {
			return fmt.Errorf("intake: %w", err)
		}
		started := time.Now()
		err := in.queue.Append(frames, positions)
		if err == nil {
			in.metrics.appended(frames, time.Since(started))
			if backoff.Attempts() > 0 {
				in.log.Info("the node's buffer takes records again")
			}
			return nil
		}
		in.metrics.appendErrors.Inc()
		if backoff.Attempts() == 0 {
			in.log.Error("records cannot be written to the node's buffer; reading pauses until they can", "error", err)
		}
		if pause := retry.Sleep(ctx, backoff.Next()); pause != nil {
			return fmt.Errorf("intake: records could not be made durable: %w", errors.Join(err, pause))
		}
	}
}

// close lets waiting and later Emits fail.
func (in *Intake) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.broadcast()
}

// stop appends the rest and closes the door.
func (in *Intake) stop(ctx context.Context) error {
	in.close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlush)
	defer cancel()
	for range 2 { // what an earlier flush left, then what was collected since
		if err := in.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}
