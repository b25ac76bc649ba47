package store

import (
	"context"
	"time"
)

// CompactDue runs one round as Run does.
func (s *Store) CompactDue(ctx context.Context, maxAge time.Duration) (int, error) {
	return s.compactor.round(ctx, threshold{lines: dueLines, rows: dueRows, bytes: dueBytes, before: time.Now().Add(-maxAge)})
}

// Merge sweeps and merges what the queue of this store knows then.
func (s *Store) Merge(ctx context.Context, now time.Time) error {
	if err := s.compactor.sweep(ctx, now); err != nil {
		return err
	}
	for {
		if done, err := s.compactor.mergeRound(ctx); err != nil || done == 0 {
			return err
		}
	}
}

func (s *Store) MakeChunkPartitions(ctx context.Context, now time.Time) error {
	return s.makeChunkPartitions(ctx, now)
}

func (s *Store) DropChunkPartitions(ctx context.Context, now time.Time) error {
	return s.dropChunkPartitions(ctx, now)
}

func (s *Store) PurgeChunks(ctx context.Context, now time.Time) error { return s.purgeChunks(ctx, now) }

func (s *Store) MeasureBacklog(ctx context.Context) error { return s.measureBacklog(ctx) }
