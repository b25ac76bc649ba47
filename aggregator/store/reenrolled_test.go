package store_test

import (
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// A host that enrols anew keeps its spool and gets another name. What it sent
// under the old one is neither missing nor taken twice.
func TestAHostThatEnrolsAnewGoesOnInItsSpool(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	org, other := db.Organisation(t), db.Organisation(t)
	old := newSpool(telemetry.Scope{Org: org}, "nod_old", 77)
	mustCommit(t, s, old.numbered(t, "agt_a", 0, 10, time.Now()))
	again := old.numbered(t, "agt_a", 10, 5, time.Now()) // committed, but its acknowledgement is lost
	mustCommit(t, s, again)
	stranger := newSpool(telemetry.Scope{Org: other}, "nod_stranger", 77)
	mustCommit(t, s, stranger.numbered(t, "agt_b", 0, 100, time.Now()))

	repeated := *again
	repeated.Node, old.node = "nod_new", "nod_new"
	next := old.numbered(t, "agt_a", 15, 5, time.Now())
	early := *old.numbered(t, "agt_a", 25, 1, time.Now())
	early.First++
	outcomes, _, err := s.Commit(t.Context(), []*frame.Received{&repeated, next, &early})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []frame.Outcome{{Verdict: frame.Duplicate}, {Verdict: frame.Committed}, {Verdict: frame.OutOfOrder, Next: 21}} {
		if outcomes[i].Verdict != want.Verdict || outcomes[i].Next != want.Next {
			t.Errorf("frame %d: %+v, want %+v", i, outcomes[i], want)
		}
	}
	// The new mark stands on its own from here on.
	mustCommit(t, s, old.withNode("nod_new", 21).numbered(t, "agt_a", 21, 2, time.Now()))
}

// withNode is the same spool of a node, at a sequence of its logs.
func (s *spool) withNode(node telemetry.NodeID, next uint64) *spool {
	c := newSpool(s.scope, node, s.epoch)
	c.next[telemetry.LaneLogs] = next
	return c
}
