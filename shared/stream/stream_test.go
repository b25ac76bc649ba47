package stream_test

import (
	"testing"

	"github.com/theazo/observability/shared/stream"
)

func TestCursorReadsOnlyWhatItPrints(t *testing.T) {
	for _, s := range []string{"0-0", "1-42", "7-9223372036854775807"} {
		c, err := stream.ParseCursor(s)
		if err != nil || c.String() != s {
			t.Errorf("%q: %v %v", s, c, err)
		}
	}
	for _, s := range []string{"", "1", "-", "1-", "-1-2", "1--2", "+1-2", "01-2", "1-02", "1-2 ", "1-2-3", "1-9223372036854775808", "a-b"} {
		if c, err := stream.ParseCursor(s); err == nil {
			t.Errorf("%q was read as %v", s, c)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add("1-42")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := stream.ParseCursor(s); err == nil && c.String() != s {
			t.Errorf("%q was read as %v", s, c)
		}
	})
}
