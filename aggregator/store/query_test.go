package store_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/logquery"
	"github.com/theazo/observability/shared/telemetry"
)

// history is a random past of one scope, and everything that was published of
// it: the plain definition that queries are held against.
type history struct {
	scope   telemetry.Scope
	entries []telemetry.LogEntry
	gaps    []telemetry.Gap
}

// drawHistory commits random frames of both environments in random groups.
func drawHistory(tb testing.TB, t *rapid.T, s *store.Store) *history {
	tb.Helper()
	h := &history{scope: telemetry.Scope{Org: telemetry.OrgID(ids.New("org")), Env: telemetry.Environment(rapid.IntRange(0, 1).Draw(t, "env"))}}
	other := telemetry.Scope{Org: h.scope.Org, Env: 1 - h.scope.Env}
	now := time.Now().UTC()
	spools := []*spool{newSpool(h.scope, "nod_a", ids.Epoch()), newSpool(h.scope, "nod_b", ids.Epoch()), newSpool(other, "nod_a", ids.Epoch())}
	for range rapid.IntRange(1, 4).Draw(t, "commits") {
		var frames []*frame.Received
		for range rapid.IntRange(1, 4).Draw(t, "frames") {
			f := drawFrame(tb, t, rapid.SampledFrom(spools).Draw(t, "spool"), now)
			f.ReceivedAt = now.Add(time.Duration(rapid.IntRange(-9, 3).Draw(t, "received")) * 20 * time.Minute)
			frames = append(frames, f)
		}
		for _, p := range mustCommit(tb, s, frames...) {
			if p.Scope == h.scope {
				h.entries = append(h.entries, entriesOf([]*frame.Published{p})...)
				h.gaps = append(h.gaps, p.Gaps...)
			}
		}
	}
	return h
}

func drawFrame(tb testing.TB, t *rapid.T, sp *spool, now time.Time) *frame.Received {
	tb.Helper()
	if rapid.IntRange(0, 4).Draw(t, "kind") == 0 {
		return sp.records(nil, []telemetry.Gap{{
			Reason: telemetry.GapRotated, Count: 5, Agent: telemetry.AgentID(rapid.SampledFrom([]string{"", "agt_0", "agt_1"}).Draw(t, "gap agent")),
			Session: telemetry.SessionID(rapid.SampledFrom([]string{"", "ses_0"}).Draw(t, "gap session")), FirstSeq: 3, LastSeq: 1 << 40,
		}})
	}
	entries := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) telemetry.LogEntry {
		e := telemetry.LogEntry{Timestamp: drawTime(t, now), Level: telemetry.Level(rapid.IntRange(0, 3).Draw(t, "level")), Message: drawMessage(t)}
		e.Agent = telemetry.AgentID(fmt.Sprintf("agt_%d", rapid.IntRange(0, 3).Draw(t, "agent")))
		e.Session = telemetry.SessionID(rapid.SampledFrom([]string{"", "ses_0", "ses_1"}).Draw(t, "session"))
		e.User = telemetry.UserID(rapid.SampledFrom([]string{"", "u", `a"b\`}).Draw(t, "user"))
		e.Stream = telemetry.Stream(rapid.IntRange(0, 2).Draw(t, "stream"))
		if rapid.IntRange(0, 3).Draw(t, "extras") == 0 {
			e.Trace, e.Span, e.Metadata = "trc_1", "spn_1", json.RawMessage(`{"a":1}`)
		}
		return e
	}), 1, 12).Draw(t, "entries")
	return sp.lines(tb, entries...)
}

// drawTime draws few distinct times, so that keys tie, and some that no
// calendar of PostgreSQL holds.
func drawTime(t *rapid.T, now time.Time) time.Time {
	switch rapid.IntRange(0, 30).Draw(t, "odd time") {
	case 0:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	case 1:
		return time.Date(-5000, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return now.Truncate(time.Second).Add(time.Duration(rapid.IntRange(-8, 4).Draw(t, "time")) * 7 * time.Minute)
}

func drawMessage(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "timeout of the call", "Connection TIMEOUT", "ready", strings.Repeat("long text ", 30), "naïve İ"}).Draw(t, "message")
}

func drawQuery(t *rapid.T, h *history) telemetry.LogQuery {
	q := telemetry.LogQuery{
		Order: telemetry.Order(rapid.IntRange(0, 1).Draw(t, "order")), Limit: rapid.IntRange(1, 20).Draw(t, "limit"),
		Offset: rapid.SampledFrom([]int{0, 0, 1, 7, 100}).Draw(t, "offset"),
	}
	maybe := func(name string) bool { return rapid.IntRange(0, 3).Draw(t, name) == 0 }
	if maybe("by agent") {
		q.Agents = []telemetry.AgentID{"agt_0", telemetry.AgentID(rapid.SampledFrom([]string{"agt_1", "agt_9"}).Draw(t, "and"))}
	}
	if maybe("by session") {
		q.Sessions = []telemetry.SessionID{telemetry.SessionID(rapid.SampledFrom([]string{"ses_0", "ses_1", "ses_9"}).Draw(t, "of session"))}
	}
	if maybe("by level") {
		q.Levels = []telemetry.Level{telemetry.Warn, telemetry.Error}
	}
	if maybe("by node") {
		q.Nodes = []telemetry.NodeID{"nod_b"}
	}
	if maybe("by user") {
		q.Users = []telemetry.UserID{`a"b\`}
	}
	if maybe("by trace") {
		q.Traces = []telemetry.TraceID{"trc_1"}
	}
	if maybe("by text") {
		q.Search = rapid.SampledFrom([]string{"timeout", "i̇", "absent", "T"}).Draw(t, "search")
	}
	if maybe("by condition") {
		text := rapid.SampledFrom([]string{
			"timeout OR ready", "-agent:agt_0", "/TIME.*call/", "level:error OR agent:agt_1", "meta.a:1", "meta.a:>1 OR naïve", "-node:nod_a", "has:trace timeout", "node:nod_b OR timeout",
		}).Draw(t, "condition")
		if err := logquery.Parse(text, &q.LogFilter); err != nil {
			t.Fatal(err)
		}
	}
	bound := func() time.Time {
		if len(h.entries) == 0 {
			return time.Time{}
		}
		return rapid.SampledFrom(h.entries).Draw(t, "bound at").Timestamp.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "bound by")))
	}
	if maybe("since") {
		q.Since = bound()
	}
	if maybe("until") {
		q.Until = bound()
	}
	return q
}

// naive answers a query from what was published.
func (h *history) naive(q *telemetry.LogQuery) (entries []telemetry.LogEntry, gaps []telemetry.Gap) {
	within := func(at time.Time) bool {
		return (q.Since.IsZero() || !at.Before(q.Since)) && (q.Until.IsZero() || at.Before(q.Until))
	}
	for i := range h.entries {
		if q.Match(&h.entries[i]) && within(h.entries[i].Timestamp) {
			entries = append(entries, h.entries[i])
		}
	}
	slices.SortFunc(entries, func(a, b telemetry.LogEntry) int {
		c := telemetry.LogKey{Timestamp: a.Timestamp, Position: a.Position}.Compare(telemetry.LogKey{Timestamp: b.Timestamp, Position: b.Position})
		if q.Order == telemetry.NewestFirst {
			return -c
		}
		return c
	})
	for i := range h.gaps {
		if q.MatchGap(&h.gaps[i]) && within(h.gaps[i].ObservedAt) {
			gaps = append(gaps, h.gaps[i])
		}
	}
	return entries, gaps
}

func TestQueriesFindWhatTheNaiveFilterFinds(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, conn := db.Open(t), db.Connect(t)
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(t, rt, s)
		for range 3 {
			drawCompaction(t, rt, conn, h.scope)
			for range 3 {
				q := drawQuery(rt, h)
				checkQuery(t, rt, s, h, &q)
			}
		}
	})
}

// checkQuery holds all pages of a query, and its total, against the naive answer.
func checkQuery(tb testing.TB, rt *rapid.T, s *store.Store, h *history, q *telemetry.LogQuery) {
	tb.Helper()
	want, wantGaps := h.naive(q)
	got, page := queryAll(tb, s, h.scope, *q)
	if d := cmp.Diff(want[min(q.Offset, len(want)):], got, cmpopts.EquateEmpty()); d != "" {
		rt.Fatalf("query %+v: %s", q, d)
	}
	if page.Total != int64(len(want)) || page.CountAfter != nil || page.Stream != int64(len(h.entries)+len(h.gaps)) {
		rt.Fatalf("query %+v: total %d, stream %d: want %d and %d", q, page.Total, page.Stream, len(want), len(h.entries)+len(h.gaps))
	}
	if d := cmp.Diff(wantGaps, page.Gaps, cmpopts.EquateEmpty()); d != "" {
		rt.Fatalf("query %+v: gaps: %s", q, d)
	}
	q.Count = telemetry.CountNone
	again, page := queryAll(tb, s, h.scope, *q)
	if d := cmp.Diff(got, again, cmpopts.EquateEmpty()); d != "" || page.Total != 0 {
		rt.Fatalf("query %+v without a total (%d): %s", q, page.Total, d)
	}
	count, err := s.CountLogs(tb.Context(), h.scope, q, nil)
	if err != nil || count.Total != int64(len(want)) || count.After != nil {
		rt.Fatalf("query %+v: counted %+v, want %d: %v", q, count, len(want), err)
	}
}

func TestStreamsAreReadWithoutAGap(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, conn := db.Open(t), db.Connect(t)
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(t, rt, s)
		drawCompaction(t, rt, conn, h.scope)
		drawCompaction(t, rt, conn, h.scope)
		head, err := s.StreamHead(t.Context(), h.scope)
		if err != nil || head != int64(len(h.entries)+len(h.gaps)) {
			rt.Fatalf("head %d %v, want %d", head, err, len(h.entries)+len(h.gaps))
		}
		after := rapid.Int64Range(0, head).Draw(rt, "after")
		list, err := readAll(t.Context(), s, h.scope, after, rapid.IntRange(1, 30).Draw(rt, "limit"))
		if err != nil {
			rt.Fatal(err)
		}
		at := after + 1
		var entries []telemetry.LogEntry
		var gaps []telemetry.Gap
		for i, p := range list {
			if p.Position > at || i > 0 && p.Position != at {
				rt.Fatalf("after %d: part %d begins at %d, want %d", after, i, p.Position, at)
			}
			at = p.Next()
			entries, gaps = append(entries, entriesOf([]*frame.Published{p})...), append(gaps, p.Gaps...)
		}
		if at != head+1 {
			rt.Fatalf("after %d: read up to %d, head %d", after, at, head)
		}
		beyond := func(e telemetry.LogEntry) bool { return e.Position <= after }
		if d := cmp.Diff(slices.DeleteFunc(slices.Clone(h.entries), beyond), slices.DeleteFunc(entries, beyond), cmpopts.EquateEmpty()); d != "" {
			rt.Fatal(d)
		}
		if d := cmp.Diff(slices.DeleteFunc(slices.Clone(h.gaps), func(g telemetry.Gap) bool { return g.Position <= after }), gaps, cmpopts.EquateEmpty()); d != "" {
			rt.Fatal(d)
		}
	})
}

func TestALargePageEndsEarlyAndGoesOn(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: db.Organisation(t)}
	sp := newSpool(scope, "nod_1", 1)
	text := strings.Repeat("0123456789abcdef", telemetry.MaxMessage/16)
	at := time.Now()
	const lines = 200
	for i := range lines / 10 {
		var entries []telemetry.LogEntry
		for j := range 10 {
			entries = append(entries, telemetry.LogEntry{Timestamp: at.Add(time.Duration(i*10+j) * time.Millisecond), Message: text, Origin: telemetry.Origin{Agent: "agt_big"}})
		}
		mustCommit(t, s, sp.lines(t, entries...))
	}
	page, err := s.QueryLogs(t.Context(), scope, &telemetry.LogQuery{Limit: lines})
	if err != nil || len(page.Entries) == 0 || len(page.Entries) == lines || !page.More || page.Total != lines {
		t.Fatalf("%d entries, total %d, more %v: %v", len(page.Entries), page.Total, page.More, err)
	}
	entries, _ := queryAll(t, s, scope, telemetry.LogQuery{Limit: lines})
	if len(entries) != lines {
		t.Fatalf("%d entries over all pages, want %d", len(entries), lines)
	}
	list, err := readAll(t.Context(), s, scope, 0, lines)
	if err != nil || len(entriesOf(list)) != lines {
		t.Fatalf("%d lines in the stream: %v", len(entriesOf(list)), err)
	}
}
