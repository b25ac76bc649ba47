package store

import (
	"context"
	"time"
)

// CompactDue runs one round as Run does.
func (s *Store) CompactDue(ctx context.Context, maxAge time.Duration) (int, error) {
	return s.compactor.round(ctx, threshold{lines: dueLines, rows: dueRows, bytes: dueBytes, before: time.Now().Add(-maxAge)})
}

// Merge merges what the queue of this store knows, and sweeps.
func (s *Store) Merge(ctx context.Context, now time.Time) error {
	if _, err := s.compactor.mergeRound(ctx); err != nil {
		return err
	}
	return s.compactor.sweep(ctx, now)
}

func (s *Store) MakeChunkPartitions(ctx context.Context, now time.Time) error {
	return s.makeChunkPartitions(ctx, now)
}

func (s *Store) DropChunkPartitions(ctx context.Context, now time.Time) error {
	return s.dropChunkPartitions(ctx, now)
}

func (s *Store) PurgeChunks(ctx context.Context, now time.Time) error { return s.purgeChunks(ctx, now) }

func (s *Store) MeasureBacklog(ctx context.Context) error { return s.measureBacklog(ctx) }
