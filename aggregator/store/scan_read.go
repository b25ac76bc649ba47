package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/shared/segment"
)

// columnSet is a set of columns, a bit each by segment.Column.
type columnSet uint8

const (
	placeColumn columnSet = 1 << segment.NumColumns // c_place: in chunks only
	skimmed     columnSet = 1 << 7                  // no column: whoever reads them keeps nothing of a row, not even a string
	allColumns  columnSet = 1<<segment.NumColumns - 1
)

var columnNames = [segment.NumColumns + 1]string{"c_time", "c_flags", "c_origin", "c_message", "c_metadata", "c_trace", "c_place"}

// sql lists the columns to read; those left out are null.
func (c columnSet) sql(chunk bool) string {
	var text strings.Builder
	text.WriteString("head")
	for i, name := range columnNames {
		if c&(1<<i) == 0 || columnSet(1<<i) == placeColumn && !chunk {
			name = "null::bytea"
		}
		text.WriteString(", ")
		text.WriteString(name)
	}
	return text.String()
}

// rowData is a row with the columns that were read of it.
type rowData struct {
	*row
	parts  []segment.Part
	column []byte          // of places, of a chunk, where it was read
	places *segment.Places // once somebody asked for them

	reader segment.Lines // of one part after the other
	split  segment.Splitter
	chosen []int // scratch
}

// rowScratch keeps what rows were decoded with.
var rowScratch = sync.Pool{New: func() any { return new(rowData) }}

// lines returns a part to read. It is valid until the next part is.
func (d *rowData) lines(i int) *segment.Lines {
	d.reader.Reset(d.parts[i].Segment)
	return &d.reader
}

// locate tells lines of part i where they stand, which takes decoding: it is
// for parts with lines that matter.
func (d *rowData) locate(i int, lines *segment.Lines) error {
	if d.column == nil || lines.Places() != nil {
		return nil
	}
	if d.places == nil {
		places, err := segment.ReadPlaces(d.column)
		if err != nil {
			return err
		}
		if places.Blocks() != len(d.parts) {
			return fmt.Errorf("%w: %d blocks and places of %d", segment.ErrCorrupt, len(d.parts), places.Blocks())
		}
		d.places = places
	}
	block, err := d.places.Block(i)
	if err != nil {
		return err
	}
	return lines.Place(block)
}

// position returns the position of a line of part i.
func (d *rowData) position(lines *segment.Lines, first int64, line int) int64 {
	if p := lines.Places(); p != nil {
		return p.Position(line)
	}
	return first + int64(line)
}

// choose returns the lines of a part that the scan finds, rising: those that
// match the filter, lie in the range and are not erased. This is the one place where lines are
// let through to whoever reads logs.
func (sc *scan) choose(d *rowData, i int, lines *segment.Lines) ([]int, error) {
	if sc.byNode() {
		if err := d.locate(i, lines); err != nil {
			return nil, err
		}
	}
	chosen, err := lines.Select(d.chosen[:0], sc.filter, d.parts[i].Node, sc.in)
	d.chosen = chosen
	if err != nil {
		return nil, err
	}
	return sc.excluded.keep(chosen, lines)
}

// manyColumns is of how many rows columns are asked for together.
const manyColumns = 256

// each reads columns of rows on the scan's connection and hands every row to
// do, which runs for several rows at once. It returns when all are done.
func (sc *scan) each(ctx context.Context, columns columnSet, rows []*row, do func(*rowData) error) error {
	sc.store.metrics.rowsRead.Add(float64(len(rows)))
	for now := range slices.Chunk(rows, manyColumns) {
		if err := sc.eachOf(ctx, columns, now, do); err != nil {
			return err
		}
	}
	return nil
}

func (sc *scan) eachOf(ctx context.Context, columns columnSet, rows []*row, do func(*rowData) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	workers, workCtx := errgroup.WithContext(ctx)
	workers.SetLimit(runtime.GOMAXPROCS(0))
	var q pgx.Batch
	skims := columns&skimmed != 0
	for _, g := range sc.groups(rows) {
		g.queue(&q, sc, columns, func(r *row, columns [][]byte) error {
			return sc.hand(workCtx, workers, r, columns, skims, do)
		})
	}
	err := sc.conn.SendBatch(workCtx, &q).Close()
	if werr := workers.Wait(); werr != nil {
		return werr // it is why the reading was given up
	}
	return err
}

// hand gives one row to a worker once there is memory for it. The columns are
// views that end with the call.
func (sc *scan) hand(ctx context.Context, workers *errgroup.Group, r *row, columns [][]byte, skims bool, do func(*rowData) error) error {
	size := 0
	for _, c := range columns {
		size += len(c)
	}
	release, err := sc.store.reserve(ctx, int64(size)+decodedSize(r, columns))
	if err != nil {
		return err
	}
	buffer := rowBuffers.get(size)
	var views [len(columnNames) + 1][]byte
	for i, c := range columns {
		if c != nil {
			start := len(buffer)
			buffer = append(buffer, c...)
			views[i] = buffer[start:len(buffer):len(buffer)]
		}
	}
	workers.Go(func() error {
		defer release()
		defer rowBuffers.put(buffer)
		began := time.Now()
		defer func() { sc.busy.Add(int64(time.Since(began))) }()
		if err := sc.decode(r, &views, skims, do); err != nil {
			return fmt.Errorf("row at position %d: %w", r.id, err)
		}
		return nil
	})
	return nil
}

// decodedSize is about what decoding takes, one part after the other.
func decodedSize(r *row, columns [][]byte) int64 {
	size := int64(r.n) * 32
	if len(columns[1+segment.Message]) > 0 {
		size += r.raw
	}
	return size
}

func (sc *scan) decode(r *row, views *[len(columnNames) + 1][]byte, skims bool, do func(*rowData) error) error {
	d := rowScratch.Get().(*rowData) //nolint:forcetypeassert // the pool holds nothing else
	defer rowScratch.Put(d)
	columns := [segment.NumColumns][]byte(views[1 : 1+segment.NumColumns])
	split := segment.Split
	if skims {
		split = d.split.Split
	}
	parts, err := split(views[0], &columns)
	if err != nil {
		return err
	}
	d.row, d.parts, d.column, d.places = r, parts, views[1+segment.NumColumns], nil
	return do(d)
}

// rowGroup is rows that one statement finds.
type rowGroup struct {
	chunk       bool
	class       int16
	day         time.Time
	first, last time.Time // hot rows: of their arrival
	rows        map[int64]*row
	ids         []int64
}

func (sc *scan) groups(rows []*row) []*rowGroup {
	var list []*rowGroup
	for _, r := range rows {
		i := slices.IndexFunc(list, func(g *rowGroup) bool {
			return g.chunk == r.chunk && (!r.chunk || g.class == r.class && g.day.Equal(r.day))
		})
		if i < 0 {
			i = len(list)
			list = append(list, &rowGroup{chunk: r.chunk, class: r.class, day: r.day, first: r.recv, last: r.recv, rows: map[int64]*row{}})
		}
		g := list[i]
		g.rows[r.id] = r
		g.ids = append(g.ids, r.id)
		if r.recv.Before(g.first) {
			g.first = r.recv
		}
		if r.recv.After(g.last) {
			g.last = r.recv
		}
	}
	return list
}

func (g *rowGroup) queue(q *pgx.Batch, sc *scan, columns columnSet, hand func(r *row, columns [][]byte) error) {
	org, env := string(sc.scope.Org), int16(sc.scope.Env)
	var queued *pgx.QueuedQuery
	if g.chunk {
		queued = q.Queue("select id, "+columns.sql(true)+" from log_chunk where org = $1 and env = $2 and class = $3 and day = $4 and id = any ($5)", org, env, g.class, g.day, g.ids)
	} else {
		queued = q.Queue("select pos, "+columns.sql(false)+" from log_hot where org = $1 and env = $2 and pos = any ($3) and recv_at >= $4 and recv_at <= $5", org, env, g.ids, g.first, g.last)
	}
	queued.Query(func(rows pgx.Rows) error {
		defer rows.Close()
		seen := 0
		for rows.Next() {
			values := rows.RawValues() // binary: a bytea is its bytes
			r := g.rows[positionOf(values[0])]
			if r == nil {
				return errors.New("the database answered with another row than it was asked for")
			}
			if err := hand(r, values[1:]); err != nil {
				return err
			}
			seen++
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if seen != len(g.ids) {
			return fmt.Errorf("%d of %d rows are gone within one snapshot", len(g.ids)-seen, len(g.ids))
		}
		return nil
	})
}

// positionOf reads a bigint.
func positionOf(b []byte) (v int64) {
	for _, c := range b {
		v = v<<8 | int64(c)
	}
	return v
}

// rowBuffers keeps the buffers that columns are read into.
var rowBuffers bufferPool

type bufferPool struct{ pool sync.Pool }

// maxKeptBuffer is the largest buffer that is kept: those of chunks are smaller.
const maxKeptBuffer = 1 << 20

func (p *bufferPool) get(size int) []byte {
	if b, ok := p.pool.Get().(*[]byte); ok && cap(*b) >= size {
		return (*b)[:0]
	}
	return make([]byte, 0, size)
}

func (p *bufferPool) put(b []byte) {
	if cap(b) <= maxKeptBuffer {
		p.pool.Put(&b)
	}
}
