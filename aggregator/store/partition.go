package store

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Partitions of log_hot. Each says its own range, so the width may change from
// one release to the next. They are made some at a time, because each time
// queries wait, and not many ahead, because each query looks at all of them.
const (
	partitionWidth  = 5 * time.Minute
	partitionsAhead = 40 * time.Minute
	partitionsLeast = 20 * time.Minute
)

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

// makePartitions covers the time from the last minutes on, unless enough of it
// is covered.
func (s *Store) makePartitions(ctx context.Context, now time.Time) error {
	existing, err := s.partitions(ctx)
	if err != nil {
		return err
	}
	if len(uncovered(existing, now, partitionsLeast)) == 0 {
		return nil
	}
	var los, his []time.Time
	for _, p := range uncovered(existing, now, partitionsAhead) {
		los, his = append(los, p.lo), append(his, p.hi)
	}
	var made int
	if err := s.maint.QueryRow(ctx, "select make_log_partitions($1, $2)", los, his).Scan(&made); err != nil {
		return fmt.Errorf("make the partitions from %s: %w", los[0].Format(time.RFC3339), err)
	}
	s.metrics.partitions.WithLabelValues("made").Add(float64(made))
	return nil
}

// uncovered returns the partitions to make, given those that exist, sorted.
func uncovered(existing []partition, now time.Time, ahead time.Duration) []partition {
	var list []partition
	at := now.UTC().Truncate(partitionWidth).Add(-partitionWidth)
	end := now.UTC().Truncate(partitionWidth).Add(ahead)
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

// dropPartitions drops hot partitions whose rows are all in chunks, and those
// that are older than the retention whatever they hold. A partition that is
// being read now is left for the next time.
func (s *Store) dropPartitions(ctx context.Context, now time.Time) error {
	existing, err := s.partitions(ctx)
	if err != nil {
		return err
	}
	older, err := s.olderReleases(ctx)
	if err != nil {
		return err
	}
	cutoff := now.Add(-s.retention)
	for _, p := range existing {
		var dropped bool
		switch {
		case !p.hi.After(cutoff):
			err = s.maint.QueryRow(ctx, "select drop_log_partition($1, $2)", p.name, cutoff).Scan(&dropped)
			if dropped {
				s.log.Info("dropped a partition older than the retention", "partition", p.name, "retention", s.retention.String())
			}
		case older > 0 || p.hi.After(now.Add(-partitionRest)):
			continue
		default:
			err = s.maint.QueryRow(ctx, "select drop_compacted_partition($1)", p.name).Scan(&dropped)
		}
		if isCode(err, lockNotAvailable) || isCode(err, deadlockDetected) {
			continue
		}
		if err != nil {
			return fmt.Errorf("drop partition %s: %w", p.name, err)
		}
		if dropped {
			s.metrics.partitions.WithLabelValues("dropped").Inc()
		}
	}
	return nil
}

// partitionRest is how long after its end a partition is left alone: commits
// for it are on their way.
const partitionRest = time.Minute

// releaseMark is in the name under which each connection of this release shows
// itself. An aggregator of a release before has none: it reads hot rows alone,
// so none of them may be dropped while one is here.
const releaseMark = "+chunks"

const defaultName = "aggregator"

// applicationName is the name under which an aggregator of any release shows
// its connections, as far as that is up to the DSN.
func applicationName(dsn string) (string, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return "", fmt.Errorf("database DSN: %w", err)
	}
	return cmp.Or(cfg.RuntimeParams["application_name"], defaultName), nil
}

// markedName is the name of a connection of this release. The server keeps 63
// bytes of a name.
func markedName(name string) string {
	name = cmp.Or(name, defaultName)
	return name[:min(len(name), 63-len(releaseMark))] + releaseMark
}

// olderReleases counts the connections of aggregators that do not know chunks.
func (s *Store) olderReleases(ctx context.Context) (n int, err error) {
	err = s.maint.QueryRow(ctx, `select count(*) from pg_stat_activity
where datname = current_database() and application_name in ($1, left($2, 63))`, defaultName, s.appName).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("look for aggregators of an older release: %w", err)
	}
	s.metrics.olderReleases.Set(float64(n))
	return n, nil
}

// dayCover remembers which partitions of chunks exist, so that a unit need not
// ask. One that has been dropped meanwhile costs nothing: the default partition
// takes what comes. Safe for concurrent use.
type dayCover struct {
	mu   sync.Mutex
	have map[classDay]bool
}

func (d *dayCover) set(have map[classDay]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.have = have
}

func (d *dayCover) add(class int16, days []chunkDay) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.have == nil {
		d.have = map[classDay]bool{}
	}
	for _, day := range days {
		d.have[classDay{class, day}] = true
	}
}

func (d *dayCover) forget(class int16, day chunkDay) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.have, classDay{class, day})
}

func (d *dayCover) missing(class int16, days []chunkDay) (list []chunkDay) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, day := range days {
		if !d.have[classDay{class, day}] {
			list = append(list, day)
		}
	}
	return list
}
