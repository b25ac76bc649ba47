package segment

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/telemetry"
)

// textsOf makes a column of texts as decoding does.
func textsOf(list []string) *Texts {
	t := &Texts{}
	for _, s := range list {
		t.data = append(t.data, s...)
		t.ends = append(t.ends, uint32(len(t.data)))
	}
	return t
}

func TestFindFindsWhatContainsFoldFinds(t *testing.T) {
	text := rapid.OneOf(rapid.StringMatching(`([a-cA-C ikIKsS]|İ|ı|ſ|K|ß|é|É){0,20}`), rapid.String(),
		rapid.Map(rapid.SliceOf(rapid.SampledFrom([]byte("ab\xff\xc4\xb0\xe2\x84\xaa"))), func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(text, 1, 12).Draw(t, "texts")
		part := text.Draw(t, "needle")
		if rapid.Bool().Draw(t, "inside") {
			whole := rapid.SampledFrom(list).Draw(t, "of")
			from := rapid.IntRange(0, len(whole)).Draw(t, "from")
			part = strings.ToUpper(whole[from:rapid.IntRange(from, len(whole)).Draw(t, "to")])
		}
		var want []int
		n := newNeedle(part)
		for i, s := range list {
			if telemetry.ContainsFold(s, part) {
				want = append(want, i)
			}
			if n.in([]byte(s)) != telemetry.ContainsFold(s, part) {
				t.Fatalf("%q in %q: %v", part, s, n.in([]byte(s)))
			}
		}
		if got := n.find(nil, textsOf(list)); !slices.Equal(got, want) {
			t.Fatalf("%q is in texts %v of %q, found in %v", part, want, list, got)
		}
	})
}

// The search relies on which runes fold to ASCII, and on folding one rune at a time.
func TestRunesThatFoldToASCII(t *testing.T) {
	for r := rune(utf8.RuneSelf); r <= utf8.MaxRune; r++ {
		folded := telemetry.FoldText(string(r))
		odd := slices.ContainsFunc(oddRunes[:], func(o []byte) bool { return string(o) == string(r) })
		if isASCII([]byte(folded)) != odd || odd && !strings.Contains(oddLetters, folded) {
			t.Errorf("%q folds to %q", r, folded)
		}
		if got := appendFold(nil, []byte(string(r))); !bytes.Equal(got, []byte(folded)) {
			t.Errorf("%q folds to %q, here to %q", r, folded, got)
		}
	}
}

func TestATextThatNearlyMatchesEverywhere(t *testing.T) {
	list := []string{strings.Repeat("b", 100_000), strings.Repeat("b", 600) + "a" + strings.Repeat("b", 600), "none"}
	n := newNeedle(strings.Repeat("b", 300) + "A" + strings.Repeat("B", 200))
	if got := n.find(nil, textsOf(list)); !slices.Equal(got, []int{1}) {
		t.Fatalf("found in %v", got)
	}
}

// A search text that nearly matches everywhere must not cost its length for
// each byte of text: that is minutes of one query.
func BenchmarkNeedle(b *testing.B) {
	nearly := strings.Repeat("b", 255) + "a" + strings.Repeat("b", 256)
	for name, c := range map[string]struct{ text, search string }{
		"usual":          {strings.Repeat("2026-11-22 request handled in 12 ms, Status=200; ", 20_000), "timeout"},
		"nearly matches": {strings.Repeat("b", 1<<20), nearly},
	} {
		b.Run(name, func(b *testing.B) {
			n, texts := newNeedle(c.search), textsOf([]string{c.text})
			b.SetBytes(int64(len(c.text)))
			for b.Loop() {
				if len(n.find(nil, texts)) > 0 {
					b.Fatal("found")
				}
			}
		})
	}
}
