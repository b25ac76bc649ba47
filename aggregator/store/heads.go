package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/telemetry"
)

// StreamHeads returns the last position of each scope's stream, 0 where it has
// none, by one statement: the hub asks four times a second for all that are
// watched. What comes of it are numbers, which are compared and never shown.
func (s *Store) StreamHeads(ctx context.Context, scopes []telemetry.Scope) ([]int64, error) {
	orgs := make([]string, len(scopes))
	for i := range scopes {
		orgs[i] = string(scopes[i].Org)
	}
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	rows, err := s.maint.Query(call, "select org, env, next - 1 from stream_counter where org = any($1)", orgs)
	if err != nil {
		return nil, failure(ctx, "read the heads of streams", err)
	}
	found := make(map[telemetry.Scope]int64, len(scopes))
	var scope telemetry.Scope
	var env int16
	var head int64
	_, err = pgx.ForEachRow(rows, []any{&scope.Org, &env, &head}, func() error {
		scope.Env = telemetry.Environment(env) //nolint:gosec // 0 or 1
		found[scope] = head
		return nil
	})
	if err != nil {
		return nil, failure(ctx, "read the heads of streams", err)
	}
	heads := make([]int64, len(scopes))
	for i := range scopes {
		heads[i] = found[scopes[i]]
	}
	return heads, nil
}
