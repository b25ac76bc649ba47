package api_test

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// The questions about lines, answered by the plain definition.

// matching lists what a query matches, in its order.
func (s *fakeStore) matching(scope telemetry.Scope, f *telemetry.LogFilter, since, until time.Time, order telemetry.Order) []telemetry.LogEntry {
	var all []telemetry.LogEntry
	for _, e := range s.Entries(scope) {
		if f.Match(&e) && (since.IsZero() || !e.Timestamp.Before(since)) && (until.IsZero() || e.Timestamp.Before(until)) {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b telemetry.LogEntry) int {
		return telemetry.LogKey{Timestamp: a.Timestamp, Position: a.Position}.Compare(telemetry.LogKey{Timestamp: b.Timestamp, Position: b.Position})
	})
	if order == telemetry.NewestFirst {
		slices.Reverse(all)
	}
	return all
}

// CountLogs counts two lines at a time where a text is searched.
func (s *fakeStore) CountLogs(_ context.Context, scope telemetry.Scope, q *telemetry.LogQuery, after *telemetry.CountKey) (telemetry.LogCount, error) {
	n := int64(len(s.matching(scope, &q.LogFilter, q.Since, q.Until, q.Order)))
	if q.Search == "" {
		return telemetry.LogCount{Total: n}, nil
	}
	so := int64(2)
	if after != nil {
		so = after.So + 2
	}
	if so >= n {
		return telemetry.LogCount{Total: n}, nil
	}
	return telemetry.LogCount{Total: so, After: &telemetry.CountKey{So: so, Time: base, ID: so, Until: 100}}, nil
}

func (s *fakeStore) find(scope telemetry.Scope, id ids.LogKey) (list []telemetry.LogEntry, at int, err error) {
	list = s.matching(scope, &telemetry.LogFilter{}, time.Time{}, time.Time{}, telemetry.OldestFirst)
	at = slices.IndexFunc(list, func(e telemetry.LogEntry) bool { return e.ID == ids.Log(id) })
	if at < 0 {
		return nil, at, telemetry.Failf(telemetry.NotFound, "no such line")
	}
	return list, at, nil
}

func (s *fakeStore) LogEntry(_ context.Context, scope telemetry.Scope, id ids.LogKey) (telemetry.LogEntry, error) {
	list, at, err := s.find(scope, id)
	if err != nil {
		return telemetry.LogEntry{}, err
	}
	return list[at], nil
}

func (s *fakeStore) LogContext(_ context.Context, scope telemetry.Scope, id ids.LogKey, before, after int) (telemetry.LogContext, error) {
	list, at, err := s.find(scope, id)
	if err != nil {
		return telemetry.LogContext{}, err
	}
	from, to := max(0, at-before), min(len(list), at+1+after)
	return telemetry.LogContext{Entry: list[at], Before: list[from:at], After: list[at+1 : to], MoreBefore: from > 0, MoreAfter: to < len(list)}, nil
}

func (s *fakeStore) LogHistogram(_ context.Context, scope telemetry.Scope, q *telemetry.LogHistogramQuery) (telemetry.LogHistogram, error) {
	h := telemetry.LogHistogram{Step: q.Step}
	for at := q.Since.Truncate(q.Step); at.Before(q.Until); at = at.Add(q.Step) {
		b := telemetry.LogBucket{Start: at}
		for _, e := range s.matching(scope, &q.LogFilter, q.Since, q.Until, telemetry.OldestFirst) {
			if e.Timestamp.Truncate(q.Step).Equal(at) {
				b.Levels[e.Level]++
				h.Total++
			}
		}
		h.Buckets = append(h.Buckets, b)
	}
	return h, nil
}

func (s *fakeStore) LogFacets(_ context.Context, scope telemetry.Scope, q *telemetry.LogFacetsQuery) (telemetry.LogFacets, error) {
	list := s.matching(scope, &q.LogFilter, q.Since, q.Until, telemetry.OldestFirst)
	f := telemetry.LogFacets{Total: int64(len(list)), IsExact: true}
	for _, field := range q.Fields {
		counts := map[string]int64{}
		for _, e := range list {
			counts[map[string]string{"level": e.Level.String(), "sessionId": string(e.Session)}[field]]++
		}
		facet := telemetry.LogFacet{Field: field}
		for value, n := range counts {
			facet.Values = append(facet.Values, telemetry.FacetValue{Value: value, Count: n})
		}
		slices.SortFunc(facet.Values, func(a, b telemetry.FacetValue) int {
			if a.Count != b.Count {
				return int(b.Count - a.Count)
			}
			return strings.Compare(a.Value, b.Value)
		})
		for _, v := range facet.Values[min(q.Limit, len(facet.Values)):] {
			facet.Others += v.Count
		}
		facet.Values = facet.Values[:min(q.Limit, len(facet.Values))]
		f.Fields = append(f.Fields, facet)
	}
	return f, nil
}

// ExportLogs hands three lines at a time over. With an error that the fake was
// told of while it runs it breaks off.
func (s *fakeStore) ExportLogs(ctx context.Context, scope telemetry.Scope, q *telemetry.LogQuery, each func([]telemetry.LogEntry) error) error {
	for list := range slices.Chunk(s.matching(scope, &q.LogFilter, q.Since, q.Until, q.Order), 3) {
		if err := each(list); err != nil {
			return err
		}
		s.mu.Lock()
		err := s.broken
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// firstLog is the id of the first line of a scope.
func firstLog(s *site, scope telemetry.Scope) string { return string(s.Entries(scope)[0].ID) }
