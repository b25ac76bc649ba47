package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/telemetry"
)

// MaxRetentionClass is the highest number of a retention class. Class 0 is that
// of Options.Retention.
const MaxRetentionClass = 99

// MinRetention is the shortest time for which an organisation's lines can be
// kept: they are in hot rows before.
const MinRetention = time.Hour

// retention is what one organisation has of its own.
type retention struct {
	class int16
	keep  time.Duration // zero: as long as the class says
}

// retentions are the organisations that have any.
type retentions map[telemetry.OrgID]retention

func (r retentions) class(org telemetry.OrgID) int16 { return r[org].class }

func (s *Store) retentions(ctx context.Context) (retentions, error) {
	ctx, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	rows, err := s.maint.Query(ctx, "select org, class, extract(epoch from keep)::bigint from log_retentions()")
	if err != nil {
		return nil, fmt.Errorf("read retentions: %w", err)
	}
	all := retentions{}
	var org string
	var class int16
	var seconds *int64
	if _, err := pgx.ForEachRow(rows, []any{&org, &class, &seconds}, func() error {
		r := retention{class: class}
		if seconds != nil {
			r.keep = time.Duration(*seconds) * time.Second
		}
		all[telemetry.OrgID(org)] = r
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read retentions: %w", err)
	}
	return all, nil
}

// setClasses takes the retention classes of the configuration.
func (s *Store) setClasses(classes map[int]time.Duration) error {
	s.classes = make(map[int16]time.Duration, len(classes))
	for class, keep := range classes {
		if class < 1 || class > MaxRetentionClass || keep < MinRetention {
			return fmt.Errorf("retention class %d of %s: a class is a number from 1 to %d, and keeps lines for at least %s", class, keep, MaxRetentionClass, MinRetention)
		}
		s.classes[int16(class)] = keep
	}
	return nil
}

// keep is for how long chunks of a class are kept. One that the configuration
// does not name (any more) is kept as long as the longest: a slip in a file must
// not delete anything.
func (s *Store) keep(class int16) time.Duration {
	if class == 0 {
		return s.retention
	}
	if d, ok := s.classes[class]; ok {
		return d
	}
	longest := s.retention
	for _, d := range s.classes {
		longest = max(longest, d)
	}
	return longest
}

// chunkPartition is a partition of log_chunk, of one class and day.
type chunkPartition struct {
	name  string
	class int16
	day   chunkDay
}

func (s *Store) chunkPartitions(ctx context.Context) ([]chunkPartition, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	rows, err := s.maint.Query(ctx, "select name, class, day from chunk_partitions()")
	if err != nil {
		return nil, fmt.Errorf("list partitions of chunks: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p chunkPartition, err error) {
		var day time.Time
		err = row.Scan(&p.name, &p.class, &day)
		p.day = dayOf(day)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("list partitions of chunks: %w", err)
	}
	return list, nil
}

// classDay names a partition of chunks.
type classDay struct {
	class int16
	day   chunkDay
}

// makeChunkPartitions makes those from yesterday to tomorrow, of all classes
// that are in use or configured.
func (s *Store) makeChunkPartitions(ctx context.Context, now time.Time) error {
	existing, err := s.chunkPartitions(ctx)
	if err != nil {
		return err
	}
	classes := map[int16]bool{0: true}
	for class := range s.classes {
		classes[class] = true
	}
	have := map[classDay]bool{}
	for _, p := range existing {
		classes[p.class] = true
		have[classDay{p.class, p.day}] = true
	}
	s.days.set(have)
	var errs []error
	today := dayOf(now)
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		errs = append(errs, s.makeDays(ctx, class, []chunkDay{today - 1, today, today + 1}))
	}
	return errors.Join(errs...)
}

// coverDays makes the partitions for chunks of other days: late lines. Where one
// cannot be made now, the default partition takes the chunk.
func (s *Store) coverDays(ctx context.Context, chunks []*dayChunk) error {
	want := map[int16][]chunkDay{}
	for _, c := range chunks {
		if !slices.Contains(want[c.class], c.day) {
			want[c.class] = append(want[c.class], c.day)
		}
	}
	for class, days := range want {
		if err := s.makeDays(ctx, class, days); err != nil && !isCode(err, lockNotAvailable) {
			return err
		}
	}
	return nil
}

func (s *Store) makeDays(ctx context.Context, class int16, days []chunkDay) error {
	days = s.days.missing(class, days)
	if len(days) == 0 {
		return nil
	}
	dates := make([]time.Time, len(days))
	for i, d := range days {
		dates[i] = d.date()
	}
	ctx, cancel := context.WithTimeout(ctx, maintTimeout)
	defer cancel()
	var made int
	if err := s.maint.QueryRow(ctx, "select make_chunk_partitions($1, $2::date[])", class, dates).Scan(&made); err != nil {
		return fmt.Errorf("make the partitions of chunks from %s: %w", dates[0].Format(time.DateOnly), err)
	}
	s.days.add(class, days)
	s.metrics.partitions.WithLabelValues("made").Add(float64(made))
	return nil
}

// dropChunkPartitions drops what is older than its class keeps. A partition
// that is being read now is left for the next time.
func (s *Store) dropChunkPartitions(ctx context.Context, now time.Time) error {
	existing, err := s.chunkPartitions(ctx)
	if err != nil {
		return err
	}
	for _, p := range existing {
		before := dayOf(now.Add(-s.keep(p.class)))
		if p.day >= before {
			continue
		}
		var dropped bool
		err := s.maint.QueryRow(ctx, "select drop_chunk_partition($1, $2, $3)", p.name, p.class, before.date()).Scan(&dropped)
		if isCode(err, lockNotAvailable) {
			continue
		}
		if err != nil {
			return fmt.Errorf("drop partition %s: %w", p.name, err)
		}
		if dropped {
			s.days.forget(p.class, p.day)
			s.metrics.partitions.WithLabelValues("dropped").Inc()
			s.log.Info("dropped a day of chunks older than the retention", "partition", p.name, "retention", s.keep(p.class).String())
		}
	}
	return nil
}

const (
	// A day that lies wholly before, and of the day in which the bound lies the
	// chunks that do. (The timestamps of odd chunks say nothing of their day.)
	purgeOwn = `delete from log_chunk where org = $1 and (day < $2 or day = $2 and t1 < $3 and not odd)`

	// Of days that no partition could be made for; all others are dropped.
	purgeClass = `delete from log_chunk where class = $1 and day < $2`
)

// purgeChunks deletes the chunks that their organisation keeps for a shorter
// time than its class, and what is left of old days: where a partition of one
// is still to be dropped, that is waited for, or its rows would go one by one.
func (s *Store) purgeChunks(ctx context.Context, now time.Time) error {
	all, err := s.retentions(ctx)
	if err != nil {
		return err
	}
	existing, err := s.chunkPartitions(ctx)
	if err != nil {
		return err
	}
	var errs []error
	classes := map[int16]bool{0: true}
	for class := range s.classes {
		classes[class] = true
	}
	for org, r := range all {
		classes[r.class] = true
		if r.keep == 0 {
			continue
		}
		bound := now.Add(-r.keep)
		if _, err := s.maint.Exec(ctx, purgeOwn, string(org), dayOf(bound).date(), bound); err != nil {
			errs = append(errs, fmt.Errorf("delete lines of %s older than %s: %w", org, r.keep, err))
		}
	}
	for class := range classes {
		before := dayOf(now.Add(-s.keep(class)))
		if slices.ContainsFunc(existing, func(p chunkPartition) bool { return p.class == class && p.day < before }) {
			continue
		}
		if _, err := s.maint.Exec(ctx, purgeClass, class, before.date()); err != nil {
			errs = append(errs, fmt.Errorf("delete lines of class %d: %w", class, err))
		}
	}
	return errors.Join(errs...)
}

// SetRetention puts the organisation's lines into a retention class, from the
// next compaction on. keep, if not zero, deletes them earlier than the class
// does.
func (a *Admin) SetRetention(ctx context.Context, org telemetry.OrgID, class int, keep time.Duration) error {
	switch {
	case class < 0 || class > MaxRetentionClass:
		return telemetry.Failf(telemetry.InvalidRequest, "A retention class is a number from 0 to %d.", MaxRetentionClass)
	case keep != 0 && keep < MinRetention:
		return telemetry.Failf(telemetry.InvalidRequest, "Lines are kept for at least %s; give 0 for as long as the class says.", MinRetention)
	}
	var own *time.Duration
	if keep != 0 {
		own = &keep
	}
	return a.mustChange(ctx, "set the retention of "+string(org), "There is no organisation "+string(org)+".",
		"update organisation set retention_class = $2, retention = $3 where id = $1", string(org), class, own)
}

// Retention returns the organisation's retention class, and how long it keeps
// lines if that is shorter (zero: as long as the class says).
func (a *Admin) Retention(ctx context.Context, org telemetry.OrgID) (class int, keep time.Duration, err error) {
	var own *time.Duration
	err = a.conn.QueryRow(ctx, "select retention_class, retention from organisation where id = $1", string(org)).Scan(&class, &own)
	if noRows(err) {
		return 0, 0, telemetry.Failf(telemetry.NotFound, "There is no organisation %s.", org)
	}
	if own != nil {
		keep = *own
	}
	return class, keep, failure(ctx, "read the retention of "+string(org), err)
}
