package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

func TestVerdictsFollowTheMark(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Open(t)
	sp := newSpool(telemetry.Scope{Org: "org_a"}, "nod_1", 1)
	var f []*frame.Received
	for i := range 5 {
		f = append(f, sp.numbered(t, "agt_a", i*10, 10, time.Now()))
	}
	committed, duplicate := frame.Outcome{}, frame.Outcome{Verdict: frame.Duplicate}
	outOfOrder := func(next uint64) frame.Outcome { return frame.Outcome{Verdict: frame.OutOfOrder, Next: next} }
	for i, step := range []struct {
		frames []*frame.Received
		want   []frame.Outcome
	}{
		{[]*frame.Received{f[1]}, []frame.Outcome{outOfOrder(1)}},
		{[]*frame.Received{f[0], f[2], f[1]}, []frame.Outcome{committed, outOfOrder(11), committed}},
		{[]*frame.Received{f[0], f[1], f[2], f[2]}, []frame.Outcome{duplicate, duplicate, committed, duplicate}},
		{[]*frame.Received{f[4], f[3], f[4]}, []frame.Outcome{outOfOrder(31), committed, committed}},
	} {
		got, _, err := s.Commit(t.Context(), step.frames)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(step.want, got); d != "" {
			t.Fatalf("step %d: %s", i, d)
		}
	}
	checkStream(t.Context(), t, s, sp.scope, 1, 50)
}

func TestLanesEpochsNodesAndOrganisationsHaveMarksOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Open(t)
	a, b := telemetry.Scope{Org: "org_a"}, telemetry.Scope{Org: "org_b"}
	events := []telemetry.Event{{Type: telemetry.SandboxStarted, Timestamp: time.Now(), Origin: telemetry.Origin{Agent: "agt_a"}}}
	mustCommit(t, s, newSpool(a, "nod_1", 1).numbered(t, "agt_a", 0, 2, time.Now()), newSpool(a, "nod_1", 1).records(events, nil),
		newSpool(a, "nod_1", 2).numbered(t, "agt_a", 0, 2, time.Now()), newSpool(a, "nod_2", 1).numbered(t, "agt_a", 0, 2, time.Now()),
		newSpool(b, "nod_1", 1).numbered(t, "agt_a", 0, 2, time.Now()))
}

// A tombstone may stand for frames of which some were committed and their
// acknowledgement lost; no record is then counted twice or lost.
func TestAFrameThatOverlapsTheMarkIsCut(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	mustCommit(t, s, sp.numbered(t, "agt_a", 0, 4, time.Now()))

	wide := newSpool(scope, "nod_1", 1)
	published := mustCommit(t, s, wide.numbered(t, "agt_a", 0, 10, time.Now()))
	if got := entriesOf(published); len(got) != 6 || got[0].Message != "line 4" || got[0].Seq != 5 || got[0].Position != 5 {
		t.Fatalf("published %+v", got)
	}
	wide.next[telemetry.LaneLogs] = 9
	published = mustCommit(t, s, wide.tombstone(telemetry.LaneLogs, 12)) // 9-20, of which 9 and 10 are known
	g := published[0].Gaps[0]
	if g.Count != 10 || g.FirstSeq != 11 || g.LastSeq != 20 {
		t.Fatalf("gap %+v", g)
	}
	ev := newSpool(scope, "nod_1", 1)
	e := telemetry.Event{Type: telemetry.SandboxStarted, Timestamp: time.Now(), Origin: telemetry.Origin{Agent: "agt_a"}}
	mustCommit(t, s, ev.records([]telemetry.Event{e, e}, nil))
	ev = newSpool(scope, "nod_1", 1)
	published = mustCommit(t, s, ev.records([]telemetry.Event{e, e, e}, []telemetry.Gap{{Reason: telemetry.GapRotated, Count: 1}}))
	if len(published) != 1 || len(published[0].Gaps) != 1 {
		t.Fatalf("published %+v", published)
	}
}
