package store

import (
	"context"
	"slices"
	"strings"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// load makes the entries of a page, in order, and stops when their text is
// more than maxPageBytes.
func (r *logScan) load(ctx context.Context, lines []lineRef) ([]telemetry.LogEntry, error) {
	entries := make([]telemetry.LogEntry, 0, len(lines))
	bytes := 0
	for len(lines) > 0 && bytes < maxPageBytes {
		rows, n := nextRows(lines)
		group, size, err := r.loadRows(ctx, rows, lines[:n])
		if err != nil {
			return nil, err
		}
		entries = append(entries, group...)
		bytes += size
		lines = lines[n:]
	}
	return entries, nil
}

// nextRows returns the rows of as many of the next lines as may be loaded
// together.
func nextRows(lines []lineRef) (rows []*rowMeta, n int) {
	seen := map[*rowMeta]bool{}
	var size int64
	for _, l := range lines {
		if !seen[l.row] {
			if n > 0 && size+l.row.raw > maxLoadBytes {
				break
			}
			seen[l.row] = true
			size += l.row.raw
			rows = append(rows, l.row)
		}
		n++
	}
	return rows, n
}

// loadRows fills the lines from their rows.
func (r *logScan) loadRows(ctx context.Context, rows []*rowMeta, lines []lineRef) (entries []telemetry.LogEntry, size int, err error) {
	// Where the line at a position goes on the page.
	place := make(map[int64]int, len(lines))
	wanted := make([]int64, len(lines))
	for i := range lines {
		place[lines[i].pos], wanted[i] = i, lines[i].pos
	}
	slices.Sort(wanted)
	entries = make([]telemetry.LogEntry, len(lines))
	err = r.eachRow(ctx, allColumns, rows, func(m *rowMeta, parts []segment.Part) error {
		pos := m.pos
		for i := range parts {
			next := pos + int64(parts[i].Lines)
			from, _ := slices.BinarySearch(wanted, pos)
			to, _ := slices.BinarySearch(wanted, next)
			if from < to {
				decoded := parts[i].Read()
				if err := decoded.DecodeAll(); err != nil {
					return err
				}
				p := frame.NewPublished(r.scope, pos, m.recv.UTC(), &parts[i], decoded)
				for _, at := range wanted[from:to] {
					e := &entries[place[at]]
					p.Entry(int(at-pos), e)
					// The page must not keep all other lines of the part alive.
					e.Message, e.Metadata = strings.Clone(e.Message), slices.Clone(e.Metadata)
					size += len(e.Message) + len(e.Metadata)
				}
			}
			pos = next
		}
		return nil
	})
	return entries, size, err
}
