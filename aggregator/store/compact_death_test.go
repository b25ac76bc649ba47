package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// ignoreOutage lets a worker go on after what a killed backend or a busy
// partition does to a call.
func ignoreOutage(ctx context.Context, err error) error {
	if ctx.Err() == nil && telemetry.CodeOf(err) == telemetry.Unprocessable {
		return err
	}
	return nil
}

// linesOf checks that a stream shows each line of each node once, from the
// first to some last, and returns how many there are.
func linesOf(ctx context.Context, s *store.Store, scope telemetry.Scope) (map[telemetry.NodeID]uint64, error) {
	var entries []telemetry.LogEntry
	q := telemetry.LogQuery{Limit: 1000}
	for {
		page, err := s.QueryLogs(ctx, scope, &q)
		if err != nil {
			return nil, err
		}
		entries = append(entries, page.Entries...)
		if !page.More {
			break
		}
		last := page.Entries[len(page.Entries)-1]
		q.After = &telemetry.LogKey{Timestamp: last.Timestamp, Position: last.Position}
	}
	seen, most := map[telemetry.NodeID]map[uint64]bool{}, map[telemetry.NodeID]uint64{}
	positions := map[int64]bool{}
	for i := range entries {
		e := &entries[i]
		if seen[e.Node] == nil {
			seen[e.Node] = map[uint64]bool{}
		}
		if seen[e.Node][e.Seq] || positions[e.Position] {
			return nil, fmt.Errorf("line %d of %s, at position %d, is there twice", e.Seq, e.Node, e.Position)
		}
		if want := fmt.Sprintf("line %d", e.Seq-1); e.Message != want {
			return nil, fmt.Errorf("line %d of %s is %q", e.Seq, e.Node, e.Message)
		}
		seen[e.Node][e.Seq], positions[e.Position] = true, true
		most[e.Node] = max(most[e.Node], e.Seq)
	}
	for node, n := range most {
		if uint64(len(seen[node])) != n {
			return nil, fmt.Errorf("of %d lines of %s %d are there", n, node, len(seen[node]))
		}
	}
	return most, nil
}

// Two aggregators commit, compact, merge and drop partitions at once while
// backends die and readers look on: what was once seen stays, and nothing is
// there twice.
func TestNoLineIsLostOrDoubledWhileCompactorsDie(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	stores := []*store.Store{db.Open(t), db.Open(t)}
	var spools []*replayed
	var scopes []telemetry.Scope
	const nodes, framesEach, linesEach = 2, 40, 9
	for o := range 3 {
		scope := telemetry.Scope{Org: telemetry.OrgID(fmt.Sprintf("org_%d", o)), Env: telemetry.Environment(o % 2)}
		scopes = append(scopes, scope)
		for n := range nodes {
			sp := newSpool(scope, telemetry.NodeID(fmt.Sprintf("nod_%d", n)), 7+uint64(n))
			r := &replayed{}
			for i := range framesEach {
				at := time.Now().Add(-time.Duration(i%3) * 24 * time.Hour)
				r.frames = append(r.frames, sp.numbered(t, telemetry.AgentID(fmt.Sprintf("agt_%d", i%2)), i*linesEach, linesEach, at))
			}
			spools = append(spools, r)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	ticks := make(chan struct{}, 1)
	var senders, others errgroup.Group
	background, stop := context.WithCancel(ctx)
	for i, s := range stores {
		rnd := rand.New(rand.NewPCG(uint64(i), 1))
		senders.Go(func() error { return send(ctx, s, spools, rnd, ticks) })
		others.Go(func() error { return churn(background, s, rand.New(rand.NewPCG(uint64(i), 2))) })
		others.Go(func() error { return watch(background, s, scopes) })
	}
	killed, stopKiller := startKiller(ctx, t, db, ticks)
	err := senders.Wait()
	stopKiller()
	conn := db.Connect(t)
	endLeases := func() { // of who was interrupted at them: they would last for two minutes
		if _, err := conn.Exec(ctx, "delete from lease"); err != nil {
			t.Fatal(err)
		}
	}
	endLeases()
	until(t, "some lines are in chunks", func() (some bool) {
		if err := conn.QueryRow(ctx, "select exists (select from log_chunk)").Scan(&some); err != nil {
			t.Fatal(err)
		}
		return some
	})
	stop()
	if errOthers := others.Wait(); errOthers != nil || err != nil {
		t.Fatal(errOthers, err)
	}
	endLeases()
	t.Logf("%d backends were killed, %d chunks made, %d rows left hot", killed(), scalar[int](t, db, "select count(*)::int from log_chunk"), scalar[int](t, db, waitingRows))
	if killed() == 0 {
		t.Error("no backend was killed: the test shows less than it says")
	}
	for range 2 { // as it is, and with all of it in chunks
		for _, scope := range scopes {
			got, err := linesOf(ctx, stores[0], scope)
			if err != nil {
				t.Fatalf("%s: %v", scope, err)
			}
			for n := range nodes {
				if node := telemetry.NodeID(fmt.Sprintf("nod_%d", n)); got[node] != framesEach*linesEach {
					t.Errorf("%s: %d lines of %s, want %d", scope, got[node], node, framesEach*linesEach)
				}
			}
		}
		if err := stores[1].Compact(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// churn does all that moves lines, until ctx ends.
func churn(ctx context.Context, s *store.Store, rnd *rand.Rand) error {
	for ctx.Err() == nil {
		var err error
		switch now := time.Now(); rnd.IntN(6) {
		case 0: // partitions of this very minute go, too: the default takes over
			err = s.DropPartitions(ctx, now.Add(2*time.Hour))
		case 1:
			err = s.MakePartitions(ctx, now)
		case 2:
			err = s.Merge(ctx, now.Add(48*time.Hour))
		case 3:
			err = s.Purge(ctx)
		default:
			_, err = s.CompactDue(ctx, 0)
		}
		if err := ignoreOutage(ctx, err); err != nil {
			return err
		}
	}
	return nil
}

// watch reads until ctx ends: the streams only ever grow.
func watch(ctx context.Context, s *store.Store, scopes []telemetry.Scope) error {
	last := map[telemetry.Scope]map[telemetry.NodeID]uint64{}
	for i := 0; ctx.Err() == nil; i++ {
		scope := scopes[i%len(scopes)]
		got, err := linesOf(ctx, s, scope)
		if err != nil {
			if telemetry.CodeOf(err) == telemetry.Unavailable || ctx.Err() != nil {
				continue
			}
			return fmt.Errorf("%s: %w", scope, err)
		}
		for node, n := range last[scope] {
			if got[node] < n {
				return fmt.Errorf("%s: %d lines of %s after %d", scope, got[node], node, n)
			}
		}
		last[scope] = got
	}
	return nil
}

// At each lock that a compaction takes it is held up and its backend killed:
// nothing has changed then, and the next one does it all.
func TestACompactionThatDiesAtAnyStepChangesNothing(t *testing.T) {
	t.Parallel()
	for name, lock := range map[string]string{
		"reading rows":        "lock table only log_hot in access exclusive mode",
		"writing chunks":      "lock table only log_chunk in exclusive mode",
		"advancing":           "select * from stream_counter for update",
		"making a partition":  "lock table log_chunk in share mode",
		"looking for streams": "lock table stream_counter in access exclusive mode",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := storetest.New(t)
			s := db.Open(t)
			scope := telemetry.Scope{Org: "org_a"}
			sp := newSpool(scope, "nod_1", 1)
			mustCommit(t, s, sp.numbered(t, "agt_a", 0, 50, time.Now()), sp.numbered(t, "agt_b", 50, 50, time.Now().Add(-5*24*time.Hour)))
			sameAfter(t, s, []telemetry.Scope{scope}, func() {
				tx, err := db.Connect(t).Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Exec(t.Context(), lock); err != nil {
					t.Fatal(err)
				}
				result := make(chan error, 1)
				go func() { result <- s.Compact(context.WithoutCancel(t.Context())) }()
				killer := db.Connect(t)
				until(t, "the compaction waits for the lock", func() bool {
					tag, err := killer.Exec(t.Context(), "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
					if err != nil {
						t.Fatal(err)
					}
					return tag.RowsAffected() > 0
				})
				if err := tx.Rollback(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := <-result; err == nil {
					t.Fatal("the compaction did not fail")
				}
				if n := scalar[int](t, db, "select count(*)::int from log_chunk"); n != 0 {
					t.Fatalf("%d chunks are there", n)
				}
			})
			sameAfter(t, s, []telemetry.Scope{scope}, func() {
				if err := s.Compact(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
			if n := scalar[int](t, db, chunkedLines, "org_a"); n != 100 {
				t.Fatalf("%d lines in chunks", n)
			}
		})
	}
}

// A hot partition goes when all of it is in chunks, and not a row earlier.
func TestAHotPartitionIsDroppedOnceItIsCompacted(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scopes := []telemetry.Scope{{Org: "org_a"}, {Org: "org_b", Env: telemetry.Test}}
	var frames []*frame.Received
	for _, scope := range scopes {
		frames = append(frames, newSpool(scope, "nod_1", 1).numbered(t, "agt_a", 0, 50, time.Now()))
	}
	mustCommit(t, s, frames...)
	later := time.Now().Add(time.Hour)
	hotRows := "select count(*)::int from log_hot"
	if err := s.DropPartitions(t.Context(), later); err != nil || scalar[int](t, db, hotRows) != 2 {
		t.Fatal("rows that wait are gone", err)
	}
	old := db.Connect(t) // an aggregator of an older release
	if _, err := old.Exec(t.Context(), "set application_name = 'aggregator'"); err != nil {
		t.Fatal(err)
	}
	sameAfter(t, s, scopes, func() {
		if err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.DropPartitions(t.Context(), later); err != nil || scalar[int](t, db, hotRows) != 2 {
			t.Fatal("rows that an older release reads are gone", err)
		}
		if _, err := old.Exec(t.Context(), "set application_name = 'psql'"); err != nil {
			t.Fatal(err)
		}
		// A reader that has taken its snapshot keeps what it may need.
		reader := db.Connect(t)
		tx, err := reader.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "lock table only log_hot in access share mode"); err != nil {
			t.Fatal(err)
		}
		if err := s.DropPartitions(t.Context(), later); err != nil || scalar[int](t, db, hotRows) != 2 {
			t.Fatal("rows were dropped under a reader", err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		until(t, "the partition is dropped", func() bool {
			if err := s.DropPartitions(t.Context(), later); err != nil {
				t.Fatal(err)
			}
			return scalar[int](t, db, hotRows) == 0
		})
	})
}
