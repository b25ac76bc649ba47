package retry_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/retry"
)

func TestPausesStayInTheirBoundsAndGrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "min"))
		high := time.Duration(rapid.Int64Range(int64(low), math.MaxInt64).Draw(t, "max"))
		b := retry.Backoff{Min: low, Max: high}
		ceiling := low
		for range rapid.IntRange(1, 200).Draw(t, "attempts") {
			if ceiling > high/2 {
				ceiling = high
			} else {
				ceiling *= 2
			}
			if got := b.Next(); got < low || got > ceiling {
				t.Fatalf("pause %d is %s, outside [%s, %s]", b.Attempts(), got, low, ceiling)
			}
		}
		b.Reset()
		if got := b.Next(); got > 2*low && got > low {
			t.Fatalf("after Reset the pause is %s, more than twice %s", got, low)
		}
	})
}

func TestTheZeroBackoffPauses(t *testing.T) {
	var b retry.Backoff
	for range 100 {
		if got := b.Next(); got < retry.DefaultMin || got > retry.DefaultMax {
			t.Fatalf("pause %s is outside the default bounds", got)
		}
	}
}

func TestPausesDiffer(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		b := retry.Backoff{Min: time.Second, Max: time.Hour}
		seen[b.Next()] = true
	}
	if len(seen) < 50 {
		t.Fatalf("100 first pauses had only %d values: no jitter", len(seen))
	}
}

func TestSleepEndsWithItsTimeOrItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := retry.Sleep(t.Context(), time.Minute); err != nil || time.Since(start) != time.Minute {
			t.Fatalf("slept %s: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := retry.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the context's error", err)
		}
		if err := retry.Sleep(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a finished context slept: %v", err)
		}
	})
}
