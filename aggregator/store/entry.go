package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// LogEntry returns the line with an id, or fails with NotFound.
func (s *Store) LogEntry(ctx context.Context, scope telemetry.Scope, id ids.LogKey) (telemetry.LogEntry, error) {
	var entry telemetry.LogEntry
	sc := s.entryScan(scope, id)
	err := sc.run(ctx, "look up a log entry", nil, func(ctx context.Context) (err error) {
		entry, err = sc.entry(ctx, id)
		return err
	})
	if err != nil {
		return telemetry.LogEntry{}, err
	}
	return entry, nil
}

// entryScan looks at the one microsecond of an entry.
func (s *Store) entryScan(scope telemetry.Scope, id ids.LogKey) *scan {
	at := id.LogTime()
	return s.newScan(scope, &telemetry.LogFilter{}, at, at.Add(time.Microsecond))
}

// entry finds the line that an id was derived from: what the id does not hold
// of it is compared by hash.
func (sc *scan) entry(ctx context.Context, id ids.LogKey) (telemetry.LogEntry, error) {
	c := choice{span: sc.span, order: byNewest, limit: fewRows}
	h := newHashes()
	for {
		rows, err := sc.candidates(ctx, &c)
		if err != nil {
			return telemetry.LogEntry{}, err
		}
		if len(rows) == 0 {
			return telemetry.LogEntry{}, telemetry.Failf(telemetry.NotFound, "There is no log entry %s.", ids.Log(id))
		}
		c.after = rows[len(rows)-1]
		c.limit = manyRows
		found, err := sc.entryIn(ctx, rows, id, h)
		if err != nil || found == nil {
			if err != nil {
				return telemetry.LogEntry{}, err
			}
			continue
		}
		entries, err := sc.load(ctx, []lineRef{*found})
		if err != nil {
			return telemetry.LogEntry{}, err
		}
		return entries[0], nil
	}
}

// entryIn looks for the line in some rows by small columns.
func (sc *scan) entryIn(ctx context.Context, rows []*row, id ids.LogKey, h *hashes) (found *lineRef, err error) {
	var mu sync.Mutex
	columns := columnSet(1<<segment.Time|1<<segment.Origin) | placeColumn
	err = sc.each(ctx, columns, rows, func(d *rowData) error {
		for i := range d.parts {
			part := &d.parts[i]
			if !slices.ContainsFunc(part.Origins, func(o telemetry.Origin) bool { return h.agent(o.Agent) == id.Agent }) {
				continue
			}
			lines := d.lines(i)
			chosen, err := sc.choose(d, i, lines)
			if err != nil || len(chosen) == 0 {
				if err != nil {
					return err
				}
				continue
			}
			if err := errors.Join(lines.Decode(segment.Origin), d.locate(i, lines)); err != nil {
				return err
			}
			for _, line := range chosen {
				node, epoch, seq := d.place(i, lines, line)
				if seq == id.Seq && h.agent(lines.Origin(line).Agent) == id.Agent && h.source(node, epoch) == id.Source {
					mu.Lock()
					found = &lineRef{micros: id.Micros, row: d.row, part: i, line: line}
					mu.Unlock()
				}
			}
		}
		return nil
	})
	return found, err
}

// place says who numbered a line of part i, and how.
func (d *rowData) place(i int, lines *segment.Lines, line int) (node telemetry.NodeID, epoch, seq uint64) {
	if p := lines.Places(); p != nil {
		at := p.At(line)
		return at.Node, at.Epoch, at.Seq
	}
	p := &d.parts[i]
	return p.Node, p.Epoch, p.FirstSeq + uint64(line) //nolint:gosec // an index
}

// clone makes an entry that keeps nothing alive that it was made from.
func clone(e *telemetry.LogEntry) {
	e.Message, e.Metadata = strings.Clone(e.Message), slices.Clone(e.Metadata)
}
