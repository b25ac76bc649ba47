package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// deadline is generous: the machine may be busy.
const deadline = 2 * time.Minute

// replayed is one spool with all frames it will ever have, and how far it
// knows them committed.
type replayed struct {
	mu     sync.Mutex
	frames []*frame.Received
	acked  int // frames
}

// window draws frames to send: from somewhere before what is acknowledged, as
// after a lost acknowledgement, and now and then with a frame missing.
func (r *replayed) window(rnd *rand.Rand) []*frame.Received {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := max(0, r.acked-rnd.IntN(4))
	to := min(len(r.frames), from+1+rnd.IntN(6))
	return r.frames[from:to]
}

func (r *replayed) ack(f *frame.Received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.acked < len(r.frames) && r.frames[r.acked].Last() <= f.Last() {
		r.acked++
	}
}

func (r *replayed) done() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acked == len(r.frames)
}

func TestEveryLineIsCommittedOnceWhateverDies(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	stores := []*store.Store{db.Open(t), db.Open(t)}
	var spools []*replayed
	var scopes []telemetry.Scope
	const nodes, framesEach, linesEach = 3, 30, 7
	for o := range 4 {
		scope := telemetry.Scope{Org: telemetry.OrgID(fmt.Sprintf("org_%d", o)), Env: telemetry.Environment(o % 2)}
		scopes = append(scopes, scope)
		for n := range nodes {
			sp := newSpool(scope, telemetry.NodeID(fmt.Sprintf("nod_%d", n)), 7+uint64(n))
			r := &replayed{}
			for i := range framesEach {
				r.frames = append(r.frames, sp.numbered(t, "agt_a", i*linesEach, linesEach, time.Now()))
			}
			spools = append(spools, r)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	ticks := make(chan struct{}, 1)
	var senders errgroup.Group
	for i := range 6 {
		rnd := rand.New(rand.NewPCG(uint64(i), 1))
		senders.Go(func() error { return send(ctx, stores[i%2], spools, rnd, ticks) })
	}
	killed, stopKiller := startKiller(ctx, t, db, ticks)
	if err := senders.Wait(); err != nil {
		t.Fatal(err)
	}
	stopKiller()
	t.Logf("%d backends were killed", killed())
	if killed() == 0 {
		t.Error("no backend was killed: the test shows less than it says")
	}
	for _, scope := range scopes {
		checkStream(ctx, t, stores[0], scope, nodes, framesEach*linesEach)
	}
}

// send commits random windows of all spools until all is acknowledged.
func send(ctx context.Context, s *store.Store, spools []*replayed, rnd *rand.Rand, ticks chan<- struct{}) error {
	for {
		var batch []*frame.Received
		owner := map[*frame.Received]*replayed{}
		left := false
		for _, i := range rnd.Perm(len(spools)) {
			left = left || !spools[i].done()
			if rnd.IntN(2) == 0 {
				for _, f := range spools[i].window(rnd) {
					batch = append(batch, f)
					owner[f] = spools[i]
				}
			}
		}
		if !left {
			return nil
		}
		outcomes, _, err := s.Commit(ctx, batch)
		select {
		case ticks <- struct{}{}:
		default:
		}
		if err != nil {
			if ctx.Err() != nil || telemetry.CodeOf(err) != telemetry.Unavailable {
				return err
			}
			continue
		}
		for i, o := range outcomes {
			if o.Verdict != frame.OutOfOrder {
				owner[batch[i]].ack(batch[i])
			}
		}
	}
}

// startKiller terminates a random backend of the stores after every few
// commits.
func startKiller(ctx context.Context, t *testing.T, db *storetest.Database, ticks <-chan struct{}) (killed func() int, stop func()) {
	t.Helper()
	conn := db.Connect(t)
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	n := 0
	g.Go(func() error {
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return nil
			case <-ticks:
			}
			if i%5 != 4 {
				continue
			}
			var ok bool
			err := conn.QueryRow(ctx, `select pg_terminate_backend(pid) from pg_stat_activity
				where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle' order by random() limit 1`).Scan(&ok)
			if err == nil && ok {
				n++
			} else if err != nil && !errors.Is(err, pgx.ErrNoRows) && ctx.Err() == nil {
				return err
			}
		}
	})
	return func() int { return n }, func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// checkStream reads a stream whole: consecutive positions, whole frames, each
// node's sequences once and in order.
func checkStream(ctx context.Context, t *testing.T, s *store.Store, scope telemetry.Scope, nodes, each int) {
	t.Helper()
	list, err := readAll(ctx, s, scope, 0, 500)
	if err != nil {
		t.Fatal(err)
	}
	next := map[telemetry.NodeID]uint64{}
	at := int64(1)
	for _, p := range list {
		if p.Position != at {
			t.Fatalf("%s: position %d, want %d", scope, p.Position, at)
		}
		at = p.Next()
		if p.FirstSeq != next[p.Node]+1 {
			t.Fatalf("%s: node %s: sequence %d after %d", scope, p.Node, p.FirstSeq, next[p.Node])
		}
		next[p.Node] += uint64(p.Count())
	}
	for node, n := range next {
		if n != uint64(each) {
			t.Errorf("%s: node %s has %d lines, want %d", scope, node, n, each)
		}
	}
	page, err := s.QueryLogs(ctx, scope, &telemetry.LogQuery{Limit: 1})
	if err != nil || page.Total != int64(nodes*each) || page.Stream != int64(nodes*each) {
		t.Errorf("%s: total %d and stream %d, want %d: %v", scope, page.Total, page.Stream, nodes*each, err)
	}
}

func TestABackendKilledInsideTheTransactionLeavesNothing(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	a, b := telemetry.Scope{Org: "org_a"}, telemetry.Scope{Org: "org_b"}
	spA, spB := newSpool(a, "nod_1", 1), newSpool(b, "nod_1", 1)
	mustCommit(t, s, spA.numbered(t, "agt_a", 0, 3, time.Now()), spB.numbered(t, "agt_b", 0, 3, time.Now()))
	frames := []*frame.Received{spA.numbered(t, "agt_a", 3, 3, time.Now()), spB.numbered(t, "agt_b", 3, 3, time.Now())}

	// Hold org_b's counter: the commit has written marks and waits there.
	conn := db.Connect(t)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select * from stream_counter where org = 'org_b' for update"); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		_, _, err := s.Commit(context.WithoutCancel(t.Context()), frames)
		result <- err
	}()
	killer := db.Connect(t)
	until(t, "the commit waits for the lock", func() bool {
		tag, err := killer.Exec(t.Context(), "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
		if err != nil {
			t.Fatal(err)
		}
		return tag.RowsAffected() > 0
	})
	if err := <-result; telemetry.CodeOf(err) != telemetry.Unavailable {
		t.Fatalf("commit on a killed backend: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, scope := range []telemetry.Scope{a, b} {
		if head, err := s.StreamHead(t.Context(), scope); err != nil || head != 3 {
			t.Fatalf("%s: head %d %v: part of a commit is visible", scope, head, err)
		}
	}
	mustCommit(t, s, frames...)
	checkStream(t.Context(), t, s, a, 1, 6)
	checkStream(t.Context(), t, s, b, 1, 6)
}

func TestDataThatTheDatabaseRefusesFailsItsBatchAlone(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Open(t)
	good, bad := telemetry.Scope{Org: "org_good"}, telemetry.Scope{Org: "org_bad"}
	spGood, spBad := newSpool(good, "nod_1", 1), newSpool(bad, "nod_1", 1)
	frames := []*frame.Received{
		spGood.numbered(t, "agt_a", 0, 3, time.Now()),
		spBad.lines(t, telemetry.LogEntry{Timestamp: time.Now(), Message: "x", Origin: telemetry.Origin{Agent: "nul\x00"}}),
	}
	if _, _, err := s.Commit(t.Context(), frames); telemetry.CodeOf(err) != telemetry.Unprocessable {
		t.Fatalf("want Unprocessable: %v", err)
	}
	if head, err := s.StreamHead(t.Context(), good); err != nil || head != 0 {
		t.Fatalf("head %d %v: part of a failed commit is visible", head, err)
	}
	// What ingest then does: the culprit goes to quarantine.
	frames[1].Quarantine = "the database refuses it\x00"
	published := mustCommit(t, s, frames...)
	if len(published) != 2 || published[0].Gaps[0].Reason != telemetry.GapQuarantined || published[0].Gaps[0].Count != 1 {
		t.Fatalf("published %+v", published)
	}
	if head, err := s.StreamHead(t.Context(), bad); err != nil || head != 1 {
		t.Fatalf("head %d %v: the gap has no position", head, err)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("waited too long: %s", what)
		}
	}
}
