package store_test

import (
	"testing"

	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/telemetry"
)

func TestQuotasOfOrganisations(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, admin := db.Open(t), db.Admin(t)
	org, err := admin.CreateOrganisation(t.Context(), "Acme", telemetry.FullPlatform)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateOrganisation(t.Context(), "Other", telemetry.FullPlatform); err != nil {
		t.Fatal(err)
	}
	want := telemetry.Quota{BytesPerSecond: 1 << 20}
	if err := admin.SetQuota(t.Context(), org, want); err != nil {
		t.Fatal(err)
	}
	if q, err := admin.Quota(t.Context(), org); err != nil || q != want {
		t.Fatal(q, err)
	}
	if all, err := s.Quotas(t.Context()); err != nil || len(all) != 1 || all[org] != want {
		t.Fatal(all, err)
	}
	if err := admin.SetQuota(t.Context(), org, telemetry.Quota{}); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Quotas(t.Context()); err != nil || len(all) != 0 {
		t.Fatal(all, err)
	}
	for _, q := range []telemetry.Quota{{BytesPerSecond: -1}, {RecordsPerSecond: -1}} {
		if err := admin.SetQuota(t.Context(), org, q); telemetry.CodeOf(err) != telemetry.InvalidRequest {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if err := admin.SetQuota(t.Context(), "org_none", want); telemetry.CodeOf(err) != telemetry.NotFound {
		t.Error(err)
	}
	if _, err := admin.Quota(t.Context(), "org_none"); telemetry.CodeOf(err) != telemetry.NotFound {
		t.Error(err)
	}
}
