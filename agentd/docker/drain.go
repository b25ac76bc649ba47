package docker

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/shared/retry"
)

// maxQueued is how many events wait for control. More than these come only
// while control cannot keep up; then the engine's list tells what was missed.
const maxQueued = 8192

// overlap is how much of the events before the last one is asked for again
// after a reconnect: the engine may have put them in order late.
const overlap = time.Second

// drain reads the engine's events and does nothing else: the engine waits for
// its slowest listener, 100 ms at each event. It never waits for anybody.
type drain struct {
	engine  engine
	log     hclog.Logger
	metrics *metrics

	mu     sync.Mutex
	queue  []engineEvent
	resync bool
	blind  bool          // events were or may have been missed
	wake   chan struct{} // one slot
}

// take returns what has come, whether to compare with the engine's list, and
// whether something was missed or may have been, so that no container's state can
// be taken for granted.
func (d *drain) take() (queue []engineEvent, resync, blind bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	queue, resync, blind = d.queue, d.resync, d.blind
	d.queue, d.resync, d.blind = nil, false, false
	return queue, resync, blind
}

func (d *drain) put(e *engineEvent) {
	d.mu.Lock()
	if len(d.queue) < maxQueued {
		d.queue = append(d.queue, *e)
	} else {
		d.resync, d.blind = true, true
		d.metrics.missed.Inc()
	}
	d.mu.Unlock()
	d.nudge()
}

// compare asks for a comparison with the engine's list.
func (d *drain) compare(blind bool) {
	d.mu.Lock()
	d.resync, d.blind = true, d.blind || blind
	d.mu.Unlock()
	d.nudge()
}

func (d *drain) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run follows the events from since on, over any number of connections.
func (d *drain) run(ctx context.Context, since time.Time) {
	pause := retry.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second}
	lost := false
	for ctx.Err() == nil {
		connected := time.Now()
		last, err := d.connection(ctx, since, func() {
			if lost {
				d.log.Info("the Docker engine answers again")
			}
			lost = false
		})
		d.metrics.connected.Set(0)
		if last.After(since) {
			since = last
		}
		if ctx.Err() != nil {
			break
		}
		if !lost {
			lost = true
			d.log.Warn("lost the Docker engine; logs on disk are still read, and it is tried again until it answers", "error", err)
		}
		if time.Since(connected) > time.Minute {
			pause.Reset()
		}
		_ = retry.Sleep(ctx, pause.Next()) // ends early with ctx, and so does the loop
	}
}

// connection follows the events of one connection and returns the time of the
// last one.
func (d *drain) connection(ctx context.Context, since time.Time, connected func()) (last time.Time, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pinging, done := context.WithTimeout(ctx, pingTimeout)
	err = d.engine.Ping(pinging)
	if done(); err != nil {
		return last, err
	}
	if !since.IsZero() {
		since = since.Add(-overlap)
	}
	events, errs := d.engine.Events(ctx, since)
	// An engine that refuses says so in errs at once; one that listens may stay
	// silent for hours.
	select {
	case err := <-errs:
		return last, err
	default:
	}
	connected()
	d.metrics.connected.Set(1)
	d.compare(true)
	for e := range events {
		if e.At.After(last) {
			last = e.At
		}
		d.put(&e)
	}
	if err = <-errs; errors.Is(err, io.EOF) {
		err = errors.New("the engine closed the stream of events")
	}
	return last, err
}

// pingTimeout bounds one look whether the engine answers.
const pingTimeout = 10 * time.Second
