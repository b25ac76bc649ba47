package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// When a stream is due: enough waits for chunks of a good size, or the oldest
// has waited long enough.
const (
	dueLines = unitLines
	dueBytes = unitBytes
	dueRows  = 1_024
)

// Defaults of Compaction.
const (
	DefaultCompactionWorkers = 1
	DefaultCompactionAge     = 10 * time.Minute
)

const (
	compactEvery = 5 * time.Second
	dueAtOnce    = 512 // streams that one round knows of
	leasesAtOnce = 32
	sweepEvery   = 10 * time.Minute
)

// Compaction says how lines get from hot rows into chunks.
type Compaction struct {
	Workers int           // units worked on at once, each up to one core; 0: DefaultCompactionWorkers; negative: none here
	MaxAge  time.Duration // after which lines are compacted, however few they are; zero: DefaultCompactionAge
}

func (c Compaction) withDefaults() Compaction {
	if c.Workers == 0 {
		c.Workers = DefaultCompactionWorkers
	}
	if c.MaxAge <= 0 {
		c.MaxAge = DefaultCompactionAge
	}
	return c
}

// threshold is what makes a stream due.
type threshold struct {
	lines, rows, bytes int64
	before             time.Time
}

// waiting is a stream with lines that are not compacted.
type waiting struct {
	scope           telemetry.Scope
	compacted, next int64
}

func (w *waiting) lease() string { return "compact " + w.scope.String() }

// compactor is the part of a Store that makes chunks.
//
//	due streams ──▶ leases ──▶ workers: read a unit ▶ decode, sort, cut ▶ write chunks, advance ──▶ small chunks? merge
//	(oldest first)                      (each stream one unit a round)
type compactor struct {
	store   *Store
	workers int
	cutters sync.Pool // of *chunkCutter
	trouble trouble
	merges  mergeQueue
	failing map[string]bool   // steps that failed the last time
	swept   map[classDay]bool // days that were searched for small chunks; true: after their end
}

func newCompactor(s *Store, workers int) *compactor {
	return &compactor{store: s, failing: map[string]bool{}, workers: workers, cutters: sync.Pool{New: func() any { return new(chunkCutter) }}}
}

// run compacts and merges until ctx ends.
func (c *compactor) run(ctx context.Context, maxAge time.Duration) {
	tick, sweep := time.NewTicker(compactEvery), time.NewTicker(sweepEvery)
	defer tick.Stop()
	defer sweep.Stop()
	c.said(ctx, "search for small chunks", c.sweep(ctx, time.Now()))
	for {
		compacted, err := c.round(ctx, threshold{lines: dueLines, rows: dueRows, bytes: dueBytes, before: time.Now().Add(-maxAge)})
		c.said(ctx, "compact", err)
		merged, errMerge := c.mergeRound(ctx)
		c.said(ctx, "merge chunks", errMerge)
		if ctx.Err() == nil && err == nil && errMerge == nil && compacted+merged > 0 {
			continue // more may be due
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-sweep.C:
			c.said(ctx, "search for small chunks", c.sweep(ctx, time.Now()))
		}
	}
}

// Compact compacts all lines that are committed now, however few, and merges
// what that makes small: before a backup, a measurement or a test.
func (s *Store) Compact(ctx context.Context) error {
	c := newCompactor(s, s.compactor.workers)
	targets := map[telemetry.Scope]int64{}
	others := time.NewTicker(100 * time.Millisecond)
	defer others.Stop()
	for {
		list, err := c.due(ctx, threshold{lines: 1})
		if err != nil {
			return failure(ctx, "compact", err)
		}
		list = slices.DeleteFunc(list, func(w waiting) bool {
			if _, known := targets[w.scope]; !known {
				targets[w.scope] = w.next
			}
			return w.compacted >= targets[w.scope]
		})
		if len(list) == 0 {
			break
		}
		done, err := c.turn(ctx, list)
		if err != nil {
			return failure(ctx, "compact", err)
		}
		if done > 0 {
			continue
		}
		select { // another aggregator is at it
		case <-others.C:
		case <-ctx.Done():
			return failure(ctx, "compact", context.Cause(ctx))
		}
	}
	for {
		done, err := c.mergeRound(ctx)
		if err != nil || done == 0 {
			return failure(ctx, "merge chunks", err)
		}
	}
}

// said logs the failure of a step, once until it succeeds again.
func (c *compactor) said(ctx context.Context, step string, err error) {
	switch {
	case ctx.Err() != nil:
	case err != nil && !c.failing[step]:
		c.failing[step] = true
		c.store.log.Warn("maintenance failed; it will be tried again", "step", step, "error", err)
	case err == nil && c.failing[step]:
		delete(c.failing, step)
		c.store.log.Info("maintenance goes on", "step", step)
	}
}

// round compacts one unit of each stream that is due, so that a flood gets no
// more turns than others. done counts those that got on.
func (c *compactor) round(ctx context.Context, t threshold) (done int, err error) {
	list, err := c.due(ctx, t)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return c.turn(ctx, list)
}

// turn gives each stream a turn.
func (c *compactor) turn(ctx context.Context, list []waiting) (done int, err error) {
	classes, err := c.store.retentions(ctx)
	if err != nil {
		return 0, err
	}
	for len(list) > 0 && ctx.Err() == nil {
		part := list[:min(len(list), leasesAtOnce)]
		list = list[len(part):]
		n, err := c.leased(ctx, part, classes)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

const selectDue = `select org, env, compacted, next from stream_counter
where compacted < next and (next - compacted >= $1 or hot_rows >= $2 or hot_raw >= $3 or hot_since is null or hot_since <= $4)
  and not (org || '/' || env = any ($5))
order by hot_since nulls first, org, env limit $6`

// due lists streams that are, those that wait longest first, without those
// that failed a moment ago.
func (c *compactor) due(ctx context.Context, t threshold) ([]waiting, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	rows, err := c.store.maint.Query(ctx, selectDue, t.lines, t.rows, t.bytes, t.before, c.trouble.avoided(time.Now()), dueAtOnce)
	if err != nil {
		return nil, fmt.Errorf("list streams to compact: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w waiting, err error) {
		var env int16
		err = row.Scan(&w.scope.Org, &env, &w.compacted, &w.next)
		w.scope.Env = telemetry.Environment(env) //nolint:gosec // 0 or 1
		return w, err
	})
	if err != nil {
		return nil, fmt.Errorf("list streams to compact: %w", err)
	}
	return list, nil
}

// leased compacts those of the streams whose lease is ours.
func (c *compactor) leased(ctx context.Context, list []waiting, classes retentions) (done int, err error) {
	names := make([]string, len(list))
	of := make(map[string]*waiting, len(list))
	for i := range list {
		names[i] = list[i].lease()
		of[names[i]] = &list[i]
	}
	taken, err := c.store.takeLeases(ctx, names)
	if err != nil || len(taken) == 0 {
		return 0, err
	}
	defer c.store.releaseLeases(ctx, taken)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.workers)
	var count atomic.Int64
	for _, name := range taken {
		g.Go(func() error {
			if ctx.Err() != nil { // the round is over
				return nil //nolint:nilerr // whoever ended it says why
			}
			ok, err := c.unit(ctx, of[name], classes.class(of[name].scope.Org))
			if ok {
				count.Add(1)
			}
			return err
		})
	}
	err = g.Wait()
	return int(count.Load()), err
}

// unit compacts the next unit of a stream and reports whether it got on. An
// error ends the round: it is the database's more likely than the stream's.
func (c *compactor) unit(ctx context.Context, w *waiting, class int16) (ok bool, err error) {
	began := time.Now()
	u, err := c.compact(ctx, w, class)
	m := c.store.metrics
	result := "done"
	switch {
	case errors.Is(err, errOvertaken):
		result, err = "overtaken", nil
	case err != nil:
		result, err = "failed", fmt.Errorf("compact %s from position %d: %w", w.scope, w.compacted, err)
		c.trouble.met(w.scope, time.Now())
	default:
		ok = true
		c.trouble.over(w.scope)
		m.compacted(u)
		for _, k := range u.chunks {
			c.merges.note(u.scope, k)
		}
	}
	m.units.WithLabelValues(result).Observe(time.Since(began).Seconds())
	return ok, err
}

// compact reads and writes the next unit. Data that cannot be read or written
// is narrowed down to a row, which is set aside, so that it cannot hold up the
// stream for ever.
func (c *compactor) compact(ctx context.Context, w *waiting, class int16) (*unit, error) {
	cutter, _ := c.cutters.Get().(*chunkCutter)
	defer c.cutters.Put(cutter)
	for most := unitRows; ; most = max(1, most/8) {
		u, err := c.attempt(ctx, cutter, w, class, most)
		switch {
		case err == nil || !poison(err):
			return u, err
		case most == 1 || errors.Is(err, segment.ErrCorrupt): // of the first row
			return c.store.setAside(ctx, w, err)
		}
	}
}

func (c *compactor) attempt(ctx context.Context, cutter *chunkCutter, w *waiting, class int16, most int) (*unit, error) {
	u, err := c.store.readUnit(ctx, cutter, w.scope, w.compacted, most, class)
	if err != nil {
		return nil, err
	}
	if u.rows == 0 {
		// Nothing waits below what next was before we looked: there are gaps, or
		// retention was faster.
		u.to, u.last = w.next, time.Now()
	}
	if err := c.store.coverDays(ctx, u.chunks); err != nil {
		return nil, err
	}
	if err := c.store.writeUnit(ctx, u); err != nil {
		return nil, err
	}
	return u, nil
}
