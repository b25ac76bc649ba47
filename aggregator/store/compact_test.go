package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/telemetry"
)

const (
	chunksOf     = "select count(*)::int from log_chunk where org = $1"
	chunkedLines = "select coalesce(sum(n), 0)::int from log_chunk where org = $1"
	waitingRows  = "select count(*)::int from log_hot h join stream_counter s using (org, env) where h.pos >= s.compacted"
)

// sameAfter runs do and compares everything that a query tells before and
// after.
func sameAfter(t *testing.T, s *store.Store, scopes []telemetry.Scope, do func()) {
	t.Helper()
	before := map[telemetry.Scope][]telemetry.LogEntry{}
	for _, scope := range scopes {
		before[scope], _ = queryAll(t, s, scope, telemetry.LogQuery{Limit: 500})
	}
	do()
	for _, scope := range scopes {
		after, page := queryAll(t, s, scope, telemetry.LogQuery{Limit: 500})
		if d := cmp.Diff(before[scope], after); d != "" {
			t.Fatalf("%s: lines changed: %s", scope, d)
		}
		if page.Total != int64(len(after)) {
			t.Fatalf("%s: total %d of %d lines", scope, page.Total, len(after))
		}
	}
}

func TestCompactionChangesNothingThatAQuerySees(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	var scopes []telemetry.Scope
	for o := range 3 {
		scope := telemetry.Scope{Org: telemetry.OrgID(fmt.Sprintf("org_%d", o)), Env: telemetry.Environment(o % 2)}
		scopes = append(scopes, scope)
		sp, other := newSpool(scope, "nod_1", 1), newSpool(scope, "nod_2", 2)
		for i := range 6 {
			mustCommit(t, s, sp.numbered(t, telemetry.AgentID(fmt.Sprintf("agt_%d", i%2)), i*300, 300, time.Now()),
				other.numbered(t, "agt_z", i*10, 10, time.Now().Add(-time.Duration(i)*20*time.Hour)))
		}
	}
	sameAfter(t, s, scopes, func() {
		if err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if n := scalar[int](t, db, waitingRows); n != 0 {
		t.Fatalf("%d rows wait", n)
	}
	for _, scope := range scopes {
		if n := scalar[int](t, db, chunkedLines, string(scope.Org)); n != 6*310 {
			t.Errorf("%s: %d lines in chunks, want %d", scope, n, 6*310)
		}
	}
	if n := scalar[int](t, db, "select count(*)::int from stream_counter where hot_rows <> 0 or hot_raw <> 0 or hot_since is not null"); n != 0 {
		t.Errorf("%d counters still say that something waits", n)
	}
	// Lines that come later are found beside.
	sp := newSpool(scopes[0], "nod_3", 3)
	mustCommit(t, s, sp.numbered(t, "agt_new", 0, 7, time.Now()))
	if _, page := queryAll(t, s, scopes[0], telemetry.LogQuery{Limit: 100}); page.Total != 6*310+7 {
		t.Fatalf("total %d", page.Total)
	}
	if n := scalar[int](t, db, "select hot_rows::int from stream_counter where org = 'org_0'"); n != 1 {
		t.Errorf("the counter says that %d rows wait", n)
	}
	sameAfter(t, s, scopes, func() {
		if err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestLinesOfManyOwnersAreFound: more agents and sessions than a chunk lists.
func TestLinesOfManyOwnersAreFound(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_1"}
	sp := newSpool(scope, "nod_1", 1)
	for i := range 200 {
		mustCommit(t, s, sp.numbered(t, telemetry.AgentID(fmt.Sprintf("agt_%d", i)), i, 1, time.Now()))
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](t, db, "select count(*)::int from log_chunk where agents is null and sessions is null and octet_length(owners) > 0"); n != 1 {
		t.Fatalf("%d chunks say in short whose lines they have", n)
	}
	for i := range 210 {
		agent := telemetry.AgentID(fmt.Sprintf("agt_%d", i))
		of := map[string]telemetry.LogFilter{
			"agent":   {Agents: []telemetry.AgentID{"agt_none", agent}},
			"session": {Sessions: []telemetry.SessionID{"ses_" + telemetry.SessionID(agent)}},
			"both":    {Sessions: []telemetry.SessionID{"ses_" + telemetry.SessionID(agent), "ses_none"}, Agents: []telemetry.AgentID{agent}},
		}
		for name, f := range of {
			page, err := s.QueryLogs(t.Context(), scope, &telemetry.LogQuery{LogFilter: f, Limit: 10})
			if want := max(0, min(1, 200-i)); err != nil || len(page.Entries) != want || page.Total != int64(want) {
				t.Fatalf("%s %d: %d lines, total %d, want %d: %v", name, i, len(page.Entries), page.Total, want, err)
			}
		}
	}
}
