package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// How often Run does what.
const (
	partitionEvery = time.Minute
	purgeEvery     = time.Hour
	usedEvery      = 15 * time.Second
	reportEvery    = 2 * time.Second
	backlogEvery   = 15 * time.Second
)

// Run does what the database needs while the aggregator runs, until ctx ends:
// compaction, partitions ahead of time, retention, when keys were last used.
// Several aggregators may do so at once. A failure is logged and tried again.
func (s *Store) Run(ctx context.Context) error {
	var g errgroup.Group
	if s.compaction.Workers > 0 {
		g.Go(func() error {
			s.compactor.run(ctx, s.compaction.MaxAge)
			return nil
		})
	}
	g.Go(func() error {
		s.eraseLoop(ctx)
		return nil
	})
	g.Go(func() error {
		s.maintain(ctx)
		return nil
	})
	return g.Wait()
}

func (s *Store) maintain(ctx context.Context) {
	partitions, purge, used, report := time.NewTicker(partitionEvery), time.NewTicker(purgeEvery), time.NewTicker(usedEvery), time.NewTicker(reportEvery)
	backlog := time.NewTicker(backlogEvery)
	defer backlog.Stop()
	defer partitions.Stop()
	defer purge.Stop()
	defer used.Stop()
	defer report.Stop()
	s.step(ctx, "purge what is older than the retention", s.purge)
	for {
		select {
		case <-ctx.Done():
			s.step(context.WithoutCancel(ctx), "store when keys were last used", s.flushUsedKeys)
			s.step(context.WithoutCancel(ctx), "store the reports of nodes", s.flushReports)
			return
		case <-partitions.C:
			s.step(ctx, "make and drop partitions", s.turnPartitions)
		case <-backlog.C:
			s.step(ctx, "measure the backlog of the compaction", s.measureBacklog)
		case <-purge.C:
			s.step(ctx, "purge what is older than the retention", s.purge)
		case <-report.C:
			s.step(ctx, "store the reports of nodes", s.flushReports)
		case <-used.C:
			s.step(ctx, "store when keys were last used", s.flushUsedKeys)
		}
	}
}

func (s *Store) step(ctx context.Context, what string, do func(context.Context) error) {
	call, cancel := context.WithTimeout(ctx, maintTimeout)
	defer cancel()
	if err := do(call); err != nil && ctx.Err() == nil {
		s.log.Warn("maintenance failed; it will be tried again", "step", what, "error", err)
	}
}

func (s *Store) turnPartitions(ctx context.Context) error {
	now := time.Now()
	return errors.Join(s.makePartitions(ctx, now), s.makeChunkPartitions(ctx, now), s.dropPartitions(ctx, now), s.dropChunkPartitions(ctx, now))
}

const selectBacklog = `select count(*), coalesce(sum(hot_rows), 0)::bigint, coalesce(sum(next - greatest(compacted, 1)), 0)::bigint, coalesce(sum(hot_raw), 0)::bigint, min(hot_since)
from stream_counter where compacted < next`

// measureBacklog looks at what waits for the compactor, of all organisations.
func (s *Store) measureBacklog(ctx context.Context) error {
	var streams, rows, lines, raw int64
	var oldest *time.Time
	if err := s.maint.QueryRow(ctx, selectBacklog).Scan(&streams, &rows, &lines, &raw, &oldest); err != nil {
		return fmt.Errorf("read the counters: %w", err)
	}
	age := 0.0
	if oldest != nil {
		age = max(0, time.Since(*oldest).Seconds())
	}
	for what, v := range map[string]float64{"streams": float64(streams), "rows": float64(rows), "lines": float64(lines), "bytes": float64(raw)} {
		s.metrics.backlog.WithLabelValues(what).Set(v)
	}
	s.metrics.backlogAge.Set(age)
	return nil
}

// purge deletes rows and credentials that are too old. Marks of nodes are kept
// for ever: a replay of any age must be recognised.
func (s *Store) purge(ctx context.Context) error {
	cutoff := time.Now().Add(-s.retention)
	var errs []error
	for _, statement := range []string{
		"delete from event where recv_at < $1", "delete from gap where recv_at < $1", "delete from quarantine where recv_at < $1",
		"delete from log_damaged where recv_at < $1", "delete from span where recv_at < $1", "delete from model_call where recv_at < $1", "delete from metric_point where recv_at < $1",
		"select purge_log_default($1)",
	} {
		if _, err := s.maint.Exec(ctx, statement, cutoff); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", statement, err))
		}
	}
	if err := s.purgeChunks(ctx, time.Now()); err != nil {
		errs = append(errs, err)
	}
	if older, err := s.olderReleases(ctx); err != nil || older > 0 {
		errs = append(errs, err)
	} else if _, err := s.maint.Exec(ctx, "select purge_compacted_default()"); err != nil {
		errs = append(errs, fmt.Errorf("delete compacted rows of the default partition: %w", err))
	}
	if _, err := s.maint.Exec(ctx, "select purge_credentials()"); err != nil {
		errs = append(errs, fmt.Errorf("purge credentials: %w", err))
	}
	errs = append(errs, s.purgeKeys(ctx, time.Now()))
	return errors.Join(errs...)
}

// usedKeys collects when API keys were used, so that not every call writes.
type usedKeys struct {
	mu sync.Mutex
	at map[string]time.Time
}

// maxUsedKeys bounds the collection while the database is away.
const maxUsedKeys = 10_000

func (u *usedKeys) note(id string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at == nil {
		u.at = make(map[string]time.Time)
	}
	if _, known := u.at[id]; known || len(u.at) < maxUsedKeys {
		u.at[id] = at
	}
}

func (u *usedKeys) take() map[string]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	m := u.at
	u.at = nil
	return m
}

func (s *Store) flushUsedKeys(ctx context.Context) error {
	m := s.used.take()
	if len(m) == 0 {
		return nil
	}
	var ids []string
	var ats []time.Time
	for id, at := range m {
		ids, ats = append(ids, id), append(ats, at)
	}
	_, err := s.maint.Exec(ctx, "select touch_api_keys($1, $2)", ids, ats)
	return err
}
