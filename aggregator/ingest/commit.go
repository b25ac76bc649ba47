package ingest

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/telemetry"
)

// Bounds of one transaction: what the database takes in one message, what a
// worker may be busy with, and what its lines take decoded, whatever a few
// bytes of them inflate to.
const (
	maxBatchBytes   = 8 << 20
	maxBatchFrames  = 1024
	maxBatchDecoded = 64 << 20
)

// After a transaction of a flood the next one waits longer, unless it is full
// before: what a transaction costs for itself, and for the agents and sessions
// that write again and again, is then paid for more lines. A flood is of large
// frames: thousands of organisations with a line each have nothing to win by it.
const (
	floodBytes = 256 << 10
	floodFrame = 16 << 10
	floodPause = 200 * time.Millisecond
)

// attemptsBeforeSplit is how often a batch is tried that fails with an error
// which names neither the data nor an absent database: then its parts are tried
// alone, so that no organisation waits for the fault of another.
const attemptsBeforeSplit = 3

// item is a frame on its way to the store.
type item struct {
	received *frame.Received
	size     int64 // as reserved
	// settle takes the outcome. refused: it cannot be stored now; the node has
	// to send it again.
	settle func(outcome frame.Outcome, refused string)
}

// encoded is about what the database gets of it: of lines their bytes as they
// came, of records rows.
func (i *item) encoded() int64 {
	if i.received.Segment != nil {
		return int64(len(i.received.Body)) + frameOverhead
	}
	return i.size
}

// decoded is what the frame's lines take when they are committed.
func (i *item) decoded() int {
	if s := i.received.Segment; s != nil {
		return s.DecodedBytes()
	}
	return 0
}

// pipeline holds frames between their check and their commit, within bounds.
//
//	stream ─ reserve ─ check ─ enqueue ─► worker 0 ─┐
//	stream ─ reserve ─ check ─ enqueue ─► worker 1 ─┴► Committer ─► publish, settle
//
// An organisation always goes to the same worker, so that its frames are
// committed in the order in which they came.
type pipeline struct {
	config  *Config
	log     hclog.Logger
	metrics *metrics
	seed    maphash.Seed
	workers []*worker

	mu    sync.Mutex
	byOrg map[telemetry.OrgID]int64
	total int64
}

func newPipeline(c *Config, m *metrics) *pipeline {
	p := &pipeline{config: c, log: c.Log.Named("commit"), metrics: m, seed: maphash.MakeSeed(), byOrg: map[telemetry.OrgID]int64{}}
	for range c.Workers {
		p.workers = append(p.workers, &worker{pipeline: p, wake: make(chan struct{}, 1)})
	}
	return p
}

// reserve takes memory for a frame, or says why there is none.
func (p *pipeline) reserve(org telemetry.OrgID, size int64) (refused string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.byOrg[org]+size > p.config.OrgMemory:
		return "too much of this organisation waits to be stored"
	case p.total+size > p.config.Memory:
		return "too much waits to be stored"
	}
	p.byOrg[org] += size
	p.total += size
	p.metrics.queued.Set(float64(p.total))
	return ""
}

func (p *pipeline) release(org telemetry.OrgID, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byOrg[org] -= size; p.byOrg[org] <= 0 {
		delete(p.byOrg, org)
	}
	p.total -= size
	p.metrics.queued.Set(float64(p.total))
}

// forget gives back what a frame held.
func (p *pipeline) forget(i *item) { p.release(i.received.Org, i.size) }

// enqueue hands a frame, whose memory is reserved, to its worker.
func (p *pipeline) enqueue(i *item) {
	n := maphash.String(p.seed, string(i.received.Org)) % uint64(len(p.workers))
	p.workers[n].add(i)
}

// run commits until ctx ends. What is queued then is dropped: its nodes have
// not been told otherwise and will send it again.
func (p *pipeline) run(ctx context.Context) {
	var group sync.WaitGroup
	for _, w := range p.workers {
		group.Go(func() { w.run(ctx) })
	}
	group.Wait()
}

// worker commits the frames of its organisations, one transaction at a time.
type worker struct {
	*pipeline
	wake chan struct{}

	mu    sync.Mutex
	queue []*item
	bytes int64
}

func (w *worker) add(i *item) {
	w.mu.Lock()
	w.queue = append(w.queue, i)
	w.bytes += i.encoded()
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// waiting reports whether frames wait, and whether they fill a transaction.
func (w *worker) waiting() (some, full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) > 0, w.bytes >= maxBatchBytes || len(w.queue) >= maxBatchFrames
}

// take removes the next transaction's frames from the queue, and says how many
// bytes they are.
func (w *worker) take() (batch []*item, bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, decoded := 0, 0
	for n < len(w.queue) && n < maxBatchFrames {
		i := w.queue[n]
		if bytes, decoded = bytes+i.encoded(), decoded+i.decoded(); n > 0 && (bytes > maxBatchBytes || decoded > maxBatchDecoded) {
			bytes -= i.encoded()
			break
		}
		n++
	}
	batch = w.queue[:n:n]
	w.queue = w.queue[n:]
	if len(w.queue) == 0 {
		w.queue = nil
	}
	w.bytes -= bytes
	return batch, bytes
}

func (w *worker) run(ctx context.Context) {
	var due time.Time
	for w.await(ctx, due) {
		batch, bytes := w.take()
		due = time.Now().Add(w.pause(bytes, len(batch)))
		w.commit(ctx, batch)
	}
}

// pause is how long after the start of a transaction the next one may start.
func (w *worker) pause(bytes int64, frames int) time.Duration {
	if bytes < max(floodBytes, int64(frames)*floodFrame) {
		return w.config.CommitEvery
	}
	return max(w.config.CommitEvery, floodPause)
}

// await waits until there are frames, and then until due or until they fill a
// transaction: a frame after a pause is committed at once, a flood in large
// transactions. It returns false when ctx has ended.
func (w *worker) await(ctx context.Context, due time.Time) bool {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	isDue := false
	for ctx.Err() == nil {
		if some, full := w.waiting(); full || some && isDue {
			return true
		}
		select {
		case <-w.wake:
		case <-timer.C:
			isDue = true
		case <-ctx.Done():
		}
	}
	return false
}

// commit stores a batch, however long that takes, and settles its frames. It
// returns early when ctx has ended.
func (w *worker) commit(ctx context.Context, batch []*item) {
	backoff := retry.Backoff{Min: 50 * time.Millisecond, Max: 2 * time.Second}
	logged := ""
	for {
		outcomes, published, err := w.attempt(ctx, batch)
		if err == nil {
			if logged != "" {
				w.log.Info("commits succeed again", "attempts", backoff.Attempts()+1)
			}
			w.config.Publish(published)
			w.settle(batch, outcomes)
			return
		}
		code := telemetry.CodeOf(err)
		switch {
		case ctx.Err() != nil:
			w.drop(batch)
			return
		case code == telemetry.Unprocessable:
			w.isolate(ctx, batch, err)
			return
		case code != telemetry.Unavailable && code != telemetry.Timeout && backoff.Attempts() >= attemptsBeforeSplit:
			w.setAside(ctx, batch, err)
			return
		}
		if text := err.Error(); text != logged {
			w.log.Warn("commit failed, trying again", "frames", len(batch), "error", err)
			logged = text
		}
		if retry.Sleep(ctx, backoff.Next()) != nil {
			w.drop(batch)
			return
		}
	}
}

var errOutcomes = errors.New("the committer returned another number of outcomes than it was given frames")

func (w *worker) attempt(ctx context.Context, batch []*item) ([]frame.Outcome, []*frame.Published, error) {
	ctx, cancel := context.WithTimeout(ctx, w.config.CommitTimeout)
	defer cancel()
	frames := make([]*frame.Received, len(batch))
	for i, it := range batch {
		frames[i] = it.received
	}
	start := time.Now()
	outcomes, published, err := w.config.Committer.Commit(ctx, frames)
	if err == nil && len(outcomes) != len(frames) {
		err = errOutcomes
	}
	if err != nil {
		w.metrics.commits.WithLabelValues(string(telemetry.CodeOf(err))).Inc()
		return nil, nil, err
	}
	w.metrics.commits.WithLabelValues("ok").Inc()
	w.metrics.commitTime.Observe(time.Since(start).Seconds())
	w.metrics.batch.Observe(float64(len(frames)))
	return outcomes, published, nil
}

// isolate commits the halves of a batch whose data was refused, until the
// culprit is alone and can be put apart. Order is kept.
func (w *worker) isolate(ctx context.Context, batch []*item, cause error) {
	if len(batch) > 1 {
		w.commit(ctx, batch[:len(batch)/2])
		w.commit(ctx, batch[len(batch)/2:])
		return
	}
	r := batch[0].received
	if r.Quarantine != "" { // not even its bytes can be stored
		w.refuse(batch[0], cause)
		return
	}
	w.log.Error("frame cannot be stored, it goes to quarantine", "frame", r.String(), "node_id", r.Node, "error", cause)
	w.metrics.quarantined.Inc()
	quarantine(r, cause.Error())
	w.commit(ctx, batch)
}

// setAside commits the halves of a batch that fails for an unknown reason. A
// frame that fails alone is sent again later by its node: nothing says that
// its data is at fault.
func (w *worker) setAside(ctx context.Context, batch []*item, cause error) {
	if len(batch) > 1 {
		w.commit(ctx, batch[:len(batch)/2])
		w.commit(ctx, batch[len(batch)/2:])
		return
	}
	w.refuse(batch[0], cause)
}

func (w *worker) refuse(i *item, cause error) {
	r := i.received
	w.log.Error("frame cannot be stored now, its organisation is throttled", "frame", r.String(), "node_id", r.Node, "error", cause)
	w.forget(i)
	i.settle(frame.Outcome{}, "the frame cannot be stored now")
}

func (w *worker) settle(batch []*item, outcomes []frame.Outcome) {
	for n, i := range batch {
		r := i.received
		w.forget(i)
		w.metrics.frames.WithLabelValues(r.Lane.String(), verdictName(outcomes[n].Verdict)).Inc()
		if outcomes[n].Verdict == frame.Committed && !r.Tombstone {
			w.metrics.records.WithLabelValues(r.Lane.String()).Add(float64(r.Count))
		}
		i.settle(outcomes[n], "")
	}
}

func (w *worker) drop(batch []*item) {
	for _, i := range batch {
		w.forget(i)
	}
}

func verdictName(v frame.Verdict) string {
	switch v {
	case frame.Committed:
		return "committed"
	case frame.Duplicate:
		return "duplicate"
	case frame.OutOfOrder:
		return "out_of_order"
	}
	return "unknown"
}
