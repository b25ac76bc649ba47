package ingest

import (
	"sync"
	"time"
)

// bucket is a token bucket that may go into debt by one taking: a frame that
// is larger than the bucket passes when the bucket is full, and is paid for afterwards.
type bucket struct {
	level float64
	at    time.Time
}

// fill adds what has accrued since the last look.
func (b *bucket) fill(now time.Time, perSecond, burst float64) {
	if b.at.IsZero() {
		b.level = burst
	} else {
		b.level = min(burst, b.level+now.Sub(b.at).Seconds()*perSecond)
	}
	b.at = now
}

// wait is how long until something may be taken.
func (b *bucket) wait(perSecond float64) time.Duration {
	if b.level > 0 {
		return 0
	}
	return time.Duration((1 - b.level) / perSecond * float64(time.Second))
}

// limiter holds one set of buckets per key and forgets keys that have not
// been seen for so long that their buckets are full again.
type limiter[K comparable] struct {
	rates  []float64 // per second
	bursts []float64
	most   int // keys kept; beyond it unknown keys share nothing and wait

	mu   sync.Mutex
	keys map[K][]bucket
}

func newLimiter[K comparable](most int, rates, bursts []float64) *limiter[K] {
	return &limiter[K]{rates: rates, bursts: bursts, most: most, keys: map[K][]bucket{}}
}

// take takes the amounts, one per rate, or returns how long to wait.
func (l *limiter[K]) take(key K, amounts ...float64) time.Duration {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	buckets, known := l.keys[key]
	if !known {
		if len(l.keys) >= l.most {
			l.forget(now)
		}
		if len(l.keys) >= l.most {
			return time.Second
		}
		buckets = make([]bucket, len(l.rates))
		l.keys[key] = buckets
	}
	wait := time.Duration(0)
	for i := range buckets {
		buckets[i].fill(now, l.rates[i], l.bursts[i])
		wait = max(wait, buckets[i].wait(l.rates[i]))
	}
	if wait > 0 {
		return wait
	}
	for i := range buckets {
		buckets[i].level -= amounts[i]
	}
	return 0
}

// spend takes an amount of one rate that is known only after the fact: what
// follows waits for it.
func (l *limiter[K]) spend(key K, rate int, amount float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if buckets, known := l.keys[key]; known {
		buckets[rate].level -= amount
	}
}

// forget drops the keys whose buckets are full again: a new one would be the same.
func (l *limiter[K]) forget(now time.Time) {
	for key, buckets := range l.keys {
		full := true
		for i := range buckets {
			buckets[i].fill(now, l.rates[i], l.bursts[i])
			full = full && buckets[i].level >= l.bursts[i]
		}
		if full {
			delete(l.keys, key)
		}
	}
}
