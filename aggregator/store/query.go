package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// QueryLogs answers one page of logs from one snapshot, and counts all matches
// unless the query says CountNone: exactly, or, where that takes more than
// Options.CountBudget, up to CountAfter. A page whose text grows beyond
// maxPageBytes ends early and says More.
func (s *Store) QueryLogs(ctx context.Context, scope telemetry.Scope, q *telemetry.LogQuery) (telemetry.LogPage, error) {
	began := time.Now()
	defer func() { s.metrics.queries.Observe(time.Since(began).Seconds()) }()
	if err := checkQuery(q); err != nil {
		return telemetry.LogPage{}, err
	}
	var page telemetry.LogPage
	p := newPageScan(s.newScan(scope, &q.LogFilter, q.Since, q.Until), q)
	queue := func(b *pgx.Batch) { p.queueGaps(b, &page.Gaps) }
	err := p.run(ctx, "query logs", queue, func(ctx context.Context) error { return p.answer(ctx, &page) })
	if err != nil {
		return telemetry.LogPage{}, err
	}
	return page, nil
}

// checkQuery refuses what the caller should have: the sizes bound our memory.
func checkQuery(q *telemetry.LogQuery) error {
	if q.Limit < 1 || q.Limit > telemetry.MaxLimit || q.Offset < 0 || q.Offset > telemetry.MaxOffset || len(q.Search) > telemetry.MaxSearch {
		return telemetry.Failf(telemetry.InvalidRequest, "The limit is 1 to %d, the offset 0 to %d, the search text up to %d bytes.",
			telemetry.MaxLimit, telemetry.MaxOffset, telemetry.MaxSearch)
	}
	return nil
}

// Sizes of a scan's steps.
const (
	fewRows      = 32       // candidates at first: they often suffice
	manyRows     = 2048     // candidates at a time
	maxLoadBytes = 16 << 20 // text asked for at a time
	maxPageBytes = 16 << 20 // text of one page
)

// pageScan looks for the lines of one page.
type pageScan struct {
	*scan
	query *telemetry.LogQuery

	mu   sync.Mutex
	top  *topLines
	kept int // bytes, about

	// Where text is searched, what is read for the page is counted on the way.
	counts  bool
	counted map[rowKey]int64
	partial bool // candidates were left out because they cannot be on the page
}

func newPageScan(sc *scan, q *telemetry.LogQuery) *pageScan {
	return &pageScan{scan: sc, query: q, top: newTopLines(q), counted: map[rowKey]int64{}}
}

func (p *pageScan) answer(ctx context.Context, page *telemetry.LogPage) error {
	page.Gaps = p.shownGaps(page.Gaps)
	exact := p.query.Count == telemetry.CountExact
	p.counts = exact && !p.summable()
	if err := p.find(ctx); err != nil {
		return err
	}
	lines, more := p.top.page(p.query.Offset, p.query.Limit)
	var err error
	if page.Entries, err = p.load(ctx, lines); err != nil {
		return fmt.Errorf("load the page: %w", err)
	}
	page.More = more || len(page.Entries) < len(lines)
	page.Stream = p.head
	if !exact {
		return nil
	}
	count, err := p.total(ctx)
	page.Total, page.CountAfter = count.Total, count.After
	return err
}

func (p *pageScan) total(ctx context.Context) (telemetry.LogCount, error) {
	if p.counts && !p.partial {
		var c telemetry.LogCount
		for _, n := range p.counted {
			c.Total += n
		}
		return c, nil
	}
	return p.count(ctx, p.counted, nil)
}

// find fills top. Candidates come by the time of their last line, so that it
// may end when they cannot better the page; each step reads more than the one
// before.
func (p *pageScan) find(ctx context.Context) error {
	c := choice{span: p.span, order: byNewest, limit: fewRows}
	if !p.top.newest {
		c.order = byOldest
	}
	if after := p.top.after; after != nil && p.top.newest {
		// Lines up to After were on pages before; those of its own time are told by position.
		if until := time.UnixMicro(after.micros + 1).UTC(); c.span.Until.IsZero() || c.span.Until.After(until) {
			c.span.Until, p.partial = until, true
		}
	} else if after != nil {
		if since := time.UnixMicro(after.micros).UTC(); c.span.Since.Before(since) {
			c.span.Since, p.partial = since, true
		}
	}
	step := 4
	for {
		rows, err := p.candidates(ctx, &c)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
		c.after = rows[len(rows)-1]
		ended := len(rows) < c.limit
		for len(rows) > 0 {
			var now []*row
			if now, rows = p.nextStep(rows, step); len(now) == 0 {
				continue
			}
			if now, err = p.sift(ctx, now); err != nil {
				return err
			}
			if err := p.each(ctx, p.pageColumns()|skimmed, now, p.match); err != nil {
				return err
			}
			step = min(2*step, manyColumns)
		}
		if ended || p.bound(&c) {
			return nil
		}
		c.limit = min(4*c.limit, manyRows)
	}
}

// bound narrows the candidates to those that can better a full page, and
// reports whether none can.
func (p *pageScan) bound(c *choice) (none bool) {
	if len(p.top.heap) < p.top.size {
		return false
	}
	worst := time.UnixMicro(p.top.heap[0].micros).UTC()
	switch {
	case p.top.newest && c.after.t1.Before(worst) && c.after.t1.After(minTime) && c.after.t1.Before(maxTime):
		p.partial = true
		return true
	case p.top.newest && c.span.Since.Before(worst):
		c.span.Since, p.partial = worst, true
	case !p.top.newest && (c.span.Until.IsZero() || c.span.Until.After(worst)):
		c.span.Until, p.partial = worst, true
	}
	return false
}

// nextStep takes the rows to read next from the front of a list.
func (p *pageScan) nextStep(rows []*row, most int) (now, rest []*row) {
	var raw int64
	for i, r := range rows {
		switch {
		case len(now) == most || len(now) > 0 && raw+r.raw > maxLoadBytes && p.readsText():
			return now, rows[i:]
		case r.absent || p.matching(&r.levels) == 0:
		case !p.wants(r):
			p.partial = true
		default:
			now = append(now, r)
			raw += r.raw
		}
	}
	return now, nil
}

func (p *pageScan) wants(r *row) bool {
	return r.atEdge() || p.top.wants(r.t0.UnixMicro(), r.t1.UnixMicro())
}

// pageColumns are those that find lines and their order.
func (p *pageScan) pageColumns() columnSet {
	return p.columns() | 1<<segment.Time | placeColumn
}

// match offers the matching lines of a row to the page.
func (p *pageScan) match(d *rowData) error {
	var found int64
	first := d.id
	for i := range d.parts {
		part := &d.parts[i]
		wanted := p.wantsPart(part)
		if wanted || p.counts {
			n, err := p.matchPart(d, i, first, wanted)
			if err != nil {
				return err
			}
			found += n
		}
		first += int64(part.Lines)
	}
	if p.counts {
		p.mu.Lock()
		p.counted[d.key()] = found
		p.mu.Unlock()
	}
	return nil
}

func (p *pageScan) wantsPart(part *segment.Part) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.top.wants(part.Min.UnixMicro(), part.Max.UnixMicro())
}

func (p *pageScan) matchPart(d *rowData, i int, first int64, wanted bool) (int64, error) {
	lines := d.lines(i)
	chosen, err := p.choose(d, i, lines)
	if err != nil || len(chosen) == 0 || !wanted {
		return int64(len(chosen)), err
	}
	if err := errors.Join(lines.Decode(segment.Time), d.locate(i, lines)); err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var block *segment.Segment
	for _, line := range chosen {
		l := lineRef{micros: lines.Micros(line), pos: d.position(lines, first, line), row: d.row, part: i, line: line}
		if !p.top.takes(&l) {
			continue
		}
		if places := lines.Places(); places != nil {
			if block == nil {
				block = p.keep(d, i)
			}
			l.block, l.at = block, places.At(line)
		}
		p.top.put(&l)
	}
	return int64(len(chosen)), nil
}

// keep keeps what is known of a block, if there is memory for it.
func (p *pageScan) keep(d *rowData, i int) *segment.Segment {
	if p.kept += keptBase + keptOrigin*len(d.parts[i].Origins); p.kept > maxKept {
		return nil
	}
	return d.parts[i].Bare()
}

// Sizes of what is kept of blocks.
const (
	keptBase   = 4 << 10
	keptOrigin = 160
	maxKept    = 16 << 20 // of one page
)

// queueGaps reads the gaps observed in the query's time bounds, the newest if
// there are too many, in stream order.
func (sc *scan) queueGaps(b *pgx.Batch, to *[]telemetry.Gap) {
	since, until := minTime, maxTime
	if !sc.in.Since.IsZero() {
		since = clampTime(sc.in.Since)
	}
	if !sc.in.Until.IsZero() {
		until = clampTime(sc.in.Until)
	}
	f := sc.filter
	b.Queue(selectGaps+` where org = $1 and env = $2 and recv_at >= $3 and recv_at < $4
  and (agent = '' or cardinality($5::text[]) = 0 or agent = any ($5)) and (session = '' or cardinality($6::text[]) = 0 or session = any ($6))
  and (sandbox = '' or cardinality($7::text[]) = 0 or sandbox = any ($7)) and (node = '' or cardinality($8::text[]) = 0 or node = any ($8))
order by pos desc limit $9`,
		string(sc.scope.Org), int16(sc.scope.Env), since, until, texts(f.Agents), texts(f.Sessions), texts(f.Sandbox), texts(f.Nodes), telemetry.MaxLimit).
		Query(func(rows pgx.Rows) error {
			gaps, err := pgx.CollectRows(rows, scanGap)
			if err != nil {
				return fmt.Errorf("read gaps: %w", err)
			}
			gaps = slices.DeleteFunc(gaps, func(g telemetry.Gap) bool { return !f.MatchGap(&g) })
			slices.Reverse(gaps)
			*to = gaps
			return nil
		})
}

// texts converts ids for a parameter; never nil, which would be null.
func texts[T ~string](ids []T) []string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = string(id)
	}
	return list
}
