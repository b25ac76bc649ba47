package intake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// TestHostileRecords: whatever a source makes of labels and records, a receiver
// takes the frames (memory checks them as one).
func TestHostileRecords(t *testing.T) {
	q := &memory{}
	in, stop := start(t, Config{}, q)
	b := batchOf("line")
	b.Origin = telemetry.Origin{Agent: "no id!", Session: "\xff", User: "a\x00b", Sandbox: "../x", Provider: telemetry.Docker, Stream: 9}
	many := map[string]string{}
	for i := range 100 {
		many[fmt.Sprintf("key %d \xff", i)] = strings.Repeat("\x00", 2000)
	}
	code := 137
	long := strings.Repeat("é\x00\xff", 100<<10)
	deep := json.RawMessage(`{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`)
	object := json.RawMessage("{\"a\":\"\xff\\u0000\\ud800 x\",\n\"b\":1e400000}")
	good := json.RawMessage("\n{\"a\":\"\xff\\u0000\\ud800 \\ud83d\\ude00\",\r\n\"b\":[1,{}]} ")
	var huge bytes.Buffer
	for i := range 2000 {
		fmt.Fprintf(&huge, `%c"key %d":"%s"`, "{,"[min(i, 1)], i, strings.Repeat("v", 100))
	}
	huge.WriteByte('}')
	far := time.Date(300000, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 100 {
		b.Events = append(b.Events, telemetry.Event{
			Type: telemetry.SandboxExited, ExitCode: &code, Reason: strings.Repeat("é", 2000), Attributes: many, Timestamp: far, Content: good,
			LastWords: &telemetry.LastWords{Signal: long, Stdout: long, Stderr: "end\xff", Duration: -1, MemoryPeak: -1, StdoutOmitted: -5},
		})
	}
	b.Events = append(b.Events, telemetry.Event{Type: "not a type"})
	events, links := make([]telemetry.SpanEvent, 1000), make([]telemetry.SpanLink, 1000)
	for i := range events {
		events[i] = telemetry.SpanEvent{Name: long, Attributes: huge.Bytes()[:0:0]}
		links[i] = telemetry.SpanLink{Trace: "trc_1", Span: "spn_1", Attributes: good}
	}
	links[3].Trace = "no id!"
	for _, attributes := range []json.RawMessage{object, deep, huge.Bytes(), good, nil, []byte("[1]"), []byte("{}")} {
		b.Spans = append(b.Spans, telemetry.Span{
			Trace: "trc_1", ID: "spn_1", Parent: "bad!", Kind: 9, Status: 9, Name: long, Error: long, Scope: long, Origin: telemetry.Origin{Agent: "bad!", Source: 9, Provider: 9},
			Attributes: attributes, Resource: attributes, Events: events, Links: links,
		})
		b.ModelCalls = append(b.ModelCalls, telemetry.ModelCall{
			Model: long, Vendor: "\x00", Trace: "bad!", Span: "bad!", InputTokens: -1, Cost: &telemetry.Money{Currency: "EURO"}, Metadata: attributes,
		})
		b.Entries = append(b.Entries, telemetry.LogEntry{Timestamp: far, Level: 200, Message: long, Metadata: attributes, Trace: "bad!", Origin: telemetry.Origin{Stream: 7}})
	}
	b.Spans = append(b.Spans, telemetry.Span{Trace: "", ID: "x"})
	nan := math.NaN()
	b.Metrics = []telemetry.MetricPoint{
		{Name: long, Unit: long, Attributes: many},
		{Name: "bounds", Histogram: &telemetry.Histogram{Bounds: []float64{1, 2}, Counts: []uint64{1, 2, 3}}},
		{Name: "falling", Histogram: &telemetry.Histogram{Bounds: []float64{2, 1}, Counts: []uint64{1, 2, 3}}},
		{Name: "unequal", Histogram: &telemetry.Histogram{Bounds: []float64{2, 1}, Counts: []uint64{1}}},
		{Name: "smallest", Histogram: &telemetry.Histogram{Min: &nan}},
		{Name: "endless", Histogram: &telemetry.Histogram{Bounds: []float64{1, math.Inf(1)}, Counts: []uint64{1, 2, 3}}},
		{Name: "exponential", Histogram: &telemetry.Histogram{Exponential: &telemetry.Exponential{Positive: make([]uint64, 1000)}}},
		{Name: "nan", Value: nan},
		{Name: "kind", Kind: 77},
		{},
	}
	b.Gaps = []telemetry.Gap{{Reason: "no reason!", Count: -7, Bytes: -1, Detail: "a\x00\xff", Since: far}, {Reason: telemetry.GapRotated, Sandbox: "/", Count: 1}}
	emit(t, in.Sink("s"), b)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r := q.records()
	if len(r.Events) != 100 || len(r.Spans) != 7 || len(r.ModelCalls) != 7 || len(r.Metrics) != 2 || len(r.Gaps) != 2 {
		t.Fatalf("%d events, %d spans, %d model calls, %d points, %d gaps", len(r.Events), len(r.Spans), len(r.ModelCalls), len(r.Metrics), len(r.Gaps))
	}
	e := r.Events[0]
	if e.Source != telemetry.SourceProvider || e.Stream != telemetry.NoStream || e.Provider != telemetry.Docker || !strings.HasPrefix(string(e.Agent), "agt_") || *e.ExitCode != 137 {
		t.Errorf("event %+v", e)
	}
	if w := e.LastWords; len(w.Stdout) > telemetry.MaxTail || len(w.Stdout) < telemetry.MaxTail-4 || w.StdoutOmitted <= 0 || w.Stderr != "end\uFFFD" {
		t.Errorf("last words of %d and %q, %d omitted", len(w.Stdout), w.Stderr, w.StdoutOmitted)
	}
	if got := string(r.Spans[3].Attributes); got != `{"a":"`+"\uFFFD"+`\u2400\ufffd \ud83d\ude00","b":[1,{}]}` {
		t.Errorf("attributes %s", got)
	}
	if n := len(r.Spans[2].Attributes); n == 0 || n > telemetry.MaxSpanAttributes || r.Spans[0].Attributes != nil || r.Spans[6].Attributes != nil {
		t.Errorf("attributes of %d bytes", n)
	}
	lines, _ := q.all()
	if len(lines) != 8 || len(lines[1].Message) > telemetry.MaxMessage || !lines[1].Truncated {
		t.Errorf("%d lines", len(lines))
	}
	for _, a := range q.appends {
		for i, h := range a.headers {
			if i > 0 && h.Lane > a.headers[i-1].Lane && h.Org == a.headers[i-1].Org {
				t.Error("logs before events in one append")
			}
			if want := telemetry.Important; h.Lane == telemetry.LaneEvents && h.Class != want && (h.Class != telemetry.Normal || h.Count != 2) {
				t.Errorf("frame %v of class %s", &h, h.Class)
			}
		}
	}
}

// TestRecordFramesAreCutByBytes: the largest records of each kind stay far
// below what a receiver takes.
func TestRecordFramesAreCutByBytes(t *testing.T) {
	q := &memory{}
	in, stop := start(t, Config{}, q)
	tail := strings.Repeat("x", telemetry.MaxTail)
	attributes := json.RawMessage(`{"a":"` + strings.Repeat("y", telemetry.MaxSpanAttributes-20) + `"}`)
	b := &source.Batch{Target: target}
	for range 20 {
		b.Events = append(b.Events, telemetry.Event{Type: telemetry.SandboxExited, LastWords: &telemetry.LastWords{Stdout: tail, Stderr: tail}, Content: attributes})
		p := telemetry.Span{Trace: "trc_1", ID: "spn_1", Attributes: attributes, Resource: attributes}
		for range telemetry.MaxSpanEvents {
			p.Events = append(p.Events, telemetry.SpanEvent{Attributes: attributes})
		}
		b.Spans = append(b.Spans, p)
	}
	for i := range 5000 {
		b.Metrics = append(b.Metrics, telemetry.MetricPoint{Name: "m", Value: float64(i)})
	}
	emit(t, in.Sink("s"), b)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r := q.records()
	if len(r.Events) != 20 || len(r.Spans) != 20 || len(r.Metrics) != 5000 {
		t.Errorf("%d events, %d spans, %d points", len(r.Events), len(r.Spans), len(r.Metrics))
	}
	for i, m := range r.Metrics {
		if m.Value != float64(i) {
			t.Fatalf("point %d is at %d", int(m.Value), i)
		}
	}
	frames := 0
	for _, a := range q.appends {
		frames += len(a.headers)
		if average := a.bodyBytes / len(a.headers); average > frameBytes+maxSpan {
			t.Errorf("frames of %d bytes", average)
		}
	}
	if frames < 20 {
		t.Errorf("only %d frames", frames)
	}
	_ = frame.MaxBody // memory checks each frame against it
}

// TestRecordsOvertakeLinesThatWait holds the buffer full: records without lines
// are durable all the same, and their positions with them; what shares a
// position with waiting lines waits with them.
func TestRecordsOvertakeLinesThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &memory{full: true}
		in, stop := start(t, Config{}, q)
		sink := in.Sink("s")
		lines := batchOf(slices.Repeat([]string{strings.Repeat("x", 64<<10)}, heldBytes/(64<<10))...)
		lines.Positions = source.Positions{"log": []byte("1")}
		emit(t, sink, lines)
		synctest.Wait()
		event := func(key string) *source.Batch {
			return &source.Batch{
				Target: target, Positions: source.Positions{key: []byte("2")},
				Records: telemetry.Records{Events: []telemetry.Event{{Type: telemetry.SandboxStarted, Reason: key}}},
			}
		}
		for range 5 {
			emit(t, sink, event("life"))
			<-time.After(time.Second)
			synctest.Wait()
		}
		if r := q.records(); len(r.Events) != 5 || string(q.positions["s/life"]) != "2" {
			t.Errorf("%d events, positions %v", len(r.Events), q.positions)
		}
		ctx, cancel := timeout(t, time.Second)
		defer cancel()
		if sink.Emit(ctx, event("log")) == nil {
			t.Error("an event with the position of waiting lines found room before them")
		}
		q.mu.Lock()
		q.full = false
		q.mu.Unlock()
		emit(t, sink, event("life")) // wakes the queue, as a real one wakes itself
		emit(t, sink, event("log"))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if all, _ := q.all(); len(all) != heldBytes/(64<<10) || string(q.positions["s/log"]) != "2" || len(q.records().Events) != 7 {
			t.Errorf("%d lines, %d events, positions %v", len(all), len(q.records().Events), q.positions)
		}
	})
}

// TestPositionsNeverGoBack emits one key by lines, traces that are held, records
// and alone in turn, of a sandbox whose session changes: what is durable never
// falls behind what was durable.
func TestPositionsNeverGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &memory{}
		in, stop := start(t, Config{}, q)
		sink := in.Sink("s")
		for i := range 200 {
			b := batchOf("x")
			switch {
			case i%3 == 0:
				b.Lines = nil
				b.Events = []telemetry.Event{{Type: telemetry.SandboxStarted}}
			case i%7 == 0:
				b.Lines = nil
			case i%2 == 0:
				b.Lines[0].Text = []byte("panic: x")
			}
			b.Origin.Session = telemetry.SessionID(fmt.Sprintf("ses_%d", i/5%3))
			b.Positions = source.Positions{"k": []byte(fmt.Sprintf("%03d", i))}
			emit(t, sink, b)
			if i%5 == 0 {
				pause := 20 * time.Millisecond
				if i%30 == 5 { // behind a trace of another session
					pause = 2 * joinWait
				}
				<-time.After(pause)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		last := ""
		for _, a := range q.appends {
			if p := string(a.positions["s/k"]); p != "" {
				if p < last {
					t.Errorf("position %s after %s", p, last)
				}
				last = p
			}
		}
		if last != "199" {
			t.Errorf("the last position is %s", last)
		}
	})
}

// censor takes out every "secret-" word.
type censor struct{}

func (censor) Redact(dst, text []byte, hit func(string)) []byte {
	at := bytes.Index(text, []byte("secret-"))
	if at < 0 {
		return text
	}
	for at >= 0 {
		dst = append(dst, text[:at]...)
		dst = append(dst, "[redacted:word]"...)
		hit("word")
		text = bytes.TrimLeft(text[at+7:], "abcdefghijklmnopqrstuvwxyz")
		at = bytes.Index(text, []byte("secret-"))
	}
	return append(dst, text...)
}

// breaker takes out numbers, which breaks the form of an object, and what the
// key before it says is a secret.
type breaker struct{}

var broken = regexp.MustCompile(`4111111111111111|"password":"([^"]*)"|,"break":\{`)

func (breaker) Redact(dst, text []byte, hit func(string)) []byte {
	found := broken.FindAllSubmatchIndex(text, -1)
	if found == nil {
		return text
	}
	at := 0
	for _, f := range found {
		from, to := f[0], f[1]
		if f[2] >= 0 {
			from, to = f[2], f[3]
		}
		if string(text[from:to]) == "[x]" {
			continue
		}
		dst = append(append(dst, text[at:from]...), "[x]"...)
		hit("x")
		at = to
	}
	if at == 0 {
		return text
	}
	return append(dst, text[at:]...)
}

// TestRedactionOfForm: where taking something out breaks the object, the rest is
// still taken out, and what stays is an object, or nothing.
func TestRedactionOfForm(t *testing.T) {
	q := &memory{}
	in, stop := start(t, Config{Redactor: breaker{}}, q)
	emit(t, in.Sink("s"), batchOf(
		`{"msg":"a","card":4111111111111111,"password":"hunter2","n":1}`,
		`{"msg":"b","password":"hunter2"}`,
		`{"msg":"c","password":"hunter2","break":{"d":1}}`,
	))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	lines, _ := q.all()
	for i, want := range []string{
		`{"card":"[x]","password":"[x]","n":1,"redacted":{"x":2}}`,
		`{"password":"[x]","redacted":{"x":1}}`,
		`{"redacted":{"x":2}}`,
	} {
		if got := string(lines[i].Metadata); got != want {
			t.Errorf("metadata %s, want %s", got, want)
		}
	}
}

// TestRedaction plants a secret in every text of every record: it never reaches
// the queue, and the records say what was taken out.
func TestRedaction(t *testing.T) {
	const secret = "secret-xyzzy"
	q := &memory{}
	in, stop := start(t, Config{Redactor: censor{}}, q)
	object := json.RawMessage(`{"a":"x ` + secret + ` y","b":["\u0073ecret-xyzzy\n"],"n":1}`)
	b := &source.Batch{Target: target}
	b.Lines = []source.Line{line("plain " + secret), line("nothing here"), line(`{"event":"\u0073ecret-xyzzy"}`), line("\x1b[1msecret-\x1b[0mxyzzy")}
	b.Lines[3].KeepRaw = true
	b.Entries = []telemetry.LogEntry{{Message: secret, Metadata: object}}
	b.Events = []telemetry.Event{{
		Type: telemetry.AgentComplete, Reason: secret, Attributes: map[string]string{"command": "run " + secret}, Content: object,
		LastWords: &telemetry.LastWords{Stdout: "a " + secret, Stderr: secret},
	}}
	b.Spans = []telemetry.Span{{
		Trace: "trc_1", ID: "spn_1", Name: secret, Error: secret, Scope: secret, Attributes: object, Resource: object,
		Events: []telemetry.SpanEvent{{Name: secret, Attributes: object}}, Links: []telemetry.SpanLink{{Trace: "trc_1", Span: "spn_1", Attributes: object}},
	}}
	b.ModelCalls = []telemetry.ModelCall{{Model: secret, Vendor: secret, Metadata: object}}
	b.Metrics = []telemetry.MetricPoint{{Name: "m", Unit: secret, Attributes: map[string]string{secret: secret}}}
	b.Gaps = []telemetry.Gap{{Reason: telemetry.GapRotated, Detail: secret}}
	emit(t, in.Sink("s"), b)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	lines, _ := q.all()
	r := q.records()
	for _, part := range []any{r.Events, r.Spans, r.ModelCalls, r.Metrics, r.Gaps} {
		text, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "xyzzy") {
			t.Errorf("a secret came through: %s", text)
		}
		if !strings.Contains(string(text), "[redacted:word]") {
			t.Errorf("nothing was redacted: %s", text)
		}
	}
	if all := fmt.Sprintf("%+v", lines); strings.Contains(all, "xyzzy") || strings.Contains(all, "0073") || strings.Contains(all, `"raw"`) || len(lines) != 5 {
		t.Errorf("a secret came through: %s", all)
	}
	if got := string(lines[4].Metadata); got != `{"a":"x [redacted:word] y","b":["[redacted:word]\n"],"n":1,"redacted":{"word":3}}` {
		t.Errorf("metadata %s", got)
	}
	if got := r.Events[0].Attributes["redacted"]; got != `{"word":6}` {
		t.Errorf("event's note %s", got)
	}
	if !strings.HasSuffix(string(r.Spans[0].Attributes), `"redacted":{"word":12}}`) {
		t.Errorf("span's note %s", r.Spans[0].Attributes)
	}
	if string(lines[0].Metadata) != `{"redacted":{"word":1}}` || lines[0].Message != "plain [redacted:word]" || lines[1].Metadata != nil {
		t.Errorf("line %+v", lines[0])
	}
}
