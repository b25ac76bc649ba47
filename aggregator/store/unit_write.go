package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// errOvertaken: somebody else compacted, merged or deleted the same lines first.
var errOvertaken = errors.New("another aggregator was first")

const insertChunk = `insert into log_chunk (org, env, class, day, id, last, n, l0, l1, l2, l3, raw, t0, t1, recv0, recv1, odd, session_lo, session_hi, agents, sessions,
  counts, bloom, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace, c_place, owners)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32)`

func queueChunks(q *pgx.Batch, scope telemetry.Scope, chunks []*dayChunk) {
	for _, c := range chunks {
		q.Queue(insertChunk, string(scope.Org), int16(scope.Env), c.class, c.day.date(), c.First, c.Last, c.Lines,
			c.Levels[telemetry.Debug], c.Levels[telemetry.Info], c.Levels[telemetry.Warn], c.Levels[telemetry.Error], int64(c.RawBytes),
			clampTime(c.Min), clampTime(c.Max), clampTime(c.Observed0), clampTime(c.Observed1), c.odd, c.SessionLo, c.SessionHi, c.Agents, c.Sessions,
			stored(c.Counts), stored(c.Bloom), stored(c.Head), stored(c.Columns[segment.Time]), stored(c.Columns[segment.Flags]), stored(c.Columns[segment.Origin]),
			stored(c.Columns[segment.Message]), stored(c.Columns[segment.Metadata]), stored(c.Columns[segment.Trace]), stored(c.Places), c.Owners)
	}
}

// stored is a column as it goes into the database, where null is for what was
// not loaded.
func stored(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (c *dayChunk) size() int64 {
	n := len(c.Counts) + len(c.Owners) + len(c.Bloom) + len(c.Head) + len(c.Places)
	for _, b := range c.Columns {
		n += len(b)
	}
	return int64(n)
}

// advance is the compare-and-set that makes a unit's chunks take the place of
// its rows: it changes nothing if somebody compacted the stream since the unit
// was read. Commits of the stream wait from here to the end of the transaction.
// What is still waiting arrived no earlier than the unit's last row.
const advance = `update stream_counter
set compacted = $4, hot_rows = greatest(hot_rows - $5, 0), hot_raw = greatest(hot_raw - $6, 0), hot_since = case when next > $4 then $7::timestamptz end
where org = $1 and env = $2 and compacted = $3`

func (u *unit) advance(ctx context.Context, tx pgx.Tx) error {
	tag, err := tx.Exec(ctx, advance, string(u.scope.Org), int16(u.scope.Env), u.from, u.to, u.rows, u.raw, nullTime(u.last))
	if err != nil {
		return fmt.Errorf("advance the counter: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return errOvertaken
	}
	return nil
}

// writeUnit puts a unit's chunks in the place of its rows.
func (s *Store) writeUnit(ctx context.Context, u *unit) error {
	return s.inMaint(ctx, func(tx pgx.Tx) error {
		var q pgx.Batch
		queueChunks(&q, u.scope, u.chunks)
		if err := tx.SendBatch(ctx, &q).Close(); err != nil {
			return fmt.Errorf("insert chunks: %w", err)
		}
		return u.advance(ctx, tx)
	})
}

// inMaint runs fn in a transaction of maintenance. It need not be durable when
// it returns: if the server loses it, it loses all of it, and what it took the
// place of is still there. (What drops a partition is flushed after it.)
func (s *Store) inMaint(ctx context.Context, fn func(tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, compactTimeout)
	defer cancel()
	tx, err := s.maint.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), shortTimeout)
		defer stop()
		_ = tx.Rollback(end) // after a commit it does nothing; the pool drops a broken connection
	}()
	if _, err := tx.Exec(ctx, "set local synchronous_commit = off"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := fn(tx); err != nil {
		if isCode(err, uniqueViolation) {
			return fmt.Errorf("%w: %w", errOvertaken, err)
		}
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// compactTimeout bounds each step of the compactor.
const compactTimeout = time.Minute
