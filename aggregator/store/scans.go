package store

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/theazo/observability/shared/telemetry"
)

// What queries may use when Options says nothing.
const (
	DefaultQueryMemory = 128 << 20
	DefaultCountBudget = 2 * time.Second
)

func (s *Store) boundQueries(memory int64, budget time.Duration) {
	if memory <= 0 {
		memory = DefaultQueryMemory
	}
	if budget <= 0 {
		budget = DefaultCountBudget
	}
	s.memory, s.memorySize, s.countBudget = semaphore.NewWeighted(memory), memory, budget
}

// reserve takes memory for decoding, of what all queries have together.
func (s *Store) reserve(ctx context.Context, size int64) (release func(), err error) {
	size = min(size, s.memorySize)
	if err := s.memory.Acquire(ctx, size); err != nil {
		return nil, fmt.Errorf("wait for memory: %w", context.Cause(ctx))
	}
	return func() { s.memory.Release(size) }, nil
}

// scanShare is how one organisation's queries wait for a place of Store.scans.
type scanShare struct {
	places chan struct{} // one per query that has its turn
	users  int           // queries that wait or run; under Store.shareMu
}

// enterScan takes a place among the queries that read lines. One organisation
// may hold three quarters of the places: however long its searches take, those
// of others get in. Who waits holds no connection, so look-ups go on beside a
// full house.
func (s *Store) enterScan(ctx context.Context, org telemetry.OrgID) (leave func(), err error) {
	share := s.joinShare(org)
	wait := time.NewTimer(shortTimeout)
	defer wait.Stop()
	for i, places := range []chan struct{}{share.places, s.scans} {
		select {
		case places <- struct{}{}:
			continue
		case <-wait.C:
			err = &telemetry.Failure{Code: telemetry.Unavailable, Message: "Too many log queries run at this moment; try again.", RetryAfter: retryAfter}
		case <-ctx.Done():
			err = fmt.Errorf("wait to query logs: %w", context.Cause(ctx))
		}
		if i > 0 {
			<-share.places
		}
		s.leaveShare(org, share)
		return nil, err
	}
	return func() {
		<-s.scans
		<-share.places
		s.leaveShare(org, share)
	}, nil
}

func (s *Store) joinShare(org telemetry.OrgID) *scanShare {
	s.shareMu.Lock()
	defer s.shareMu.Unlock()
	share := s.shares[org]
	if share == nil {
		share = &scanShare{places: make(chan struct{}, cap(s.scans)*3/4)}
		s.shares[org] = share
	}
	share.users++
	return share
}

func (s *Store) leaveShare(org telemetry.OrgID, share *scanShare) {
	s.shareMu.Lock()
	defer s.shareMu.Unlock()
	if share.users--; share.users == 0 {
		delete(s.shares, org)
	}
}
