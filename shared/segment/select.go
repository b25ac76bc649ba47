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
	p, err := l.plan(f, node, in)
	if err != nil || p.none {
		return dst, err
	}
	if err := l.Decode(p.columns...); err != nil {
		return dst, err
	}
	start := len(dst)
	if p.cheap() {
		dst = l.selectCheap(dst, &p)
	} else {
		dst = l.selectAll(dst)
	}
	if p.byNode {
		dst = l.selectNodes(dst, start, f.Nodes)
	}
	if len(dst) == start || len(p.needles)+len(f.Traces)+len(f.Spans) == 0 && !p.where {
		return dst, nil
	}
	return l.selectText(dst, start, f, &p)
}

// plan is how one segment is searched.
type plan struct {
	none         bool   // nothing can match
	origins      []bool // those that can match; nil: all
	levels       [telemetry.NumLevels]bool
	byLevel      bool
	since, until int64
	byTime       bool
	byNode       bool // each line's node is compared
	where        bool // lines are held against f.Where
	node         telemetry.NodeID
	needles      []needle
	columns      []Column // what the cheap part reads
	scratch      *scratch
}

// scratch is memory that a search leaves to the next.
type scratch struct {
	search         search
	found, counted []int
}

func (p *plan) cheap() bool { return p.origins != nil || p.byLevel || p.byTime }

func (l *Lines) plan(f *telemetry.LogFilter, node telemetry.NodeID, in Range) (plan, error) {
	p := plan{node: node, scratch: l.own}
	if p.scratch == nil {
		p.scratch = &scratch{}
	}
	uses := f.Where.Uses()
	perLine := len(f.Nodes) > 0 || uses.Has(telemetry.FieldNode)
	if perLine && l.many && l.places == nil {
		return p, errNotPlaced
	}
	perLine = perLine && l.places != nil
	p.byNode = perLine && len(f.Nodes) > 0
	p.none = !l.matchOrigins(&p, f, perLine)
	if p.none {
		return p, nil
	}
	p.where = p.where || uses&^telemetry.OriginFields != 0
	if !in.Covers(&l.Stats) {
		p.byTime = true
		p.since, p.until = in.micros()
		p.columns = append(p.columns, Time)
	}
	l.matchLevels(&p, f)
	if p.origins != nil {
		p.columns = append(p.columns, Origin)
	}
	if f.Search != "" || uses.Has(telemetry.FieldMessage) {
		p.needles = p.scratch.search.of(f)
	}
	return p, nil
}

// matchLevels goes by what the head counts.
func (l *Lines) matchLevels(p *plan, f *telemetry.LogFilter) {
	if len(f.Levels) == 0 {
		return
	}
	p.none = true
	for level, n := range l.Levels {
		p.levels[level] = f.MatchLevel(telemetry.Level(level))
		if n > 0 {
			p.byLevel = p.byLevel || !p.levels[level]
			p.none = p.none && !p.levels[level]
		}
	}
	if p.byLevel {
		p.columns = append(p.columns, Flags)
	}
}

// matchOrigins decides the filter once per origin, and reports whether any can
// match. perLine: lines have nodes of their own.
func (l *Lines) matchOrigins(p *plan, f *telemetry.LogFilter, perLine bool) bool {
	if !f.FiltersOrigins() {
		return true
	}
	fields, known := *f, telemetry.LogFields(telemetry.OriginFields)
	fields.Where = nil
	if perLine {
		fields.Nodes = nil
		known &^= 1 << telemetry.FieldNode
	}
	origins, n := make([]bool, len(l.Origins)), 0
	for i := range l.Origins {
		o := &l.Origins[i]
		if !fields.MatchOrigin(o, p.node) {
			continue
		}
		switch f.Where.Eval(&telemetry.LogEntry{Origin: *o, Node: p.node}, known) {
		case telemetry.No:
			continue
		case telemetry.Maybe:
			p.where = true
		case telemetry.Yes:
		}
		origins[i] = true
		n++
	}
	if n < len(origins) {
		p.origins = origins
	}
	return n > 0
}

// selectAll takes every line.
func (l *Lines) selectAll(dst []int) []int {
	dst = slices.Grow(dst, l.Segment.Lines)
	for i := range l.Segment.Lines {
		dst = append(dst, i)
	}
	return dst
}

// selectCheap goes over the small columns.
func (l *Lines) selectCheap(dst []int, p *plan) []int {
	for i := range l.Segment.Lines {
		if p.origins != nil && !p.origins[l.origin[i]] {
			continue
		}
		if p.byLevel && !p.levels[l.flags[i]&flagLevel] {
			continue
		}
		if p.byTime && (l.times[i] < p.since || l.times[i] >= p.until) {
			continue
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

// selectText keeps those of dst[start:] whose text, trace and metadata match.
func (l *Lines) selectText(dst []int, start int, f *telemetry.LogFilter, p *plan) ([]int, error) {
	kept := dst[start:]
	if len(f.Traces)+len(f.Spans) > 0 {
		if err := l.Decode(Trace); err != nil {
			return dst[:start], err
		}
		kept = l.selectTraces(kept, f)
	}
	if len(p.needles) > 0 && len(kept) > 0 {
		if err := l.Decode(Message); err != nil {
			return dst[:start], err
		}
		kept = l.selectNeedles(kept, p)
	}
	if p.where && len(kept) > 0 {
		var err error
		if kept, err = l.selectWhere(kept, f.Where, p); err != nil {
			return dst[:start], err
		}
	}
	return dst[:start+len(kept)], nil
}

func (l *Lines) selectTraces(lines []int, f *telemetry.LogFilter) []int {
	kept := lines[:0]
	for _, i := range lines {
		if (len(f.Traces) == 0 || contains(f.Traces, l.trace.At(2*i))) && (len(f.Spans) == 0 || contains(f.Spans, l.trace.At(2*i+1))) {
			kept = append(kept, i)
		}
	}
	return kept
}

// selectNeedles keeps the lines whose messages hold every needle.
func (l *Lines) selectNeedles(lines []int, p *plan) []int {
	if l.message.isEmpty() {
		return lines[:0] // needles are never empty
	}
	for i := range p.needles {
		n := &p.needles[i]
		if len(lines) < l.Segment.Lines/8 {
			lines = slices.DeleteFunc(lines, func(line int) bool { return !n.in(l.message.At(line)) })
			continue
		}
		p.scratch.found = n.find(p.scratch.found[:0], &l.message)
		lines = intersect(lines, p.scratch.found)
	}
	return lines
}

// intersect keeps the members of a that are in b; both rise.
func intersect(a, b []int) []int {
	kept := a[:0]
	for _, v := range a {
		for len(b) > 0 && b[0] < v {
			b = b[1:]
		}
		if len(b) > 0 && b[0] == v {
			kept = append(kept, v)
		}
	}
	return kept
}

// selectWhere keeps the lines that meet the condition, of which only the fields that it uses are filled in.
func (l *Lines) selectWhere(lines []int, where *telemetry.LogExpr, p *plan) ([]int, error) {
	uses := where.Uses()
	needs := []Column{Origin}
	for _, c := range []struct {
		field  telemetry.LogField
		column Column
	}{{telemetry.FieldLevel, Flags}, {telemetry.FieldTrace, Trace}, {telemetry.FieldSpan, Trace}, {telemetry.FieldMetadata, Metadata}, {telemetry.FieldMessage, Message}} {
		if uses.Has(c.field) {
			needs = append(needs, c.column)
		}
	}
	if err := l.Decode(needs...); err != nil {
		return nil, err
	}
	kept := lines[:0]
	var e telemetry.LogEntry
	for _, i := range lines {
		e = telemetry.LogEntry{Origin: l.Origins[l.origin[i]], Node: p.node}
		if l.places != nil && uses.Has(telemetry.FieldNode) {
			e.Node = l.places.Node(i)
		}
		l.fill(i, &e, uses)
		if where.Match(&e) {
			kept = append(kept, i)
		}
	}
	return kept, nil
}

// fill sets those of the fields of line i that a condition uses.
func (l *Lines) fill(i int, e *telemetry.LogEntry, uses telemetry.LogFields) {
	if uses.Has(telemetry.FieldLevel) {
		e.Level = l.Level(i)
	}
	if uses.Has(telemetry.FieldTrace) || uses.Has(telemetry.FieldSpan) {
		e.Trace, e.Span = telemetry.TraceID(view(l.trace.At(2*i))), telemetry.SpanID(view(l.trace.At(2*i+1)))
	}
	if uses.Has(telemetry.FieldMetadata) {
		if m := l.metadata.At(i); len(m) > 0 {
			e.Metadata = m
		}
	}
	if uses.Has(telemetry.FieldMessage) {
		e.Message = view(l.message.At(i))
	}
}

// Count returns how many lines Select would choose, and builds no list where
// the head or one small column says it.
func (l *Lines) Count(f *telemetry.LogFilter, node telemetry.NodeID, in Range) (int, error) {
	if !in.Overlaps(&l.Stats) {
		return 0, nil
	}
	p, err := l.plan(f, node, in)
	if err != nil || p.none {
		return 0, err
	}
	if len(p.needles)+len(f.Traces)+len(f.Spans) == 0 && !p.where && !p.byNode && !p.byTime && p.origins == nil {
		n := 0
		for level, lines := range l.Levels {
			if !p.byLevel || p.levels[level] {
				n += lines
			}
		}
		return n, nil
	}
	p.scratch.counted, err = l.Select(p.scratch.counted[:0], f, node, in)
	return len(p.scratch.counted), err
}

func contains[T ~string](list []T, v []byte) bool {
	for _, x := range list {
		if string(x) == string(v) {
			return true
		}
	}
	return false
}
