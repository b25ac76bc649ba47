package sandbox

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDecimalsAreExact(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "1": 10_000_000, "0.123": 1_230_000, "12.5": 125_000_000, "1e-7": 1, "4e-8": 0, "5e-8": 1, "-5e-8": -1, "0.00000015": 2,
		"1E+2": 1_000_000_000, "0.1e1": 10_000_000, "123456789012": 1234567890120000000, "0e32767": 0, "1e-32768": 0, "00.10": 1_000_000,
	} {
		if got, err := decimal(text, nanosPerCentDigits); err != nil || got != want {
			t.Errorf("%s: %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", ".", "e", "1e", "1e99999", "1234567890123", "1e12", "NaN", "1.2.3", "0x1", "--1", "+1", "1_0"} {
		if n, err := decimal(text, nanosPerCentDigits); err == nil {
			t.Errorf("%s is taken for %d", text, n)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "number")
		exact, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("%s is no number", text)
		}
		exact.Mul(exact, big.NewRat(10_000_000, 1))
		got, err := decimal(text, nanosPerCentDigits)
		limit := big.NewRat(9e18, 1)
		if err != nil {
			if new(big.Rat).Abs(exact).Cmp(limit) < 0 {
				t.Fatalf("%s is refused", text)
			}
			return
		}
		off := new(big.Rat).Sub(exact, new(big.Rat).SetInt64(got))
		if off.Abs(off).Cmp(big.NewRat(1, 2)) > 0 {
			t.Fatalf("%s became %d", text, got)
		}
	})
}

func TestABucketRefillsAndLetsTheLargestIn(t *testing.T) {
	now := time.Unix(1000, 0)
	b := bucket{rate: 10}
	if b.wait(now, 1e6) != 0 {
		t.Fatal("more than a burst never gets in")
	}
	b.take(1e6)
	if b.wait(now, 1) == 0 {
		t.Fatal("nothing had to wait")
	}
	b = bucket{rate: 10}
	for range 10 * burstSeconds {
		if b.wait(now, 1) != 0 {
			t.Fatal("a burst was refused")
		}
		b.take(1)
	}
	wait := b.wait(now, 1)
	if wait <= 0 || wait > time.Second || b.wait(now.Add(wait), 1) != 0 {
		t.Fatalf("the wait is %s", wait)
	}
}
