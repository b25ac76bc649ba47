package segment

import (
	"math"
	"slices"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// Range is a half-open range of timestamps; a zero bound is none.
type Range struct{ Since, Until time.Time }

func (r Range) micros() (since, until int64) {
	since, until = math.MinInt64, math.MaxInt64
	if !r.Since.IsZero() {
		// A bound between two microseconds starts at the later one.
		since = r.Since.Add(time.Microsecond - 1).UnixMicro()
	}
	if !r.Until.IsZero() {
		until = r.Until.Add(time.Microsecond - 1).UnixMicro()
	}
	return since, until
}

// Covers reports whether all lines of a segment with these statistics lie in
// the range.
func (r Range) Covers(s *Stats) bool {
	return (r.Since.IsZero() || !s.Min.Before(r.Since)) && (r.Until.IsZero() || s.Max.Before(r.Until))
}

// Overlaps reports whether a line of a segment with these statistics can lie
// in the range.
func (r Range) Overlaps(s *Stats) bool {
	return (r.Since.IsZero() || !s.Max.Before(r.Since)) && (r.Until.IsZero() || s.Min.Before(r.Until))
}

// Select appends to dst the indices, rising, of the lines that match the
// filter and lie in the range, and decodes no more columns than that takes.
// node is the node that wrote the segment; lines of a chunk have their own,
// which Place must have told where the filter asks for nodes.
func (l *Lines) Select(dst []int, f *telemetry.LogFilter, node telemetry.NodeID, in Range) ([]int, error) {
	if !in.Overlaps(&l.Stats) {
		return dst, nil
	}
	byNode := len(f.Nodes) > 0 && l.places != nil
	origins := f
	if byNode {
		anyNode := *f
		anyNode.Nodes = nil
		origins = &anyNode
	}
	wanted, all := l.matchOrigins(origins, node)
	if !all && wanted == nil {
		return dst, nil
	}
	var needs []Column
	if !in.Covers(&l.Stats) {
		needs = append(needs, Time)
	}
	if len(f.Levels) > 0 {
		needs = append(needs, Flags)
	}
	if !all {
		needs = append(needs, Origin)
	}
	if err := l.Decode(needs...); err != nil {
		return dst, err
	}
	start := len(dst)
	dst = l.selectCheap(dst, f, wanted, in, needs)
	if byNode {
		dst = l.selectNodes(dst, start, f.Nodes)
	}
	if len(dst) == start || (f.Search == "" && len(f.Traces)+len(f.Spans) == 0) {
		return dst, nil
	}
	return l.selectText(dst, start, f)
}

// matchOrigins decides the filter once per origin. all: every origin matches;
// nil and not all: none does.
func (l *Lines) matchOrigins(f *telemetry.LogFilter, node telemetry.NodeID) (wanted []bool, all bool) {
	if !f.FiltersOrigins() {
		return nil, true
	}
	wanted = make([]bool, len(l.Origins))
	n := 0
	for i := range l.Origins {
		if f.MatchOrigin(&l.Origins[i], node) {
			wanted[i] = true
			n++
		}
	}
	switch n {
	case 0:
		return nil, false
	case len(wanted):
		return nil, true
	}
	return wanted, false
}

// selectCheap goes over the small columns.
func (l *Lines) selectCheap(dst []int, f *telemetry.LogFilter, wanted []bool, in Range, needs []Column) []int {
	since, until := int64(math.MinInt64), int64(math.MaxInt64)
	if len(needs) > 0 && needs[0] == Time {
		since, until = in.micros()
	}
	for i := range l.Segment.Lines {
		if wanted != nil && !wanted[l.origin[i]] {
			continue
		}
		if len(f.Levels) > 0 && !f.MatchLevel(l.Level(i)) {
			continue
		}
		if since != math.MinInt64 || until != math.MaxInt64 {
			if t := l.times[i]; t < since || t >= until {
				continue
			}
		}
		dst = append(dst, i)
	}
	return dst
}

// selectNodes keeps those of dst[start:] that came from one of the nodes.
func (l *Lines) selectNodes(dst []int, start int, nodes []telemetry.NodeID) []int {
	kept := dst[:start]
	for _, i := range dst[start:] {
		if slices.Contains(nodes, l.places.Node(i)) {
			kept = append(kept, i)
		}
	}
	return kept
}

// selectText keeps those of dst[start:] whose text and trace match.
func (l *Lines) selectText(dst []int, start int, f *telemetry.LogFilter) ([]int, error) {
	needs := []Column{Message}
	if len(f.Traces)+len(f.Spans) > 0 {
		needs = []Column{Message, Trace}
	}
	if err := l.Decode(needs...); err != nil {
		return dst[:start], err
	}
	needle := newNeedle(f.Search)
	kept := dst[:start]
	for _, i := range dst[start:] {
		if len(f.Traces) > 0 && !contains(f.Traces, l.trace.At(2*i)) {
			continue
		}
		if len(f.Spans) > 0 && !contains(f.Spans, l.trace.At(2*i+1)) {
			continue
		}
		if needle.in(l.message.At(i)) {
			kept = append(kept, i)
		}
	}
	return kept, nil
}

func contains[T ~string](list []T, v []byte) bool {
	for _, x := range list {
		if string(x) == string(v) {
			return true
		}
	}
	return false
}
