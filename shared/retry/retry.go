package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Bounds of a Backoff that names none.
const (
	DefaultMin = 100 * time.Millisecond //nolint:revive // a minimum, not minutes
	DefaultMax = 30 * time.Second
)

// Backoff gives the pauses between attempts at one thing. The zero value uses
// the default bounds. It is not safe for concurrent use.
type Backoff struct {
	Min time.Duration // shortest pause; 0: DefaultMin
	Max time.Duration // longest pause; 0: DefaultMax

	attempt int
}

// Next returns the pause before the next attempt: at random between Min and
// twice Min at first, four times Min then, and so on, never above Max.
func (b *Backoff) Next() time.Duration {
	low, high := b.bounds()
	ceiling := high
	// Shifting below high/2^k cannot overflow, as doubling low could.
	if shift := b.attempt + 1; shift < 63 && low <= high>>shift {
		ceiling = low << shift
	}
	b.attempt++
	if ceiling <= low {
		return low
	}
	return low + rand.N(ceiling-low+1) //nolint:gosec // spreads load; nothing secret hangs on it
}

// Attempts is how many pauses Next has given since the last Reset.
func (b *Backoff) Attempts() int { return b.attempt }

// Reset starts again at the shortest pause: an attempt has succeeded.
func (b *Backoff) Reset() { b.attempt = 0 }

func (b *Backoff) bounds() (low, high time.Duration) {
	low, high = b.Min, b.Max
	if low <= 0 {
		low = DefaultMin
	}
	if high <= 0 {
		high = DefaultMax
	}
	return min(low, high), high
}

// Sleep waits for d, or until ctx ends: then it returns the context's error.
func Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
