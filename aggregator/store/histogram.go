package store

import (
	"context"
	"sync"
	"time"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// LogHistogram counts the matches of each step of a range by level, exactly.
func (s *Store) LogHistogram(ctx context.Context, scope telemetry.Scope, q *telemetry.LogHistogramQuery) (telemetry.LogHistogram, error) {
	h, err := newHistogram(q)
	if err != nil {
		return telemetry.LogHistogram{}, err
	}
	h.scan = s.newScan(scope, &q.LogFilter, q.Since, q.Until)
	if err := h.run(ctx, "count logs over time", nil, h.fill); err != nil {
		return telemetry.LogHistogram{}, err
	}
	for i := range h.answer.Buckets {
		for _, n := range h.answer.Buckets[i].Levels {
			h.answer.Total += n
		}
	}
	return h.answer, nil
}

// histogram is one LogHistogram on its way through the rows.
type histogram struct {
	*scan
	first, step int64 // microseconds: where bucket 0 begins, and how long one is
	mu          sync.Mutex
	answer      telemetry.LogHistogram
}

func newHistogram(q *telemetry.LogHistogramQuery) (*histogram, error) {
	if q.Since.IsZero() || !q.Since.Before(q.Until) || q.Step < time.Microsecond || len(q.Search) > telemetry.MaxSearch {
		return nil, telemetry.Failf(telemetry.InvalidRequest, "A histogram needs a range, a step, and a search text of up to %d bytes.", telemetry.MaxSearch)
	}
	h := &histogram{step: q.Step.Microseconds()}
	h.first = floor(wholeMicros(q.Since).UnixMicro(), h.step)
	last := floor(wholeMicros(q.Until).UnixMicro()-1, h.step)
	n := (last-h.first)/h.step + 1
	if n > telemetry.MaxBuckets || n < 1 {
		return nil, telemetry.Failf(telemetry.InvalidRequest, "A histogram has up to %d steps.", telemetry.MaxBuckets)
	}
	h.answer = telemetry.LogHistogram{Step: q.Step, Buckets: make([]telemetry.LogBucket, n)}
	for i := range h.answer.Buckets {
		h.answer.Buckets[i].Start = time.UnixMicro(h.first + int64(i)*h.step).UTC()
	}
	return h, nil
}

// floor is the greatest multiple of step that is not above at.
func floor(at, step int64) int64 {
	q := at / step
	if at%step < 0 {
		q--
	}
	return q * step
}

func (h *histogram) fill(ctx context.Context) error {
	c := choice{span: h.span, order: byNewest, limit: manyRows, counts: h.summable()}
	for {
		rows, err := h.candidates(ctx, &c)
		if err != nil || len(rows) == 0 {
			return err
		}
		c.after = rows[len(rows)-1]
		if rows, err = h.countable(rows); err != nil {
			return err
		}
		if rows, err = h.sift(ctx, rows); err != nil {
			return err
		}
		if err := h.each(ctx, h.columns()|1<<segment.Time|1<<segment.Flags, rows, h.countLines); err != nil {
			return err
		}
	}
}

// countable counts what the counters of rows answer for, and returns the other
// rows.
func (h *histogram) countable(rows []*row) (rest []*row, err error) {
	var counts []segment.LevelCount
	for _, r := range rows {
		switch {
		case r.absent || h.matching(&r.levels) == 0:
			continue
		case h.summable() && r.whole && h.covers(r):
			if !r.atEdge() && floor(r.t0.UnixMicro(), h.step) == floor(r.t1.UnixMicro(), h.step) {
				h.add(r.t0.UnixMicro(), &r.levels)
				continue
			}
			if !r.chunk || h.step%segment.CountStep.Microseconds() != 0 {
				break
			}
			if counts, err = segment.ReadCounts(counts[:0], r.counts); err != nil {
				return nil, err
			}
			for i := range counts {
				h.add(counts[i].Start.UnixMicro(), &counts[i].Levels)
			}
			continue
		}
		rest = append(rest, r)
	}
	return rest, nil
}

// add adds lines of the bucket of a time, those of levels asked for.
func (h *histogram) add(micros int64, levels *[telemetry.NumLevels]int) {
	b := &h.answer.Buckets[(micros-h.first)/h.step]
	for l, n := range levels {
		if n > 0 && h.filter.MatchLevel(telemetry.Level(l)) {
			b.Levels[l] += int64(n)
		}
	}
}

func (h *histogram) countLines(d *rowData) error {
	found := map[int64]*[telemetry.NumLevels]int{}
	for i := range d.parts {
		lines := d.lines(i)
		chosen, err := h.choose(d, i, lines)
		if err != nil || len(chosen) == 0 {
			if err != nil {
				return err
			}
			continue
		}
		if err := lines.Decode(segment.Time, segment.Flags); err != nil {
			return err
		}
		var at int64
		var levels *[telemetry.NumLevels]int
		for _, line := range chosen {
			micros := lines.Micros(line)
			if levels == nil || micros < at || micros >= at+h.step {
				at = floor(micros, h.step)
				if levels = found[at]; levels == nil {
					levels = new([telemetry.NumLevels]int)
					found[at] = levels
				}
			}
			levels[lines.Level(line)]++
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for at, levels := range found {
		h.add(at, levels)
	}
	return nil
}
