package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

func TestWhatIsCommittedIsPublishedReadAndFound(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: db.Organisation(t)}
	sp := newSpool(scope, "nod_1", 1<<63+5)
	at := time.Now().UTC().Truncate(time.Microsecond)
	published := mustCommit(t, s, sp.numbered(t, "agt_a", 0, 10, at), sp.numbered(t, "agt_b", 10, 5, at), sp.tombstone(telemetry.LaneLogs, 3),
		sp.records([]telemetry.Event{{Type: telemetry.SandboxExited, Timestamp: at, Origin: telemetry.Origin{Agent: "agt_a", Session: "ses_agt_a"}, Attributes: map[string]string{"image": "x\x00"}}},
			[]telemetry.Gap{{Reason: telemetry.GapRotated, Count: telemetry.GapUnknownCount, Agent: "agt_b", Since: at}}))
	if len(published) != 4 || published[0].Position != 1 || published[1].Position != 11 || published[2].Position != 16 || published[3].Next() != 18 {
		t.Fatalf("published %+v", published)
	}
	read, err := readAll(t.Context(), s, scope, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(entriesOf(published), entriesOf(read)); d != "" {
		t.Fatal(d)
	}
	for i := 2; i < 4; i++ {
		if d := cmp.Diff(published[i].Gaps, read[i].Gaps); d != "" {
			t.Fatal(d)
		}
	}
	entries, page := queryAll(t, s, scope, telemetry.LogQuery{Limit: 4, Order: telemetry.OldestFirst})
	if page.Total != 15 || page.Stream != 17 || len(page.Gaps) != 2 || len(entries) != 15 {
		t.Fatalf("%d entries, page %+v", len(entries), page)
	}
	_, page = queryAll(t, s, scope, telemetry.LogQuery{Limit: 100, LogFilter: telemetry.LogFilter{Agents: []telemetry.AgentID{"agt_a"}, Levels: []telemetry.Level{telemetry.Error}}})
	if page.Total != 2 || len(page.Gaps) != 1 {
		t.Fatalf("page %+v", page)
	}
	outcomes, again, err := s.Commit(t.Context(), []*frame.Received{newSpool(scope, "nod_1", 1<<63+5).numbered(t, "agt_a", 0, 10, at)})
	if err != nil || outcomes[0].Verdict != frame.Duplicate || len(again) != 0 {
		t.Fatalf("%+v %v %v", outcomes, again, err)
	}
	a, err := s.Agent(t.Context(), scope, "agt_a")
	if err != nil || a.Status != telemetry.AgentFailed {
		t.Fatalf("%+v %v", a, err)
	}
}
