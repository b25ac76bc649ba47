package redact_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/theazo/observability/agentd/redact"
)

func TestWhatRemainsOfALine(t *testing.T) {
	r := mustNew(t, redact.Config{})
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"nothing here", "nothing here"},
		{`{"password":"hunter2","n":1}`, `{"password":"[redacted:password]","n":1}`},
		{"password=hunter2 user=bob", "password=[redacted:password] user=bob"},
		{"f(password=hunter2, user=bob)", "f(password=[redacted:password], user=bob)"},
		{"password=a,b;c host=x", "password=[redacted:password] host=x"},
		{"Password=abc;Server=x", "Password=[redacted:password];Server=x"},
		{"password=über€1 x", "password=[redacted:password] x"},
		{"postgres://u:pw1@h/d", "postgres://u:[redacted:url-password]@h/d"},
		{"postgres://u:p@w@h/d", "postgres://u:[redacted:url-password]@h/d"},
		{"Authorization: Bearer abc123def456ghi789", "Authorization: Bearer [redacted:authorization]"},
		{"card 4111 1111 1111 1111 exp 12/27", "card [redacted:card-number] exp 12/27"},
		{"card 4111-1111-1111-1111, 378282246310005", "card [redacted:card-number], [redacted:card-number]"},
		{"3782 822463 10005", "[redacted:card-number]"},
		{"4111 1111 1111 1112", "4111 1111 1111 1112"},
		// The more specific rule names the marker, wherever it stands in the value.
		{"password=xx" + "AKIA" + "ABCDEFGHIJKLMNOP", "password=[redacted:password]"},
		{"password=" + "AKIA" + "ABCDEFGHIJKLMNOP", "password=[redacted:aws-access-key]"},
		{"password=[redacted:password] token=[redacted:x]", "password=[redacted:password] token=[redacted:x]"},
		{"password=[redacted:x]hunter2", "password=[redacted:x][redacted:password]"},
	} {
		var hits []string
		out := r.Redact(nil, []byte(c.text), func(rule string) { hits = append(hits, rule) })
		if string(out) != c.want {
			t.Errorf("%q became %q, not %q", c.text, out, c.want)
		}
		if n := strings.Count(c.want, "[redacted:") - strings.Count(c.text, "[redacted:"); len(hits) != n {
			t.Errorf("%q: %d values were told, %d replaced", c.text, len(hits), n)
		}
	}
}

func TestATextWithoutSecretsIsReturnedItself(t *testing.T) {
	r := mustNew(t, redact.Config{})
	lines := cleanLines(t)
	dst := make([]byte, 0, 64)
	allocs := testing.AllocsPerRun(3, func() {
		for _, l := range lines {
			out := r.Redact(dst, l, nil)
			if len(out) != len(l) || unsafe.SliceData(out) != unsafe.SliceData(l) {
				t.Fatalf("%q is not what was given", out)
			}
		}
	})
	// One now and then, because the pool of scans forgets: on purpose each fourth
	// time under the race detector. Without it, most of these lines made one.
	if allocs > float64(len(lines))/4 {
		t.Errorf("%.0f allocations for %d lines", allocs, len(lines))
	}
}

func TestTheResultIsWrittenIntoTheGivenBuffer(t *testing.T) {
	r := mustNew(t, redact.Config{})
	dst := append(make([]byte, 0, 256), "what was there"...)
	text := []byte("password=hunter2")
	out := r.Redact(dst, text, nil)
	if string(out) != "password=[redacted:password]" || unsafe.SliceData(out) != unsafe.SliceData(dst) || string(text) != "password=hunter2" {
		t.Fatalf("%q, %q", out, text)
	}
}

func TestOnlyIDsAndCountsAreTold(t *testing.T) {
	reg := prometheus.NewRegistry()
	for range 2 { // a changed configuration makes another one with the same registry
		r, err := redact.New(redact.Config{}, reg)
		if err != nil {
			t.Fatal(err)
		}
		r.Redact(nil, []byte("password=hunter2 password=hunter3 4111111111111111"), nil)
	}
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatal(families, err)
	}
	told := []string{families[0].GetName()}
	for _, m := range families[0].GetMetric() {
		for _, l := range m.GetLabel() {
			told = append(told, l.GetName(), l.GetValue())
		}
		want := map[string]float64{"password": 4, "card-number": 2}[m.GetLabel()[0].GetValue()]
		if m.GetCounter().GetValue() != want {
			t.Errorf("%s, want %g", m, want)
		}
	}
	if all := strings.Join(told, " "); strings.Contains(all, "hunter") || strings.Contains(all, "4111") || told[0] != "agentd_redacted_values_total" {
		t.Errorf("%s", all)
	}
	if _, err := redact.New(redact.Config{}, refusing{}); err == nil {
		t.Error("a registerer's refusal is not told")
	}
}

type refusing struct{ prometheus.Registerer }

func (refusing) Register(prometheus.Collector) error { return errors.New("no") }

func TestBadConfigurationsAreNamed(t *testing.T) {
	rule := func(name, pattern, keyword string) redact.Config {
		return redact.Config{Rules: []redact.Rule{{Name: name, Pattern: pattern, Keyword: keyword}}}
	}
	for want, cfg := range map[string]redact.Config{
		`rule "Bad Name"`:         rule("Bad Name", "x", ""),
		`rule ""`:                 rule("", "x", ""),
		"rule a: its pattern has": rule("a", "", ""),
		"rule b: its pattern has": rule("b", strings.Repeat("x", 513), ""),
		"rule c: error parsing":   rule("c", "(", ""),
		"rule d: its keyword":     rule("d", "x", "ab"),
		"too large":               rule("e", "(?:a?b?c?d?){900}", ""),
		"there is one of that":    rule("password", "x", ""),
		"no rule \"nonsense\"":    {Off: []string{"nonsense"}},
		"\"faces\" is none of":    {Personal: []string{"faces"}},
		"65 rules":                {Rules: make([]redact.Rule, 65)},
	} {
		if _, err := redact.New(cfg, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// Long lines come in pieces, and last words begin somewhere: the rest of a key
// has only its end to be known by.
func TestTheRestOfAPrivateKey(t *testing.T) {
	r := mustNew(t, redact.Config{})
	line := strings.Repeat("MIIEabcd", 8)
	for text, want := range map[string]string{
		`cd` + line + `\n` + line + `\n-----END RSA PRIVATE KEY-----\n","rest":1}`: `[redacted:private-key]-----END RSA PRIVATE KEY-----\n","rest":1}`,
		line + "\n" + line + "\n-----END PRIVATE KEY-----\nnext\n":                 "[redacted:private-key]-----END PRIVATE KEY-----\nnext\n",
		"the line -----END PRIVATE KEY----- ends it":                               "the line -----END PRIVATE KEY----- ends it",
		line + " -----END CERTIFICATE-----":                                        line + " -----END CERTIFICATE-----",
	} {
		got := string(r.Redact(nil, []byte(text), nil))
		if got != want {
			t.Errorf("%q becomes %q, not %q", text, got, want)
		}
		if again := string(r.Redact(nil, []byte(got), nil)); again != got {
			t.Errorf("%q becomes %q", got, again)
		}
	}
}

func TestTheOperatorsRules(t *testing.T) {
	r := mustNew(t, redact.Config{Off: []string{"password", "card-number"}, Rules: []redact.Rule{
		{Name: "badge", Pattern: `(?i)badge:\s*(\d+)`, Keyword: "Badge"},
		{Name: "project", Pattern: `\bP-\d{4}\b`},
		{Name: "all-after", Pattern: `classified.*`, Keyword: "classified"},
	}})
	for text, want := range map[string]string{
		"BADGE: 123 badge:4":                           "BADGE: [redacted:badge] badge:[redacted:badge]",
		"see P-1234, P-12":                             "see [redacted:project], P-12",
		"password=hunter2 4111111111111111":            "password=hunter2 4111111111111111",
		"classified token=" + strings.Repeat("a1", 10): "[redacted:all-after]",
		"classified [redacted:badge] x":                "[redacted:all-after][redacted:badge][redacted:all-after]",
	} {
		out := r.Redact(nil, []byte(text), nil)
		if string(out) != want {
			t.Errorf("%q became %q, not %q", text, out, want)
		}
		if again := r.Redact(nil, out, nil); !bytes.Equal(again, out) {
			t.Errorf("%q became %q", out, again)
		}
	}
	if ids := r.Rules(); slices.Contains(ids, "password") || !slices.Contains(ids, "badge") {
		t.Errorf("rules in force: %q", ids)
	}
	// What is too much for one text is replaced as a whole, not left.
	out := r.Redact(nil, []byte(strings.Repeat("P-1234 ", 5000)), nil)
	if bytes.Contains(out, []byte("P-1234")) {
		t.Error("values remain where there are many")
	}
}

func TestPersonalDataOnlyWhereAskedFor(t *testing.T) {
	const text = "mail bob.smith+x@mail.example.com from 192.168.1.20 call +49 (30) 1234-5678 pay DE89 3704 0044 0532 0130 00 soon"
	if out := mustNew(t, redact.Config{}).Redact(nil, []byte(text), nil); string(out) != text {
		t.Errorf("without being asked: %q", out)
	}
	r := mustNew(t, redact.Config{Personal: []string{"email", "ipv4", "phone", "iban"}})
	const want = "mail [redacted:email] from [redacted:ipv4] call [redacted:phone] pay [redacted:iban] soon"
	if out := r.Redact(nil, []byte(text), nil); string(out) != want {
		t.Errorf("%q", out)
	}
	for _, text := range []string{"a@b", "@", "version 1.2.3.4.5 of 300.1.1.1", "1+1=2", "+12", "DE88 3704 0044 0532 0130 00", "git@host:x", "x@y.z"} {
		if out := r.Redact(nil, []byte(text), nil); string(out) != text {
			t.Errorf("%q became %q", text, out)
		}
	}
}

func TestAPrivateKeyOverSeveralLines(t *testing.T) {
	r := mustNew(t, redact.Config{})
	var state uint32
	var out []string
	n := 0
	for _, l := range []string{
		"loading -----BEGIN EC PRIVATE KEY-----",
		"Proc-Type: 4,ENCRYPTED", "", strings.Repeat("MHcCAQEE", 8), "abcd", "YQ==\r", "-----END EC PRIVATE KEY-----", "abcd",
		"-----BEGIN PRIVATE KEY-----", "not a key: a message", "abcd",
		"-----BEGIN PRIVATE KEY-----" + `\n` + strings.Repeat("MHcCAQEE", 8) + `\n` + "-----END PRIVATE KEY-----", "abcd",
	} {
		out = append(out, string(r.RedactNext(&state, nil, []byte(l), func(string) { n++ })))
	}
	want := []string{
		"loading -----BEGIN EC PRIVATE KEY-----",
		"[redacted:private-key]", "", "[redacted:private-key]", "[redacted:private-key]", "[redacted:private-key]", "-----END EC PRIVATE KEY-----", "abcd",
		"-----BEGIN PRIVATE KEY-----", "not a key: a message", "abcd",
		"-----BEGIN PRIVATE KEY-----[redacted:private-key]-----END PRIVATE KEY-----", "abcd",
	}
	if !slices.Equal(out, want) || n != 5 {
		t.Errorf("%d hits:\n%s", n, strings.Join(out, "\n"))
	}

	line := strings.Repeat("MHcCAQEEx1", 7)[:64]
	for _, c := range []struct {
		within string
		kept   bool
	}{{"CERTIFICATE", true}, {"PRIVATE KEY", false}, {"", false}} {
		state = 0
		if c.within != "" {
			r.RedactNext(&state, nil, []byte("-----BEGIN "+c.within+"-----"), nil)
		}
		if kept := string(r.RedactNext(&state, nil, []byte(line), nil)) == line; kept != c.kept {
			t.Errorf("a line of base64 within %q is kept: %t", c.within, kept)
		}
	}
	off := mustNew(t, redact.Config{Off: []string{"private-key"}})
	state = 1
	if out := off.RedactNext(&state, nil, []byte(line), nil); string(out) != line {
		t.Errorf("%q without the rule", out)
	}
}

// pieces of which hostile and ordinary texts are made.
func pieces(t testing.TB) []string {
	t.Helper()
	out := slices.Clone(hostileParts)
	for _, l := range secretLines(t) {
		out = append(out, string(l.text))
		out = append(out, l.secrets...)
	}
	for _, l := range cleanLines(t)[:200] {
		out = append(out, string(l))
	}
	return append(out, " ", "\n", "\"", "'", `\"`, ",", "=", ":", ";", "&", "_", "-", ".", "@", "/", "1", "a", "A", "é", "日", "[redacted:a-b]", "[", "]", "\x80", "password", "token", "_key", "Cookie")
}

func TestRedactingTwiceChangesNothing(t *testing.T) {
	plain := mustNew(t, redact.Config{})
	full := mustNew(t, redact.Config{Personal: []string{"email", "ipv4", "phone", "iban"}})
	piece := rapid.SampledFrom(pieces(t))
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(piece, 1, 12).Draw(t, "pieces"), "")
		for _, r := range []*redact.Redactor{plain, full} {
			checkRedacted(t, r, []byte(text))
		}
	})
}

// checkRedacted checks what holds for every text.
func checkRedacted(t rapid.TB, r *redact.Redactor, text []byte) {
	t.Helper()
	given := bytes.Clone(text)
	hits := 0
	out := r.Redact(nil, text, func(string) { hits++ })
	if !bytes.Equal(given, text) {
		t.Fatal("the text given was changed")
	}
	if (hits == 0) != bytes.Equal(out, text) {
		t.Fatalf("%d values replaced: %q -> %q", hits, text, out)
	}
	if utf8.Valid(text) && !utf8.Valid(out) {
		t.Fatalf("a character was split: %q -> %q", text, out)
	}
	if again := r.Redact(nil, out, nil); !bytes.Equal(again, out) {
		t.Fatalf("not idempotent:\n%q\n%q\n%q", text, out, again)
	}
}

func FuzzRedact(f *testing.F) {
	for _, l := range secretLines(f)[:300] {
		f.Add(l.text)
	}
	for _, p := range hostileParts {
		f.Add([]byte(strings.Repeat(p, 8)))
	}
	r := mustNew(f, redact.Config{Personal: []string{"email", "ipv4", "phone", "iban"}})
	f.Fuzz(func(t *testing.T, text []byte) {
		checkRedacted(t, r, text)
		var state uint32
		for l := range bytes.SplitSeq(text, []byte("\n")) {
			r.RedactNext(&state, nil, l, nil)
		}
	})
}
