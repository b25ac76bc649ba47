package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Limits of one unit, which bound what the compactor holds: the rows as they
// are stored, what they decode to, and the chunks that it makes of them. One row
// is always taken; a commit cuts rows at maxRowDecoded.
const (
	unitLines   = 65_536
	unitBytes   = 16 << 20 // as stored, or of text, whatever is more
	unitDecoded = 24 << 20
	unitRows    = 2_048
)

// unit is consecutive hot rows of one stream on their way into chunks.
type unit struct {
	scope    telemetry.Scope
	from, to int64 // the stream is compacted below from; afterwards below to
	rows     int
	lines    int
	raw      int64     // as the rows say
	stored   int64     // bytes of their columns
	last     time.Time // arrival of the last row
	chunks   []*dayChunk
}

// selectUnit reads the first rows of a stream that are not compacted. What the
// sums are of is known without reading the columns themselves.
const selectUnit = `select pos, n, recv_at, raw, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace
from (
  select pos, n, recv_at, raw, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace,
    row_number() over w as r, sum(n) over w as lines,
    sum(greatest(raw, octet_length(head) + octet_length(c_message) + octet_length(c_metadata) + octet_length(c_time) + octet_length(c_origin) + octet_length(c_trace))) over w as bytes
  from log_hot where org = $1 and env = $2 and pos >= $3
  window w as (order by pos rows unbounded preceding)
  order by pos limit $4
) u where r = 1 or lines <= $5 and bytes <= $6
order by pos`

// hotRow is one row of log_hot as it was read.
type hotRow struct {
	pos     int64
	n       int
	recv    time.Time
	raw     int64
	head    []byte
	columns [segment.NumColumns][]byte
}

func (r *hotRow) scan(row pgx.Row) error {
	c := &r.columns
	err := row.Scan(&r.pos, &r.n, &r.recv, &r.raw, &r.head, &c[segment.Time], &c[segment.Flags], &c[segment.Origin], &c[segment.Message], &c[segment.Metadata], &c[segment.Trace])
	r.recv = r.recv.UTC()
	return err
}

func (r *hotRow) stored() int64 {
	n := len(r.head)
	for _, c := range r.columns {
		n += len(c)
	}
	return int64(n)
}

// readUnit reads, decodes and cuts the next unit of a stream, of at most so
// many rows; none where no row waits. A row that cannot be decoded ends the unit
// before it; where it is the first one, that is the error.
func (s *Store) readUnit(ctx context.Context, cutter *chunkCutter, scope telemetry.Scope, from int64, most int, class int16) (*unit, error) {
	ctx, cancel := context.WithTimeout(ctx, compactTimeout)
	defer cancel()
	rows, err := s.maint.Query(ctx, selectUnit, string(scope.Org), int16(scope.Env), from, most, unitLines, unitBytes)
	if err != nil {
		return nil, fmt.Errorf("read hot rows: %w", err)
	}
	defer rows.Close()
	cutter.reset()
	u := &unit{scope: scope, from: from, to: from}
	decoded := 0
	for rows.Next() {
		var r hotRow // its columns are not shared with the next: blocks are views of them
		if err := r.scan(rows); err != nil {
			return nil, fmt.Errorf("read hot rows: %w", err)
		}
		blocks, size, err := decodeRow(&r)
		switch {
		case err != nil && u.rows == 0:
			return nil, fmt.Errorf("the row at position %d: %w", r.pos, err)
		case err != nil || u.rows > 0 && decoded+size > unitDecoded:
			rows.Close()
		default:
			u.take(&r)
			decoded += size
			for _, b := range blocks {
				cutter.add(b)
			}
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read hot rows: %w", err)
	}
	u.chunks = cutter.cut(class)
	return u, nil
}

func (u *unit) take(r *hotRow) {
	u.to = r.pos + int64(r.n)
	u.rows++
	u.lines += r.n
	u.raw += r.raw
	u.stored += r.stored()
	u.last = r.recv
}

// decodeRow decodes all lines of a hot row. size is about what they take.
func decodeRow(r *hotRow) (blocks []lineBlock, size int, err error) {
	parts, err := segment.Split(r.head, &r.columns)
	if err != nil {
		return nil, 0, err
	}
	at := r.pos
	for i := range parts {
		lines := parts[i].Read()
		if err := lines.DecodeAll(); err != nil {
			return nil, 0, err
		}
		size += parts[i].DecodedBytes()
		blocks = append(blocks, segmentBlock(lines, &parts[i], at, r.recv))
		at += int64(lines.Segment.Lines)
	}
	if at != r.pos+int64(r.n) {
		return nil, 0, fmt.Errorf("%w: %d lines where the row says %d", segment.ErrCorrupt, at-r.pos, r.n)
	}
	return blocks, size, nil
}
