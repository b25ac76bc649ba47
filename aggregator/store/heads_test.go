package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/telemetry"
)

func TestTheHeadsOfStreamsAreReadTogether(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Open(t)
	a, b := telemetry.Scope{Org: "org_a"}, telemetry.Scope{Org: "org_b", Env: telemetry.Test}
	mustCommit(t, s, newSpool(a, "nod_1", 1).numbered(t, "agt_a", 0, 3, time.Now()))
	mustCommit(t, s, newSpool(b, "nod_2", 2).numbered(t, "agt_b", 0, 5, time.Now()))
	scopes := []telemetry.Scope{b, {Org: "org_b"}, a, {Org: "org_none"}, b}
	heads, err := s.StreamHeads(t.Context(), scopes)
	if want := []int64{5, 0, 3, 0, 5}; err != nil || !slices.Equal(heads, want) {
		t.Fatalf("%v, want %v: %v", heads, want, err)
	}
	for i := range scopes {
		if head, err := s.StreamHead(t.Context(), scopes[i]); err != nil || head != heads[i] {
			t.Errorf("%s: %d alone, %d together: %v", scopes[i], head, heads[i], err)
		}
	}
}
