package intake

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/theazo/observability/shared/telemetry"
)

// sample is one line of testdata/formats.jsonl. No level: it states none. No
// message: the line itself.
type sample struct {
	Format   string  `json:"format"`
	Line     string  `json:"line"`
	Level    string  `json:"level"`
	Message  *string `json:"message"`
	Metadata string  `json:"metadata"`
	Trace    string  `json:"trace"`
	Span     string  `json:"span"`
}

func samples(tb testing.TB, name string) (list []sample) {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		var c sample
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			tb.Fatalf("%s: %v", s.Bytes(), err)
		}
		list = append(list, c)
	}
	return list
}

// TestFormats holds the reading of lines against the corpus, and prints the
// figures by format.
func TestFormats(t *testing.T) {
	type figures struct{ lines, right, stated, wrong int }
	by, all, names := map[string]*figures{}, figures{}, []string{}
	var p parser
	for _, c := range samples(t, "testdata/formats.jsonl") {
		f := by[c.Format]
		if f == nil {
			f = &figures{}
			by[c.Format] = f
			names = append(names, c.Format)
		}
		message, e := parseLine(&p, c.Line)
		got := ""
		if !e.LevelInferred {
			got = e.Level.String()
			f.stated++
		}
		want := c.Line
		if c.Message != nil {
			want = *c.Message
		}
		f.lines++
		switch {
		case got != "" && got != c.Level:
			f.wrong++
			t.Errorf("%s: %s: level %s, want %q", c.Format, c.Line, got, c.Level)
		case got != c.Level:
			t.Errorf("%s: %s: no level, want %s", c.Format, c.Line, c.Level)
		case message != want || string(e.Metadata) != c.Metadata || string(e.Trace) != c.Trace || string(e.Span) != c.Span:
			t.Errorf("%s: %s:\n got %q %s %s %s\nwant %q %s %s %s", c.Format, c.Line, message, e.Metadata, e.Trace, e.Span, want, c.Metadata, c.Trace, c.Span)
		default:
			f.right++
		}
		if e.LevelInferred && e.Level != telemetry.Info {
			t.Errorf("%s: an inferred level is %s", c.Line, e.Level)
		}
	}
	slices.Sort(names)
	t.Logf("%-16s %5s %5s %6s %5s", "format", "lines", "right", "stated", "wrong")
	for _, name := range names {
		f := by[name]
		t.Logf("%-16s %5d %5d %6d %5d", name, f.lines, f.right, f.stated, f.wrong)
		all.lines, all.right, all.stated, all.wrong = all.lines+f.lines, all.right+f.right, all.stated+f.stated, all.wrong+f.wrong
	}
	t.Logf("FIGURE intake_level_precision %.1f %% (%d of %d stated levels), read right %d of %d lines",
		100*float64(all.stated-all.wrong)/float64(max(all.stated, 1)), all.stated-all.wrong, all.stated, all.right, all.lines)
}
