package intake

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

func parseLine(p *parser, text string) (string, telemetry.LogEntry) {
	var e telemetry.LogEntry
	var done marks
	message, _ := p.line(&source.Line{Timestamp: noon, Text: []byte(text)}, &e, &done)
	return string(message), e
}

func TestLevels(t *testing.T) {
	const inferred = "inferred"
	var p parser
	for _, c := range []struct{ text, want string }{
		{"hello world", inferred},
		{"", inferred},
		{"an ERROR in line one", inferred},
		{"the log level is an ERROR", inferred},
		{"Some errors are fine", inferred},
		{"error rates look good", inferred},
		{"ERROR: cannot connect", "error"},
		{"error: cannot connect", "error"},
		{"Warning: deprecated", "warn"},
		{"warning deprecated", inferred},
		{"[warn] disk", "warn"},
		{"<debug> x", "debug"},
		{"[2026-11-22 07:00:00] [ERROR] x", "error"},
		{"2026-11-22 07:00:00,123 ERROR app: x", "error"},
		{"2026-11-22 07:00:00,123 - app.module - WARNING - x", "warn"},
		{"2026-11-22T07:00:00.123Z\tDEBUG\tapp/main.go:12\tx", "debug"},
		{"2026-11-22T07:00:00.000Z [INFO]  agentd: x", "info"},
		{"2026-11-22 07:00:00.123  WARN 1 --- [main] c.e.Demo : x", "warn"},
		{"[2026-11-22T07:00:00Z INFO  app] x", "info"},
		{"INFO:root:x", "info"},
		{"CRITICAL:root:x", "error"},
		{"FATAL boom", "error"},
		{"TRACE in", "debug"},
		{"12:00:00 ERR x", "error"},
		{"\x1b[31mERROR\x1b[0m x", "error"},
		{"\x1b[2m2026-11-22T07:00:00Z\x1b[0m \x1b[33mWARN\x1b[0m x", "warn"},
		{"E1122 07:00:00.123456       1 main.go:1] x", "error"},
		{"W1122 07:00:00.123456       1 main.go:1] x", "warn"},
		{"EXXXX 07:00:00", inferred},
		{`time="2026-11-22" level=warning msg="x"`, "warn"},
		{"ts=1 lvl=eror msg=x", "error"},
		{`level="debug" msg="an ERROR"`, "debug"},
		{"log_level=debug starting", inferred},
		{"level=unknown", inferred},
		{`{"level":"error","x":1}`, "error"},
		{`{"severity":"WARNING","message":"x"}`, "warn"},
		{`{"level":50,"msg":"x"}`, "error"},
		{`{"level":20,"msg":"x"}`, "debug"},
		{`{"level":3,"msg":"x"}`, inferred},
		{`{"level":null,"msg":"ERROR"}`, inferred},
		{`{"@level":"info","@message":"x"}`, "info"},
		{`{"level":"error"`, inferred},
	} {
		_, e := parseLine(&p, c.text)
		got := e.Level.String()
		if e.LevelInferred {
			got = inferred
			if e.Level != telemetry.Info {
				t.Errorf("%q: an inferred level is %s", c.text, e.Level)
			}
		}
		if got != c.want {
			t.Errorf("%q: level %s, want %s", c.text, got, c.want)
		}
	}
}

func TestObjects(t *testing.T) {
	const hex32, hex16 = "0AF7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	var p parser
	for _, c := range []struct{ text, message, metadata, trace, span string }{
		{text: `{"msg":"hi","level":"info"}`, message: "hi"},
		{text: `{"msg":"hi","a":1, "b" : {"c":[1,2]} }`, message: "hi", metadata: `{"a":1,"b":{"c":[1,2]}}`},
		{text: `{"message":"a\n\"b\" \u00e9 \ud83d\ude00 \ud800 \u0000","x":null}`, message: "a\n\"b\" é 😀 \uFFFD \u2400", metadata: `{"x":null}`},
		{text: `{"msg":"x","trace_id":"` + hex32 + `","spanId":"` + hex16 + `"}`, message: "x", trace: "trc_" + strings.ToLower(hex32), span: "spn_" + hex16},
		{text: `{"msg":"x","traceId":"trc_1","span_id":7}`, message: "x", metadata: `{"span_id":7}`, trace: "trc_1"},
		{text: `{"msg":"x","trace_id":"` + strings.Repeat("0", 32) + `"}`, message: "x", metadata: `{"trace_id":"` + strings.Repeat("0", 32) + `"}`},
		{text: `{"msg":7,"message":"text"}`, message: "text", metadata: `{"msg":7}`},
		{text: `{"event":"x"}`, message: `{"event":"x"}`},
		{text: `{"msg":"x"} trailing`, message: `{"msg":"x"} trailing`},
		{text: `{"msg":"x","a":01}`, message: `{"msg":"x","a":01}`},
		{text: `{"msg":"x","esc":"\u0000\\u0000"}`, message: "x", metadata: `{"esc":"\u2400\\u0000"}`},
		{text: "{\"msg\":\"x\",\"a\":[1,\r2]}", message: "x", metadata: `{"a":[1, 2]}`},
		{text: `{"msg":"x","a":` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1) + `}`, message: "x", metadata: `{"a":` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1) + `}`},
		{text: `{"msg":"x","a":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + `}`, message: `{"msg":"x","a":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + `}`},
	} {
		message, e := parseLine(&p, c.text)
		if message != c.message || string(e.Metadata) != c.metadata || string(e.Trace) != c.trace || string(e.Span) != c.span {
			t.Errorf("%s:\n got %q %s %s %s\nwant %q %s %s %s", c.text, message, e.Metadata, e.Trace, e.Span, c.message, c.metadata, c.trace, c.span)
		}
	}
	long := `{"msg":"x","a":"` + strings.Repeat("y", telemetry.MaxMetadata) + `"}`
	if message, e := parseLine(&p, long); message != long || e.Metadata != nil {
		t.Error("metadata over the limit was taken apart")
	}
}

func TestCleaning(t *testing.T) {
	var p parser
	for in, want := range map[string]string{
		"a\x00b":             "a\u2400b",
		"a\xff\xfe\xfdb":     "a\uFFFDb",
		"\xffa\xff":          "\uFFFDa\uFFFD",
		"caf\xc3\xa9 \xc3":   "café \uFFFD",
		"\xed\xa0\x80":       "\uFFFD",
		"real \uFFFD stays":  "real \uFFFD stays",
		"tabs\tand\x1b[0mok": "tabs\tandok",
	} {
		if got, _ := parseLine(&p, in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{strings.Repeat("x", telemetry.MaxMessage+1), strings.Repeat("é", telemetry.MaxMessage), strings.Repeat("\x00", telemetry.MaxMessage)} {
		got, e := parseLine(&p, in)
		if len(got) > telemetry.MaxMessage || len(got) < telemetry.MaxMessage-4 || !e.Truncated || !utf8.ValidString(got) {
			t.Errorf("a line of %d bytes: %d are kept, truncated %v", len(in), len(got), e.Truncated)
		}
	}
}

func TestUntimedLineGetsATime(t *testing.T) {
	var p parser
	var e telemetry.LogEntry
	var done marks
	p.line(&source.Line{Text: []byte("x")}, &e, &done)
	if time.Since(e.Timestamp) > time.Hour || done[markUntimed] != 1 {
		t.Errorf("timestamp %v", e.Timestamp)
	}
}

// FuzzLine feeds lines of any bytes: what comes out is within its limits, is
// UTF-8 without NUL, and agrees with encoding/json on what JSON is.
func FuzzLine(f *testing.F) {
	for _, s := range []string{
		`{"msg":"hi","level":"info","a":[1,2.5e3,{"b":"\u00e9\ud83d\ude00"}]}`, `{"level":"x\u0000","a":"\\u0000"}`, `{"":""}`, "{}", `{"msg":"`,
		"2026-11-22 07:00:00,123 - app - ERROR - x", "level=warn x", "E1122 07:00:00.1", "\x1b[31", "a\x00\xff", "{\"msg\":\"x\"\r,\n\"a\":1}",
	} {
		f.Add([]byte(s))
	}
	p, strips := parser{keepANSI: true}, parser{}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		if message, _ := parseLine(&strips, string(text)); strings.Contains(message, "\x1b[") && !looksLikeObject(text) && !beginsWithPair(text) {
			t.Fatalf("%q: an escape sequence is left in %q", text, message)
		}
		var e telemetry.LogEntry
		var done marks
		message, _ := p.line(&source.Line{Timestamp: noon, Text: text}, &e, &done)
		if !bytes.Equal(before, text) {
			t.Fatal("the source's bytes were changed")
		}
		if len(message) > telemetry.MaxMessage || len(e.Metadata) > telemetry.MaxMetadata {
			t.Fatalf("message of %d, metadata of %d bytes", len(message), len(e.Metadata))
		}
		if !utf8.Valid(message) || bytes.IndexByte(message, 0) >= 0 || !utf8.Valid(e.Metadata) || bytes.ContainsAny(e.Metadata, "\x00\r\n") {
			t.Fatalf("not clean: %q %q", message, e.Metadata)
		}
		if len(e.Metadata) > 0 && (!json.Valid(e.Metadata) || e.Metadata[0] != '{' || len(e.Metadata) == 2) {
			t.Fatalf("metadata %q", e.Metadata)
		}
		checkAgainstJSON(t, before, message, &e)
	})
}

var hugeExponent = regexp.MustCompile(`[eE][+-]?\d{4}`)

// checkAgainstJSON holds the scanner and what was lifted against encoding/json.
func checkAgainstJSON(t *testing.T, text, message []byte, e *telemetry.LogEntry) {
	t.Helper()
	if !isClean(text) || !looksLikeObject(text) {
		return
	}
	s := jsonScanner{b: text}
	got, want := s.object(), json.Valid(text)
	if got && !want {
		t.Fatalf("%q is taken for JSON", text)
	}
	if want && !got && !hugeExponent.Match(text) && len(s.members) < maxMembers && bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) <= maxDepth {
		t.Fatalf("%q is not taken for JSON", text)
	}
	if bytes.Equal(message, text) || !got {
		return
	}
	for i := range s.members {
		var key, value string
		m := &s.members[i]
		if json.Unmarshal(text[m.key:m.keyEnd], &key) != nil || !isMessageKey([]byte(key)) || json.Unmarshal(text[m.value:m.valueEnd], &value) != nil {
			continue
		}
		if strings.ReplaceAll(value, "\x00", picturedNUL) == string(message) {
			return
		}
	}
	t.Fatalf("%q: message %q is none of its texts (%v)", text, message, e)
}
