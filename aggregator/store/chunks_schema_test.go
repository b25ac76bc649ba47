package store_test

import (
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/store/storetest"
)

const emptyChunk = `insert into log_chunk select 'org_a', 0, $1::smallint, $2::date, 1, 2, 2, 0, 0, 2, 0, 9, now(), now(), now(), now(), false, '', '', null, null,
'', '', '', '', '', '', '', '', '', ''`

// Partitions of chunks are made for their class and day, take what waited for
// them in the default partition, and are dropped by class and day.
func TestChunkPartitionsByClassAndDay(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	conn := db.Connect(t)
	day := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for class := range 2 {
		if _, err := conn.Exec(t.Context(), emptyChunk, class, day); err != nil {
			t.Fatal(err)
		}
	}
	made := "select make_chunk_partitions($1::smallint, array[$2::date, $2::date + 1])"
	for class := range 2 {
		for again, want := range []int{2, 0} {
			if n := scalar[int](t, db, made, class, day); n != want {
				t.Fatalf("class %d, time %d: made %d", class, again, n)
			}
		}
	}
	if n := scalar[int](t, db, "select count(*)::int from log_chunk_default"); n != 0 {
		t.Fatalf("%d rows stay in the default partition", n)
	}
	if n := scalar[int](t, db, "select count(*)::int from chunk_partitions() where class in (0, 1)"); n != 4 {
		t.Fatalf("%d partitions are listed", n)
	}
	drop := "select count(*)::int from (select drop_chunk_partition(name, 0::smallint, $1::date) as dropped from chunk_partitions()) d where dropped"
	if n := scalar[int](t, db, drop, day.AddDate(0, 0, 1)); n != 1 {
		t.Fatalf("dropped %d", n)
	}
	if n := scalar[int](t, db, "select count(*)::int from log_chunk where class = 1"); n != 1 {
		t.Fatal("the other class is gone, too")
	}
	if n := scalar[int](t, db, "select count(*)::int from log_chunk"); n != 1 {
		t.Fatal("the dropped day is still there")
	}
}

func TestALeaseIsHeldByOneUntilItEnds(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	take := func(owner, ttl string) int {
		t.Helper()
		return scalar[int](t, db, "select count(*)::int from take_leases('{a,b,b}', $1, $2::text::interval)", owner, ttl)
	}
	for i, step := range []struct {
		owner, ttl string
		want       int
	}{
		{"one", "1 h", 2}, {"two", "1 h", 0}, {"one", "-1 s", 2}, // renewed, and over at once
		{"two", "1 h", 2}, {"one", "1 h", 0},
	} {
		if n := take(step.owner, step.ttl); n != step.want {
			t.Fatalf("step %d: %s took %d of 2", i, step.owner, n)
		}
	}
	sql(t, db, "select release_leases('{a,b}', 'one')") // not its own any more
	if n := take("one", "1 h"); n != 0 {
		t.Fatal("a lease was released by another")
	}
	sql(t, db, "select release_leases('{a,b}', 'two')")
	if n := take("one", "1 h"); n != 2 {
		t.Fatal("a released lease is not free")
	}
}
