package sandbox

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// Limits of what is taken and not yet handed on.
const (
	maxQueuedRecords = 4096     // of one sandbox
	maxQueuedBytes   = 1 << 20  // of one sandbox
	maxQueuedInAll   = 32 << 20 // of the node
	maxInFlight      = 32 << 20 // bytes of bodies being read, of the node
	maxRequests      = 32       // being read, of one sandbox

	tidyEvery   = time.Second
	gapEvery    = 10 * time.Second // between two gaps of one sandbox
	quietAfter  = 2 * time.Second  // then nothing of a sandbox is on its way
	forgetAfter = 2 * time.Minute
	retryAfter  = time.Second
)

// queues are the queues of all sandboxes, in one run of the source.
type queues struct {
	ctx     context.Context // of emitting: it outlives the run's
	to      source.Sink
	quota   Quota
	metrics *metrics
	// sessions are the exec sessions, which have no queue: they are read as fast
	// as the sink takes their lines.
	sessions *sessions

	mu       sync.Mutex
	of       map[source.Target]*queue
	bytes    int
	inFlight int
	closed   bool
	failed   error
	workers  sync.WaitGroup
}

// queue is one sandbox's. Guarded by queues.mu.
type queue struct {
	target         source.Target
	records, bytes bucket
	pending        []*source.Batch
	pendingRecords int
	pendingBytes   int
	requests       int
	working        bool
	open           bool // its position says that something may be on its way
	last           time.Time
	refused        telemetry.Gap
	told           time.Time // the last gap
}

func newQueues(ctx context.Context, to source.Sink, resume source.Positions, quota Quota, m *metrics) *queues {
	return &queues{ctx: ctx, to: to, quota: quota, metrics: m, sessions: newSessions(resume, m), of: map[source.Target]*queue{}}
}

// queue returns a target's, under mu.
func (q *queues) queue(t source.Target) *queue {
	one := q.of[t]
	if one == nil {
		one = &queue{target: t, records: bucket{rate: q.quota.Records}, bytes: bucket{rate: q.quota.Bytes}}
		q.of[t] = one
		q.metrics.sandboxes.Set(float64(len(q.of)))
	}
	return one
}

// offer queues a batch, which may be larger than a queue when nothing of the
// sandbox is on its way, or refuses it at once with a *telemetry.Failure of
// code RateLimited or Unavailable and its RetryAfter. A client that does not
// try again has lost it then: see lost.
func (s *Source) offer(_ context.Context, t source.Target, b *source.Batch) error {
	return s.current().offer(t, b)
}

// lost counts records that were refused to a client which does not try again;
// a gap record tells of them.
func (s *Source) lost(t source.Target, records, bytes int) {
	s.metrics.lost.Add(float64(records))
	s.current().refuse(t, records, bytes)
}

func (s *Source) current() *queues {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queues
}

func (q *queues) offer(t source.Target, b *source.Batch) error {
	records, bytes := sizeOf(b)
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.queue(t)
	now := time.Now()
	one.last = now
	switch {
	case q.closed:
		return q.no(telemetry.Unavailable, "stopping", retryAfter, "The local endpoint is stopping.")
	case one.working && (one.pendingRecords+records > maxQueuedRecords || one.pendingBytes+bytes > maxQueuedBytes):
		return q.no(telemetry.RateLimited, "queue", retryAfter, "This sandbox's queue is full, because the node is behind.")
	case q.bytes+bytes > maxQueuedInAll:
		return q.no(telemetry.RateLimited, "node_queue", retryAfter, "The node's queue is full.")
	}
	if wait := max(one.records.wait(now, float64(records)), one.bytes.wait(now, float64(bytes))); wait > 0 {
		return q.no(telemetry.RateLimited, "quota", wait, "This sandbox sends more than its quota.")
	}
	one.records.take(float64(records))
	one.bytes.take(float64(bytes))
	q.push(one, b, records, bytes)
	q.metrics.records.Add(float64(records))
	return nil
}

// afford takes one record that is not queued here from a sandbox's rate, and
// reports whether there was room for it.
func (q *queues) afford(t source.Target) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.queue(t)
	now := time.Now()
	one.last = now
	if one.records.wait(now, 1) > 0 {
		q.metrics.refused.WithLabelValues("quota").Inc()
		return false
	}
	one.records.take(1)
	return true
}

func (q *queues) no(code telemetry.Code, reason string, after time.Duration, message string) error {
	q.metrics.refused.WithLabelValues(reason).Inc()
	return &telemetry.Failure{Code: code, Message: message, RetryAfter: after}
}

// push queues what is welcome, under mu.
func (q *queues) push(one *queue, b *source.Batch, records, bytes int) {
	b.Target = one.target
	one.pending = append(one.pending, b)
	one.pendingRecords += records
	one.pendingBytes += bytes
	q.bytes += bytes
	q.metrics.queued.Set(float64(q.bytes))
	if !one.working {
		one.working = true
		q.workers.Go(func() { q.work(one) })
	}
}

// work hands on what is queued of one sandbox, until nothing is.
func (q *queues) work(one *queue) {
	for {
		b, bytes := q.next(one)
		if b == nil {
			return
		}
		err := q.to.Emit(q.ctx, b)
		q.mu.Lock()
		q.bytes -= bytes
		q.metrics.queued.Set(float64(q.bytes))
		if err != nil && q.failed == nil {
			q.failed = err
		}
		q.mu.Unlock()
	}
}

// next takes all that is queued of one sandbox as one batch, which says by its
// position that something was on its way; nil: nothing is queued.
func (q *queues) next(one *queue) (*source.Batch, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(one.pending) == 0 {
		one.working = false
		one.last = time.Now()
		return nil, 0
	}
	b := one.pending[0]
	for _, more := range one.pending[1:] {
		b.Lines = append(b.Lines, more.Lines...)
		b.Entries = append(b.Entries, more.Entries...)
		b.Events = append(b.Events, more.Events...)
		b.Spans = append(b.Spans, more.Spans...)
		b.ModelCalls = append(b.ModelCalls, more.ModelCalls...)
		b.Metrics = append(b.Metrics, more.Metrics...)
		b.Gaps = append(b.Gaps, more.Gaps...)
	}
	bytes := one.pendingBytes
	one.pending, one.pendingRecords, one.pendingBytes = nil, 0, 0
	one.open = true
	b.Positions = source.Positions{openKey(one.target): openNote(one.target, time.Now())}
	return b, bytes
}

// enter counts a request whose body of at most so many bytes is about to be
// read. Call leave after it.
func (q *queues) enter(t source.Target, bytes int) (leave func(), err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.queue(t)
	if one.requests >= maxRequests || q.inFlight+bytes > maxInFlight {
		return nil, q.no(telemetry.RateLimited, "requests", retryAfter, "Too many requests of this sandbox or node are being read at the same time.")
	}
	one.requests++
	q.inFlight += bytes
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		one.requests--
		q.inFlight -= bytes
	}, nil
}

func (q *queues) refuse(t source.Target, records, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.queue(t)
	now := time.Now().UTC()
	one.last = now
	if one.refused.Count == 0 {
		one.refused = telemetry.Gap{
			Reason: telemetry.GapRefused, Since: now, Agent: t.Origin.Agent, Session: t.Origin.Session, Sandbox: t.Origin.Sandbox,
			Detail: "The sandbox sent more to the node's local endpoint than its quota, or than the node could take.",
		}
	}
	one.refused.Count += int64(records)
	one.refused.Bytes += int64(bytes)
	one.refused.Until = now
}

// tidy tells gaps, notes who has fallen quiet and forgets who has gone.
func (q *queues) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		q.tidyOnce(ctx, time.Now())
	}
}

func (q *queues) tidyOnce(ctx context.Context, now time.Time) {
	quiet, held := q.quiet(now)
	for _, b := range q.sessions.forget(now, quiet) {
		_ = q.to.Emit(ctx, b) // it ends with ctx
	}
	var err error // the endpoint is stopping: drain says it then
	if len(quiet) > 0 {
		err = q.to.Emit(ctx, &source.Batch{Positions: quiet})
	}
	q.letGo(held, err == nil)
}

// quiet returns the positions of the sandboxes that have fallen quiet. Their
// queues are held until letGo, so that what they say next comes behind these.
func (q *queues) quiet(now time.Time) (quiet source.Positions, held []*queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	quiet = source.Positions{}
	for t, one := range q.of {
		if one.refused.Count > 0 && now.Sub(one.told) >= gapEvery {
			q.tellGap(one, now)
		}
		if one.working || now.Sub(one.last) < quietAfter {
			continue
		}
		if one.open {
			one.open, one.working = false, true
			quiet[openKey(t)] = forgotten
			held = append(held, one)
			continue
		}
		if now.Sub(one.last) >= forgetAfter && one.requests == 0 && one.refused.Count == 0 {
			delete(q.of, t)
		}
	}
	q.metrics.sandboxes.Set(float64(len(q.of)))
	return quiet, held
}

// letGo lets held queues go on; said tells whether their positions were taken.
func (q *queues) letGo(held []*queue, said bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, one := range held {
		one.open = !said
		if one.working = len(one.pending) > 0; one.working {
			q.workers.Go(func() { q.work(one) })
		}
	}
}

// tellGap queues the gap of what was refused; quotas are not for gaps.
func (q *queues) tellGap(one *queue, now time.Time) {
	b := &source.Batch{}
	b.Gaps = []telemetry.Gap{one.refused}
	one.refused, one.told = telemetry.Gap{}, now
	records, bytes := sizeOf(b)
	q.push(one, b, records, bytes)
}

// drain tells what is left to tell and waits until all is handed on.
func (q *queues) drain() error {
	q.sessions.close()
	q.mu.Lock()
	q.closed = true
	quiet := source.Positions{}
	for t, one := range q.of {
		if one.refused.Count > 0 {
			q.tellGap(one, time.Now())
		}
		if one.open || one.working {
			quiet[openKey(t)] = forgotten
		}
	}
	q.mu.Unlock()
	q.workers.Wait()
	q.metrics.queued.Set(0)
	q.metrics.sandboxes.Set(0)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.failed != nil {
		return errors.Join(errors.New("what sandboxes had sent could not all be handed on"), q.failed)
	}
	if len(quiet) > 0 {
		return q.to.Emit(q.ctx, &source.Batch{Positions: quiet})
	}
	return nil
}

// bucket is a token bucket.
type bucket struct {
	rate  float64 // a second
	spent float64
	at    time.Time
}

// wait is how long until n fit in; 0: they do. More than a burst of rate never
// fits and is let in when nothing is spent.
func (b *bucket) wait(now time.Time, n float64) time.Duration {
	b.spent = max(0, b.spent-b.rate*now.Sub(b.at).Seconds())
	b.at = now
	burst := b.rate * burstSeconds
	if b.spent == 0 || b.spent+n <= burst {
		return 0
	}
	return time.Duration(min(b.spent+n-burst, b.spent)/b.rate*float64(time.Second)) + time.Millisecond
}

func (b *bucket) take(n float64) { b.spent += n }
