package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/shared/telemetry"
)

const (
	eraseEvery      = 10 * time.Second
	sweepLookEvery  = 5 * time.Minute
	eraseSweepEvery = time.Hour

	// eraseAfter is how long a row of an agent or session outlives the request to
	// erase it. A replica that wrote it leaves it alone for spanTrust; then it
	// writes it again with the next record, whatever became of it. (The rest is for
	// a commit that began before and takes all its attempts.)
	eraseAfter = spanTrust + commitAttempts*commitTimeout + 15*time.Second

	// erasePasses bounds how often one step looks at everything again.
	erasePasses = 5
	// scopesAtOnce bounds one step.
	scopesAtOnce = 100
	// eraseLate is when an erasure that is not done is told of as a warning.
	eraseLate = 12 * time.Hour
)

// erasing is what a Store knows for erasures.
type erasing struct {
	key        ErasureKey
	after      time.Duration // eraseAfter
	sweepEvery time.Duration
	cache      exclusionCache
}

func newErasing(key ErasureKey) erasing {
	return erasing{key: key, after: eraseAfter, sweepEvery: eraseSweepEvery}
}

// eraseMetrics are the metrics of erasures.
type eraseMetrics struct {
	erased     *prometheus.CounterVec // by what
	erasures   prometheus.Gauge
	erasureAge prometheus.Gauge
}

func newEraseMetrics() eraseMetrics {
	const namespace, subsystem = "aggregator", "store"
	return eraseMetrics{
		erased: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "erased_total", Help: "What was taken out of the database here for erasures: lines, chunks rewritten, rows by kind.",
		}, []string{"of"}),
		erasures: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "erasing_scopes", Help: "Organisations and environments with erasures that are not done.",
		}),
		erasureAge: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "erasure_oldest_seconds", Help: "Age of the oldest erasure that is not done; the promise is a day.",
		}),
	}
}

func (m *eraseMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.erased, m.erasures, m.erasureAge}
}

// erasureWork is a row of table erasure as the job sees it.
type erasureWork struct {
	number    int64
	id        string
	kind      telemetry.ErasureKind
	subject   *string
	hash      []byte
	until     time.Time
	requested time.Time
	fence     int64
	status    telemetry.ErasureStatus
	cleanTo   int64
	swept     *time.Time
}

// eraseLoop works on erasures until ctx ends. It may stop anywhere: every step
// looks at what is there, and counts in the transaction that takes it out.
func (s *Store) eraseLoop(ctx context.Context) {
	tick := time.NewTicker(eraseEvery)
	defer tick.Stop()
	failed := ""
	var swept time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := storedTime(time.Now())
		err := s.eraseOnce(ctx, now)
		if now.Sub(swept) >= sweepLookEvery {
			err = errors.Join(err, s.sweepOnce(ctx, now))
			swept = now
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && err.Error() != failed:
			s.log.Warn("erasure failed; it will be tried again", "error", err)
			failed = err.Error()
		case err == nil:
			failed = ""
		}
	}
}

// eraseOnce does what can be done now of open erasures.
func (s *Store) eraseOnce(ctx context.Context, now time.Time) error {
	open, oldest, err := s.openErasures(ctx)
	if err != nil {
		return err
	}
	s.metrics.erasures.Set(float64(len(open)))
	s.metrics.erasureAge.Set(0)
	if !oldest.IsZero() {
		s.metrics.erasureAge.Set(now.Sub(oldest).Seconds())
		if now.Sub(oldest) > eraseLate {
			s.log.Warn("an erasure waits for long: lines below its position are not compacted, or their partitions cannot be dropped", "requested_at", oldest.Format(time.RFC3339))
		}
	}
	return s.eraseIn(ctx, open, now, s.eraseScope)
}

// sweepOnce looks for late records where nobody did for an hour.
func (s *Store) sweepOnce(ctx context.Context, now time.Time) error {
	scopes, err := s.unswept(ctx, now)
	if err != nil {
		return err
	}
	return s.eraseIn(ctx, scopes, now, s.sweepScope)
}

func (s *Store) eraseIn(ctx context.Context, scopes []telemetry.Scope, now time.Time, do func(context.Context, telemetry.Scope, time.Time) error) error {
	var errs []error
	for _, scope := range scopes {
		if ctx.Err() != nil {
			break
		}
		if err := s.withLease(ctx, "erase "+scope.String(), func() error { return do(ctx, scope, now) }); err != nil {
			errs = append(errs, fmt.Errorf("erase in %s: %w", scope, err))
		}
	}
	return errors.Join(errs...)
}

// withLease does something unless another replica does.
func (s *Store) withLease(ctx context.Context, name string, do func() error) error {
	taken, err := s.takeLeases(ctx, []string{name})
	if err != nil || len(taken) == 0 {
		return err
	}
	defer s.releaseLeases(ctx, taken)
	return do()
}

func (s *Store) openErasures(ctx context.Context) (list []telemetry.Scope, oldest time.Time, err error) {
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	rows, err := s.maint.Query(call, "select org, env, min(requested_at) from erasure where status < 2 group by org, env order by 3, 1, 2 limit $1", scopesAtOnce)
	if err != nil {
		return nil, oldest, fmt.Errorf("list open erasures: %w", err)
	}
	var org string
	var env int16
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&org, &env, &at}, func() error {
		list = append(list, telemetry.Scope{Org: telemetry.OrgID(org), Env: telemetry.Environment(env)}) //nolint:gosec // 0 or 1
		if oldest.IsZero() {
			oldest = at.UTC()
		}
		return nil
	})
	if err != nil {
		return nil, oldest, fmt.Errorf("list open erasures: %w", err)
	}
	return list, oldest, nil
}

const selectWork = `select number, id, kind, subject, hash, until, requested_at, fence, status, clean_to, swept_at from erasure where org = $1 and env = $2 and `

func (s *Store) erasureWork(ctx context.Context, scope telemetry.Scope, which string, args ...any) ([]erasureWork, error) {
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	rows, err := s.maint.Query(call, selectWork+which+" order by number", append([]any{string(scope.Org), int16(scope.Env)}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("read erasures: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w erasureWork, err error) {
		var kind, status int16
		err = row.Scan(&w.number, &w.id, &kind, &w.subject, &w.hash, &w.until, &w.requested, &w.fence, &status, &w.cleanTo, &w.swept)
		w.kind, w.status = telemetry.ErasureKind(kind), telemetry.ErasureStatus(status) //nolint:gosec // checked by the table
		return w, err
	})
	if err != nil {
		return nil, fmt.Errorf("read erasures: %w", err)
	}
	return list, nil
}

// eraseScope goes on with the open erasures of a scope.
func (s *Store) eraseScope(ctx context.Context, scope telemetry.Scope, now time.Time) error {
	if len(s.erasing.key) == 0 {
		return errNoKey
	}
	list, err := s.erasureWork(ctx, scope, "status < 2")
	if err != nil {
		return err
	}
	if err := s.startErasures(ctx, scope, list, now); err != nil {
		return err
	}
	ready, compacted, err := s.readyErasures(ctx, scope, list, now)
	if err != nil || len(ready) == 0 {
		return err
	}
	e := newEraser(scope, s.erasing.key)
	for i := range ready {
		e.add(&ready[i])
	}
	for pass := 1; ; pass++ {
		looked, removed, err := s.eraseLines(ctx, e, 0)
		if err != nil {
			return err
		}
		for i := range ready {
			if err := s.eraseBeings(ctx, scope, &ready[i]); err != nil {
				return err
			}
		}
		rows, err := s.eraseOpenRows(ctx, scope, ready, now)
		if err != nil {
			return err
		}
		if removed+rows == 0 { // everything was read again, and nothing found
			for i := range ready {
				if err := s.finishErasure(ctx, scope, &ready[i], looked, compacted); err != nil {
					return err
				}
			}
			return nil
		}
		if pass == erasePasses {
			return nil // somebody writes faster; the next step goes on
		}
	}
}

// startErasures takes up what was requested: plain rows go at once.
func (s *Store) startErasures(ctx context.Context, scope telemetry.Scope, list []erasureWork, now time.Time) error {
	var numbers []int64
	for i := range list {
		if list[i].status == telemetry.ErasureRequested {
			numbers = append(numbers, list[i].number)
		}
	}
	if len(numbers) == 0 {
		return nil
	}
	if _, err := s.eraseOpenRows(ctx, scope, list, now); err != nil {
		return err
	}
	return exec(ctx, s.maint, "start erasures", "update erasure set status = 1, started_at = $3 where org = $1 and env = $2 and number = any ($4) and status = 0",
		string(scope.Org), int16(scope.Env), now, numbers)
}

// readyErasures are those whose lines are all in chunks, and nowhere else:
// the hot partitions that held them are dropped.
func (s *Store) readyErasures(ctx context.Context, scope telemetry.Scope, list []erasureWork, now time.Time) (ready []erasureWork, compacted int64, err error) {
	call, cancel := context.WithTimeout(ctx, maintTimeout)
	defer cancel()
	org, env := string(scope.Org), int16(scope.Env)
	if err := s.maint.QueryRow(call, "select compacted from stream_counter where org = $1 and env = $2", org, env).Scan(&compacted); err != nil {
		return nil, 0, fmt.Errorf("read the counter: %w", err)
	}
	for i := range list {
		w := &list[i]
		if w.fence > compacted && w.fence > 1 || w.requested.Add(s.erasing.after).After(now) {
			continue
		}
		var hot bool
		if err := s.maint.QueryRow(call, "select exists (select from log_hot where org = $1 and env = $2 and pos < $3 and t0 <= $4)", org, env, w.fence, w.until).Scan(&hot); err != nil {
			return nil, 0, fmt.Errorf("look for hot rows: %w", err)
		}
		if !hot {
			ready = append(ready, *w)
		}
	}
	return ready, compacted, nil
}

// finishErasure records that nothing is left, forgets the subject, and chains
// the proof to the audit log.
func (s *Store) finishErasure(ctx context.Context, scope telemetry.Scope, w *erasureWork, looked, compacted int64) error {
	h := s.erasing.key.hash(scope.Org, w.kind, *w.subject)
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := pgx.BeginFunc(call, s.maint, func(tx pgx.Tx) error { return s.finish(call, tx, scope, w, h, looked, compacted) })
		if err == nil || !lostAudit(err) || attempt == eraseAttempts {
			return failure(ctx, "finish erasure "+w.id, err)
		}
	}
}

func (s *Store) finish(ctx context.Context, tx pgx.Tx, scope telemetry.Scope, w *erasureWork, h subjectHash, looked, compacted int64) error {
	org, env := string(scope.Org), int16(scope.Env)
	if _, err := tx.Exec(ctx, "update stream_counter set erasures = erasures + 1 where org = $1 and env = $2", org, env); err != nil {
		return fmt.Errorf("lock the counter: %w", err)
	}
	rows, err := tx.Query(ctx, selectErasures+" and number = $3 and status < 2", org, env, w.number)
	if err != nil {
		return fmt.Errorf("read the erasure: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanErasure)
	if err != nil || len(list) == 0 { // another replica was first
		return err
	}
	e, at := &list[0], storedTime(time.Now())
	c := &e.Counts
	digest := digestOf("theazo erasure 1", e.ID, org, int64(env), int64(e.Kind), h[:], e.Until, e.RequestedAt, at, looked,
		c.Lines, c.Chunks, c.Events, c.Spans, c.ModelCalls, c.MetricPoints, c.Gaps, c.Agents, c.Sessions)
	seq, err := appendAudit(ctx, tx, auditEntry{
		org: scope.Org, at: at, actor: "aggregator", action: "erasure.done", target: e.ID,
		detail: fmt.Sprintf(`{"environment":%q,"kind":%q,"subjectHash":"%x","until":%q,"lines":%d,"linesLookedAt":%d,"found":0,"digest":"%x"}`,
			e.Env, e.Kind, h, e.Until.Format(time.RFC3339Nano), c.Lines, looked, digest),
	})
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `update erasure set status = 2, subject = null, hash = $4, key_id = $5, done_at = $6, looked_at = $7, digest = $8, audit_seq = $9, clean_to = $10, swept_at = $11
where org = $1 and env = $2 and number = $3`, org, env, w.number, h[:], s.erasing.key.id(), at, looked, digest, seq, compacted, w.requested)
	if err != nil {
		return fmt.Errorf("record that it is done: %w", err)
	}
	s.log.Info("erased", "erasure", e.ID, "scope", scope.String(), "lines", c.Lines, "chunks", c.Chunks)
	return nil
}

// unswept lists scopes where late records were not looked for since an hour.
func (s *Store) unswept(ctx context.Context, now time.Time) ([]telemetry.Scope, error) {
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	rows, err := s.maint.Query(call, "select org, env from erasure where status = 2 and done_at > $1 group by org, env having min(swept_at) <= $2 order by min(swept_at), 1, 2 limit $3",
		now.Add(-erasureForce), now.Add(-s.erasing.sweepEvery), scopesAtOnce)
	if err != nil {
		return nil, fmt.Errorf("list scopes to sweep: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (scope telemetry.Scope, err error) {
		var env int16
		err = row.Scan(&scope.Org, &env)
		scope.Env = telemetry.Environment(env) //nolint:gosec // 0 or 1
		return scope, err
	})
	if err != nil {
		return nil, fmt.Errorf("list scopes to sweep: %w", err)
	}
	return list, nil
}

// sweepMargin is for clocks of aggregators that differ, and for what was on its
// way when the last sweep looked.
const sweepMargin = 10 * time.Minute

// sweepScope takes out what came late: of a node that was cut off, or that was
// still hot when its subject was erased.
func (s *Store) sweepScope(ctx context.Context, scope telemetry.Scope, now time.Time) error {
	list, err := s.erasureWork(ctx, scope, "status = 2 and done_at > $3", now.Add(-erasureForce))
	if err != nil || len(list) == 0 {
		return err
	}
	org, env := string(scope.Org), int16(scope.Env)
	e := newEraser(scope, s.erasing.key)
	from, since := list[0].cleanTo, now
	for i := range list {
		e.add(&list[i])
		from = min(from, list[i].cleanTo)
		if at := list[i].swept; at != nil && at.Before(since) {
			since = *at
		}
	}
	var compacted int64
	if found, err := one(ctx, s.maint, "read the counter", []any{&compacted}, "select compacted from stream_counter where org = $1 and env = $2", org, env); err != nil || !found {
		return err
	}
	for pass := 1; ; pass++ {
		_, removed, err := s.eraseLines(ctx, e, from)
		if err != nil {
			return err
		}
		if removed == 0 {
			break
		}
		if pass == erasePasses {
			return nil
		}
	}
	if err := s.eraseLateRows(ctx, e, since.Add(-sweepMargin)); err != nil {
		return err
	}
	if err := s.eraseLateBeings(ctx, e); err != nil {
		return err
	}
	return s.inMaint(ctx, func(tx pgx.Tx) error {
		// Under the counter's lock: readers learn that what was compacted is clean.
		if _, err := tx.Exec(ctx, "update stream_counter set erasures = erasures + 1 where org = $1 and env = $2", org, env); err != nil {
			return fmt.Errorf("lock the counter: %w", err)
		}
		_, err := tx.Exec(ctx, "update erasure set clean_to = greatest(clean_to, $3), swept_at = $4 where org = $1 and env = $2 and status = 2 and done_at <= $4",
			org, env, compacted, now)
		if err != nil {
			return fmt.Errorf("record the sweep: %w", err)
		}
		return nil
	})
}
