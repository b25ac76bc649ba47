package store_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

func TestACommitLargerThanARowBecomesSeveral(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	rnd := rand.NewChaCha8([32]byte{1})
	var frames []*frame.Received
	for range 6 { // of 2 MiB that no codec makes smaller than half
		var entries []telemetry.LogEntry
		for range 16 {
			b := make([]byte, 100<<10)
			_, _ = rnd.Read(b) // never fails
			entries = append(entries, telemetry.LogEntry{Timestamp: time.Now(), Message: hex.EncodeToString(b), Origin: telemetry.Origin{Agent: "agt_a"}})
		}
		frames = append(frames, sp.lines(t, entries...))
	}
	mustCommit(t, s, append(frames, sp.tombstone(telemetry.LaneLogs, 5))...)
	if n := scalar[int](t, db, "select count(*)::int from log_hot"); n < 2 {
		t.Fatalf("%d rows", n)
	}
	list, err := readAll(t.Context(), s, scope, 0, 1000)
	if err != nil || len(list) != 7 || len(entriesOf(list)) != 96 || len(list[6].Gaps) != 1 {
		t.Fatalf("%d parts: %v", len(list), err)
	}
	for i, e := range entriesOf(list) {
		if e.Position != int64(i+1) || e.Seq != uint64(i+1) {
			t.Fatalf("line %d: position %d, sequence %d", i, e.Position, e.Seq)
		}
	}
}

func TestARowOfMoreAgentsThanItListsIsStillFoundByEach(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	var entries []telemetry.LogEntry
	for i := range 400 {
		entries = append(entries, telemetry.LogEntry{Timestamp: time.Now(), Message: "x", Origin: telemetry.Origin{Agent: telemetry.AgentID(fmt.Sprintf("agt_%d", i)), Session: "ses_1"}})
	}
	mustCommit(t, s, newSpool(scope, "nod_1", 1).lines(t, entries...))
	if n := scalar[int](t, db, "select count(*)::int from log_hot where agents is null and sessions = '{ses_1}'"); n != 1 {
		t.Fatal("the agents of the row are listed")
	}
	for _, i := range []int{0, 17, 399} {
		page, err := s.QueryLogs(t.Context(), scope, &telemetry.LogQuery{Limit: 5, LogFilter: telemetry.LogFilter{Agents: []telemetry.AgentID{telemetry.AgentID(fmt.Sprintf("agt_%d", i))}}})
		if err != nil || page.Total != 1 {
			t.Fatalf("total %d: %v", page.Total, err)
		}
	}
}

// What is asked most often must be answered by an index that leads with the
// organisation, and leave the partitions of other times alone.
func TestPlansUseTheOrganisationsIndexAndPrunePartitions(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	for o := range 20 {
		sp := newSpool(telemetry.Scope{Org: telemetry.OrgID(fmt.Sprintf("org_%d", o))}, "nod_1", 1)
		for i := range 20 {
			mustCommit(t, s, sp.numbered(t, telemetry.AgentID(fmt.Sprintf("agt_%d", i)), i, 2, time.Now()))
		}
	}
	sql(t, db, "analyze")
	conn := db.Connect(t)
	for _, c := range []struct{ query, index string }{
		{"select pos from log_hot where org = 'org_1' and env = 0 and recv_at >= now() - interval '15 minutes' and t1 >= now() - interval '15 minutes' order by t1 desc limit 100", "t1"},
		{"select pos from log_hot where org = 'org_1' and env = 0 and recv_at >= now() - interval '15 minutes' and pos = any ('{1,2,3}')", "pos"},
		{"select max(pos) from log_hot where org = 'org_1' and env = 0 and recv_at >= now() - interval '15 minutes' and pos <= 5", "pos"},
		{"select * from agent where org = 'org_1' and env = 0 order by created_at desc, id desc limit 10", "agent"},
		{"select * from gap where org = 'org_1' and env = 0 and pos > 5 order by pos limit 10", "gap_pkey"},
	} {
		as(t, conn, "agg_api", map[string]string{"app.org": "org_1", "app.env": "0", "enable_seqscan": "off", "enable_bitmapscan": "off"}, func(tx pgx.Tx) {
			rows, err := tx.Query(t.Context(), "explain "+c.query)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			plan := strings.Join(lines, "\n")
			if !strings.Contains(plan, c.index) || !strings.Contains(plan, "Index Cond: ((org = ") || strings.Contains(plan, "Seq Scan on log_hot_2") {
				t.Errorf("%s\n%s", c.query, plan)
			}
		})
	}
}
