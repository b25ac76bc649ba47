package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/theazo/observability/shared/telemetry"
)

func TestOneOrganisationsQueriesLeavePlacesToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Store{scans: make(chan struct{}, 4), shares: map[telemetry.OrgID]*scanShare{}}
		var leaves []func()
		enter := func(org telemetry.OrgID) error {
			leave, err := s.enterScan(t.Context(), org)
			if err == nil {
				leaves = append(leaves, leave)
			}
			return err
		}
		for range 3 {
			if err := enter("org_greedy"); err != nil {
				t.Fatal(err)
			}
		}
		if err := enter("org_greedy"); telemetry.CodeOf(err) != telemetry.Unavailable {
			t.Errorf("a fourth query of four places: %v", err)
		}
		if err := enter("org_other"); err != nil {
			t.Errorf("another organisation's query: %v", err)
		}
		if err := enter("org_third"); telemetry.CodeOf(err) != telemetry.Unavailable {
			t.Errorf("a query of a full house: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.enterScan(ctx, "org_third"); !errors.Is(err, context.Canceled) {
			t.Errorf("a query of a caller who has left: %v", err)
		}
		for _, leave := range leaves {
			leave()
		}
		if len(s.scans) != 0 || len(s.shares) != 0 {
			t.Errorf("%d places and %d organisations are kept", len(s.scans), len(s.shares))
		}
	})
}
