package redact

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Each keyword is found wherever it stands, in the cases that it has.
func TestTheIndexMissesNoKeyword(t *testing.T) {
	r, err := New(Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range r.index.groups {
		for _, p := range group.probes {
			k := p.keyword
			spellings := []string{k.text}
			if k.fold {
				spellings = append(spellings, strings.ToUpper(k.text), strings.ToUpper(k.text[:1])+k.text[1:])
			}
			for _, spelling := range spellings {
				for before := range 17 {
					text := []byte(strings.Repeat("~", before) + spelling + "=~~")
					if n := countFound(r.index, text, k); n != 1 {
						t.Fatalf("%q after %d bytes is found %d times", spelling, before, n)
					}
				}
			}
		}
	}
}

func countFound(ix *index, text []byte, k *keyword) int {
	n := 0
	for at := ix.next(text, 0); at >= 0; at = ix.next(text, at+2) {
		for _, p := range ix.probes(text, at) {
			if _, ok := p.found(text, at); ok && p.keyword == k {
				n++
			}
		}
	}
	return n
}

// The work for a text is bounded by its length, whatever it is made of.
func TestTheWorkIsLinear(t *testing.T) {
	r, err := New(Config{Personal: []string{"email", "ipv4", "phone", "iban"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, group := range r.index.groups {
		for _, p := range group.probes {
			parts = append(parts, p.keyword.text)
		}
	}
	parts = append(parts, "=", ":", " ", "\"", "'", `\"`, "\\", ",", "@", "-", ".", "a", "a1", "1", "AB12", "/", "&", "[redacted:x]", "-----BEGIN ", "-----", "\n", "x=y", "--")
	part := rapid.SampledFrom(parts)
	worst := 0.0
	rapid.Check(t, func(t *rapid.T) {
		unit := strings.Join(rapid.SliceOfN(part, 1, 6).Draw(t, "unit"), "")
		text := []byte(strings.Repeat(unit, 1+(8<<10)/len(unit)))
		var s scan
		s.begin(r, text)
		s.look(0)
		perByte := float64(s.steps) / float64(len(text))
		worst = max(worst, perByte)
		if perByte > 200 {
			t.Fatalf("%.0f steps for each byte of %q…", perByte, unit)
		}
	})
	t.Logf("at most %.1f steps for a byte", worst)
}

// A text that is required must be in every match, else secrets remain.
func TestTheTextThatAnExpressionRequires(t *testing.T) {
	for pattern, want := range map[string]string{
		`\bP-\d{4}\b`: "", `badge:\s*(\d+)`: "badge:", `(?i)BADGE \d`: "badge ", `(ab|cd)efg`: "efg", `(?:Xyz){2,}`: "xyz", `(xyz)?ab`: "",
		`(?i)token`: "to", `(?i)asking`: "ing", `über-geheim=(.*)`: "ber-geheim=", `abc*`: "", `a+bcd`: "bcd", `x|yyyy`: "", `(?i)sk`: "",
	} {
		_, keyword, err := (&Rule{Name: "x", Pattern: pattern}).compile()
		if err != nil {
			t.Fatal(err)
		}
		if len(want) < minKeyword {
			want = ""
		}
		if keyword != want {
			t.Errorf("%s requires %q, not %q", pattern, keyword, want)
		}
	}
}
