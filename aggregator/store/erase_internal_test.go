package store

import (
	"context"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// EraseOnce does one step of the erasure job in one scope, with rows of agents
// and sessions erased at once and late records looked for at once.
func (s *Store) EraseOnce(ctx context.Context, scope telemetry.Scope) error {
	s.erasing.after = 0
	now := storedTime(time.Now())
	if err := s.eraseScope(ctx, scope, now); err != nil {
		return err
	}
	return s.sweepScope(ctx, scope, now)
}

// EraseAt does one step as Run does it at a time.
func (s *Store) EraseAt(ctx context.Context, now time.Time) error {
	return s.eraseOnce(ctx, storedTime(now))
}

// SweepAt looks for late records as Run does at a time.
func (s *Store) SweepAt(ctx context.Context, now time.Time) error {
	return s.sweepOnce(ctx, storedTime(now))
}

// The times that TestRowsOfAgentsOutliveTheTrustInThem compares.
const (
	EraseAfter = eraseAfter
	SpanTrust  = spanTrust
)
