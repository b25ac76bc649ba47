package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

func scalar[T any](t *testing.T, db *storetest.Database, sql string, args ...any) T {
	t.Helper()
	rows, err := db.Connect(t).Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const (
	countPartitions = "select count(*)::int from log_partitions()"
	uncoveredAt     = "select not exists (select from log_partitions() where lo <= $1 and hi > $1)"
	inDefault       = "select count(*)::int from log_hot_default"
)

func TestPartitionsAreMadeAheadByManyAtOnce(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, other := db.Open(t), db.Open(t)
	now := time.Now().Add(100 * time.Hour)
	var g errgroup.Group
	for _, s := range []*store.Store{s, other, s, other} {
		g.Go(func() error { return s.MakePartitions(t.Context(), now) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for at := now.Add(-store.PartitionWidth); at.Before(now.Add(store.PartitionsAhead - store.PartitionWidth)); at = at.Add(time.Minute) {
		if scalar[bool](t, db, uncoveredAt, at) {
			t.Errorf("%s is not covered", at)
		}
	}
	before := scalar[int](t, db, countPartitions)
	if err := s.MakePartitions(t.Context(), now); err != nil || scalar[int](t, db, countPartitions) != before {
		t.Fatal("partitions were made twice", err)
	}
}

// A long query must not keep an aggregator from starting.
func TestOpenGoesOnWhereAQueryHoldsTheTable(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	tx, err := db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select count(*) from log_hot"); err != nil {
		t.Fatal(err)
	}
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	mustCommit(t, s, newSpool(scope, "nod_1", 1).numbered(t, "agt_a", 0, 5, time.Now()))
	if scalar[int](t, db, inDefault) != 1 {
		t.Error("a partition was made: the query holds nothing")
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.MakePartitions(t.Context(), time.Now()); err != nil || scalar[int](t, db, inDefault) != 0 {
		t.Fatal("the row stays in the default partition", err)
	}
	checkStream(t.Context(), t, s, scope, 1, 5)
}

// A partition of another width, as another release makes it, is worked around.
func TestPartitionsOfAnotherWidthAreCompleted(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	now := time.Now().Add(1000 * time.Hour).Truncate(time.Hour)
	sql(t, db, "select make_log_partition('"+now.Add(20*time.Minute).Format(time.RFC3339)+"', '"+now.Add(25*time.Minute).Format(time.RFC3339)+"')")
	if err := s.MakePartitions(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	for at := now; at.Before(now.Add(store.PartitionsAhead)); at = at.Add(time.Minute) {
		if scalar[bool](t, db, uncoveredAt, at) {
			t.Errorf("%s is not covered", at)
		}
	}
}

func TestAClockJumpLosesNothing(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	later := time.Now().Add(50 * 24 * time.Hour)
	f := newSpool(scope, "nod_1", 1).numbered(t, "agt_a", 0, 5, later)
	f.ReceivedAt = later
	mustCommit(t, s, f)
	mustCommit(t, s, newSpool(scope, "nod_2", 1).numbered(t, "agt_a", 0, 5, time.Now()))
	if n := scalar[int](t, db, inDefault); n != 1 {
		t.Fatalf("%d rows in the default partition", n)
	}
	check := func() {
		t.Helper()
		page, err := s.QueryLogs(t.Context(), scope, &telemetry.LogQuery{Limit: 100})
		if err != nil || page.Total != 10 {
			t.Fatalf("total %d %v", page.Total, err)
		}
		checkStream(t.Context(), t, s, scope, 2, 5)
	}
	check()
	if err := s.MakePartitions(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](t, db, inDefault); n != 0 {
		t.Fatalf("%d rows still in the default partition", n)
	}
	check()
}

func TestRetentionDropsWhatIsOldAndKeepsMarks(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	past := time.Now().Add(-store.DefaultRetention - 3*time.Hour)
	if err := s.MakePartitions(t.Context(), past); err != nil {
		t.Fatal(err)
	}
	old := sp.numbered(t, "agt_a", 0, 5, past)
	old.ReceivedAt = past
	oldGap := sp.records(nil, []telemetry.Gap{{Reason: telemetry.GapRotated, Count: 1}})
	oldGap.ReceivedAt = past
	mustCommit(t, s, old, oldGap)
	mustCommit(t, s, sp.numbered(t, "agt_a", 5, 5, time.Now()))

	// A reader keeps a partition: it is left, and taken the next time.
	conn := db.Connect(t)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select count(*) from log_hot"); err != nil {
		t.Fatal(err)
	}
	before := scalar[int](t, db, countPartitions)
	if err := s.DropPartitions(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](t, db, countPartitions); n != before {
		t.Fatalf("a partition was dropped under its reader: %d of %d left", n, before)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "old partitions are dropped", func() bool {
		if err := s.DropPartitions(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		return scalar[bool](t, db, uncoveredAt, past)
	})
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	page, err := s.QueryLogs(t.Context(), scope, &telemetry.LogQuery{Limit: 100})
	if err != nil || page.Total != 5 || len(page.Gaps) != 0 || page.Stream != 11 {
		t.Fatalf("%+v %v", page, err)
	}
	// A stream resumed before what is gone goes on with what is there.
	list, err := readAll(t.Context(), s, scope, 2, 100)
	if err != nil || len(list) != 1 || list[0].Position != 7 {
		t.Fatalf("%+v %v", list, err)
	}
	outcomes, _, err := s.Commit(t.Context(), []*frame.Received{old})
	if err != nil || outcomes[0].Verdict != frame.Duplicate {
		t.Fatalf("a replay after retention was committed again: %+v %v", outcomes, err)
	}
}

func TestRunMaintainsUntilItIsStoppedAndStoresWhenKeysWereUsed(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	org := db.Organisation(t)
	id, key := makeKey(t, db, org, telemetry.LogsRead)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if _, err := s.Authenticate(t.Context(), id, ids.HashOf(key)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	keys, err := db.Admin(t).APIKeys(t.Context(), org)
	if err != nil || len(keys) != 1 || keys[0].LastUsedAt.IsZero() {
		t.Fatalf("%+v %v", keys, err)
	}
}
