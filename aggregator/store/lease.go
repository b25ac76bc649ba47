package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// leaseTime is for how long a replica that died keeps others from its work.
const leaseTime = 2 * time.Minute

// newOwner names this process in leases.
func newOwner() string { return "own_" + rand.Text() }

// takeLeases returns those of the names that are ours now. Leases keep replicas
// from doing the same work; nothing is wrong where they do.
func (s *Store) takeLeases(ctx context.Context, names []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	rows, err := s.maint.Query(ctx, "select take_leases($1, $2, $3)", names, s.owner, leaseTime)
	if err != nil {
		return nil, fmt.Errorf("take leases: %w", err)
	}
	taken, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("take leases: %w", err)
	}
	return taken, nil
}

// releaseLeases lets others go on at once. Those that stay end by themselves.
func (s *Store) releaseLeases(ctx context.Context, names []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortTimeout)
	defer cancel()
	var err error
	for range 2 { // a connection that broke meanwhile is another one then
		if _, err = s.maint.Exec(ctx, "select release_leases($1, $2)", names, s.owner); err == nil {
			return
		}
	}
	s.log.Debug("leases could not be released; they end by themselves", "error", err)
}
