package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

// logsPage is the answer of GET /v1/logs.
type logsPage struct {
	Data         []telemetry.LogEntry `json:"data"`
	Total        *int64               `json:"total"` // null: it was not asked for
	TotalIsExact bool                 `json:"totalIsExact"`
	CountCursor  *string              `json:"countCursor,omitempty"` // where GET /v1/logs/count goes on with the total
	HasMore      bool                 `json:"hasMore"`
	Cursor       *string              `json:"cursor"`
	StreamCursor stream.Cursor        `json:"streamCursor"`
	Gaps         []gapJSON            `json:"gaps"`
}

// queryLogs answers a page, or everything in another format.
func (c *call) queryLogs() error {
	if format := exportFormat(c.r.Header.Get("Accept")); format != nil {
		return c.export(format)
	}
	p := params{values: c.query, env: &c.who.Env}
	q, since, until := p.logQuery(c.started)
	if err := p.err(); err != nil {
		return err
	}
	ctx := c.r.Context()
	epoch, err := c.api.Store.StreamEpoch(ctx)
	if err != nil {
		return fmt.Errorf("api: epoch of the streams: %w", err)
	}
	hash := queryHash(&q.LogFilter, since, until)
	if err := p.resume(&q, hash, epoch); err != nil {
		return err
	}
	found, err := c.api.Store.QueryLogs(ctx, c.who.Scope, &q)
	if err != nil {
		return fmt.Errorf("api: query logs: %w", err)
	}
	answer := logsPage{
		Data: found.Entries, HasMore: found.More,
		StreamCursor: stream.Cursor{Epoch: epoch, Position: found.Stream}, Gaps: shapeAll(found.Gaps, shapeGap),
	}
	if q.Count != telemetry.CountNone {
		answer.Total, answer.TotalIsExact = &found.Total, found.CountAfter == nil
		answer.CountCursor = countCursor{Query: hash, Epoch: epoch, Since: q.Since, Until: q.Until}.at(found.CountAfter)
	}
	if n := len(found.Entries); found.More && n > 0 {
		last := &found.Entries[n-1]
		next := pageCursor{
			Order: q.Order, Query: hash, Epoch: epoch, Since: q.Since, Until: q.Until,
			After: telemetry.LogKey{Timestamp: last.Timestamp, Position: last.Position},
		}
		text := next.String()
		answer.Cursor = &text
	}
	c.send(http.StatusOK, answer.append(nil))
	return nil
}

// append encodes the page: the lines by their own encoder, which is several
// times as fast as encoding/json's way to it.
func (l *logsPage) append(b []byte) []byte {
	b = append(b, `{"data":[`...)
	for i := range l.Data {
		if i > 0 {
			b = append(b, ',')
		}
		b = l.Data[i].AppendJSON(b)
	}
	l.Data = nil
	rest, err := json.Marshal(l)
	if err != nil {
		rest = []byte(`{"data":null}`) // cannot be: every field is a number, a word or a time
	}
	b = append(b, ']')
	return append(b, rest[len(`{"data":null`):]...)
}

// logQuery reads the parameters of a page, but for its cursor. since and
// until are also returned as written.
func (p *params) logQuery(now time.Time) (q telemetry.LogQuery, since, until string) {
	q.LogFilter = p.filter()
	q.Since, q.Until = p.bounds(now)
	q.Limit = p.number("limit", telemetry.DefaultLimit, 1, telemetry.MaxLimit, "")
	q.Offset = p.number("offset", 0, 0, telemetry.MaxOffset, ": go further with cursor, which has no end")
	q.Order = p.order()
	if text, given := p.one("total"); given {
		switch text {
		case "exact":
		case "none":
			q.Count = telemetry.CountNone
		default:
			p.fail("total", "is not valid: use exact, or none where nobody looks at it")
		}
	}
	return q, p.values.Get("since"), p.values.Get("until")
}

func (p *params) order() telemetry.Order {
	text, given := p.one("order")
	if !given {
		return telemetry.NewestFirst
	}
	order, err := telemetry.ParseOrder(text)
	if err != nil {
		p.fail("order", "is not valid: %v", err)
	}
	return order
}

// resume takes up the cursor of the page before.
func (p *params) resume(q *telemetry.LogQuery, hash [8]byte, epoch int64) error {
	text, given := p.one("cursor")
	if !given {
		return p.err()
	}
	cursor, err := parsePageCursor(text)
	switch {
	case err != nil:
		p.fail("cursor", "%v", err)
	case q.Offset != 0:
		p.fail("offset", "cannot stand beside cursor, which says where to go on")
	case cursor.Query != hash || cursor.Order != q.Order:
		p.fail("cursor", "belongs to a list with other filters or another order: keep all parameters but limit, or leave the cursor out to start anew")
	case cursor.Epoch != epoch:
		return telemetry.Failf(telemetry.Gone, "The cursor is from before the database was restored: start anew without it.")
	}
	q.After, q.Since, q.Until = &cursor.After, cursor.Since, cursor.Until
	return p.err()
}
