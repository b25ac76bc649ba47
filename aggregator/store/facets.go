package store

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// maxFacetValues bounds the distinct values of one field that are told apart.
// Beyond it further lines are counted in the total alone, and nothing is exact.
const maxFacetValues = 100_000

// LogFacets counts the most frequent values of fields among all matches, or,
// where that takes more than Options.CountBudget, among the newest. Lines
// without a value of a field are not counted in it.
func (s *Store) LogFacets(ctx context.Context, scope telemetry.Scope, q *telemetry.LogFacetsQuery) (telemetry.LogFacets, error) {
	f, err := newFacets(q)
	if err != nil {
		return telemetry.LogFacets{}, err
	}
	f.scan = s.newScan(scope, &q.LogFilter, q.Since, q.Until)
	if err := f.run(ctx, "count the values of logs", nil, f.fill); err != nil {
		return telemetry.LogFacets{}, err
	}
	return f.answer(q.Limit), nil
}

// facets is one LogFacets on its way through the rows.
type facets struct {
	*scan
	fields []facetField
	levels bool // a field is told by level
	nodes  bool // by node

	mu      sync.Mutex
	total   int64
	cutOff  bool // the budget ended, or a field has too many values
	origins map[telemetry.Origin]int64
	byNode  map[telemetry.NodeID]int64
	byLevel [telemetry.NumLevels]int64
}

// facetField is one field and how it is told from an origin; nil: from the line.
type facetField struct {
	name string
	of   func(o *telemetry.Origin) string
}

var facetOf = map[string]func(o *telemetry.Origin) string{
	"sessionId": func(o *telemetry.Origin) string { return string(o.Session) },
	"agentId":   func(o *telemetry.Origin) string { return string(o.Agent) },
	"userId":    func(o *telemetry.Origin) string { return string(o.User) },
	"provider":  func(o *telemetry.Origin) string { return o.Provider.String() },
	"sandboxId": func(o *telemetry.Origin) string { return string(o.Sandbox) },
	"source":    func(o *telemetry.Origin) string { return o.Source.String() },
	"stream":    func(o *telemetry.Origin) string { return o.Stream.String() },
}

func newFacets(q *telemetry.LogFacetsQuery) (*facets, error) {
	if q.Limit < 1 || q.Limit > telemetry.MaxFacet || len(q.Search) > telemetry.MaxSearch {
		return nil, telemetry.Failf(telemetry.InvalidRequest, "The values of a facet are 1 to %d, the search text up to %d bytes.", telemetry.MaxFacet, telemetry.MaxSearch)
	}
	names := q.Fields
	if len(names) == 0 {
		names = telemetry.FacetFields
	}
	f := &facets{origins: map[telemetry.Origin]int64{}, byNode: map[telemetry.NodeID]int64{}}
	for _, name := range names {
		if !slices.Contains(telemetry.FacetFields, name) {
			return nil, telemetry.Failf(telemetry.InvalidRequest, "There are no facets of %q.", name)
		}
		f.fields = append(f.fields, facetField{name: name, of: facetOf[name]})
		f.levels = f.levels || name == "level"
		f.nodes = f.nodes || name == "nodeId"
	}
	return f, nil
}

func (f *facets) fill(ctx context.Context) error {
	columns := f.columns() | 1<<segment.Origin
	if f.levels {
		columns |= 1 << segment.Flags
	}
	if f.nodes {
		columns |= placeColumn
	}
	c := choice{span: f.span, order: byNewest, limit: manyRows}
	for {
		rows, err := f.candidates(ctx, &c)
		if err != nil || len(rows) == 0 {
			return err
		}
		c.after = rows[len(rows)-1]
		for len(rows) > 0 {
			if f.cutOff = f.cutOff || f.busy.Load() > int64(f.store.countBudget); f.cutOff {
				return nil
			}
			n := min(len(rows), countStepRows)
			now := slices.DeleteFunc(slices.Clone(rows[:n]), func(r *row) bool { return r.absent || f.matching(&r.levels) == 0 })
			rows = rows[n:]
			if now, err = f.sift(ctx, now); err != nil {
				return err
			}
			if err := f.each(ctx, columns, now, f.countValues); err != nil {
				return err
			}
		}
	}
}

// countValues counts the lines of a row by origin, node and level.
func (f *facets) countValues(d *rowData) error {
	origins, byNode := map[telemetry.Origin]int64{}, map[telemetry.NodeID]int64{}
	var byLevel [telemetry.NumLevels]int64
	var total int64
	var byIndex []int64
	for i := range d.parts {
		part := &d.parts[i]
		lines := d.lines(i)
		chosen, err := f.choose(d, i, lines)
		if err != nil {
			return err
		}
		if len(chosen) == 0 {
			continue
		}
		total += int64(len(chosen))
		if byIndex, err = originCounts(byIndex[:0], lines, chosen); err != nil {
			return err
		}
		for o, n := range byIndex {
			if n > 0 {
				origins[part.Origins[o]] += n
			}
		}
		if f.nodes {
			if err := d.locate(i, lines); err != nil {
				return err
			}
			countNodes(byNode, part, lines, chosen)
		}
		if f.levels {
			if err := countLevels(&byLevel, part, lines, chosen); err != nil {
				return err
			}
		}
	}
	f.merge(total, origins, byNode, &byLevel)
	return nil
}

// originCounts counts chosen lines by the index of their origin.
func originCounts(dst []int64, lines *segment.Lines, chosen []int) ([]int64, error) {
	dst = append(dst, make([]int64, len(lines.Origins))...)
	if len(dst) == 1 {
		dst[0] = int64(len(chosen))
		return dst, nil
	}
	if err := lines.Decode(segment.Origin); err != nil {
		return nil, err
	}
	for _, line := range chosen {
		dst[lines.OriginIndex(line)]++
	}
	return dst, nil
}

func countNodes(dst map[telemetry.NodeID]int64, part *segment.Part, lines *segment.Lines, chosen []int) {
	places := lines.Places()
	if places == nil {
		dst[part.Node] += int64(len(chosen))
		return
	}
	for _, line := range chosen {
		dst[places.Node(line)]++
	}
}

func countLevels(dst *[telemetry.NumLevels]int64, part *segment.Part, lines *segment.Lines, chosen []int) error {
	if len(chosen) == part.Lines {
		for l, n := range part.Levels {
			dst[l] += int64(n)
		}
		return nil
	}
	if err := lines.Decode(segment.Flags); err != nil {
		return err
	}
	for _, line := range chosen {
		dst[lines.Level(line)]++
	}
	return nil
}

func (f *facets) merge(total int64, origins map[telemetry.Origin]int64, byNode map[telemetry.NodeID]int64, byLevel *[telemetry.NumLevels]int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total += total
	for o, n := range origins {
		if _, known := f.origins[o]; !known && len(f.origins) >= maxFacetValues {
			f.cutOff = true
			continue
		}
		f.origins[o] += n
	}
	for node, n := range byNode {
		f.byNode[node] += n
	}
	for l, n := range byLevel {
		f.byLevel[l] += n
	}
}

func (f *facets) answer(limit int) telemetry.LogFacets {
	a := telemetry.LogFacets{Total: f.total, IsExact: !f.cutOff}
	for _, field := range f.fields {
		counts := map[string]int64{}
		switch {
		case field.of != nil:
			for o, n := range f.origins {
				counts[field.of(&o)] += n
			}
		case field.name == "nodeId":
			for node, n := range f.byNode {
				counts[string(node)] += n
			}
		default:
			for l, n := range f.byLevel {
				counts[telemetry.Level(l).String()] += n
			}
		}
		a.Fields = append(a.Fields, topValues(field.name, counts, limit))
	}
	return a
}

// topValues orders values by their counts.
func topValues(name string, counts map[string]int64, limit int) telemetry.LogFacet {
	facet := telemetry.LogFacet{Field: name}
	for value, n := range counts {
		if value != "" && n > 0 {
			facet.Values = append(facet.Values, telemetry.FacetValue{Value: value, Count: n})
		}
	}
	slices.SortFunc(facet.Values, func(a, b telemetry.FacetValue) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Value, b.Value))
	})
	for len(facet.Values) > limit {
		last := len(facet.Values) - 1
		facet.Others += facet.Values[last].Count
		facet.Values = facet.Values[:last]
	}
	return facet
}
