package store

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// LogContext returns an entry and its neighbours: lines of the same agent and
// sandbox in the order of a page, all of one snapshot. It fails with NotFound
// where there is no such entry.
func (s *Store) LogContext(ctx context.Context, scope telemetry.Scope, id ids.LogKey, before, after int) (telemetry.LogContext, error) {
	if before < 0 || after < 0 || before > telemetry.MaxLimit || after > telemetry.MaxLimit {
		return telemetry.LogContext{}, telemetry.Failf(telemetry.InvalidRequest, "Up to %d neighbours can be shown on each side.", telemetry.MaxLimit)
	}
	var found telemetry.LogContext
	sc := s.entryScan(scope, id)
	err := sc.run(ctx, "show the context of a log entry", nil, func(ctx context.Context) (err error) {
		if found.Entry, err = sc.entry(ctx, id); err != nil {
			return err
		}
		if found.Before, found.MoreBefore, err = sc.neighbours(ctx, &found.Entry, telemetry.NewestFirst, before); err != nil {
			return err
		}
		slices.Reverse(found.Before)
		if found.After, found.MoreAfter, err = sc.neighbours(ctx, &found.Entry, telemetry.OldestFirst, after); err != nil {
			return err
		}
		return sc.gapsAround(ctx, &found)
	})
	if err != nil {
		return telemetry.LogContext{}, err
	}
	return found, nil
}

// neighbours finds the lines next to an entry on one side.
func (sc *scan) neighbours(ctx context.Context, e *telemetry.LogEntry, order telemetry.Order, limit int) (list []telemetry.LogEntry, more bool, err error) {
	q := telemetry.LogQuery{
		LogFilter: telemetry.LogFilter{Agents: []telemetry.AgentID{e.Agent}, Sandbox: []telemetry.SandboxID{e.Sandbox}},
		Order:     order, Limit: limit, After: &telemetry.LogKey{Timestamp: e.Timestamp, Position: e.Position}, Count: telemetry.CountNone,
	}
	p := newPageScan(sc.within(&q), &q)
	if err := p.find(ctx); err != nil {
		return nil, false, err
	}
	lines, more := p.top.page(0, limit)
	list, err = p.load(ctx, lines)
	return list, more || len(list) < len(lines), err
}

// within is another scan of the same snapshot.
func (sc *scan) within(q *telemetry.LogQuery) *scan {
	other := sc.store.newScan(sc.scope, &q.LogFilter, q.Since, q.Until)
	other.conn, other.head, other.ahead, other.compacted = sc.conn, sc.head, sc.ahead, sc.compacted
	other.erasures, other.excluded = sc.erasures, sc.excluded
	return other
}

// gapsAround reads the gaps about the agent that were observed between the
// first entry shown and the last.
func (sc *scan) gapsAround(ctx context.Context, c *telemetry.LogContext) error {
	q := telemetry.LogQuery{
		LogFilter: telemetry.LogFilter{Agents: []telemetry.AgentID{c.Entry.Agent}, Sandbox: []telemetry.SandboxID{c.Entry.Sandbox}, Nodes: []telemetry.NodeID{c.Entry.Node}},
		Since:     c.Entry.ObservedAt, Until: c.Entry.ObservedAt,
	}
	if c.Entry.Session != "" {
		q.Sessions = []telemetry.SessionID{c.Entry.Session}
	}
	for _, list := range [][]telemetry.LogEntry{c.Before, c.After} {
		for i := range list {
			at := list[i].ObservedAt
			if at.Before(q.Since) {
				q.Since = at
			}
			if at.After(q.Until) {
				q.Until = at
			}
		}
	}
	q.Until = q.Until.Add(time.Microsecond)
	var batch pgx.Batch
	sc.within(&q).queueGaps(&batch, &c.Gaps)
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	if err := sc.conn.SendBatch(call, &batch).Close(); err != nil {
		return err
	}
	c.Gaps = sc.shownGaps(c.Gaps)
	return nil
}
