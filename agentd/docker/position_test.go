package docker

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The short way of writing a position says what the long one says.
func TestPositionsAreWrittenAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &logPosition{
			placeNote: placeNote{
				Device: rapid.Uint64().Draw(t, "dev"), Inode: rapid.Uint64().Draw(t, "ino"),
				Print: hashOf([]byte(rapid.String().Draw(t, "fp"))), Offset: rapid.Int64().Draw(t, "off"),
			},
			Size: rapid.Int64().Draw(t, "size"),
			Last: time.Unix(rapid.Int64Range(year0, year9999).Draw(t, "last"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanos")).UTC(),
		}
		if rapid.Bool().Draw(t, "read") {
			p.Before = hashOf(nil)
		}
		p.Cache = rapid.Bool().Draw(t, "cache")
		if got, want := string(p.note()), string(encode(p)); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}
