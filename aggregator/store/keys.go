package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/telemetry"
)

// ClaimKey returns the epoch of the frames of the request that an idempotency
// key stands for, and the hash of that request's body: the given ones where the
// key is new. It is remembered for keyLife after its last use.
func (s *Store) ClaimKey(ctx context.Context, scope telemetry.Scope, key [sha256.Size]byte, epoch uint64, body [sha256.Size]byte) (uint64, [sha256.Size]byte, error) {
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	var known int64
	var first []byte
	var q pgx.Batch // one transaction
	q.Queue("select set_config('app.orgs', jsonb_build_object($1::text, 1)::text, true)", string(scope.Org))
	q.Queue(claimKey, string(scope.Org), int16(scope.Env), key[:], int64(epoch), body[:], storedTime(time.Now())).QueryRow(func(row pgx.Row) error { //nolint:gosec // 64 bits are 64 bits
		return row.Scan(&known, &first)
	})
	err := s.ingest.SendBatch(call, &q).Close()
	if err == nil && len(first) != len(body) {
		err = fmt.Errorf("the hash of the body has %d bytes", len(first))
	}
	if err != nil {
		return 0, body, failure(ctx, "claim an idempotency key", err)
	}
	return uint64(known), [sha256.Size]byte(first), nil //nolint:gosec // written from one
}

const claimKey = `insert into idempotency_key as k (org, env, hash, epoch, body, at) values ($1, $2, $3, $4, $5, $6)
on conflict (org, env, hash) do update set at = excluded.at returning k.epoch, k.body`

// keyLife is how long an idempotency key is remembered. It is promised by
// aggregator/push.
const keyLife = 7 * 24 * time.Hour

// purgeKeys forgets keys and the marks of their epochs. A key that is used in
// this moment stays: its row is locked, and looked at again afterwards.
func (s *Store) purgeKeys(ctx context.Context, now time.Time) error {
	if _, err := s.maint.Exec(ctx, purgeKeys, storedTime(now.Add(-keyLife))); err != nil {
		return fmt.Errorf("forget idempotency keys: %w", err)
	}
	return nil
}

const purgeKeys = `with gone as (delete from idempotency_key where at < $1 returning org, epoch)
delete from ingest_mark m using gone where m.org = gone.org and m.epoch = gone.epoch`
