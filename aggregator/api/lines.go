package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// lineID reads the id of a log entry from the path.
func (c *call) lineID() (ids.LogKey, string, error) {
	text := c.r.PathValue("id")
	key, err := ids.ParseLog(text)
	if err != nil {
		return key, text, notHere("log entry", text)
	}
	return key, text, nil
}

// lineError is what a look-up of one line failed with.
func lineError(err error, what, id string) error {
	if telemetry.CodeOf(err) == telemetry.NotFound {
		return notHere("log entry", id)
	}
	return fmt.Errorf("api: %s %s: %w", what, id, err)
}

// getLine answers GET /v1/logs/{id}.
func (c *call) getLine() error {
	key, id, err := c.lineID()
	if err != nil {
		return err
	}
	found, err := c.api.Store.LogEntry(c.r.Context(), c.who.Scope, key)
	if err != nil {
		return lineError(err, "log entry", id)
	}
	c.send(http.StatusOK, found.AppendJSON(nil))
	return nil
}

// Bounds of how many neighbours of a line are shown on each side.
const (
	defaultNeighbours = 50
	maxNeighbours     = 500
)

// contextJSON is the answer of GET /v1/logs/{id}/context.
type contextJSON struct {
	Before        []telemetry.LogEntry `json:"before"`
	Entry         telemetry.LogEntry   `json:"entry"`
	After         []telemetry.LogEntry `json:"after"`
	HasMoreBefore bool                 `json:"hasMoreBefore"`
	HasMoreAfter  bool                 `json:"hasMoreAfter"`
	Gaps          []gapJSON            `json:"gaps"`
}

func (c *call) lineContext() error {
	p := params{values: c.query, env: &c.who.Env}
	before := p.number("before", defaultNeighbours, 0, maxNeighbours, "")
	after := p.number("after", defaultNeighbours, 0, maxNeighbours, "")
	if err := p.err(); err != nil {
		return err
	}
	key, id, err := c.lineID()
	if err != nil {
		return err
	}
	found, err := c.api.Store.LogContext(c.r.Context(), c.who.Scope, key, before, after)
	if err != nil {
		return lineError(err, "context of log entry", id)
	}
	c.json(http.StatusOK, contextJSON{
		Before: notNull(found.Before), Entry: found.Entry, After: notNull(found.After),
		HasMoreBefore: found.MoreBefore, HasMoreAfter: found.MoreAfter, Gaps: shapeAll(found.Gaps, shapeGap),
	})
	return nil
}

// notNull makes an empty list of none, which JSON tells apart.
func notNull[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// histogramJSON is the answer of GET /v1/logs/histogram.
type histogramJSON struct {
	IntervalMS int64               `json:"intervalMs"`
	Since      telemetry.Timestamp `json:"since"`
	Until      telemetry.Timestamp `json:"until"`
	Total      int64               `json:"total"`
	Data       []bucketJSON        `json:"data"`
}

type bucketJSON struct {
	Timestamp telemetry.Timestamp `json:"timestamp"`
	Debug     int64               `json:"debug"`
	Info      int64               `json:"info"`
	Warn      int64               `json:"warn"`
	Error     int64               `json:"error"`
	Total     int64               `json:"total"`
}

func shapeBucket(b *telemetry.LogBucket) bucketJSON {
	j := bucketJSON{
		Timestamp: telemetry.Timestamp(b.Start), Debug: b.Levels[telemetry.Debug], Info: b.Levels[telemetry.Info],
		Warn: b.Levels[telemetry.Warn], Error: b.Levels[telemetry.Error],
	}
	j.Total = j.Debug + j.Info + j.Warn + j.Error
	return j
}

// histogramRange is how far back a histogram reaches that says no since.
const histogramRange = 24 * time.Hour

func (c *call) histogram() error {
	p := params{values: c.query, env: &c.who.Env}
	q := telemetry.LogHistogramQuery{LogFilter: p.filter()}
	q.Since, q.Until = p.bounds(c.started)
	if q.Until.IsZero() {
		q.Until = c.started.UTC().Truncate(time.Microsecond)
	}
	if q.Since.IsZero() {
		q.Since = q.Until.Add(-histogramRange)
	}
	if len(p.bad) == 0 && q.Since.After(q.Until) {
		p.fail("since", "lies after until, or after now")
	}
	q.Step = p.interval(q.Since, q.Until)
	if err := p.err(); err != nil {
		return err
	}
	found, err := c.api.Store.LogHistogram(c.r.Context(), c.who.Scope, &q)
	if err != nil {
		return fmt.Errorf("api: histogram of logs: %w", err)
	}
	c.json(http.StatusOK, histogramJSON{
		IntervalMS: found.Step.Milliseconds(), Since: telemetry.Timestamp(q.Since), Until: telemetry.Timestamp(q.Until),
		Total: found.Total, Data: shapeAll(found.Buckets, shapeBucket),
	})
	return nil
}

// bounds reads since and until.
func (p *params) bounds(now time.Time) (since, until time.Time) {
	since, until = p.moment("since", now), p.moment("until", now)
	if !since.IsZero() && !until.IsZero() && since.After(until) {
		p.fail("since", "lies after until")
	}
	return since, until
}

// intervals are the steps of a histogram that says none: the first that makes
// at most fineBuckets.
var intervals = []time.Duration{
	time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour,
}

const fineBuckets = 150

// maxInterval is the widest step: longer than any retention.
const maxInterval = 10 * 366 * 24 * time.Hour

// interval reads the step of a histogram over that range, or chooses one.
func (p *params) interval(since, until time.Time) time.Duration {
	text, given := p.one("interval")
	if !given {
		i := slices.IndexFunc(intervals, func(d time.Duration) bool { return buckets(since, until, d) <= fineBuckets })
		if i < 0 {
			// Only a range of years has none. Sub ends at 292 of them.
			hours := (until.Unix() - since.Unix()) / (fineBuckets * 3600)
			return time.Duration(hours+1) * time.Hour
		}
		return intervals[i]
	}
	step, err := parseAgo(text)
	switch {
	case err != nil || step < time.Second || step > maxInterval || step%time.Second != 0:
		p.fail("interval", "is not a number of seconds, minutes, hours or days, such as 10s, 5m, 1h or 1d")
	case buckets(since, until, step) > telemetry.MaxBuckets:
		p.fail("interval", "makes more than %d buckets of that range: take a wider one, or a shorter range", telemetry.MaxBuckets)
	}
	return step
}

// buckets is how many steps, which begin at whole multiples since 1970, a
// range touches, about.
func buckets(since, until time.Time, step time.Duration) int64 {
	return until.Unix()/int64(step/time.Second) - since.Unix()/int64(step/time.Second) + 1
}

// facetsJSON is the answer of GET /v1/logs/facets.
type facetsJSON struct {
	Total        int64       `json:"total"`
	TotalIsExact bool        `json:"totalIsExact"`
	Data         []facetJSON `json:"data"`
}

type facetJSON struct {
	Field  string                 `json:"field"`
	Values []telemetry.FacetValue `json:"values"`
	Others int64                  `json:"others"`
}

const defaultFacet = 10

func (c *call) facets() error {
	p := params{values: c.query, env: &c.who.Env}
	q := telemetry.LogFacetsQuery{LogFilter: p.filter()}
	q.Since, q.Until = p.bounds(c.started)
	q.Limit = p.number("limit", defaultFacet, 1, telemetry.MaxFacet, "")
	q.Fields = list(&p, "fields", func(s string) (string, error) {
		if !slices.Contains(telemetry.FacetFields, s) {
			return "", fmt.Errorf("has no field %.40q: use %s", s, strings.Join(telemetry.FacetFields, ", "))
		}
		return s, nil
	})
	if err := p.err(); err != nil {
		return err
	}
	found, err := c.api.Store.LogFacets(c.r.Context(), c.who.Scope, &q)
	if err != nil {
		return fmt.Errorf("api: facets of logs: %w", err)
	}
	c.json(http.StatusOK, facetsJSON{Total: found.Total, TotalIsExact: found.IsExact, Data: shapeAll(found.Fields, func(f *telemetry.LogFacet) facetJSON {
		return facetJSON{Field: f.Field, Values: notNull(f.Values), Others: f.Others}
	})})
	return nil
}

// countJSON is the answer of GET /v1/logs/count.
type countJSON struct {
	Total        int64   `json:"total"`
	TotalIsExact bool    `json:"totalIsExact"`
	CountCursor  *string `json:"countCursor"`
}

// countLines counts what matches; where a text has to be searched, in as many
// requests as it takes.
func (c *call) countLines() error {
	p := params{values: c.query, env: &c.who.Env}
	q := telemetry.LogQuery{LogFilter: p.filter(), Limit: 1}
	q.Since, q.Until = p.bounds(c.started)
	if err := p.err(); err != nil {
		return err
	}
	ctx := c.r.Context()
	epoch, err := c.api.Store.StreamEpoch(ctx)
	if err != nil {
		return fmt.Errorf("api: epoch of the streams: %w", err)
	}
	list := countCursor{Query: queryHash(&q.LogFilter, p.values.Get("since"), p.values.Get("until")), Epoch: epoch, Since: q.Since, Until: q.Until}
	after, err := p.goOn(&list, epoch)
	if err != nil {
		return err
	}
	q.Since, q.Until = list.Since, list.Until
	found, err := c.api.Store.CountLogs(ctx, c.who.Scope, &q, after)
	if err != nil {
		return fmt.Errorf("api: count logs: %w", err)
	}
	c.json(http.StatusOK, countJSON{Total: found.Total, TotalIsExact: found.After == nil, CountCursor: list.at(found.After)})
	return nil
}

// goOn takes up the cursor of the count before.
func (p *params) goOn(list *countCursor, epoch int64) (*telemetry.CountKey, error) {
	text, given := p.one("countCursor")
	if !given {
		return nil, p.err()
	}
	cursor, err := parseCountCursor(text)
	switch {
	case err != nil:
		p.fail("countCursor", "%v", err)
	case cursor.Query != list.Query:
		p.fail("countCursor", "belongs to a count with other filters: keep all parameters, or leave the cursor out to start anew")
	case cursor.Epoch != epoch:
		return nil, telemetry.Failf(telemetry.Gone, "The cursor is from before the database was restored: start anew without it.")
	}
	*list = cursor
	return &cursor.After, p.err()
}
