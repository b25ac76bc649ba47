package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/shared/segment"
)

// loadBlock is a block of a chunk that lines of a page are in.
type loadBlock struct {
	row     *row
	segment *segment.Segment // bare
	wanted  []int
}

type blockKey struct {
	row  *row
	part int
}

// selectBlocks reads parts of columns. $6 has, for each chunk of $5, where they
// begin and how long they are; of columns stored externally, only the pages that
// hold them are read.
var selectBlocks = func() string {
	var text strings.Builder
	text.WriteString("select u.i")
	for c := range segment.NumColumns {
		at := fmt.Sprintf("2 * %d * (u.i::int - 1) + %d", segment.NumColumns, 2*c+1)
		text.WriteString(", substring(" + columnNames[c] + " from ($6::int[])[" + at + "] for ($6::int[])[" + at + " + 1])")
	}
	text.WriteString(` from unnest($5::bigint[]) with ordinality u (id, i)
join log_chunk c on c.org = $1 and c.env = $2 and c.class = $3 and c.day = $4 and c.id = u.id`)
	return text.String()
}()

// blockLines keeps what blocks are decoded with.
var blockLines = sync.Pool{New: func() any { return new(segment.Lines) }}

// eachBlock reads and decodes blocks, and hands each to do, which runs for
// several at once. Lines are valid until do returns.
func (sc *scan) eachBlock(ctx context.Context, blocks []*loadBlock, do func(*loadBlock, *segment.Lines) error) error {
	if len(blocks) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	workers, workCtx := errgroup.WithContext(ctx)
	workers.SetLimit(runtime.GOMAXPROCS(0))
	byRow := map[rowKey][]*loadBlock{}
	rows := make([]*row, 0, len(blocks))
	for _, k := range blocks {
		if byRow[k.row.key()] == nil {
			rows = append(rows, k.row)
		}
		byRow[k.row.key()] = append(byRow[k.row.key()], k)
	}
	sc.store.metrics.rowsRead.Add(float64(len(rows)))
	var q pgx.Batch
	for _, g := range sc.groups(rows) {
		var list []*loadBlock
		for _, id := range g.ids {
			list = append(list, byRow[rowKey{chunk: true, id: id}]...)
		}
		sc.queueBlocks(&q, g, list, func(k *loadBlock, columns [][]byte) error {
			return sc.handBlock(workCtx, workers, k, columns, do)
		})
	}
	err := sc.conn.SendBatch(workCtx, &q).Close()
	if werr := workers.Wait(); werr != nil {
		return werr // it is why the reading was given up
	}
	return err
}

func (sc *scan) queueBlocks(q *pgx.Batch, g *rowGroup, list []*loadBlock, hand func(k *loadBlock, columns [][]byte) error) {
	ids := make([]int64, len(list))
	extents := make(pgtype.FlatArray[int32], 0, 2*int(segment.NumColumns)*len(list))
	for i, k := range list {
		ids[i] = k.row.id
		for c := range segment.NumColumns {
			offset, length := k.segment.Extent(c)
			extents = append(extents, int32(offset+1), int32(length)) //nolint:gosec // within a value of PostgreSQL's
		}
	}
	q.Queue(selectBlocks, string(sc.scope.Org), int16(sc.scope.Env), g.class, g.day, ids, extents).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		seen := 0
		for rows.Next() {
			values := rows.RawValues()
			i := positionOf(values[0])
			if i < 1 || i > int64(len(list)) {
				return errors.New("the database answered with another row than it was asked for")
			}
			if err := hand(list[i-1], values[1:]); err != nil {
				return err
			}
			seen++
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if seen != len(list) {
			return fmt.Errorf("%d of %d blocks are gone within one snapshot", len(list)-seen, len(list))
		}
		return nil
	})
}

// handBlock gives one block to a worker once there is memory for it. The
// columns are views that end with the call.
func (sc *scan) handBlock(ctx context.Context, workers *errgroup.Group, k *loadBlock, columns [][]byte, do func(*loadBlock, *segment.Lines) error) error {
	size := 0
	for _, c := range columns {
		size += len(c)
	}
	release, err := sc.store.reserve(ctx, int64(size+k.segment.Lines*32+k.segment.RawBytes))
	if err != nil {
		return err
	}
	buffer := rowBuffers.get(size)
	for c, column := range columns {
		start := len(buffer)
		buffer = append(buffer, column...)
		if err := k.segment.Attach(segment.Column(c), buffer[start:len(buffer):len(buffer)]); err != nil {
			release()
			return fmt.Errorf("chunk at position %d: %w", k.row.id, err)
		}
	}
	workers.Go(func() error {
		defer release()
		defer rowBuffers.put(buffer)
		lines := blockLines.Get().(*segment.Lines) //nolint:forcetypeassert // the pool holds nothing else
		defer blockLines.Put(lines)
		lines.Reset(k.segment)
		if err := lines.DecodeAll(); err != nil {
			return fmt.Errorf("chunk at position %d: %w", k.row.id, err)
		}
		return do(k, lines)
	})
	return nil
}
