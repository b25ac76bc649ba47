package store_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// Every kind of query, on hot rows, on chunks and on both, answers what the
// naive filter says.
func TestEveryKindOfQueryFindsWhatTheNaiveFilterFinds(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, conn := db.Open(t), db.Connect(t)
	hasty, err := store.Open(t.Context(), store.Options{DSN: db.DSN, CountBudget: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hasty.Close)
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(t, rt, s)
		q := drawQuery(rt, h)
		count := &slowCount{s: hasty, h: h, q: q}
		for range 3 {
			count.goOn(t, rt)
			drawCompaction(t, rt, conn, h.scope)
			checkEntries(t, rt, s, h)
			checkHistogram(t, rt, s, h)
			checkFacets(t, rt, s, h)
			checkExport(t, rt, s, h)
		}
		count.end(t, rt)
	})
}

// slowCount is a count of many calls, between which rows become chunks.
type slowCount struct {
	s     *store.Store
	h     *history
	q     telemetry.LogQuery
	after *telemetry.CountKey
	total int64
	done  bool
}

func (c *slowCount) goOn(tb testing.TB, rt *rapid.T) {
	tb.Helper()
	if c.done {
		return
	}
	got, err := c.s.CountLogs(tb.Context(), c.h.scope, &c.q, c.after)
	if err != nil {
		rt.Fatal(err)
	}
	if got.After != nil && got.After.So != got.Total || got.Total < c.total {
		rt.Fatalf("counted %+v after %d", got, c.total)
	}
	c.after, c.total, c.done = got.After, got.Total, got.After == nil
}

func (c *slowCount) end(tb testing.TB, rt *rapid.T) {
	tb.Helper()
	for calls := 0; !c.done; calls++ {
		if calls > 10_000 {
			rt.Fatal("the count does not come to an end")
		}
		c.goOn(tb, rt)
	}
	if want, _ := c.h.naive(&c.q); c.total != int64(len(want)) {
		rt.Fatalf("query %+v: counted %d, want %d", c.q, c.total, len(want))
	}
}

func keyOf(e *telemetry.LogEntry) telemetry.LogKey {
	return telemetry.LogKey{Timestamp: e.Timestamp, Position: e.Position}
}

func checkEntries(tb testing.TB, rt *rapid.T, s *store.Store, h *history) {
	tb.Helper()
	if len(h.entries) == 0 {
		return
	}
	e := rapid.SampledFrom(h.entries).Draw(rt, "entry")
	id, err := ids.ParseLog(string(e.ID))
	if err != nil {
		rt.Fatal(err)
	}
	if !id.LogTime().Equal(e.Timestamp) {
		return // of a year that no id holds
	}
	got, err := s.LogEntry(tb.Context(), h.scope, id)
	if d := gocmp.Diff(e, got); err != nil || d != "" {
		rt.Fatalf("entry %s: %v %s", e.ID, err, d)
	}
	q := telemetry.LogQuery{Order: telemetry.OldestFirst, LogFilter: telemetry.LogFilter{Agents: []telemetry.AgentID{e.Agent}, Sandbox: []telemetry.SandboxID{e.Sandbox}}}
	all, _ := h.naive(&q)
	at, _ := slices.BinarySearchFunc(all, keyOf(&e), func(x telemetry.LogEntry, k telemetry.LogKey) int { return keyOf(&x).Compare(k) })
	before, after := rapid.IntRange(0, 5).Draw(rt, "before"), rapid.IntRange(0, 5).Draw(rt, "after")
	c, err := s.LogContext(tb.Context(), h.scope, id, before, after)
	if err != nil {
		rt.Fatal(err)
	}
	want := telemetry.LogContext{
		Entry: e, Before: all[max(0, at-before):at], After: all[at+1 : min(len(all), at+1+after)],
		MoreBefore: at > before, MoreAfter: at+1+after < len(all), Gaps: c.Gaps,
	}
	if d := gocmp.Diff(want, c, cmpopts.EquateEmpty()); d != "" {
		rt.Fatalf("context of %s, %d before and %d after: %s", e.ID, before, after, d)
	}
	for _, g := range c.Gaps {
		if g.Agent != "" && g.Agent != e.Agent || g.Session != "" && e.Session != "" && g.Session != e.Session {
			rt.Fatalf("a gap of another agent: %+v", g)
		}
	}
	id.Seq += 1000
	if _, err := s.LogEntry(tb.Context(), h.scope, id); telemetry.CodeOf(err) != telemetry.NotFound {
		rt.Fatalf("an entry that is not there: %v", err)
	}
	if _, err := s.LogContext(tb.Context(), h.scope, id, 1, 1); telemetry.CodeOf(err) != telemetry.NotFound {
		rt.Fatalf("the context of an entry that is not there: %v", err)
	}
}

func checkHistogram(tb testing.TB, rt *rapid.T, s *store.Store, h *history) {
	tb.Helper()
	if len(h.entries) == 0 {
		return
	}
	q := drawQuery(rt, h)
	step := rapid.SampledFrom([]time.Duration{time.Minute, 5 * time.Minute, 7 * time.Minute, time.Hour}).Draw(rt, "step")
	middle := rapid.SampledFrom(h.entries).Draw(rt, "middle").Timestamp
	if rapid.Bool().Draw(rt, "aligned") {
		middle = middle.Truncate(time.Hour)
	}
	hq := telemetry.LogHistogramQuery{LogFilter: q.LogFilter, Since: middle.Add(-time.Hour), Until: middle.Add(time.Duration(rapid.IntRange(1, 120).Draw(rt, "minutes")) * time.Minute), Step: step}
	got, err := s.LogHistogram(tb.Context(), h.scope, &hq)
	if err != nil {
		rt.Fatal(err)
	}
	q.Since, q.Until = hq.Since, hq.Until
	found, _ := h.naive(&q)
	if got.Total != int64(len(found)) {
		rt.Fatalf("histogram %+v: total %d, want %d", hq, got.Total, len(found))
	}
	if first, last := got.Buckets[0].Start, got.Buckets[len(got.Buckets)-1].Start; first.After(hq.Since) || !first.Add(step).After(hq.Since) || !last.Before(hq.Until) || last.Add(step).Before(hq.Until) {
		rt.Fatalf("histogram %+v: buckets from %s to %s", hq, first, last)
	}
	for i, b := range got.Buckets {
		if i > 0 && !b.Start.Equal(got.Buckets[i-1].Start.Add(step)) || b.Start.UnixMicro()%step.Microseconds() != 0 {
			rt.Fatalf("bucket %d begins at %s", i, b.Start)
		}
		var want [telemetry.NumLevels]int64
		for j := range found {
			if at := found[j].Timestamp; !at.Before(b.Start) && at.Before(b.Start.Add(step)) {
				want[found[j].Level]++
			}
		}
		if b.Levels != want {
			rt.Fatalf("histogram %+v, bucket %s: %v, want %v", hq, b.Start, b.Levels, want)
		}
	}
}

func checkFacets(tb testing.TB, rt *rapid.T, s *store.Store, h *history) {
	tb.Helper()
	q := drawQuery(rt, h)
	limit := rapid.IntRange(1, 4).Draw(rt, "values")
	got, err := s.LogFacets(tb.Context(), h.scope, &telemetry.LogFacetsQuery{LogFilter: q.LogFilter, Since: q.Since, Until: q.Until, Limit: limit})
	if err != nil {
		rt.Fatal(err)
	}
	found, _ := h.naive(&q)
	want := telemetry.LogFacets{Total: int64(len(found)), IsExact: true}
	for _, field := range telemetry.FacetFields {
		counts := map[string]int64{}
		for i := range found {
			if v := valueOf(&found[i], field); v != "" {
				counts[v]++
			}
		}
		facet := telemetry.LogFacet{Field: field}
		for v, n := range counts {
			facet.Values = append(facet.Values, telemetry.FacetValue{Value: v, Count: n})
		}
		slices.SortFunc(facet.Values, func(a, b telemetry.FacetValue) int {
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Value, b.Value))
		})
		for _, v := range facet.Values[min(limit, len(facet.Values)):] {
			facet.Others += v.Count
		}
		facet.Values = facet.Values[:min(limit, len(facet.Values))]
		want.Fields = append(want.Fields, facet)
	}
	if d := gocmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		rt.Fatalf("facets of %+v: %s", q, d)
	}
}

func valueOf(e *telemetry.LogEntry, field string) string {
	switch field {
	case "level":
		return e.Level.String()
	case "sessionId":
		return string(e.Session)
	case "agentId":
		return string(e.Agent)
	case "userId":
		return string(e.User)
	case "nodeId":
		return string(e.Node)
	case "provider":
		return e.Provider.String()
	case "sandboxId":
		return string(e.Sandbox)
	case "source":
		return e.Source.String()
	}
	return e.Stream.String()
}

func checkExport(tb testing.TB, rt *rapid.T, s *store.Store, h *history) {
	tb.Helper()
	q := drawQuery(rt, h)
	want, _ := h.naive(&q)
	var got []telemetry.LogEntry
	err := s.ExportLogs(tb.Context(), h.scope, &q, func(list []telemetry.LogEntry) error {
		got = append(got, list...)
		return nil
	})
	if d := gocmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || d != "" {
		rt.Fatalf("export of %+v: %v %s", q, err, d)
	}
}

// An export that has begun waits when all places of queries are taken for longer
// than a query would wait.
func TestAnExportWaitsForAPlace(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	const frames, lines = 9, 2000
	for i := range frames {
		mustCommit(t, s, sp.numbered(t, "agt_a", i*lines, lines, time.Now()))
	}
	var waiting sync.WaitGroup
	defer waiting.Wait()
	n := 0
	err := s.ExportLogs(t.Context(), scope, &telemetry.LogQuery{Order: telemetry.OldestFirst}, func(list []telemetry.LogEntry) error {
		if n == 0 {
			leave := s.FillScans()
			waiting.Add(1)
			time.AfterFunc(store.ShortTimeout+time.Second, func() { leave(); waiting.Done() })
		}
		n += len(list)
		return nil
	})
	if err != nil || n != frames*lines {
		t.Fatalf("%d lines: %v", n, err)
	}
}

// An export of many steps is complete although its lines become chunks
// meanwhile, and ends when its reader has had enough.
func TestAnExportGoesOnThroughCompaction(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, conn := db.Open(t), db.Connect(t)
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	const frames, lines = 20, 2000
	at := time.Now().Add(-time.Hour)
	for i := range frames {
		mustCommit(t, s, sp.numbered(t, "agt_a", i*lines, lines, at.Add(time.Duration(i)*lines*time.Millisecond)))
	}
	var got []telemetry.LogEntry
	err := s.ExportLogs(t.Context(), scope, &telemetry.LogQuery{Order: telemetry.OldestFirst}, func(list []telemetry.LogEntry) error {
		if n := len(got); n%10_000 == 0 {
			putIntoChunks(t, conn, scope, int64(min(n+10_000, frames*lines)+1), 4096)
		}
		got = append(got, list...)
		return nil
	})
	if err != nil || len(got) != frames*lines {
		t.Fatalf("%d lines: %v", len(got), err)
	}
	for i := range got {
		if got[i].Position != int64(i+1) {
			t.Fatalf("line %d has position %d", i, got[i].Position)
		}
	}
	enough := errors.New("enough")
	n := 0
	if err := s.ExportLogs(t.Context(), scope, &telemetry.LogQuery{}, func([]telemetry.LogEntry) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
		t.Fatalf("after %d parts: %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = s.ExportLogs(ctx, scope, &telemetry.LogQuery{}, func([]telemetry.LogEntry) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("an export whose reader has left: %v", err)
	}
}
