package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Partitions of log_hot. Each says its own range, so the width may change from
// one release to the next.
const (
	partitionWidth  = time.Hour
	partitionsAhead = 6 * time.Hour
)

// How often Run does what.
const (
	partitionEvery = time.Minute
	purgeEvery     = time.Hour
	usedEvery      = 15 * time.Second
	reportEvery    = 2 * time.Second
)

// Run does what the database needs while the aggregator runs, until ctx ends:
// partitions ahead of time, retention, when keys were last used. Several
// aggregators may do so at once. A failure is logged and tried again.
func (s *Store) Run(ctx context.Context) error {
	partitions, purge, used, report := time.NewTicker(partitionEvery), time.NewTicker(purgeEvery), time.NewTicker(usedEvery), time.NewTicker(reportEvery)
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
			return nil
		case <-partitions.C:
			s.step(ctx, "make partitions ahead", func(ctx context.Context) error { return s.makePartitions(ctx, time.Now()) })
			s.step(ctx, "drop partitions older than the retention", func(ctx context.Context) error { return s.dropPartitions(ctx, time.Now()) })
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

type partition struct {
	name   string
	lo, hi time.Time
}

func (s *Store) partitions(ctx context.Context) ([]partition, error) {
	rows, err := s.maint.Query(ctx, "select name, lo, hi from log_partitions()")
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p partition, err error) {
		err = row.Scan(&p.name, &p.lo, &p.hi)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	return list, nil
}

// makePartitions covers the time from the last hour to some hours ahead.
func (s *Store) makePartitions(ctx context.Context, now time.Time) error {
	existing, err := s.partitions(ctx)
	if err != nil {
		return err
	}
	for _, p := range uncovered(existing, now) {
		var made bool
		if err := s.maint.QueryRow(ctx, "select make_log_partition($1, $2)", p.lo, p.hi).Scan(&made); err != nil {
			return fmt.Errorf("make the partition from %s: %w", p.lo.Format(time.RFC3339), err)
		}
		if made {
			s.metrics.partitions.WithLabelValues("made").Inc()
		}
	}
	return nil
}

// uncovered returns the partitions to make, given those that exist, sorted.
func uncovered(existing []partition, now time.Time) []partition {
	var list []partition
	at := now.UTC().Truncate(partitionWidth).Add(-partitionWidth)
	end := now.UTC().Truncate(partitionWidth).Add(partitionsAhead)
	for at.Before(end) {
		next := at.Truncate(partitionWidth).Add(partitionWidth)
		covered := false
		for _, p := range existing {
			switch {
			case !p.hi.After(at) || !p.lo.Before(next):
			case p.lo.After(at):
				next = p.lo // make what is before it
			default:
				next, covered = p.hi, true
			}
			if covered {
				break
			}
		}
		if !covered {
			list = append(list, partition{lo: at, hi: next})
		}
		at = next.UTC()
	}
	return list
}

// dropPartitions drops what is older than the retention. A partition that is
// being read now is left for the next time.
func (s *Store) dropPartitions(ctx context.Context, now time.Time) error {
	existing, err := s.partitions(ctx)
	if err != nil {
		return err
	}
	cutoff := now.Add(-s.retention)
	for _, p := range existing {
		if p.hi.After(cutoff) {
			continue
		}
		var dropped bool
		err := s.maint.QueryRow(ctx, "select drop_log_partition($1, $2)", p.name, cutoff).Scan(&dropped)
		if isCode(err, lockNotAvailable) {
			continue
		}
		if err != nil {
			return fmt.Errorf("drop partition %s: %w", p.name, err)
		}
		if dropped {
			s.metrics.partitions.WithLabelValues("dropped").Inc()
			s.log.Info("dropped a partition older than the retention", "partition", p.name, "retention", s.retention.String())
		}
	}
	return nil
}

// purge deletes rows and credentials that are too old. Marks of nodes are kept
// for ever: a replay of any age must be recognised.
func (s *Store) purge(ctx context.Context) error {
	cutoff := time.Now().Add(-s.retention)
	var errs []error
	for _, statement := range []string{
		"delete from event where recv_at < $1", "delete from gap where recv_at < $1", "delete from quarantine where recv_at < $1",
		"delete from span where recv_at < $1", "delete from model_call where recv_at < $1", "delete from metric_point where recv_at < $1",
		"select purge_log_default($1)",
	} {
		if _, err := s.maint.Exec(ctx, statement, cutoff); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", statement, err))
		}
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
