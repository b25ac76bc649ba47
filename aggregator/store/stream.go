package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// StreamEpoch is the number of the database's history: positions of another
// epoch mean nothing here.
func (s *Store) StreamEpoch(ctx context.Context) (int64, error) {
	var epoch int64
	_, err := one(ctx, s.api, "read the stream epoch", []any{&epoch}, "select stream_epoch()")
	return epoch, err
}

// StreamHead is the last position of the scope's stream; 0 where it has none.
func (s *Store) StreamHead(ctx context.Context, scope telemetry.Scope) (int64, error) {
	var head int64
	err := s.inScope(ctx, "read the head of stream "+scope.String(), scope, func(ctx context.Context, conn *pgx.Conn) (err error) {
		head, _, err = readCounter(ctx, conn, scope)
		return err
	})
	return head, err
}

// readCounter returns the last position and how many microseconds lines were
// ever ahead of their arrival.
func readCounter(ctx context.Context, conn *pgx.Conn, scope telemetry.Scope) (head, ahead int64, err error) {
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	err = conn.QueryRow(call, "select next - 1, ahead from stream_counter where org = $1 and env = $2", string(scope.Org), int16(scope.Env)).Scan(&head, &ahead)
	if noRows(err) {
		return 0, 0, nil
	}
	return head, ahead, err
}

// recentSpan is what ReadStream looks at first: streams are read at their
// head, and a bound on the time of arrival leaves old partitions alone.
const recentSpan = 2 * time.Hour

// maxStreamBytes bounds the text of the rows that one ReadStream loads; one
// row is always taken.
const maxStreamBytes = 16 << 20

// ReadStream returns the records after a position, by rising position and
// without a gap: at least one row of lines or one gap if there is any, and no
// more once limit is reached. A row that begins before is returned whole, and of
// chunks there may come more than limit. Where the first position returned is
// beyond after+1, retention has taken what was between.
func (s *Store) ReadStream(ctx context.Context, scope telemetry.Scope, after int64, limit int) ([]*frame.Published, error) {
	var list []*frame.Published
	limit = max(1, limit)
	sc := s.newScan(scope, &telemetry.LogFilter{}, time.Time{}, time.Time{})
	err := sc.inSnapshot(ctx, fmt.Sprintf("read the stream after %d", after), nil, func(ctx context.Context) (err error) {
		for at := after; at < sc.head && len(list) == 0; {
			if at+1 < sc.compacted {
				list, at, err = sc.readChunks(ctx, at, limit)
			} else {
				list, err = sc.readHot(ctx, at, limit)
				at = sc.head
			}
			if err != nil {
				return err
			}
		}
		list, err = sc.bridge(ctx, list, after)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// readHot reads what is not compacted: what arrived lately, if that suffices.
func (sc *scan) readHot(ctx context.Context, after int64, limit int) ([]*frame.Published, error) {
	list, err := sc.readPositions(ctx, after, limit, time.Now().Add(-recentSpan))
	if err != nil || len(list) > 0 && list[0].Position <= after+1 {
		return list, err
	}
	return sc.readPositions(ctx, after, limit, minTime)
}

// readPositions reads rows that arrived since a time.
func (sc *scan) readPositions(ctx context.Context, after int64, limit int, since time.Time) ([]*frame.Published, error) {
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var lines []*frame.Published
	var gaps []telemetry.Gap
	var q pgx.Batch
	q.Queue(streamRows, string(sc.scope.Org), int16(sc.scope.Env), after, limit, maxStreamBytes, since, sc.compacted).Query(func(rows pgx.Rows) (err error) {
		lines, err = sc.publishedRows(rows)
		return err
	})
	sc.queueStreamGaps(&q, after, sc.head+1, limit, &gaps)
	if err := sc.conn.SendBatch(call, &q).Close(); err != nil {
		return nil, err
	}
	lines, gaps = sc.hideGaps(lines, gaps)
	return mergeStream(sc.scope, lines, gaps, after, limit), nil
}

func (sc *scan) queueStreamGaps(q *pgx.Batch, after, below int64, limit int, to *[]telemetry.Gap) {
	q.Queue(selectGaps+" where org = $1 and env = $2 and pos > $3 and pos < $4 order by pos limit $5", string(sc.scope.Org), int16(sc.scope.Env), after, below, limit).
		Query(func(rows pgx.Rows) (err error) {
			*to, err = pgx.CollectRows(rows, scanGap)
			return err
		})
}

const streamRows = `select pos, recv_at, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace from (
  select *, sum(n) over w - n as lines_before, (sum(raw) over w)::bigint - raw as bytes_before from (
    select * from log_hot
    where org = $1 and env = $2 and recv_at >= $6 and pos >= $7 and pos + n > $3 + 1
      and pos >= coalesce((select max(pos) from log_hot where org = $1 and env = $2 and recv_at >= $6 and pos <= $3 + 1), 0)
    order by pos limit $4) r
  window w as (order by pos)) r
where lines_before < $4 and bytes_before < $5
order by pos`

// publishedRows decodes rows of all columns, and leaves out what is erased.
func (sc *scan) publishedRows(rows pgx.Rows) ([]*frame.Published, error) {
	var list []*frame.Published
	for rows.Next() {
		var pos int64
		var recv time.Time
		var head []byte
		var columns [segment.NumColumns][]byte
		if err := rows.Scan(&pos, &recv, &head, &columns[0], &columns[1], &columns[2], &columns[3], &columns[4], &columns[5]); err != nil {
			return nil, err
		}
		parts, err := segment.Split(head, &columns)
		if err != nil {
			return nil, fmt.Errorf("row at position %d: %w", pos, err)
		}
		for i := range parts {
			lines := parts[i].Read()
			if err := lines.DecodeAll(); err != nil {
				return nil, fmt.Errorf("row at position %d, part %d: %w", pos, i, err)
			}
			if list, err = sc.appendPublished(list, pos, recv, &parts[i], lines); err != nil {
				return nil, fmt.Errorf("row at position %d, part %d: %w", pos, i, err)
			}
			pos += int64(parts[i].Lines)
		}
	}
	return list, rows.Err()
}

// mergeStream puts lines and gaps in order and stops where one of the two may
// have been cut by its limit, or where a position is missing.
func mergeStream(scope telemetry.Scope, lines []*frame.Published, gaps []telemetry.Gap, after int64, limit int) []*frame.Published {
	var list []*frame.Published
	var taken int64
	for taken < int64(limit) && (len(lines) > 0 || len(gaps) > 0) {
		var p *frame.Published
		if len(gaps) == 0 || len(lines) > 0 && lines[0].Position < gaps[0].Position {
			p, lines = lines[0], lines[1:]
		} else {
			p, gaps = publishedGap(scope, gaps[0].Position, gaps[0]), gaps[1:]
		}
		if p.Next() <= after+1 {
			continue // a part of the first row that lies wholly before
		}
		if n := len(list); n > 0 && list[n-1].Next() != p.Position {
			break // the rest is beyond a limit of one of the two
		}
		list = append(list, p)
		taken += p.Next() - p.Position
	}
	return list
}

const selectGaps = "select pos, recv_at, node, reason, count, bytes, since, until, first_seq, last_seq, agent, session, sandbox, detail from gap"

func scanGap(row pgx.CollectableRow) (telemetry.Gap, error) {
	var g telemetry.Gap
	var since, until *time.Time
	var first, last int64
	err := row.Scan(&g.Position, &g.ObservedAt, &g.Node, &g.Reason, &g.Count, &g.Bytes, &since, &until, &first, &last, &g.Agent, &g.Session, &g.Sandbox, &g.Detail)
	g.ObservedAt = g.ObservedAt.UTC()
	g.Since, g.Until = timeOrZero(since), timeOrZero(until)
	g.FirstSeq, g.LastSeq = uint64(first), uint64(last) //nolint:gosec // stored as bits
	return g, err
}

// timeOrZero reads null as the zero time.
func timeOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
