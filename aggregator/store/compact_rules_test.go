package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// A timestamp far from its arrival is kept, and decides no partition.
func TestLateAndWrongTimestampsGetADayNearTheirArrival(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope, ahead := telemetry.Scope{Org: "org_a"}, telemetry.Scope{Org: "org_z"}
	now := time.Now().UTC().Truncate(time.Microsecond)
	day := func(at time.Time) string { return at.Format(time.DateOnly) }
	var entries []telemetry.LogEntry
	want := map[string]bool{} // day and odd
	for _, c := range []struct {
		at  time.Time
		day string
		odd bool
	}{
		{now, day(now), true}, // beside those that are older than can be
		{now.Add(-29 * 24 * time.Hour), day(now.Add(-29 * 24 * time.Hour)), false},
		{now.Add(-40 * 24 * time.Hour), day(now), true},
		{time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), day(now), true},
		{time.Date(1931, 5, 6, 7, 0, 0, 0, time.UTC), day(now), true},
	} {
		entries = append(entries, telemetry.LogEntry{Timestamp: c.at, Message: c.at.String(), Origin: telemetry.Origin{Agent: "agt_a", Session: "ses_a"}})
		want[fmt.Sprintf("%s %v", c.day, c.odd)] = true
	}
	f := newSpool(scope, "nod_1", 1).lines(t, entries...)
	f.ReceivedAt = now
	future := now.Add(10 * time.Minute) // of the future's day, if midnight is near
	g := newSpool(ahead, "nod_2", 1).lines(t, telemetry.LogEntry{Timestamp: time.Date(9876, 1, 1, 0, 0, 0, 0, time.UTC), Message: "x", Origin: telemetry.Origin{Agent: "agt_z", Session: "ses_z"}})
	g.ReceivedAt = now
	mustCommit(t, s, f, g)
	scopes := []telemetry.Scope{scope, ahead}
	sameAfter(t, s, scopes, func() {
		if err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	got := map[string]bool{}
	for line := range strings.SplitSeq(scalar[string](t, db, "select string_agg(day || ' ' || odd, ',') from log_chunk where org = 'org_a'"), ",") {
		got[line] = true
	}
	for w := range want {
		if !got[w] {
			t.Errorf("no chunk of %q: %v", w, got)
		}
	}
	if n := scalar[int](t, db, "select count(*)::int from log_chunk where org = 'org_z' and odd and day = $1", future); n != 1 {
		t.Error("the line of the far future is not in the day of its arrival")
	}
	if n := scalar[int](t, db, "select count(*)::int from log_chunk_default"); n != 0 {
		t.Errorf("%d chunks have no partition of their own", n)
	}
	// Retention goes by that day: what arrived now is not gone at once.
	sameAfter(t, s, scopes, func() {
		if err := s.DropChunkPartitions(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if err := s.PurgeChunks(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	})
}

// A row that cannot be decoded, or whose chunk the database refuses, becomes a
// gap and holds up nothing.
func TestDataThatCannotBeCompactedIsSetAside(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string]string{
		"not decoded": "update log_hot set c_message = 'xxxxxxxxxxxx' where pos = 6",
		"refused":     "alter table log_chunk add check ('ses_agt_1' <> all (sessions))",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := storetest.New(t)
			s := db.Open(t)
			scope := telemetry.Scope{Org: "org_a"}
			sp := newSpool(scope, "nod_1", 1)
			for i := range 4 { // rows at 1, 6, 11, 16
				mustCommit(t, s, sp.numbered(t, telemetry.AgentID(fmt.Sprintf("agt_%d", i)), i*5, 5, time.Now()))
			}
			sql(t, db, poison)
			if err := s.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
			entries, page := queryAll(t, s, scope, telemetry.LogQuery{Limit: 100})
			if len(entries) != 15 || page.Total != 15 {
				t.Fatalf("%d lines, total %d", len(entries), page.Total)
			}
			if len(page.Gaps) != 1 || page.Gaps[0].Position != 6 || page.Gaps[0].Count != 5 || page.Gaps[0].Reason != telemetry.GapQuarantined {
				t.Fatalf("gaps %+v", page.Gaps)
			}
			if n := scalar[int](t, db, "select n from log_damaged where pos = 6 and head is not null and c_message is not null"); n != 5 {
				t.Fatal("the row is not kept")
			}
			if n := scalar[int](t, db, waitingRows); n != 0 {
				t.Fatalf("%d rows wait", n)
			}
		})
	}
}

func TestSmallChunksOfADayBecomeFew(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scopes := []telemetry.Scope{{Org: "org_a"}, {Org: "org_b", Env: telemetry.Test}}
	spools := []*spool{newSpool(scopes[0], "nod_1", 1), newSpool(scopes[1], "nod_1", 1)}
	noon := time.Now().UTC().Truncate(24 * time.Hour).Add(-12 * time.Hour) // of yesterday
	for i := range 9 {
		var frames []*frame.Received
		for _, sp := range spools {
			frames = append(frames, sp.numbered(t, telemetry.AgentID(fmt.Sprintf("agt_%d", i%4)), i*20, 20, noon.Add(time.Duration(i)*time.Minute)))
		}
		if i >= 6 { // a small tail of one stream
			frames = frames[:1]
		}
		mustCommit(t, s, frames...)
		if _, err := s.CompactDue(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := scalar[int](t, db, chunksOf, "org_a"), scalar[int](t, db, chunksOf, "org_b"); a != 9 || b != 6 {
		t.Fatalf("%d and %d chunks to begin with", a, b)
	}
	sameAfter(t, s, scopes, func() {
		if err := s.Merge(t.Context(), noon); err != nil { // while the day goes on: eight or more
			t.Fatal(err)
		}
	})
	if a, b := scalar[int](t, db, chunksOf, "org_a"), scalar[int](t, db, chunksOf, "org_b"); a != 1 || b != 6 {
		t.Fatalf("%d and %d chunks after a merge", a, b)
	}
	sameAfter(t, s, scopes, func() {
		if err := s.Merge(t.Context(), noon.Add(24*time.Hour)); err != nil { // when it is over: all
			t.Fatal(err)
		}
	})
	if a, b := scalar[int](t, db, chunksOf, "org_a"), scalar[int](t, db, chunksOf, "org_b"); a != 1 || b != 1 {
		t.Fatalf("%d and %d chunks after the last merge", a, b)
	}
}

// An erasure takes lines out of a chunk that a merge has read: the merge must
// not bring them back. (It is made too large for a second merge.)
func TestAMergeOfAChunkThatIsRewrittenChangesNothing(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	for i := range 8 {
		mustCommit(t, s, sp.numbered(t, "agt_a", i*20, 20, time.Now()))
		if _, err := s.CompactDue(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "update log_chunk set n = n - 1, raw = 1 << 29 where id = 21"); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- s.Merge(context.WithoutCancel(t.Context()), time.Now()) }()
	until(t, "the merge waits for the chunk", func() bool {
		return scalar[int](t, db, "select count(*)::int from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") > 0
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](t, db, chunkedLines, "org_a"); n != 8*20-1 {
		t.Fatalf("%d lines", n)
	}
}

func TestRetentionByClassAndOrganisation(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	const days = 24 * time.Hour
	s, err := store.Open(t.Context(), store.Options{DSN: db.DSN, Log: storetest.Log(t), RetentionClasses: map[int]time.Duration{1: 7 * days}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	admin := db.Admin(t)
	plain, classed, own := db.Organisation(t), db.Organisation(t), db.Organisation(t)
	for org, c := range map[telemetry.OrgID]struct {
		class int
		keep  time.Duration
	}{classed: {class: 1}, own: {keep: 2 * days}} {
		if err := admin.SetRetention(t.Context(), org, c.class, c.keep); err != nil {
			t.Fatal(err)
		}
		if class, keep, err := admin.Retention(t.Context(), org); err != nil || class != c.class || keep != c.keep {
			t.Fatalf("%d %s %v", class, keep, err)
		}
	}
	code(t, admin.SetRetention(t.Context(), "org_nobody", 1, 0), telemetry.NotFound)
	code(t, admin.SetRetention(t.Context(), plain, 100, 0), telemetry.InvalidRequest)
	code(t, admin.SetRetention(t.Context(), plain, 0, time.Minute), telemetry.InvalidRequest)
	now := time.Now()
	for _, org := range []telemetry.OrgID{plain, classed, own} {
		sp := newSpool(telemetry.Scope{Org: org}, "nod_1", 1)
		for i, age := range []time.Duration{time.Hour, 3 * days, 10 * days, 29 * days} {
			mustCommit(t, s, sp.numbered(t, "agt_a", i*10, 10, now.Add(-age)))
		}
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "old days are dropped", func() bool { // a reader may be in the way
		if err := s.DropChunkPartitions(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		return scalar[int](t, db, chunkedLines, string(classed)) == 20
	})
	if err := s.PurgeChunks(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	for org, want := range map[telemetry.OrgID]int{plain: 40, classed: 20, own: 10} {
		if n := scalar[int](t, db, chunkedLines, string(org)); n != want {
			t.Errorf("%d lines are left, want %d", n, want)
		}
	}
	// What is to be dropped is not deleted row by row.
	if err := s.PurgeChunks(t.Context(), now.Add(3*days)); err != nil || scalar[int](t, db, chunkedLines, string(plain)) != 40 {
		t.Fatal("lines are gone before their partition", err)
	}
	// A day later the plain ones go, too.
	until(t, "the oldest day is dropped", func() bool {
		if err := s.DropChunkPartitions(t.Context(), now.Add(3*days)); err != nil {
			t.Fatal(err)
		}
		return scalar[int](t, db, chunkedLines, string(plain)) == 30
	})
}

// A stream with much to do gets one unit a round, as others.
func TestAFloodTakesTurns(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	registry := prometheus.NewRegistry()
	s, err := store.Open(t.Context(), store.Options{DSN: db.DSN, Log: storetest.Log(t), Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	flood, small := telemetry.Scope{Org: "org_flood"}, telemetry.Scope{Org: "org_small"}
	mustCommit(t, s, newSpool(flood, "nod_1", 1).numbered(t, "agt_a", 0, 1, time.Now().Add(-time.Hour)))
	sql(t, db, `insert into log_hot select org, env, pos + i, n, recv_at, t0, t1, l0, l1, l2, l3, raw, agents, sessions, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace
from log_hot, generate_series(1, 5000) i`)
	sql(t, db, "update stream_counter set next = next + 5000, hot_rows = 5001, hot_raw = 5001 * hot_raw")
	mustCommit(t, s, newSpool(small, "nod_1", 1).numbered(t, "agt_a", 0, 10, time.Now()))
	if err := s.MeasureBacklog(t.Context()); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		if f.GetName() != "aggregator_store_backlog" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == "rows" && m.GetGauge().GetValue() == 5002 || m.GetLabel()[0].GetValue() == "lines" && m.GetGauge().GetValue() == 5011 {
				seen++
			}
		}
	}
	if seen != 2 {
		t.Errorf("the backlog is not told: %v", families)
	}
	for round, want := range []int{2048, 4096, 5001} {
		if _, err := s.CompactDue(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if n := scalar[int](t, db, chunkedLines, "org_flood"); n != want {
			t.Fatalf("round %d: %d lines of the flood in chunks, want %d", round, n, want)
		}
		if n := scalar[int](t, db, chunkedLines, "org_small"); n != 10 {
			t.Fatalf("round %d: %d lines of the small stream in chunks", round, n)
		}
	}
	if _, page := queryAll(t, s, flood, telemetry.LogQuery{Limit: 1000}); page.Total != 5001 {
		t.Fatalf("total %d", page.Total)
	}
}

// Chunks that the database refuses to merge hold up no others.
func TestChunksThatCannotBeMergedAreLeftAsTheyAre(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	sql(t, db, "alter table log_chunk add check (org <> 'org_a' or n < 6)")
	bad, good := telemetry.Scope{Org: "org_a"}, telemetry.Scope{Org: "org_b"}
	for _, scope := range []telemetry.Scope{bad, good} {
		sp := newSpool(scope, "nod_1", 1)
		at := time.Now()
		for i := range 8 {
			mustCommit(t, s, sp.numbered(t, "agt_a", i*5, 5, at))
			if err := s.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	sameAfter(t, s, []telemetry.Scope{bad, good}, func() {
		if err := s.Merge(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	})
	for org, want := range map[string]int{"org_a": 8, "org_b": 1} {
		if n := scalar[int](t, db, "select count(*)::int from log_chunk where org = $1", org); n != want {
			t.Errorf("%d chunks of %s, want %d", n, org, want)
		}
	}
}
