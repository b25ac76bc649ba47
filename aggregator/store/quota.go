package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/telemetry"
)

// Quotas returns the quotas of organisations that have one of their own; a
// zero in one means the common value.
func (s *Store) Quotas(ctx context.Context) (map[telemetry.OrgID]telemetry.Quota, error) {
	ctx, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	quotas := map[telemetry.OrgID]telemetry.Quota{}
	rows, err := s.ingest.Query(ctx, "select org, bytes, records from organisation_quotas()")
	if err == nil {
		var org telemetry.OrgID
		var q telemetry.Quota
		_, err = pgx.ForEachRow(rows, []any{&org, &q.BytesPerSecond, &q.RecordsPerSecond}, func() error {
			quotas[org] = q
			return nil
		})
	}
	return quotas, failure(ctx, "read the quotas of organisations", err)
}

// SetQuota gives an organisation a quota of its own; a zero means the common
// value of the configuration.
func (a *Admin) SetQuota(ctx context.Context, org telemetry.OrgID, q telemetry.Quota) error {
	if q.BytesPerSecond < 0 || q.RecordsPerSecond < 0 {
		return telemetry.Failf(telemetry.InvalidRequest, "A quota is a positive number, or 0 for the common one.")
	}
	return a.mustChange(ctx, "set the quota of "+string(org), "There is no organisation "+string(org)+".",
		"update organisation set quota_bytes = nullif($2::bigint, 0), quota_records = nullif($3::bigint, 0) where id = $1",
		string(org), q.BytesPerSecond, q.RecordsPerSecond)
}

// Quota returns the organisation's own quota; zeros where it has the common one.
func (a *Admin) Quota(ctx context.Context, org telemetry.OrgID) (q telemetry.Quota, err error) {
	err = a.conn.QueryRow(ctx, "select coalesce(quota_bytes, 0), coalesce(quota_records, 0) from organisation where id = $1", string(org)).
		Scan(&q.BytesPerSecond, &q.RecordsPerSecond)
	if noRows(err) {
		return q, telemetry.Failf(telemetry.NotFound, "There is no organisation %s.", org)
	}
	return q, failure(ctx, "read the quota of "+string(org), err)
}
