package source

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/shared/retry"
)

// Pauses between two runs of a failing source, and how long a run must last
// for the next failure to count as the first again.
const (
	shortestPause = time.Second
	longestPause  = time.Minute
	healthyAfter  = 5 * time.Minute
)

// Supervise runs src until ctx ends and starts it again whenever it fails,
// after a pause that grows. It returns when the last run has returned.
//
// resume is called before each run: it returns the durable positions, and over
// them those of all that the sink has accepted, so that a restart repeats
// nothing.
func Supervise(ctx context.Context, src Source, resume func() Positions, to Sink, log hclog.Logger) {
	log = log.With("source", src.Name())
	pause := retry.Backoff{Min: shortestPause, Max: longestPause}
	for ctx.Err() == nil {
		started := time.Now()
		err := runOnce(ctx, src, resume(), to)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, ctx.Err()) {
				log.Warn("source stopped uncleanly", "error", err)
			}
			return
		}
		if time.Since(started) > healthyAfter {
			pause.Reset()
		}
		d := pause.Next()
		if err == nil {
			err = errors.New("returned although nobody asked it to stop")
		}
		log.Error("source failed; it starts again after a pause", "error", err, "pause", d)
		if retry.Sleep(ctx, d) != nil {
			return
		}
	}
}

// runOnce is one run. A panic in one source must not end the others, which
// share its process: it becomes an error with its stack.
func runOnce(ctx context.Context, src Source, resume Positions, to Sink) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return src.Run(ctx, resume, to)
}

// Apply puts newer positions over p: a null value forgets its key.
func (p Positions) Apply(newer Positions) {
	for key, value := range newer {
		if len(value) == 0 || string(value) == "null" {
			delete(p, key)
			continue
		}
		p[key] = value
	}
}
