package store

import (
	"slices"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// lineRef finds a chosen line again.
type lineRef struct {
	micros int64
	pos    int64
	row    *row
	part   int
	line   int // of the part

	// What is left of reading the part once, so that load need not: nil where nothing was kept.
	block *segment.Segment // bare
	at    segment.Place
}

// topLines keeps the best lines of a page's order while they are found in any
// order: a heap whose root is the worst line kept.
type topLines struct {
	newest bool // newest first: later is better
	size   int
	after  *lineRef // lines up to and including it were on pages before
	heap   []lineRef
}

func newTopLines(q *telemetry.LogQuery) *topLines {
	t := &topLines{newest: q.Order == telemetry.NewestFirst, size: q.Offset + q.Limit + 1}
	if q.After != nil {
		t.after = &lineRef{micros: q.After.Timestamp.UnixMicro(), pos: q.After.Position}
	}
	return t
}

// before reports whether a comes before b on a page.
func (t *topLines) before(a, b *lineRef) bool {
	if a.micros != b.micros {
		return (a.micros > b.micros) == t.newest
	}
	return a.pos != b.pos && (a.pos > b.pos) == t.newest
}

// wants reports whether a line with a timestamp between the two can be kept.
func (t *topLines) wants(first, last int64) bool {
	best, worst := last, first
	if !t.newest {
		best, worst = first, last
	}
	if t.after != nil && worst != t.after.micros && t.before(&lineRef{micros: worst}, &lineRef{micros: t.after.micros}) {
		return false
	}
	return len(t.heap) < t.size || best == t.heap[0].micros || t.before(&lineRef{micros: best}, &lineRef{micros: t.heap[0].micros})
}

// takes reports whether the line is among the best so far.
func (t *topLines) takes(l *lineRef) bool {
	if t.after != nil && !t.before(t.after, l) {
		return false
	}
	return len(t.heap) < t.size || t.before(l, &t.heap[0])
}

// put keeps a line that it takes.
func (t *topLines) put(l *lineRef) {
	if len(t.heap) < t.size {
		t.heap = append(t.heap, *l)
		t.up(len(t.heap) - 1)
		return
	}
	t.heap[0] = *l
	t.down()
}

func (t *topLines) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !t.before(&t.heap[parent], &t.heap[i]) {
			return
		}
		t.heap[parent], t.heap[i] = t.heap[i], t.heap[parent]
		i = parent
	}
}

func (t *topLines) down() {
	for i := 0; ; {
		worst := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(t.heap); child++ {
			if t.before(&t.heap[worst], &t.heap[child]) {
				worst = child
			}
		}
		if worst == i {
			return
		}
		t.heap[i], t.heap[worst] = t.heap[worst], t.heap[i]
		i = worst
	}
}

// page returns the lines of the page, in order, and whether more follow.
func (t *topLines) page(offset, limit int) (lines []lineRef, more bool) {
	slices.SortFunc(t.heap, func(a, b lineRef) int {
		if t.before(&a, &b) {
			return -1
		}
		return 1
	})
	lines = t.heap[min(offset, len(t.heap)):]
	if len(lines) > limit {
		return lines[:limit], true
	}
	return lines, false
}
