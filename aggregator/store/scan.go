package store

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// scan is one query of lines and the one snapshot that it reads:
//
//	open ─▶ candidates (small rows of numbers, newest first) ─▶ each (columns) ─▶ workers: choose lines
//
// All lines with positions from compacted on are in log_hot, all others in
// log_chunk. Whoever reads lines does so through a scan, and sees of a row what
// rowData.choose lets through.
type scan struct {
	store  *Store
	conn   *pgx.Conn
	scope  telemetry.Scope
	filter *telemetry.LogFilter
	in     segment.Range   // what was asked for, in whole microseconds
	tokens []segment.Token // what the bloom of a chunk with a match must hold
	uses   telemetry.LogFields

	head, ahead, compacted int64
	erasures               int64         // how often something happened to erasures
	excluded               *exclusions   // what is erased
	span                   segment.Range // in, within the spans of the agents and sessions that the filter names
	none                   bool          // they have no lines at all

	sifted, siftedOut int // rows whose blooms were asked more, and those that it ruled out

	busy atomic.Int64 // nanoseconds that workers spent
}

// newScan prepares a scan of what matches a filter in a range of timestamps.
func (s *Store) newScan(scope telemetry.Scope, f *telemetry.LogFilter, since, until time.Time) *scan {
	sc := &scan{store: s, scope: scope, filter: f, in: segment.Range{Since: wholeMicros(since), Until: wholeMicros(until)}, uses: f.Where.Uses()}
	sc.tokens = segment.Tokens(f.Needles()...)
	sc.span = sc.in
	return sc
}

// wholeMicros rounds a bound up to the microsecond, which changes nothing for
// timestamps of whole microseconds.
func wholeMicros(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(time.Microsecond - 1).Truncate(time.Microsecond)
}

// run waits for its turn, opens the snapshot and calls fn in it. queue adds
// statements to the round trip that opens it.
func (sc *scan) run(ctx context.Context, what string, queue func(*pgx.Batch), fn func(ctx context.Context) error) error {
	leave, err := sc.store.enterScan(ctx, sc.scope.Org)
	if err != nil {
		return err
	}
	defer leave()
	return sc.inSnapshot(ctx, what, queue, fn)
}

// inSnapshot opens the snapshot at once and calls fn in it.
func (sc *scan) inSnapshot(ctx context.Context, what string, queue func(*pgx.Batch), fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	what += " of " + sc.scope.String()
	begin, cancelBegin := context.WithTimeout(ctx, shortTimeout)
	defer cancelBegin()
	conn, err := sc.store.api.Acquire(begin)
	if err != nil {
		return failure(ctx, what, err)
	}
	defer conn.Release() // drops the connection if the transaction is still open
	sc.conn = conn.Conn()
	if err := sc.open(begin, queue); err != nil {
		return failure(ctx, what, err)
	}
	err = fn(ctx)
	rollback(ctx, sc.conn)
	return failure(ctx, what, err)
}

// open takes the snapshot. log_hot is locked before: a partition of it is
// dropped only while nobody may still read what was compacted since.
func (sc *scan) open(ctx context.Context, queue func(*pgx.Batch)) error {
	org, env := string(sc.scope.Org), int16(sc.scope.Env)
	var q pgx.Batch
	q.Queue("begin isolation level repeatable read read only")
	q.Queue("lock table only log_hot in access share mode")
	// Statements are few and look rows up by index whatever they are asked, so that
	// planning each anew, over all partitions, would cost more than it saves. The
	// generic plan knows of no large organisation, and would sort all its chunks.
	q.Queue("select set_config('app.org', $1, true), set_config('app.env', $2, true), set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_sort', 'off', true)", org, envText(sc.scope.Env))
	q.Queue("select next - 1, ahead, compacted, erasures from stream_counter where org = $1 and env = $2", org, env).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&sc.head, &sc.ahead, &sc.compacted, &sc.erasures)
		if noRows(err) {
			return nil
		}
		return err
	})
	if ids := texts(sc.filter.Agents); len(ids) > 0 {
		q.Queue("select min(first_line), max(last_line) from agent where org = $1 and env = $2 and id = any ($3)", org, env, ids).QueryRow(sc.narrow)
	}
	if ids := texts(sc.filter.Sessions); len(ids) > 0 {
		q.Queue("select min(first_line), max(last_line) from session where org = $1 and env = $2 and id = any ($3)", org, env, ids).QueryRow(sc.narrow)
	}
	if queue != nil {
		queue(&q)
	}
	if err := sc.conn.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("open a snapshot: %w", err)
	}
	var err error
	sc.excluded, err = sc.store.exclusions(ctx, sc.conn, sc.scope, sc.erasures)
	return err
}

// narrow takes the span of the lines of agents or sessions.
func (sc *scan) narrow(row pgx.Row) error {
	var first, last *time.Time
	if err := row.Scan(&first, &last); err != nil {
		return fmt.Errorf("read spans: %w", err)
	}
	if first == nil || last == nil {
		sc.none = true
		return nil
	}
	if since := first.Add(-spanSlack); sc.span.Since.Before(since) {
		sc.span.Since = since
	}
	if until := last.Add(spanSlack + time.Microsecond); sc.span.Until.IsZero() || sc.span.Until.After(until) {
		sc.span.Until = until
	}
	return nil
}

// readsText reports whether the filter cannot be decided without the columns
// of texts.
func (sc *scan) readsText() bool {
	f := sc.filter
	return f.Search != "" || len(f.Traces)+len(f.Spans) > 0 || sc.uses&^(telemetry.OriginFields|1<<telemetry.FieldLevel) != 0
}

// byNode reports whether the filter asks for the node of a line.
func (sc *scan) byNode() bool {
	return len(sc.filter.Nodes) > 0 || sc.uses.Has(telemetry.FieldNode)
}

// columns returns the columns that Select may ask for.
func (sc *scan) columns() columnSet {
	f := sc.filter
	c := columnSet(0)
	if !sc.in.Since.IsZero() || !sc.in.Until.IsZero() {
		c |= 1 << segment.Time
	}
	if len(f.Levels) > 0 || sc.uses.Has(telemetry.FieldLevel) {
		c |= 1 << segment.Flags
	}
	if f.FiltersOrigins() || sc.uses != 0 {
		c |= 1 << segment.Origin
	}
	if sc.byNode() {
		c |= placeColumn
	}
	if sc.uses.Has(telemetry.FieldMetadata) {
		c |= 1 << segment.Metadata
	}
	if len(f.Traces)+len(f.Spans) > 0 || sc.uses.Has(telemetry.FieldTrace) || sc.uses.Has(telemetry.FieldSpan) {
		c |= 1 << segment.Trace
	}
	if !sc.excluded.empty() {
		c |= 1<<segment.Time | 1<<segment.Origin
	}
	if f.Search != "" || sc.uses.Has(telemetry.FieldMessage) {
		c |= 1 << segment.Message
	}
	return c
}
