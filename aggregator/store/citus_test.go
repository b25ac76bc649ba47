//go:build citus

package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// The life of lines on tables that are distributed by organisation. It needs a
// PostgreSQL with Citus, which storetest loads under this build tag.
func TestOnADistributedDatabase(t *testing.T) {
	db := storetest.New(t)
	sql(t, db, "create extension citus")
	for range 2 { // the second time there is nothing to do
		if err := store.Distribute(t.Context(), db.DSN, hclog.NewNullLogger()); err != nil {
			t.Fatal(err)
		}
	}
	s := db.Open(t)
	var scopes []telemetry.Scope
	var frames []*frame.Received
	for o := range 3 {
		scope := telemetry.Scope{Org: telemetry.OrgID(fmt.Sprintf("org_%d", o))}
		scopes = append(scopes, scope)
		frames = append(frames, newSpool(scope, "nod_1", 1).numbered(t, "agt_a", 0, 100, time.Now()))
	}
	mustCommit(t, s, frames...)
	sameAfter(t, s, scopes, func() {
		if err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.DropPartitions(t.Context(), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	})
	for _, f := range frames {
		if outcomes, _, err := s.Commit(t.Context(), []*frame.Received{f}); err != nil || outcomes[0].Verdict != frame.Duplicate {
			t.Fatalf("%+v %v", outcomes, err)
		}
	}
}
