package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// CountLogs counts what matches a query, whatever its limit, offset and After
// say. It goes on after what an earlier call counted, and ends, at the latest
// when it has used Options.CountBudget, with the place where the next one goes
// on. Compaction in between changes nothing.
func (s *Store) CountLogs(ctx context.Context, scope telemetry.Scope, q *telemetry.LogQuery, after *telemetry.CountKey) (telemetry.LogCount, error) {
	if len(q.Search) > telemetry.MaxSearch {
		return telemetry.LogCount{}, telemetry.Failf(telemetry.InvalidRequest, "The search text is at most %d bytes.", telemetry.MaxSearch)
	}
	var count telemetry.LogCount
	sc := s.newScan(scope, &q.LogFilter, q.Since, q.Until)
	err := sc.run(ctx, "count logs", nil, func(ctx context.Context) (err error) {
		count, err = sc.count(ctx, nil, after)
		return err
	})
	if err != nil {
		return telemetry.LogCount{}, err
	}
	return count, nil
}

// summable reports whether counters answer for most rows: nothing but levels,
// agents, sessions and times is asked for.
func (sc *scan) summable() bool {
	rest := *sc.filter
	rest.Agents, rest.Sessions = nil, nil
	return !sc.readsText() && !rest.FiltersOrigins() && sc.uses == 0
}

// count counts all matches. counted holds rows that were counted already.
func (sc *scan) count(ctx context.Context, counted map[rowKey]int64, after *telemetry.CountKey) (telemetry.LogCount, error) {
	switch {
	case sc.none:
		return telemetry.LogCount{}, nil
	case sc.summable() && after == nil:
		total, err := sc.sum(ctx)
		return telemetry.LogCount{Total: total}, err
	}
	return sc.countDown(ctx, counted, after)
}

// sum adds the counters of the rows that lie wholly in the range, and decodes
// small columns of the others.
func (sc *scan) sum(ctx context.Context) (int64, error) {
	levels, err := sc.sumCounters(ctx)
	if err != nil {
		return 0, fmt.Errorf("sum up counters: %w", err)
	}
	var total atomic.Int64
	total.Store(sc.matching(&levels))
	c := choice{span: sc.span, order: byNewest, limit: manyRows, of: otherRows}
	for {
		rows, err := sc.candidates(ctx, &c)
		if err != nil || len(rows) == 0 {
			return total.Load(), err
		}
		c.after = rows[len(rows)-1]
		err = sc.each(ctx, sc.columns()|skimmed, rows, func(d *rowData) error {
			n, err := sc.countRow(d, math.MaxInt64)
			total.Add(n)
			return err
		})
		if err != nil {
			return 0, err
		}
	}
}

func (sc *scan) sumCounters(ctx context.Context) (levels [telemetry.NumLevels]int, err error) {
	c := choice{span: sc.span, order: byNewest, of: countedRows}
	if hot, chunks := sc.parts(&c); !hot && !chunks {
		return levels, nil
	}
	var q query
	q.add("select coalesce(sum(l0), 0), coalesce(sum(l1), 0), coalesce(sum(l2), 0), coalesce(sum(l3), 0) from (")
	sc.addRows(&q, &c)
	q.add(") r")
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	err = sc.conn.QueryRow(call, q.text.String(), q.args...).Scan(&levels[0], &levels[1], &levels[2], &levels[3])
	return levels, err
}

// lowest is a position below which no chunk has lines of the scan's span: where
// a walk by position may end.
func (sc *scan) lowest(ctx context.Context) (position int64, err error) {
	if sc.compacted == 0 || sc.span.Since.IsZero() {
		return 0, nil
	}
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	err = sc.conn.QueryRow(call, "select coalesce(min(id), $4) from log_chunk where org = $1 and env = $2 and t1 >= $3",
		string(sc.scope.Org), int16(sc.scope.Env), clampTime(sc.span.Since), sc.compacted).Scan(&position)
	if err != nil {
		return 0, fmt.Errorf("find the oldest chunk: %w", err)
	}
	return position, nil
}

// countDown counts rows by falling position until the budget ends. It ends
// between rows that share no stretch of positions, so that the place where it
// ended stays one, however rows are joined later.
func (sc *scan) countDown(ctx context.Context, counted map[rowKey]int64, after *telemetry.CountKey) (telemetry.LogCount, error) {
	var total atomic.Int64
	c := choice{span: sc.span, order: byPosition, limit: manyRows}
	below := int64(math.MaxInt64)
	if after != nil {
		total.Store(after.So)
		c.below, below = max(1, after.ID), max(1, after.ID)
	}
	low, err := sc.lowest(ctx)
	if err != nil {
		return telemetry.LogCount{}, err
	}
	c.lowest = low
	began := sc.busy.Load()
	lowest := below
	for {
		rows, err := sc.candidates(ctx, &c)
		if err != nil || len(rows) == 0 {
			return telemetry.LogCount{Total: total.Load()}, err
		}
		c.after = rows[len(rows)-1]
		for len(rows) > 0 {
			if sc.busy.Load()-began > int64(sc.store.countBudget) && rows[0].last < lowest {
				so := total.Load()
				return telemetry.LogCount{Total: so, After: &telemetry.CountKey{So: so, ID: lowest, Until: sc.head + 1}}, nil
			}
			var now []*row
			now, rows, lowest = sc.countStep(rows, counted, lowest, &total)
			if now, err = sc.sift(ctx, now); err != nil {
				return telemetry.LogCount{}, err
			}
			columns := sc.columns()
			if after != nil {
				columns |= placeColumn
			} else if sc.excluded.empty() && !slices.ContainsFunc(now, func(r *row) bool { return !sc.covers(r) }) {
				columns &^= 1 << segment.Time
			}
			err := sc.each(ctx, columns|skimmed, now, func(d *rowData) error {
				n, err := sc.countRow(d, below)
				total.Add(n)
				return err
			})
			if err != nil {
				return telemetry.LogCount{}, err
			}
		}
	}
}

// countStepRows is how many rows are counted between two looks at the budget.
const countStepRows = 128

// countStepBytes is how much text at the most, which passes through memory.
const countStepBytes = 64 << 20

// countStep takes the rows to decode next from the front of a list, counts
// those that were counted before, and says how low they reach.
func (sc *scan) countStep(rows []*row, counted map[rowKey]int64, lowest int64, total *atomic.Int64) (now, rest []*row, low int64) {
	var raw int64
	for i, r := range rows {
		if len(now) == countStepRows || len(now) > 0 && raw+r.raw > countStepBytes {
			return now, rows[i:], lowest
		}
		lowest = min(lowest, r.id)
		n, known := counted[r.key()]
		switch {
		case known:
			total.Add(n)
		case r.absent || sc.matching(&r.levels) == 0:
		default:
			now = append(now, r)
			raw += r.raw
		}
	}
	return now, nil, lowest
}

// countRow counts the matches of a row at positions below a bound.
func (sc *scan) countRow(d *rowData, below int64) (n int64, err error) {
	first := d.id
	for i := range d.parts {
		lines := d.lines(i)
		chosen, err := sc.choose(d, i, lines)
		if err != nil {
			return 0, err
		}
		if d.last < below {
			n += int64(len(chosen))
		} else {
			if err := d.locate(i, lines); err != nil {
				return 0, err
			}
			for _, line := range chosen {
				if d.position(lines, first, line) < below {
					n++
				}
			}
		}
		first += int64(d.parts[i].Lines)
	}
	return n, nil
}
