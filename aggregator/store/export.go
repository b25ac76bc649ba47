package store

import (
	"context"
	"time"

	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/telemetry"
)

// Sizes of an export's steps. Lines of a chunk are in the order of sessions,
// not of time, so that a step decodes much of what the next one decodes again.
const (
	exportStep = 16_384             // lines of one snapshot
	exportPart = telemetry.MaxLimit // lines handed on together
)

// ExportLogs hands everything that matches to each, in the query's order, in
// parts, and ends with the error that each returns. Limit and Offset of the
// query are ignored. Every step is a snapshot of its own, from the line where
// the one before ended: between them nothing is held but the step's lines, and
// each may take its time. Lines that come meanwhile are in the export where
// their place in the order is still ahead.
func (s *Store) ExportLogs(ctx context.Context, scope telemetry.Scope, q *telemetry.LogQuery, each func([]telemetry.LogEntry) error) error {
	if len(q.Search) > telemetry.MaxSearch {
		return telemetry.Failf(telemetry.InvalidRequest, "The search text is at most %d bytes.", telemetry.MaxSearch)
	}
	step := *q
	step.Offset, step.Limit, step.Count = 0, exportStep, telemetry.CountNone
	for {
		page, err := s.exportStep(ctx, scope, &step)
		if err != nil {
			return err
		}
		for list := page.Entries; len(list) > 0; {
			n := min(len(list), exportPart)
			if err := each(list[:n:n]); err != nil {
				return err
			}
			list = list[n:]
		}
		n := len(page.Entries)
		if !page.More || n == 0 {
			return nil
		}
		last := &page.Entries[n-1]
		step.After = &telemetry.LogKey{Timestamp: last.Timestamp, Position: last.Position}
	}
}

// exportPatience is how long an export that has begun waits for a place among
// queries, or for a database that is away: broken off, all of it would be read again.
const exportPatience = 2 * time.Minute

func (s *Store) exportStep(ctx context.Context, scope telemetry.Scope, q *telemetry.LogQuery) (telemetry.LogPage, error) {
	pause, give := retry.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}, time.Now().Add(exportPatience)
	for {
		var page telemetry.LogPage
		p := newPageScan(s.newScan(scope, &q.LogFilter, q.Since, q.Until), q)
		err := p.run(ctx, "export logs", nil, func(ctx context.Context) error { return p.answer(ctx, &page) })
		if err == nil || telemetry.CodeOf(err) != telemetry.Unavailable || q.After == nil || time.Now().After(give) {
			return page, err
		}
		if retry.Sleep(ctx, pause.Next()) != nil {
			return page, err
		}
	}
}
