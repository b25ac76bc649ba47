package redact_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/theazo/observability/agentd/redact"
)

const (
	digits = "0123456789"
	lowers = "abcdefghijklmnopqrstuvwxyz"
	uppers = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// alphabets of the forms in testdata.
var alphabets = map[string]string{
	"digits": digits, "hex": "0123456789abcdef", "alpha": lowers + uppers, "alnum": digits + lowers + uppers,
	"upper": digits + uppers, "url64": digits + lowers + uppers + "-_", "b64": digits + lowers + uppers + "+/",
}

var form = regexp.MustCompile(`\{([a-z0-9]+)((?::\d+)*)\}`)

// fill replaces the forms of a text by random text. A seed gives the same again.
func fill(text string, rnd *rand.Rand) string {
	random := func(alphabet string, n int) string {
		var b strings.Builder
		for range n {
			b.WriteByte(alphabet[rnd.IntN(len(alphabet))])
		}
		return b.String()
	}
	return form.ReplaceAllStringFunc(text, func(f string) string {
		m := form.FindStringSubmatch(f)
		var args []string
		if m[2] != "" {
			args = strings.Split(m[2][1:], ":")
		}
		number := func(i int) int {
			n, err := strconv.Atoi(args[i])
			if err != nil {
				panic(err)
			}
			return n
		}
		switch m[1] {
		case "uuid":
			hex := alphabets["hex"]
			return strings.Join([]string{random(hex, 8), random(hex, 4), "4" + random(hex, 3), "a" + random(hex, 3), random(hex, 12)}, "-")
		case "hexlow6":
			return random(alphabets["hex"], 6)
		case "alnum32low":
			return random(digits+lowers, 32)
		case "basic":
			return base64.StdEncoding.EncodeToString([]byte("user:" + random(alphabets["alnum"], 12)))
		case "b64mixed":
			return "aB3" + random(alphabets["b64"], number(0)-3)
		case "card", "cardspaced":
			c := card(args[0], number(1), rnd)
			if m[1] == "cardspaced" {
				c = c[:4] + " " + c[4:8] + " " + c[8:12] + " " + c[12:]
			}
			return c
		}
		alphabet, known := alphabets[m[1]]
		if !known || len(args) == 0 {
			return f // ordinary text in braces
		}
		return random(alphabet, number(0))
	})
}

// card makes a card's number that begins with prefix, with its check digit.
func card(prefix string, length int, rnd *rand.Rand) string {
	b := []byte(prefix)
	for len(b) < length-1 {
		b = append(b, digits[rnd.IntN(10)])
	}
	for last := byte('0'); ; last++ {
		sum := 0
		for i, c := range append(b, last) {
			v := int(c - '0')
			if (length-i)%2 == 0 {
				v = v*2/10 + v*2%10
			}
			sum += v
		}
		if sum%10 == 0 {
			return string(append(b, last))
		}
	}
}

func readLines(t testing.TB, name string) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSuffix(l, "\n"); l != "" && !strings.HasPrefix(l, "# ") {
			lines = append(lines, l)
		}
	}
	return lines
}

// secretLine is a text with secrets of one rule.
type secretLine struct {
	rule    string
	text    []byte
	secrets []string
}

// secretLines has every token in every context, and the named ones.
func secretLines(t testing.TB) []secretLine {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	var out []secretLine
	for _, l := range readLines(t, "tokens.txt") {
		rule, form, _ := strings.Cut(l, "\t")
		for _, c := range readLines(t, "contexts.txt") {
			secret := fill(form, rnd)
			out = append(out, secretLine{rule, []byte(strings.Replace(c, "%s", secret, 1)), []string{secret}})
		}
	}
	for _, l := range readLines(t, "named.txt") {
		rule, form, _ := strings.Cut(l, "\t")
		for range 3 {
			x := secretLine{rule: rule}
			text := fill(form, rnd)
			for rest := text; ; {
				_, after, found := strings.Cut(rest, "«")
				if !found {
					break
				}
				secret, after, _ := strings.Cut(after, "»")
				x.secrets = append(x.secrets, secret)
				rest = after
			}
			x.text = []byte(strings.NewReplacer("«", "", "»", "").Replace(text))
			out = append(out, x)
		}
	}
	return out
}

// cleanLines has every line without secrets, several times over.
func cleanLines(t testing.TB) [][]byte {
	t.Helper()
	rnd := rand.New(rand.NewPCG(3, 4))
	var out [][]byte
	for range 5 {
		for _, l := range readLines(t, "clean.txt") {
			out = append(out, []byte(fill(l, rnd)))
		}
	}
	return out
}

// TestFiguresOfTheCorpus measures how much is found and how much too much.
func TestFiguresOfTheCorpus(t *testing.T) {
	r := mustNew(t, redact.Config{})
	found, total := 0, 0
	byRule := map[string][2]int{}
	for _, l := range secretLines(t) {
		out := r.Redact(nil, l.text, nil)
		for _, secret := range l.secrets {
			total++
			n := byRule[l.rule]
			n[1]++
			// Not even a half of it may remain.
			if half := secret[:(len(secret)+1)/2]; !bytes.Contains(out, []byte(half)) && !bytes.Contains(out, []byte(secret[len(secret)/2:])) {
				found++
				n[0]++
			} else {
				t.Logf("missed %s: %s -> %s", l.rule, l.text, out)
			}
			byRule[l.rule] = n
		}
	}
	changed := 0
	clean := cleanLines(t)
	for _, l := range clean {
		if out := r.Redact(nil, l, nil); !bytes.Equal(out, l) {
			changed++
			t.Logf("changed: %s -> %s", l, out)
		}
	}
	recall, wrong := float64(found)/float64(total), float64(changed)/float64(len(clean))
	fmt.Fprintf(os.Stdout, "FIGURE redaction_recall %.4f of %d secrets\n", recall, total)
	fmt.Fprintf(os.Stdout, "FIGURE redaction_false_positives %.4f of %d lines\n", wrong, len(clean))
	if recall < 0.97 || wrong > 0.002 {
		t.Errorf("recall %.4f, false positives %.4f", recall, wrong)
	}
}
