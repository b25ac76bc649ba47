package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
)

// Restored tells a database that it was restored from a backup, and returns the
// new number of its history. Positions that were handed out after the backup
// are handed out again, for other lines: by the new number readers with a
// cursor of the old history learn that theirs means nothing any more. Run it
// once after each restore, before an aggregator serves it.
func (a *Admin) Restored(ctx context.Context) (epoch int64, err error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return 0, err
	}
	// Random, so that two restores of one backup differ; 48 bits, which every
	// client's numbers hold.
	epoch = int64(binary.LittleEndian.Uint64(random[:]) >> 16)
	return epoch, a.mustChange(ctx, "begin a new history", "This database has no history yet: migrate it first.",
		"update setting set value = $1::bigint::text where name = 'stream_epoch'", epoch)
}
