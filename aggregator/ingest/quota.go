package ingest

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// ratesOf are the rates of Server.quota for an organisation, whose own quota
// goes before the common one.
func ratesOf(own, common telemetry.Quota) []float64 {
	bytes, records := cmp.Or(own.BytesPerSecond, common.BytesPerSecond), cmp.Or(own.RecordsPerSecond, common.RecordsPerSecond)
	return []float64{float64(bytes), float64(records), float64(max(decodedPerSecond, 4*bytes))}
}

// watchQuotas reads the quotas of organisations that have one of their own,
// until ctx ends. While they cannot be read, those that were read last hold.
func (s *Server) watchQuotas(ctx context.Context) {
	ticker := time.NewTicker(s.config.QuotasEvery)
	defer ticker.Stop()
	for {
		timed, cancel := context.WithTimeout(ctx, lookUpLimit)
		own, err := s.config.Organisations.Quotas(timed)
		cancel()
		if err != nil {
			s.config.Log.Debug("quotas of organisations cannot be read", "error", err)
		} else {
			special := make(map[telemetry.OrgID][]float64, len(own))
			for org, q := range own {
				special[org] = ratesOf(q, s.config.Quota)
			}
			s.quota.except(special)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

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

	mu      sync.Mutex
	keys    map[K][]bucket
	special map[K][]float64 // rates, and bursts, of keys that have their own
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
	rates, bursts := l.of(key)
	for i := range buckets {
		buckets[i].fill(now, rates[i], bursts[i])
		wait = max(wait, buckets[i].wait(rates[i]))
	}
	if wait > 0 {
		return wait
	}
	for i := range buckets {
		buckets[i].level -= amounts[i]
	}
	return 0
}

// except sets the keys that have rates of their own.
func (l *limiter[K]) except(special map[K][]float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.special = special
}

// of returns the rates and bursts of a key. l.mu is held.
func (l *limiter[K]) of(key K) (rates, bursts []float64) {
	if own, ok := l.special[key]; ok {
		return own, own
	}
	return l.rates, l.bursts
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
		rates, bursts := l.of(key)
		for i := range buckets {
			buckets[i].fill(now, rates[i], bursts[i])
			full = full && buckets[i].level >= bursts[i]
		}
		if full {
			delete(l.keys, key)
		}
	}
}
