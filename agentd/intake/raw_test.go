package intake

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

func TestEscapesAreStripped(t *testing.T) {
	var p parser
	for _, c := range [][2]string{
		{"\x1b[31mred\x1b[0m plain", "red plain"},
		{"\x1b[38;5;196;48:2:1:2:3mx\x1b[m", "x"},
		{"\x1b]0;title\x07shell", "shell"},
		{"\x1b]8;;https://x\x1b\\link\x1b]8;;\x1b\\", "link"},
		{"\x1b]0;never ends, and the rest is no title", "0;never ends, and the rest is no title"},
		{"\x1bP1;2|data\x1b\\after", "after"},
		{"\x1b(Bcharset\x1b7saved\x1b8", "charsetsaved"},
		{"\x1b[?25l\x1b[2K\x1b[1Gprogress\x1b[?25h", "progress"},
		{"cut \x1b[31", "cut "},
		{"cut \x1b", "cut "},
		{"broken \x1b[31\x01m", "broken \x01m"},
		{"c1 \u009b31mred", "c1 red"},
		{"卛 is no escape", "卛 is no escape"},
		{"windows\r", "windows"},
		{"over\rwritten", "over\rwritten"},
		{"\x1b[31m{\"level\":\"warn\",\"msg\":\"x\"}\x1b[0m", "x"},
	} {
		if got, _ := parseLine(&p, c[0]); got != c[1] {
			t.Errorf("%q: %q, want %q", c[0], got, c[1])
		}
	}
	keep := parser{keepANSI: true}
	if got, _ := parseLine(&keep, "\x1b[31mred\x1b[0m\r"); got != "\x1b[31mred\x1b[0m\r" {
		t.Errorf("%q with escapes kept", got)
	}
}

// TestHostileEscapesCostLittle strips lines of nothing but beginnings: quadratic
// work would take minutes.
func TestHostileEscapesCostLittle(t *testing.T) {
	var p parser
	began := time.Now()
	for _, unit := range []string{"\x1b]", "\x1b[", "\x1b[0;", "\x1bP\x1b", "\x1b]\x1b]\x1b\\\x1b]", "\x1b", "\u009b", "\x1b(", "\x1b]x\xff"} {
		for range 8 {
			text := strings.Repeat(unit, telemetry.MaxMessage/len(unit))
			if got, _ := parseLine(&p, text); strings.Contains(got, "\x1b") {
				t.Errorf("escapes are left of %q", unit)
			}
		}
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

// rebuild is what a reader does to get the bytes of a line back.
func rebuild(t interface{ Fatalf(string, ...any) }, e *telemetry.LogEntry) string {
	var m struct{ Raw *string }
	if len(e.Metadata) > 0 {
		if err := json.Unmarshal(e.Metadata, &m); err != nil {
			t.Fatalf("metadata %s: %v", e.Metadata, err)
		}
	}
	if m.Raw == nil {
		return e.Message + "\n"
	}
	b, err := base64.StdEncoding.DecodeString(*m.Raw)
	if err != nil {
		t.Fatalf("raw %s: %v", *m.Raw, err)
	}
	return string(b)
}

// TestExactBytes: of a line whose source asks for it, the message or "raw" give
// every byte back, whatever the line is; of others, of what is not UTF-8.
func TestExactBytes(t *testing.T) {
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{"\x1b[31m", "\x1b]0;t\x07", "\r", "\x00", "\xff\xfe", "é", " ", "\t", `{"msg":"x","level":"info"}`, "level=info msg=hi", "ERROR ", `{"a":`, "}", "\u009b1m"}),
		rapid.StringN(0, 10, 40),
	)
	rapid.Check(t, func(rt *rapid.T) {
		q := &memory{}
		in, stop := start(t, Config{KeepRaw: KeepRaw(rapid.IntRange(0, 2).Draw(rt, "keep"))}, q)
		var want []string
		b := &source.Batch{Target: target}
		for range 20 {
			text := strings.Join(rapid.SliceOfN(piece, 0, 6).Draw(rt, "text"), "")
			text = strings.ReplaceAll(text, "\n", "")
			l := line(text)
			l.KeepRaw, l.Partial = true, rapid.Bool().Draw(rt, "partial")
			if rapid.Bool().Draw(rt, "given") {
				l.Metadata = json.RawMessage(`{"execId":"x"}`)
			}
			if !l.Partial {
				text += "\n"
			}
			want = append(want, text)
			b.Lines = append(b.Lines, l)
		}
		emit(t, in.Sink("s"), b)
		if err := stop(); err != nil {
			rt.Fatal(err)
		}
		lines, _ := q.all()
		for i := range lines {
			if err := telemetry.CheckObject(lines[i].Metadata, telemetry.MaxMetadata); err != nil {
				rt.Fatalf("metadata %v", err)
			}
			if got := rebuild(rt, &lines[i]); got != want[i] {
				rt.Fatalf("line %q came back as %q (%s)", want[i], got, lines[i].Metadata)
			}
		}
	})
}

func TestRawChoices(t *testing.T) {
	ansi, binary, plain := "\x1b[31mred\x1b[0m", "a\x00\xff", "plain"
	long := strings.Repeat("\x1b[31mx", maxRaw/6+10)
	for _, c := range []struct {
		keep KeepRaw
		text string
		ask  bool
		raw  bool
	}{
		{RawNever, ansi, false, false},
		{RawNever, binary, false, true},
		{RawNever, plain, false, false},
		{RawChanged, ansi, false, true},
		{RawChanged, binary, false, true},
		{RawChanged, plain, false, false},
		{RawAlways, ansi, false, true},
		{RawAlways, plain, false, true},
		{RawNever, ansi, true, true},
		{RawNever, plain, true, false},
		{RawNever, long, true, false},
		{RawAlways, long, false, false},
	} {
		q := &memory{}
		in, stop := start(t, Config{KeepRaw: c.keep}, q)
		b := batchOf(c.text)
		b.Lines[0].KeepRaw = c.ask
		emit(t, in.Sink("s"), b)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		lines, _ := q.all()
		if got := strings.Contains(string(lines[0].Metadata), `"raw"`); got != c.raw {
			t.Errorf("%.20q kept %d, asked %v: raw %v", c.text, c.keep, c.ask, got)
		}
		if c.ask && rebuild(t, &lines[0]) != c.text+"\n" {
			t.Errorf("%.20q: the bytes are lost", c.text)
		}
	}
	for s, want := range map[string]KeepRaw{"never": RawNever, "changed": RawChanged, "always": RawAlways} {
		if got, err := ParseKeepRaw(s); err != nil || got != want {
			t.Errorf("%s: %v %v", s, got, err)
		}
	}
	if _, err := ParseKeepRaw("perhaps"); err == nil {
		t.Error("any word is taken")
	}
}

// TestGivenMetadata goes with what a line says of itself.
func TestGivenMetadata(t *testing.T) {
	q := &memory{}
	in, stop := start(t, Config{}, q)
	b := batchOf("plain", `{"msg":"x","a":1}`, "again", strings.Repeat("x", 300000), "last")
	for i := range b.Lines {
		b.Lines[i].Metadata = json.RawMessage(`{"execId":"e1"}`)
	}
	b.Lines[2].Metadata = json.RawMessage(`not an object`)
	emit(t, in.Sink("s"), b)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	lines, _ := q.all()
	for i, want := range []string{`{"execId":"e1"}`, `{"a":1,"execId":"e1"}`, ``, `{"execId":"e1","originalBytes":300000}`, `{"execId":"e1"}`} {
		if string(lines[i].Metadata) != want {
			t.Errorf("line %d: metadata %s, want %s", i, lines[i].Metadata, want)
		}
	}
}
