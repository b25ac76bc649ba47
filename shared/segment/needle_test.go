package segment

import (
	"strings"
	"testing"
)

// A search text that nearly matches everywhere must not cost its length for
// each byte of text: that is minutes of one query.
func BenchmarkNeedle(b *testing.B) {
	for name, c := range map[string]struct{ text, search string }{
		"usual":          {strings.Repeat("2026-11-22 request handled in 12 ms, Status=200; ", 2), "timeout"},
		"nearly matches": {strings.Repeat("a", 256<<10), strings.Repeat("a", 255) + "b" + strings.Repeat("a", 256)},
	} {
		b.Run(name, func(b *testing.B) {
			n, text := newNeedle(c.search), []byte(c.text)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if n.in(text) {
					b.Fatal("found")
				}
			}
		})
	}
}
