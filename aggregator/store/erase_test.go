package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// openErasing opens a store that can finish erasures.
func openErasing(tb testing.TB, db *storetest.Database) *store.Store {
	tb.Helper()
	key := make(store.ErasureKey, 32)
	copy(key, "a key for tests")
	s, err := store.Open(tb.Context(), store.Options{DSN: db.DSN, Log: storetest.Log(tb), ErasureKey: key})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

func mustErase(tb testing.TB, s *store.Store, scope telemetry.Scope, kind telemetry.ErasureKind, subject string, until time.Time) telemetry.Erasure {
	tb.Helper()
	e, err := s.Erase(tb.Context(), scope, telemetry.ErasureRequest{Kind: kind, Subject: subject, Until: until, By: "test", Reason: "asked for"})
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// userFrame makes lines of a user, one second apart from a time on.
func userFrame(tb testing.TB, sp *spool, user telemetry.UserID, agent telemetry.AgentID, at time.Time, n int) *frame.Received {
	tb.Helper()
	entries := make([]telemetry.LogEntry, n)
	for i := range entries {
		entries[i] = telemetry.LogEntry{
			Timestamp: at.Add(time.Duration(i) * time.Second), Message: fmt.Sprintf("%s line %d", user, i), Level: telemetry.Level(i % 4),
			Origin: telemetry.Origin{Agent: agent, Session: "ses_" + telemetry.SessionID(user), User: user},
		}
	}
	return sp.lines(tb, entries...)
}

// everything makes one record of every kind of the events lane.
func everything(sp *spool, user telemetry.UserID, agent telemetry.AgentID, at time.Time) *frame.Received {
	origin := telemetry.Origin{Agent: agent, Session: "ses_" + telemetry.SessionID(user), User: user}
	f := sp.frame(telemetry.LaneEvents, 5)
	f.Records = telemetry.Records{
		Events:     []telemetry.Event{{Type: telemetry.SandboxStarted, Timestamp: at, Origin: origin}},
		Spans:      []telemetry.Span{{Trace: telemetry.TraceID("trc_" + agent), ID: telemetry.SpanID(ids.New("spn")), Start: at, Origin: origin}},
		ModelCalls: []telemetry.ModelCall{{Timestamp: at, Origin: origin}},
		Metrics:    []telemetry.MetricPoint{{Name: "m", Timestamp: at, Origin: origin}},
		Gaps:       []telemetry.Gap{{Reason: telemetry.GapRotated, Count: 1, Agent: agent, Session: origin.Session}},
	}
	return f
}

// settle compacts everything and drops the hot rows.
func settle(t *testing.T, db *storetest.Database, s *store.Store, scope telemetry.Scope) {
	t.Helper()
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Connect(t).Exec(t.Context(), dropHot, string(scope.Org)); err != nil {
		t.Fatal(err)
	}
}

func total(tb testing.TB, s *store.Store, scope telemetry.Scope, f telemetry.LogFilter) int64 {
	tb.Helper()
	entries, page := queryAll(tb, s, scope, telemetry.LogQuery{LogFilter: f, Limit: 1000})
	if int64(len(entries)) != page.Total {
		tb.Fatalf("%d lines, total %d", len(entries), page.Total)
	}
	return page.Total
}

func TestAnErasureIsDoneWithEverythingAndKeepsWhatIsNew(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := openErasing(t, db)
	scope := telemetry.Scope{Org: db.Organisation(t)}
	now := time.Now().UTC().Truncate(time.Second)
	old := now.Add(-time.Hour)
	sp := newSpool(scope, "nod_1", 1)
	mustCommit(t, s, userFrame(t, sp, "eve", "agt_eve", old, 20), userFrame(t, sp, "bob", "agt_bob", old, 7), everything(sp, "eve", "agt_eve", old), everything(sp, "bob", "agt_bob", old))
	before, err := s.Ledger(t.Context(), scope, "nod_1")
	if err != nil && telemetry.CodeOf(err) != telemetry.NotFound {
		t.Fatal(err)
	}

	e := mustErase(t, s, scope, telemetry.EraseUser, "eve", time.Time{})
	if e.Status != telemetry.ErasureRequested || e.Until.IsZero() {
		t.Fatalf("%+v", e)
	}
	if n := total(t, s, scope, telemetry.LogFilter{}); n != 7 {
		t.Fatalf("%d lines are left at once", n)
	}
	if _, err := s.Agent(t.Context(), scope, "agt_eve"); telemetry.CodeOf(err) != telemetry.NotFound {
		t.Fatalf("the agent: %v", err)
	}
	if list, _, err := s.Agents(t.Context(), scope, telemetry.Listing{Limit: 10}); err != nil || len(list) != 1 || list[0].ID != "agt_bob" {
		t.Fatalf("agents %+v: %v", list, err)
	}
	if list, _, err := s.Sessions(t.Context(), scope, telemetry.Listing{Limit: 1}); err != nil || len(list) != 1 || list[0].ID != "ses_bob" {
		t.Fatalf("sessions %+v: %v", list, err)
	}
	if list, _, err := s.Events(t.Context(), scope, "agt_eve", telemetry.Listing{Limit: 10}); err != nil || len(list) != 0 {
		t.Fatalf("events %+v: %v", list, err)
	}

	settle(t, db, s, scope)
	if err := s.EraseOnce(t.Context(), scope); err != nil {
		t.Fatal(err)
	}
	done, err := s.Erasure(t.Context(), scope, e.ID)
	if err != nil || done.Status != telemetry.ErasureDone {
		t.Fatalf("%+v: %v", done, err)
	}
	want := telemetry.ErasureCounts{Lines: 20, Chunks: done.Counts.Chunks, Events: 1, Spans: 1, ModelCalls: 1, MetricPoints: 1, Agents: 1, Sessions: 1}
	if d := cmp.Diff(want, done.Counts); d != "" || done.Counts.Chunks == 0 {
		t.Fatal(d)
	}
	for table, left := range map[string]int{"event": 1, "span": 1, "model_call": 1, "metric_point": 1, "agent": 1, "session": 1} {
		if n := scalar[int](t, db, "select count(*)::int from "+table); n != left {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
	for _, table := range []string{"erasure", "audit", "agent", "session", "event", "span"} {
		if n := scalar[int](t, db, "select count(*)::int from "+table+" t where t::text like '%eve%'"); n != 0 {
			t.Errorf("%s still names the user, in %d rows", table, n)
		}
	}

	// The same user, later: not erased.
	mustCommit(t, s, userFrame(t, sp, "eve", "agt_eve", now.Add(time.Minute), 3))
	if n := total(t, s, scope, telemetry.LogFilter{Users: []telemetry.UserID{"eve"}}); n != 3 {
		t.Fatalf("%d new lines", n)
	}
	if a, err := s.Agent(t.Context(), scope, "agt_eve"); err != nil || a.User != "eve" {
		t.Fatalf("the agent that is back: %+v %v", a, err)
	}
	after, err := s.Ledger(t.Context(), scope, "nod_1")
	if err != nil && telemetry.CodeOf(err) != telemetry.NotFound {
		t.Fatal(err)
	}
	if after.Totals.Visible != 0 && after.Totals.Visible != before.Totals.Visible+3 {
		t.Errorf("the ledger counts %d, before %d", after.Totals.Visible, before.Totals.Visible)
	}
}

func TestLateRecordsOfAnErasedUserAreCommittedAndNeverShown(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := openErasing(t, db)
	other := openErasing(t, db)
	scope := telemetry.Scope{Org: db.Organisation(t)}
	old := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	sp, cutOff := newSpool(scope, "nod_1", 1), newSpool(scope, "nod_2", 2)
	mustCommit(t, s, userFrame(t, sp, "eve", "agt_eve", old, 5), userFrame(t, sp, "bob", "agt_bob", old, 5))
	e := mustErase(t, s, scope, telemetry.EraseUser, "eve", time.Time{})
	for round, status := range []telemetry.ErasureStatus{telemetry.ErasureRequested, telemetry.ErasureDone} {
		if status == telemetry.ErasureDone {
			settle(t, db, s, scope)
			if err := s.EraseOnce(t.Context(), scope); err != nil {
				t.Fatal(err)
			}
		}
		if e, err := s.Erasure(t.Context(), scope, e.ID); err != nil || e.Status != status {
			t.Fatalf("%+v: %v", e, err)
		}
		// A node that was cut off sends what it had; another replica takes it.
		published := mustCommit(t, other, userFrame(t, cutOff, "eve", "agt_eve", old.Add(time.Minute), 4), userFrame(t, cutOff, "bob", "agt_bob", old.Add(time.Minute), 1), everything(cutOff, "eve", "agt_eve", old))
		for _, l := range entriesOf(published) {
			if l.User == "eve" {
				t.Errorf("a late line was published: %+v", l)
			}
		}
		for _, s := range []*store.Store{s, other} {
			if n := total(t, s, scope, telemetry.LogFilter{}); n != int64(5+round+1) {
				t.Fatalf("round %d: %d lines are shown", round, n)
			}
			if list, _, err := s.Agents(t.Context(), scope, telemetry.Listing{Limit: 10}); err != nil || len(list) != 1 {
				t.Fatalf("agents %+v: %v", list, err)
			}
			if list, _, err := s.Events(t.Context(), scope, "agt_eve", telemetry.Listing{Limit: 10}); err != nil || len(list) != 0 {
				t.Fatalf("events %+v: %v", list, err)
			}
		}
	}
	if n := scalar[int](t, db, "select visible::int from ingest_mark where node = 'nod_2' and lane = 0"); n != 10 {
		t.Errorf("the ledger counts %d late lines as committed, want 10", n)
	}
	settle(t, db, s, scope)
	for range 2 {
		if err := s.EraseOnce(t.Context(), scope); err != nil {
			t.Fatal(err)
		}
	}
	if n := scalar[int](t, db, chunkedLines, string(scope.Org)); n != 7 {
		t.Errorf("%d lines are stored, want 7", n)
	}
	for _, table := range []string{"event", "span", "model_call", "metric_point", "agent", "session"} {
		if n := scalar[int](t, db, "select count(*)::int from "+table+` t where t::text like '%eve%'`); n != 0 {
			t.Errorf("%d late rows stay in %s", n, table)
		}
	}
	done, err := s.Erasure(t.Context(), scope, e.ID)
	if err != nil || done.Counts.Lines != 13 || done.Counts.Events != 2 {
		t.Errorf("%+v: %v", done.Counts, err)
	}
}

// An agent that ran for two users keeps its row while lines of one are left.
func TestAnAgentOfTwoUsersStays(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := openErasing(t, db)
	scope := telemetry.Scope{Org: db.Organisation(t)}
	old := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	sp := newSpool(scope, "nod_1", 1)
	mustCommit(t, s, userFrame(t, sp, "bob", "agt_both", old, 5))
	mustCommit(t, s, userFrame(t, sp, "eve", "agt_both", old.Add(time.Minute), 5))
	mustErase(t, s, scope, telemetry.EraseUser, "eve", time.Time{})
	settle(t, db, s, scope)
	if err := s.EraseOnce(t.Context(), scope); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Agent(t.Context(), scope, "agt_both"); err != nil || a.User != "bob" || a.Session != "ses_bob" {
		t.Fatalf("%+v: %v", a, err)
	}
	if n := total(t, s, scope, telemetry.LogFilter{Agents: []telemetry.AgentID{"agt_both"}}); n != 5 {
		t.Fatalf("%d lines of the agent", n)
	}
}

// Rows of agents are left alone until no replica can believe that they are there.
func TestRowsOfAgentsOutliveTheTrustInThem(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := openErasing(t, db)
	scope := telemetry.Scope{Org: db.Organisation(t)}
	sp := newSpool(scope, "nod_1", 1)
	mustCommit(t, s, userFrame(t, sp, "eve", "agt_eve", time.Now().Add(-time.Hour), 5))
	e := mustErase(t, s, scope, telemetry.EraseUser, "eve", time.Time{})
	settle(t, db, s, scope)
	if store.EraseAfter <= store.SpanTrust {
		t.Error("rows go before they are written again")
	}
	for after, want := range map[time.Duration]telemetry.ErasureStatus{store.EraseAfter - time.Second: telemetry.ErasureErasing} {
		if err := s.EraseAt(t.Context(), e.RequestedAt.Add(after)); err != nil {
			t.Fatal(err)
		}
		if e, err := s.Erasure(t.Context(), scope, e.ID); err != nil || e.Status != want {
			t.Fatalf("after %s: %+v %v", after, e, err)
		}
	}
	if err := s.EraseAt(t.Context(), e.RequestedAt.Add(store.EraseAfter)); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Erasure(t.Context(), scope, e.ID); err != nil || e.Status != telemetry.ErasureDone {
		t.Fatalf("%+v %v", e, err)
	}
	// From then on late records are looked for every hour.
	swept := func() time.Time { return scalar[time.Time](t, db, "select swept_at from erasure") }
	for _, c := range []struct {
		after time.Duration
		looks bool
	}{{59 * time.Minute, false}, {time.Hour, true}, {time.Hour + 59*time.Minute, false}, {2 * time.Hour, true}} {
		before, at := swept(), e.RequestedAt.Add(c.after)
		if err := s.SweepAt(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if after := swept(); after.Equal(before) == c.looks || c.looks && !after.Equal(at) {
			t.Errorf("after %s: swept at %s, before %s", c.after, after, before)
		}
	}
}

func TestErasuresAreChecked(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := openErasing(t, db)
	scope := telemetry.Scope{Org: db.Organisation(t)}
	for name, req := range map[string]telemetry.ErasureRequest{
		"no subject":      {Kind: telemetry.EraseUser},
		"not a session":   {Kind: telemetry.EraseSession, Subject: "a b"},
		"not a user":      {Kind: telemetry.EraseUser, Subject: "a\x00b"},
		"in the future":   {Kind: telemetry.EraseUser, Subject: "eve", Until: time.Now().Add(time.Hour)},
		"unknown kind":    {Kind: 3, Subject: "eve"},
		"a long reason":   {Kind: telemetry.EraseUser, Subject: "eve", Reason: fmt.Sprintf("%0501d", 1)},
		"a broken reason": {Kind: telemetry.EraseUser, Subject: "eve", Reason: "\xff"},
	} {
		if _, err := s.Erase(t.Context(), scope, req); telemetry.CodeOf(err) != telemetry.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Erasure(t.Context(), scope, "era_none"); telemetry.CodeOf(err) != telemetry.NotFound {
		t.Error(err)
	}
	first := mustErase(t, s, scope, telemetry.EraseAgent, "agt_a", time.Time{})
	second := mustErase(t, s, scope, telemetry.EraseAgent, "agt_b", time.Time{})
	list, more, err := s.Erasures(t.Context(), scope, "", 1)
	if err != nil || !more || len(list) != 1 || list[0].ID != second.ID {
		t.Fatalf("%+v %v %v", list, more, err)
	}
	if list, more, err = s.Erasures(t.Context(), scope, second.ID, 1); err != nil || more || len(list) != 1 || list[0].ID != first.ID || list[0].Subject != "agt_a" || list[0].Reason != "asked for" {
		t.Fatalf("%+v %v %v", list, more, err)
	}
	for _, foreign := range []telemetry.Scope{{Org: scope.Org, Env: telemetry.Test}, {Org: "org_other"}} {
		if _, err := s.Erasure(t.Context(), foreign, first.ID); telemetry.CodeOf(err) != telemetry.NotFound {
			t.Errorf("%s sees it: %v", foreign, err)
		}
	}
}

func TestTheErasureKeyIsMadeOnceAndNeverTakenForAnother(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "erasure.key")
	first, err := store.OpenErasureKey(path)
	if err != nil || len(first) != 32 {
		t.Fatal(first, err)
	}
	again, err := store.OpenErasureKey(path)
	if err != nil || string(again) != string(first) {
		t.Fatal(err)
	}
	db := storetest.New(t)
	s := openErasing(t, db)
	scope := telemetry.Scope{Org: db.Organisation(t)}
	mustErase(t, s, scope, telemetry.EraseUser, "eve", time.Time{})
	if err := db.Open(t).EraseOnce(t.Context(), scope); err == nil {
		t.Error("an erasure was done without a key")
	}
	if err := s.EraseOnce(t.Context(), scope); err != nil {
		t.Fatal(err)
	}
	stranger, err := store.Open(t.Context(), store.Options{DSN: db.DSN, ErasureKey: first})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stranger.Close)
	if _, err := stranger.QueryLogs(t.Context(), scope, &telemetry.LogQuery{Limit: 1}); err == nil {
		t.Error("a store shows what it cannot tell from what is erased")
	}
}

// Whatever dies or runs beside, no line is lost, none comes back, and each is
// counted once.
func TestErasureSurvivesKillsAndWorksBesideCommitsCompactionAndMerges(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	stores := []*store.Store{openErasing(t, db), openErasing(t, db)}
	scope := telemetry.Scope{Org: db.Organisation(t)}
	old := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	sp := newSpool(scope, "nod_1", 1)
	const commits, linesEach = 60, 6
	commit := func(i int) {
		mustCommit(t, stores[i%2], userFrame(t, sp, "eve", "agt_eve", old.Add(time.Duration(i)*time.Second), linesEach/2), userFrame(t, sp, "bob", "agt_bob", old.Add(time.Duration(i)*time.Second), linesEach/2))
	}
	for i := range commits / 2 {
		commit(i)
		if i%3 == 0 {
			if err := stores[0].Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	e := mustErase(t, stores[0], scope, telemetry.EraseUser, "eve", time.Time{})
	settle(t, db, stores[0], scope)

	rnd := rand.New(rand.NewPCG(1, 2))
	cutOff := 0
	for i := commits / 2; i < commits; i++ {
		commit(i) // late, all of it
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(40))*time.Millisecond)
		var g errgroup.Group
		g.Go(func() error { return stores[1].EraseOnce(ctx, scope) })
		g.Go(func() error { return stores[0].Merge(ctx, time.Now()) })
		g.Go(func() error { return stores[i%2].Compact(ctx) })
		if err := g.Wait(); err != nil {
			if ctx.Err() == nil {
				t.Fatal(err)
			}
			cutOff++
		}
		cancel()
		if n := total(t, stores[0], scope, telemetry.LogFilter{}); n != int64((i+1)*linesEach/2) {
			t.Fatalf("commit %d: %d lines are shown", i, n)
		}
	}
	if cutOff == 0 {
		t.Error("nothing was cut off: the test shows less than it says")
	}
	for range 2 {
		settle(t, db, stores[1], scope)
		if err := stores[1].EraseOnce(t.Context(), scope); err != nil {
			t.Fatal(err)
		}
		if err := stores[1].Merge(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if n := total(t, stores[0], scope, telemetry.LogFilter{}); n != commits*linesEach/2 {
		t.Errorf("%d lines are left, want %d", n, commits*linesEach/2)
	}
	if n := scalar[int](t, db, chunkedLines, string(scope.Org)); n != commits*linesEach/2 {
		t.Errorf("%d lines are stored, want %d", n, commits*linesEach/2)
	}
	done, err := stores[0].Erasure(t.Context(), scope, e.ID)
	if err != nil || done.Status != telemetry.ErasureDone || done.Counts.Lines != commits*linesEach/2 {
		t.Errorf("%+v: %v", done, err)
	}
	if r, err := db.Admin(t).VerifyAudit(t.Context(), scope.Org, nil); err != nil || r.Fault != nil || r.Entries != 2 {
		t.Errorf("%+v: %v", r, err)
	}
}
