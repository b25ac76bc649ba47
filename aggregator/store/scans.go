package store

import (
	"context"
	"fmt"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

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
