package intake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/theazo/observability/shared/retry"
)

// lastFlush is how long Run goes on trying to make the rest durable after its
// context has ended. Sources read again what did not become durable.
const lastFlush = 5 * time.Second

// Run cuts and appends until ctx ends; then it flushes what was emitted, lets
// later Emits fail, and returns. The error says that the rest could not be made
// durable. Stop the sources first.
func (in *Intake) Run(ctx context.Context) error {
	defer in.timer.Stop()
	for ctx.Err() == nil {
		timed := false
		select {
		case <-ctx.Done():
		case <-in.arrived:
		case <-in.timer.C:
			timed = true
		}
		if err := in.round(ctx, timed); err != nil && ctx.Err() == nil {
			in.close()
			return err
		}
	}
	return in.stop(ctx)
}

// round flushes what is due, and plans when to look again.
func (in *Intake) round(ctx context.Context, timed bool) error {
	in.mu.Lock()
	if timed {
		in.looksAt = time.Time{}
	}
	in.working = true
	in.cut(false)
	in.mu.Unlock()
	if err := in.flush(ctx, &in.events, in.append); err != nil {
		return err
	}
	if err := in.flush(ctx, &in.logs, in.appendLines); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.working = false
	in.plan(0)
	return nil
}

// soonest is after how long something is due, if anything is. Called under mu.
func (in *Intake) soonest() (wait time.Duration, some bool) {
	sooner := func(w time.Duration, is bool) {
		if is && (!some || w < wait) {
			wait, some = w, true
		}
	}
	sooner(in.events.due(in.cfg.MaxDelay))
	sooner(in.logs.due(in.delay()))
	for _, due := range []func() (time.Time, bool){in.holds.due, in.fair.sampledDue} {
		at, is := due()
		sooner(time.Until(at), is)
	}
	return wait, some
}

// cut takes what is due, or all, out of the lanes. Records go before lines that
// are cut later: of a position in both, the lines have the newer one.
func (in *Intake) cut(all bool) {
	in.releaseDue(all)
	in.tellDue(all)
	logs := all || in.logs.isDue(in.delay())
	if logs || in.events.isDue(in.cfg.MaxDelay) {
		in.events.cut()
	}
	if logs {
		in.logs.cut()
		in.cuts++
	}
}

// gather is how long lines that come after a pause wait for those that were
// written at the same time: a source hands over its streams one by one, and
// every cut costs a flush of the disk. Where the source says that a round is over
// they do not wait.
const gather = 4 * time.Millisecond

// due says whether there is something to cut, and how long that should wait
// for more: hardly at all where the last cut is so long ago, which is how a
// lone line leaves at once. At the end of a round it is made a little sooner: the
// next round would come too late for it, and to wake up in between costs more.
func (l *lane) due(delay time.Duration) (wait time.Duration, some bool) {
	switch {
	case l.flushing != nil || l.collecting.full:
		return 0, true
	case len(l.collecting.order) > 0:
		if l.collecting.gathered {
			return time.Until(l.last.Add(delay * 3 / 4)), true
		}
		return max(time.Until(l.last.Add(delay)), time.Until(l.collecting.began.Add(gather))), true
	case len(l.collecting.positions) > 0:
		return time.Until(l.last.Add(positionsDelay)), true
	}
	return 0, false
}

func (l *lane) isDue(delay time.Duration) bool {
	wait, some := l.due(delay)
	return some && wait <= 0
}

// flush appends what was cut of a lane; only ctx ends that before. What is not
// appended stays.
func (in *Intake) flush(ctx context.Context, l *lane, appendTo func(context.Context, *batch) error) error {
	b := l.flushing
	if b == nil {
		return nil
	}
	in.encode(b)
	if err := appendTo(ctx, b); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for k, v := range b.positions {
		if v == nil && in.latest[k] == nil {
			delete(in.latest, k)
		}
	}
	l.done()
	in.broadcast()
	return nil
}

// appendLines appends a batch of lines, however long that takes. Records that
// arrive meanwhile overtake them: a full buffer keeps some room for those.
func (in *Intake) appendLines(ctx context.Context, b *batch) error {
	for {
		err := in.overtaken(ctx, func(ctx context.Context) error {
			if err := in.queue.Room(ctx); err != nil {
				return fmt.Errorf("intake: %w", err)
			}
			return in.append(ctx, b)
		})
		if !errors.Is(err, errOvertaken) {
			return err
		}
		if err := in.flushEvents(ctx); err != nil {
			return err
		}
	}
}

// flushEvents waits until the records are due, and appends them.
func (in *Intake) flushEvents(ctx context.Context) error {
	in.mu.Lock()
	wait, _ := in.events.due(in.cfg.MaxDelay)
	in.mu.Unlock()
	if err := retry.Sleep(ctx, max(wait, 0)); err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	in.mu.Lock()
	in.events.cut()
	in.mu.Unlock()
	return in.flush(ctx, &in.events, in.append)
}

var errOvertaken = errors.New("records of the events lane are due")

// overtaken runs wait with a context that ends with errOvertaken as its cause
// when records arrive that should not wait.
func (in *Intake) overtaken(ctx context.Context, wait func(context.Context) error) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in.mu.Lock()
	in.overtake = cancel
	if len(in.events.collecting.order) > 0 {
		cancel(errOvertaken)
	}
	in.mu.Unlock()
	err := wait(inner)
	in.mu.Lock()
	in.overtake = nil
	in.mu.Unlock()
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(inner), errOvertaken) {
		return errOvertaken
	}
	return err
}

// append makes a batch durable; where that fails it tries again until ctx ends.
func (in *Intake) append(ctx context.Context, b *batch) error {
	for {
		started := time.Now()
		err := in.queue.Append(b.frames, b.positions)
		if err == nil {
			in.metrics.appended(b.frames, time.Since(started))
			if in.failing.Attempts() > 0 {
				in.failing.Reset()
				in.log.Info("the node's buffer takes records again")
			}
			return nil
		}
		in.metrics.appendErrors.Inc()
		if in.failing.Attempts() == 0 {
			in.log.Error("records cannot be written to the node's buffer; reading pauses until they can", "error", err)
		}
		if pause := retry.Sleep(ctx, in.failing.Next()); pause != nil {
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
	for range 2 { // what an earlier cut left, then what was collected since
		in.mu.Lock()
		in.cut(true)
		in.mu.Unlock()
		if err := in.flush(ctx, &in.events, in.append); err != nil {
			return err
		}
		if err := in.flush(ctx, &in.logs, in.appendLines); err != nil {
			return err
		}
	}
	return nil
}
