package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// covers is the plain definition of what an erasure means for a record.
func covers(e *telemetry.Erasure, o *telemetry.Origin, at time.Time) bool {
	subject := [3]string{string(o.User), string(o.Session), string(o.Agent)}[e.Kind]
	return subject == e.Subject && !at.After(e.Until)
}

// erase takes what an erasure covers out of a history and returns the lines.
func (h *history) erase(e *telemetry.Erasure) (gone []telemetry.LogEntry) {
	h.entries = slices.DeleteFunc(slices.Clone(h.entries), func(l telemetry.LogEntry) bool {
		if covers(e, &l.Origin, l.Timestamp) {
			gone = append(gone, l)
			return true
		}
		return false
	})
	h.gaps = slices.DeleteFunc(slices.Clone(h.gaps), func(g telemetry.Gap) bool {
		return covers(e, &telemetry.Origin{Agent: g.Agent, Session: g.Session}, g.ObservedAt)
	})
	return gone
}

func drawErasure(t *rapid.T, h *history) (kind telemetry.ErasureKind, subject string, until time.Time) {
	kind = telemetry.ErasureKind(rapid.IntRange(0, 2).Draw(t, "kind"))
	subject = rapid.SampledFrom(map[telemetry.ErasureKind][]string{
		telemetry.EraseUser: {"u", `a"b\`, "nobody"}, telemetry.EraseSession: {"ses_0", "ses_1", "ses_9"}, telemetry.EraseAgent: {"agt_0", "agt_1", "agt_2"},
	}[kind]).Draw(t, "subject")
	if len(h.entries) > 0 && rapid.Bool().Draw(t, "until a line") {
		if until = rapid.SampledFrom(h.entries).Draw(t, "until").Timestamp; until.After(time.Now()) || until.Year() < 1 {
			until = time.Time{}
		}
	}
	return kind, subject, until
}

// checkAll holds every reader against the naive filter.
func checkAll(tb testing.TB, rt *rapid.T, s *store.Store, h *history, head int64) {
	tb.Helper()
	checkEntries(tb, rt, s, h)
	checkHistogram(tb, rt, s, h)
	checkFacets(tb, rt, s, h)
	checkExport(tb, rt, s, h)
	for range 2 {
		q := drawQuery(rt, h)
		want, wantGaps := h.naive(&q)
		got, page := queryAll(tb, s, h.scope, q)
		if d := cmp.Diff(want[min(q.Offset, len(want)):], got, cmpopts.EquateEmpty()); d != "" {
			rt.Fatalf("query %+v: %s", q, d)
		}
		if d := cmp.Diff(wantGaps, page.Gaps, cmpopts.EquateEmpty()); d != "" || page.Total != int64(len(want)) || page.Stream != head {
			rt.Fatalf("query %+v: total %d of %d, stream %d of %d, gaps: %s", q, page.Total, len(want), page.Stream, head, d)
		}
		count, err := s.CountLogs(tb.Context(), h.scope, &q, nil)
		if err != nil || count.Total != int64(len(want)) {
			rt.Fatalf("query %+v: counted %d, want %d: %v", q, count.Total, len(want), err)
		}
	}
	checkWholeStream(tb, rt, s, h, rapid.Int64Range(0, head).Draw(rt, "after"), head)
}

// checkWholeStream: what is left comes in order, and no position is missed.
func checkWholeStream(tb testing.TB, rt *rapid.T, s *store.Store, h *history, after, head int64) {
	tb.Helper()
	list, err := readAll(tb.Context(), s, h.scope, after, rapid.IntRange(1, 30).Draw(rt, "limit"))
	if err != nil {
		rt.Fatal(err)
	}
	at := after + 1
	var gaps []telemetry.Gap
	for i, p := range list {
		if p.Position > at || i > 0 && p.Position != at {
			rt.Fatalf("after %d: part %d begins at %d, want %d", after, i, p.Position, at)
		}
		at = p.Next()
		gaps = append(gaps, p.Gaps...)
	}
	if at != head+1 {
		rt.Fatalf("after %d: read up to %d, head %d", after, at, head)
	}
	want := slices.DeleteFunc(slices.Clone(h.entries), func(e telemetry.LogEntry) bool { return e.Position <= after })
	got := slices.DeleteFunc(entriesOf(list), func(e telemetry.LogEntry) bool { return e.Position <= after })
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		rt.Fatalf("after %d: %s", after, d)
	}
	wantGaps := slices.DeleteFunc(slices.Clone(h.gaps), func(g telemetry.Gap) bool { return g.Position <= after })
	if d := cmp.Diff(wantGaps, gaps, cmpopts.EquateEmpty()); d != "" {
		rt.Fatalf("after %d: gaps: %s", after, d)
	}
}

const dropHot = "delete from log_hot h using stream_counter s where s.org = h.org and s.env = h.env and h.pos < s.compacted and h.org = $1"

// Every kind of query, the totals and the stream answer as if erased lines had
// never been: at once, whatever is compacted, after the job, and after merges.
func TestErasedLinesAreGoneForEveryReader(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, conn := openErasing(t, db), db.Connect(t)
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(t, rt, s)
		head := int64(len(h.entries) + len(h.gaps))
		var gone []telemetry.LogEntry
		var erasures []telemetry.Erasure
		for range rapid.IntRange(1, 3).Draw(rt, "erasures") {
			drawCompaction(t, rt, conn, h.scope)
			kind, subject, until := drawErasure(rt, h)
			e := mustErase(t, s, h.scope, kind, subject, until)
			gone, erasures = append(gone, h.erase(&e)...), append(erasures, e)
			checkAll(t, rt, s, h, head)
		}
		if _, err := conn.Exec(t.Context(), "update stream_counter set hot_since = 'epoch' where org = $1", string(h.scope.Org)); err != nil {
			rt.Fatal(err)
		}
		if err := s.Compact(t.Context()); err != nil {
			rt.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), dropHot, string(h.scope.Org)); err != nil {
			rt.Fatal(err)
		}
		for range 2 { // the second time late records are looked for
			if err := s.EraseOnce(t.Context(), h.scope); err != nil {
				rt.Fatal(err)
			}
			checkAll(t, rt, s, h, head)
		}
		checkDone(t, rt, s, h.scope, erasures, gone)
		for _, e := range gone {
			if id, err := ids.ParseLog(string(e.ID)); err != nil {
				rt.Fatal(err)
			} else if _, err := s.LogEntry(t.Context(), h.scope, id); id.LogTime().Equal(e.Timestamp) && telemetry.CodeOf(err) != telemetry.NotFound {
				rt.Fatalf("an erased line is found by its id: %v", err)
			}
		}
		var lines int64
		if err := conn.QueryRow(t.Context(), "select coalesce(sum(n), 0) from log_chunk where org = $1 and env = $2", string(h.scope.Org), int16(h.scope.Env)).Scan(&lines); err != nil || lines != int64(len(h.entries)) {
			rt.Fatalf("%d lines are in chunks, want %d: %v", lines, len(h.entries), err)
		}
	})
}

func checkDone(tb testing.TB, rt *rapid.T, s *store.Store, scope telemetry.Scope, asked []telemetry.Erasure, gone []telemetry.LogEntry) {
	tb.Helper()
	list, more, err := s.Erasures(tb.Context(), scope, "", 100)
	if err != nil || more || len(list) != len(asked) {
		rt.Fatalf("%d erasures, want %d: %v", len(list), len(asked), err)
	}
	var lines int64
	for i := range list {
		e := &list[i]
		if e.Status != telemetry.ErasureDone || e.Subject != "" || e.SubjectHash == "" || e.Proof == nil || e.Proof.Found != 0 || len(e.Proof.Digest) != 64 || e.Proof.AuditSeq == 0 {
			rt.Fatalf("not done: %+v", e)
		}
		lines += e.Counts.Lines
	}
	if lines != int64(len(gone)) {
		rt.Fatalf("%d lines were counted as erased, want %d", lines, len(gone))
	}
}
