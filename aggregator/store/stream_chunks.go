package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// streamStretch is how many positions of compacted lines are read together at
// least: a chunk holds lines of a long stretch, so that reading a short one
// costs nearly as much.
const streamStretch = 8192

// maxStretchBytes bounds the text of the chunks of a stretch.
const maxStretchBytes = 32 << 20

// readChunks reads the records of one stretch of compacted positions. next is
// where to go on if there are none.
func (sc *scan) readChunks(ctx context.Context, after int64, limit int) (list []*frame.Published, next int64, err error) {
	rows, below, err := sc.stretch(ctx, after, max(int64(limit), streamStretch))
	if err != nil {
		return nil, 0, fmt.Errorf("find the chunks: %w", err)
	}
	var gaps []telemetry.Gap
	var q pgx.Batch
	sc.queueStreamGaps(&q, after, below, streamStretch, &gaps)
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	if err := sc.conn.SendBatch(call, &q).Close(); err != nil {
		return nil, 0, fmt.Errorf("read gaps: %w", err)
	}
	placed, err := sc.linesBetween(ctx, rows, after, below)
	if err != nil {
		return nil, 0, err
	}
	lines, err := publishRuns(sc.scope, placed)
	if err != nil {
		return nil, 0, err
	}
	whole := len(gaps) < streamStretch
	if lines, gaps = sc.hideGaps(lines, gaps); whole {
		lines = sc.fill(lines, gaps, after, below)
	}
	return mergeStream(sc.scope, lines, gaps, after, streamStretch), below - 1, nil
}

// stretch chooses positions (after, below) and the chunks that have lines there.
func (sc *scan) stretch(ctx context.Context, after, length int64) (rows []*row, below int64, err error) {
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	// Where retention took lines, the stretch goes on to where there are some: to
	// the chunk that ends first.
	var first int64
	err = sc.conn.QueryRow(call, "select id from log_chunk where org = $1 and env = $2 and last > $3 order by last limit 1",
		string(sc.scope.Org), int16(sc.scope.Env), after).Scan(&first)
	if noRows(err) {
		return nil, sc.compacted, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for below = min(max(first, after+1)+length, sc.compacted); ; below = after + 1 + (below-after)/2 {
		found, err := sc.conn.Query(call, "select class, day, id, last, n, raw, recv1 from log_chunk where org = $1 and env = $2 and last > $3 and id < $4",
			string(sc.scope.Org), int16(sc.scope.Env), after, below)
		if err != nil {
			return nil, 0, err
		}
		var raw int64
		rows, err = pgx.CollectRows(found, func(x pgx.CollectableRow) (*row, error) {
			r := &row{chunk: true}
			err := x.Scan(&r.class, &r.day, &r.id, &r.last, &r.n, &r.raw, &r.recv)
			raw += r.raw
			return r, err
		})
		if err != nil || raw <= maxStretchBytes || below <= after+2 {
			return rows, below, err
		}
	}
}

// placedLine is a line with its place in the stream.
type placedLine struct {
	entry telemetry.LogEntry
	at    segment.Place
}

// linesBetween returns the lines of chunks at positions in (after, below), by position.
func (sc *scan) linesBetween(ctx context.Context, rows []*row, after, below int64) ([]placedLine, error) {
	var mu sync.Mutex
	var list []placedLine
	err := sc.each(ctx, allColumns|placeColumn, rows, func(d *rowData) error {
		var found []placedLine
		for i := range d.parts {
			lines := d.lines(i)
			chosen, err := sc.choose(d, i, lines)
			if err == nil {
				err = d.locate(i, lines)
			}
			if err != nil {
				return err
			}
			places := lines.Places()
			chosen = slices.DeleteFunc(chosen, func(line int) bool { p := places.Position(line); return p <= after || p >= below })
			if len(chosen) == 0 {
				continue
			}
			if err := lines.DecodeAll(); err != nil {
				return err
			}
			for _, line := range chosen {
				l := placedLine{at: places.At(line)}
				lines.Entry(line, &l.entry)
				clone(&l.entry)
				found = append(found, l)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		list = append(list, found...)
		return nil
	})
	slices.SortFunc(list, func(a, b placedLine) int { return cmp.Compare(a.at.Position, b.at.Position) })
	return list, err
}

// publishRuns makes of lines what they were published as: runs of one node with
// consecutive positions and sequences.
func publishRuns(scope telemetry.Scope, list []placedLine) ([]*frame.Published, error) {
	var published []*frame.Published
	var w segment.Writer
	for len(list) > 0 {
		first := &list[0].at
		n := 0
		for n < len(list) && n < segment.MaxLines/2 && (n == 0 || w.RawBytes()+len(list[n].entry.Message)+len(list[n].entry.Metadata) < segment.MaxColumn/2) &&
			follows(first, &list[n].at, n) {
			w.Append(&list[n].entry)
			n++
		}
		s, err := segment.Parse(w.Encode(nil))
		if err != nil {
			return nil, fmt.Errorf("lines at position %d, encoded anew: %w", first.Position, err)
		}
		part := segment.Part{Segment: s, Node: first.Node, Epoch: first.Epoch, FirstSeq: first.Seq}
		lines := s.Read()
		if err := lines.DecodeAll(); err != nil {
			return nil, fmt.Errorf("lines at position %d, encoded anew: %w", first.Position, err)
		}
		published = append(published, frame.NewPublished(scope, first.Position, first.Observed, &part, lines))
		list = list[n:]
	}
	return published, nil
}

// follows reports whether a place is the n-th after the first of a run.
func follows(first, at *segment.Place, n int) bool {
	return at.Position == first.Position+int64(n) && at.Seq == first.Seq+uint64(n) && //nolint:gosec // n counts lines
		at.Node == first.Node && at.Epoch == first.Epoch && at.Observed.Equal(first.Observed)
}
