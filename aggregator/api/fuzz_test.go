package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/api"
)

func FuzzPageCursor(f *testing.F) {
	f.Add("AQAOdST76VAioAAAAAGAxKO4n5qtBgg")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := api.ParsePageCursor(text); err == nil && c.String() != text {
			t.Errorf("%q was read as %+v", text, c)
		}
	})
}

func FuzzListCursor(f *testing.F) {
	f.Add("AQGAqbW1n5qtBmFndF9h")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := api.ParseListCursor(text); err == nil && api.ListCursor(*k) != text {
			t.Errorf("%q was read as %+v", text, k)
		}
	})
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"now", "-15m", "-7d", "2026-09-01", "2026-09-01T10:00:00.123456789+02:00", "-1h30m"} {
		f.Add(s)
	}
	now := time.Date(2026, 9, 1, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := api.ParseTime(text, now)
		if err == nil && (got.Location() != time.UTC || got.Year() < 1 || got.Year() > 9999 || got.Nanosecond()%1000 != 0) {
			t.Errorf("%q was read as %v", text, got)
		}
	})
}

func FuzzRedact(f *testing.F) {
	for _, s := range []string{"token=thz_abc", "%74oken=thz_abc", "a=b&search=th_live_x", "token", "=&&=;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got := api.Redact(query)
		for _, prefix := range []string{"th_live_", "thz_"} {
			if strings.Contains(got, prefix) {
				t.Errorf("%q became %q", query, got)
			}
		}
	})
}

func TestTimes(t *testing.T) {
	now := time.Date(2026, 9, 1, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"now": "2026-09-01T10:00:00Z", "-15m": "2026-09-01T09:45:00Z", "-7d": "2026-08-25T10:00:00Z", "-1h30m": "2026-09-01T08:30:00Z", "-90s": "2026-09-01T09:58:30Z",
		"2026-09-01": "2026-09-01T00:00:00Z", "2026-09-01T10:00:00+02:00": "2026-09-01T08:00:00Z", "2026-09-01T10:00:00.123456789Z": "2026-09-01T10:00:00.123456Z",
	} {
		if got, err := api.ParseTime(text, now); err != nil || got.Format(time.RFC3339Nano) != want {
			t.Errorf("%s: %v %v", text, got, err)
		}
	}
}
