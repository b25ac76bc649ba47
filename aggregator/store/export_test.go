package store

import (
	"context"
	"embed"
	"time"
)

// What tests reach of the inside.
const (
	SpanSlack       = spanSlack
	PartitionWidth  = partitionWidth
	PartitionsAhead = partitionsAhead
	ShortTimeout    = shortTimeout
)

func Migrations() embed.FS { return migrationFiles }

func (s *Store) MakePartitions(ctx context.Context, now time.Time) error {
	return s.makePartitions(ctx, now)
}

func (s *Store) DropPartitions(ctx context.Context, now time.Time) error {
	return s.dropPartitions(ctx, now)
}

func (s *Store) Purge(ctx context.Context) error { return s.purge(ctx) }

func (s *Store) FlushUsedKeys(ctx context.Context) error { return s.flushUsedKeys(ctx) }

// FillScans takes all places of queries until the returned function is called.
func (s *Store) FillScans() (leave func()) {
	for range cap(s.scans) {
		s.scans <- struct{}{}
	}
	return func() {
		for range cap(s.scans) {
			<-s.scans
		}
	}
}

func (s *Store) FlushReports(ctx context.Context) error { return s.flushReports(ctx) }
