package otlp

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

func bytesReader(s string) io.Reader { return strings.NewReader(s) }

// compare is how results are held against each other: all of them.
var compare = cmp.Options{cmp.AllowUnexported(Result{}), cmpopts.EquateEmpty()}

// decoded reads a request that is given in JSON in both encodings, and checks
// that they say the same, and what every result promises.
func decoded(t *testing.T, s Signal, body string, o Options) *Result {
	t.Helper()
	got, err := Decode(s, JSON, []byte(body), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	other, err := Decode(s, Protobuf, inProtobuf(t, s, body), o)
	if err != nil {
		t.Fatal(err)
	}
	if reflect.DeepEqual(got, other) { // much faster than cmp
		check(t, got)
		return got
	}
	if d := cmp.Diff(got, other, compare); d != "" {
		t.Errorf("JSON and protobuf differ (-json +protobuf):\n%s", d)
	}
	check(t, got)
	return got
}

// check holds a result against the package's promises.
func check(t testing.TB, r *Result) {
	t.Helper()
	if r.Records() > MaxRecords*(maxQuantiles+2) {
		t.Errorf("%d records", r.Records())
	}
	// The next reader refuses what is not within its limits.
	if n := len(r.Spans) + len(r.Metrics); n > 0 && n < 1000 {
		b, err := wire.EncodeRecords(&telemetry.Records{Spans: r.Spans, Metrics: r.Metrics})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := wire.DecodeRecords(b); err != nil {
			t.Errorf("the wire refuses them: %v", err)
		}
	}
	object := func(what string, b json.RawMessage, most int) {
		var m map[string]any
		if len(b) == 0 {
			return
		}
		if err := telemetry.CheckObject(b, most); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if len(b) > most || !utf8.Valid(b) || strings.ContainsAny(string(b), "\n\r\x00") || strings.Contains(string(b), `\u0000`) || json.Unmarshal(b, &m) != nil || len(m) == 0 {
			t.Errorf("%s is no storable object of at most %d bytes: %.200q", what, most, b)
		}
	}
	text := func(what, s string, most int) {
		if len(s) > most || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			t.Errorf("%s is no storable text of at most %d bytes: %.200q", what, most, s)
		}
	}
	for i := range r.Entries {
		e := &r.Entries[i]
		text("message", e.Message, telemetry.MaxMessage)
		object("metadata", e.Metadata, telemetry.MaxMetadata)
		if e.Timestamp.Year() < 2000 || e.Timestamp.Year() > 2200 {
			t.Errorf("time %s", e.Timestamp)
		}
	}
	for i := range r.Spans {
		s := &r.Spans[i]
		text("name", s.Name, telemetry.MaxSpanName)
		text("error", s.Error, maxStatus)
		object("attributes", s.Attributes, telemetry.MaxSpanAttributes)
		object("resource", s.Resource, MaxResource)
		if len(s.Events) > telemetry.MaxSpanEvents || len(s.Links) > telemetry.MaxSpanLinks || !s.End.IsZero() && s.End.Before(s.Start) {
			t.Errorf("span %+v", s)
		}
		for _, e := range s.Events {
			text("event", e.Name, maxWord)
			object("attributes of an event", e.Attributes, telemetry.MaxSpanAttributes)
			if e.Timestamp.IsZero() {
				t.Error("an event without a time")
			}
		}
		for _, l := range s.Links {
			object("attributes of a link", l.Attributes, telemetry.MaxSpanAttributes)
		}
	}
	for i := range r.Metrics {
		m := &r.Metrics[i]
		text("name", m.Name, telemetry.MaxMetricName)
		if m.Name == "" || !finite(m.Value) || len(m.Attributes) > telemetry.MaxMetricAttributes {
			t.Errorf("point %+v", m)
		}
		for k, v := range m.Attributes {
			text("attribute", k, maxMetricKey)
			text("attribute", v, maxMetricValue)
		}
		if _, err := json.Marshal(m); err != nil {
			t.Errorf("point %+v: %v", m, err)
		}
		if h := m.Histogram; h != nil && (len(h.Counts) > telemetry.MaxMetricBuckets || h.Exponential != nil && max(len(h.Exponential.Positive), len(h.Exponential.Negative)) > telemetry.MaxMetricBuckets) {
			t.Error("too many buckets")
		}
	}
}

// inLogs, inSpans and inMetrics wrap records into a request.
func inLogs(resource string, records ...string) string {
	return fmt.Sprintf(`{"resourceLogs":[{"resource":{"attributes":[%s]},"scopeLogs":[{"scope":{"name":"app.module"},"logRecords":[%s]}]}]}`, resource, strings.Join(records, ","))
}

func inSpans(resource string, spans ...string) string {
	return fmt.Sprintf(`{"resourceSpans":[{"scopeSpans":[{"spans":[%s],"scope":{"name":"openai","version":"2.1"}}],"resource":{"attributes":[%s]}}]}`, strings.Join(spans, ","), resource)
}

func inMetrics(metrics ...string) string {
	return fmt.Sprintf(`{"resourceMetrics":[{"resource":{"attributes":[%s]},"scopeMetrics":[{"metrics":[%s]}]}]}`, attr("service.name", "coder"), strings.Join(metrics, ","))
}

func attr(key, value string) string {
	return fmt.Sprintf(`{"key":%q,"value":{"stringValue":%q}}`, key, value)
}

const (
	trace    = `"traceId":"0123456789abcdef0123456789abcdef"`
	spanIDs  = trace + `,"spanId":"00f067aa0ba902b7"`
	spanTime = `"startTimeUnixNano":"1763805600000000000","endTimeUnixNano":"1763805601500000999"`
	atTen    = `"timeUnixNano":"1763805600123456789"`
)

func TestLogRecordsBecomeEntries(t *testing.T) {
	r := decoded(t, Logs, inLogs(attr("service.name", "coder")+","+attr("theazo.agent.id", "agt_one"),
		`{`+atTen+`,"severityNumber":17,"severityText":"CRITICAL","body":{"stringValue":"it \"broke\"\nhere"},`+spanIDs+`,
		  "attributes":[`+attr("code.function", "main")+`,{"key":"n","value":{"intValue":"9007199254740993"}},{"key":"x","value":{"doubleValue":0.5}},{"key":"ok","value":{"boolValue":true}},
		  {"key":"list","value":{"arrayValue":{"values":[{"stringValue":"a"},{"kvlistValue":{"values":[{"key":"b","value":{"bytesValue":"AP8="}}]}},{}]}}}],"droppedAttributesCount":2}`,
		`{"observedTimeUnixNano":1763805600000000000,"severityNumber":5,"severityText":"debug","body":{"kvlistValue":{"values":[{"key":"a","value":{"intValue":1}},{"key":"b","value":{"arrayValue":{}}}]}},"eventName":"agent.step"}`,
		`{"severityText":"WARNING","body":{"stringValue":"careful"}}`,
		`{"body":{"stringValue":"who knows"},"traceId":"00","spanId":"0000000000000000"}`,
	), options())
	want := []string{
		`{"timestamp":"2025-11-22T10:00:00.123Z","level":"error","agentId":"agt_one","sessionId":"ses_one","userId":"u1","provider":"docker","sandboxId":"4f5e","source":"agent",` +
			`"message":"it \"broke\"\nhere","metadata":{"code.function":"main","n":9007199254740993,"x":0.5,"ok":true,"list":["a",{"b":"AP8="},null],` +
			`"severity_text":"CRITICAL","otel.scope.name":"app.module","service.name":"coder","otel.dropped_attributes_count":2},` +
			`"traceId":"trc_0123456789abcdef0123456789abcdef","spanId":"spn_00f067aa0ba902b7"}`,
		`{"timestamp":"2025-11-22T10:00:00.000Z","level":"debug","agentId":"agt_one","sessionId":"ses_one","userId":"u1","provider":"docker","sandboxId":"4f5e","source":"agent",` +
			`"message":"{\"a\":1,\"b\":[]}","metadata":{"event.name":"agent.step","otel.scope.name":"app.module","service.name":"coder"}}`,
		`{"timestamp":"2026-11-22T10:00:00.000Z","level":"warn","agentId":"agt_one","sessionId":"ses_one","userId":"u1","provider":"docker","sandboxId":"4f5e","source":"agent",` +
			`"message":"careful","metadata":{"severity_text":"WARNING","otel.scope.name":"app.module","service.name":"coder"}}`,
		`{"timestamp":"2026-11-22T10:00:00.000Z","level":"info","agentId":"agt_one","sessionId":"ses_one","userId":"u1","provider":"docker","sandboxId":"4f5e","source":"agent",` +
			`"message":"who knows","metadata":{"otel.scope.name":"app.module","service.name":"coder"},"levelInferred":true}`,
	}
	for i, w := range want {
		if got := string(r.Entries[i].AppendJSON(nil)); got != w {
			t.Errorf("entry %d\n got %s\nwant %s", i, got, w)
		}
	}
	if us := r.Entries[0].Timestamp.Nanosecond(); us != 123456000 {
		t.Errorf("%d ns: not microseconds", us)
	}
	if d := cmp.Diff(map[Reason]int{BadID: 2}, r.Dropped); d != "" || len(r.Refused) != 0 {
		t.Errorf("dropped %s, refused %v", d, r.Refused)
	}
}

func TestSeverityIsMappedAsDocumented(t *testing.T) {
	for n := range 30 {
		want, inferred := telemetry.Info, true
		switch {
		case n >= 1 && n <= 8:
			want, inferred = telemetry.Debug, false
		case n >= 9 && n <= 12:
			inferred = false
		case n >= 13 && n <= 16:
			want, inferred = telemetry.Warn, false
		case n >= 17 && n <= 24:
			want, inferred = telemetry.Error, false
		}
		e := decoded(t, Logs, inLogs("", fmt.Sprintf(`{"severityNumber":%d,"body":{"stringValue":"error!"}}`, n)), options()).Entries[0]
		if e.Level != want || e.LevelInferred != inferred {
			t.Errorf("severity %d is %s (inferred: %t), want %s (%t)", n, e.Level, e.LevelInferred, want, inferred)
		}
	}
}

func TestSpansKeepWhatTheirEmitterSaid(t *testing.T) {
	r := decoded(t, Traces, inSpans(attr("service.name", "coder")+`,{"key":"process.pid","value":{"intValue":"7"}}`,
		`{`+spanIDs+`,"parentSpanId":"00f067aa0ba902b6","name":"chat gpt-5","kind":3,`+spanTime+`,"status":{"code":2,"message":"rate limited"},
		  "attributes":[`+attr("gen_ai.operation.name", "chat")+`,{"key":"gen_ai.usage.input_tokens","value":{"intValue":1200}},{"key":"gen_ai.response.finish_reasons","value":{"arrayValue":{"values":[{"stringValue":"stop"}]}}}],
		  "events":[{"name":"exception","timeUnixNano":1763805601000000000,"attributes":[`+attr("exception.type", "RateLimit")+`]},{"name":"untimed"}],
		  "links":[{`+spanIDs+`,"attributes":[`+attr("a", "b")+`]},{"traceId":"","spanId":""}],"droppedEventsCount":4}`,
		`{`+trace+`,"spanId":"00f067aa0ba902b8","parentSpanId":"0000000000000000","name":"still runs","kind":"2","startTimeUnixNano":"1763805600000000000"}`,
		`{`+trace+`,"spanId":"00f067aa0ba902b9","name":"backwards","startTimeUnixNano":"1763805600000000000","endTimeUnixNano":"1763805500000000000"}`,
		`{`+trace+`,"spanId":"00f067aa0ba902ba","name":"no start","endTimeUnixNano":"1763805600000000000"}`,
		`{`+trace+`,"name":"no id"}`,
		`{"traceId":"00000000000000000000000000000000","spanId":"00f067aa0ba902b8","name":"no trace"}`,
	), options())
	start := received.AddDate(-1, 0, 0)
	resource := json.RawMessage(`{"service.name":"coder","process.pid":7,"otel.scope.version":"2.1"}`)
	const id = telemetry.TraceID("trc_0123456789abcdef0123456789abcdef")
	want := []telemetry.Span{
		{
			Trace: id, ID: "spn_00f067aa0ba902b7", Parent: "spn_00f067aa0ba902b6", Name: "chat gpt-5", Kind: telemetry.SpanClient,
			Start: start, End: start.Add(1500 * time.Millisecond), Status: telemetry.SpanError, Error: "rate limited",
			Attributes: json.RawMessage(`{"gen_ai.operation.name":"chat","gen_ai.usage.input_tokens":1200,"gen_ai.response.finish_reasons":["stop"],"otel.dropped_events_count":4,"otel.dropped_links_count":1}`),
			Events: []telemetry.SpanEvent{
				{Name: "exception", Timestamp: start.Add(time.Second), Attributes: json.RawMessage(`{"exception.type":"RateLimit"}`)},
				{Name: "untimed", Timestamp: start},
			},
			Links: []telemetry.SpanLink{{Trace: id, Span: "spn_00f067aa0ba902b7", Attributes: json.RawMessage(`{"a":"b"}`)}},
		},
		{Trace: id, ID: "spn_00f067aa0ba902b8", Name: "still runs", Kind: telemetry.SpanServer, Start: start},
		{Trace: id, ID: "spn_00f067aa0ba902b9", Name: "backwards", Start: start, End: start},
		{Trace: id, ID: "spn_00f067aa0ba902ba", Name: "no start", Start: start, End: start},
	}
	for i := range want {
		want[i].Origin, want[i].Scope, want[i].Resource = origin, "openai", resource
	}
	if d := cmp.Diff(want, r.Spans); d != "" {
		t.Errorf("spans (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[Reason]int{NoID: 2}, r.Refused); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[Reason]int{BadTime: 2, SpanLinks: 1}, r.Dropped); d != "" {
		t.Error(d)
	}
	if got, want := string(r.Response(JSON)), `{"partialSuccess":{"rejectedSpans":"2","errorMessage":"2 spans were refused: 2 have no trace id or no span id"}}`; got != want {
		t.Errorf("answer %s\nwant %s", got, want)
	}
}

func TestScopesOfOneResourceKeepTheirOwnVersions(t *testing.T) {
	many := make([]string, 30)
	for i := range many {
		many[i] = attr(fmt.Sprintf("a%02d", i), "x")
	}
	body := fmt.Sprintf(`{"resourceSpans":[{"resource":{"attributes":[%s]},"scopeSpans":[
	  {"scope":{"name":"one","version":"1"},"spans":[{%s,"name":"a"}]},{"scope":{"name":"two","version":"2"},"spans":[{%s,"name":"b"}]},{"spans":[{%s,"name":"c"}]}]}]}`, strings.Join(many, ","), spanIDs, spanIDs, spanIDs)
	r := decoded(t, Traces, body, options())
	for i, want := range []string{`"otel.scope.version":"1"}`, `"otel.scope.version":"2"}`, `"a29":"x"}`} {
		if got := string(r.Spans[i].Resource); !strings.HasSuffix(got, want) {
			t.Errorf("resource of %s: %s", r.Spans[i].Scope, got)
		}
	}
}

func TestMetricsBecomePoints(t *testing.T) {
	point := `"startTimeUnixNano":"1763805500000000000",` + atTen
	model := `"attributes":[` + attr("model", "gpt-5") + `]`
	r := decoded(t, Metrics, inMetrics(
		`{"name":"queue.depth","unit":"{item}","gauge":{"dataPoints":[{`+atTen+`,"asInt":"-3",`+model+`},{`+atTen+`,"asDouble":"NaN"},{`+atTen+`},{`+atTen+`,"asInt":0,"flags":1}]}}`,
		`{"name":"calls","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{`+point+`,"asInt":5}]}}`,
		`{"name":"calls","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{`+point+`,"asDouble":5.5}]}}`,
		`{"name":"open","sum":{"dataPoints":[{`+point+`,"asInt":2}],"aggregationTemporality":"2"}}`,
		`{"name":"none","sum":{"dataPoints":[{`+point+`,"asInt":2}]}}`,
		`{"name":"latency","unit":"s","histogram":{"aggregationTemporality":1,"dataPoints":[{`+point+`,"count":6,"sum":3.5,"min":0.1,"max":2,"bucketCounts":["1","2",3],"explicitBounds":[0.5,1]},{`+point+`,"count":6,"bucketCounts":[1],"explicitBounds":[]},{`+point+`,"count":2,"sum":1}]}}`,
		`{"name":"exp","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{`+point+`,"count":"6","sum":3.5,"scale":-2,"zeroCount":1,"zeroThreshold":0.25,"positive":{"offset":-3,"bucketCounts":[1,"2"]},"negative":{"bucketCounts":[2]}}]}}`,
		`{"name":"gc","unit":"s","summary":{"dataPoints":[{`+point+`,"count":4,"sum":2,"quantileValues":[{"quantile":0.5,"value":0.4},{"quantile":0.99,"value":"NaN"},{"quantile":7,"value":1}]}]}}`,
		`{"name":"","gauge":{"dataPoints":[{"asInt":1}]}}`,
		`{"name":"nothing"}`,
	), options())
	at, start := received.AddDate(-1, 0, 0).Add(123456*time.Microsecond), received.AddDate(-1, 0, 0).Add(-100*time.Second)
	service := map[string]string{"service.name": "coder"}
	lowest, highest := 0.1, 2.0
	want := []telemetry.MetricPoint{
		{Name: "queue.depth", Unit: "{item}", Kind: telemetry.Gauge, Value: -3, Attributes: map[string]string{"model": "gpt-5", "service.name": "coder"}},
		{Name: "calls", Kind: telemetry.Delta, Start: start, Value: 5},
		{Name: "calls", Kind: telemetry.Cumulative, Start: start, Value: 5.5},
		{Name: "open", Kind: telemetry.Gauge, Start: start, Value: 2},
		{Name: "latency", Unit: "s", Kind: telemetry.Distribution, Start: start, Value: 3.5, Histogram: &telemetry.Histogram{Count: 6, Min: &lowest, Max: &highest, Bounds: []float64{0.5, 1}, Counts: []uint64{1, 2, 3}}},
		{Name: "latency", Unit: "s", Kind: telemetry.Distribution, Start: start, Value: 1, Histogram: &telemetry.Histogram{Count: 2}},
		{Name: "exp", Kind: telemetry.CumulativeDistribution, Start: start, Value: 3.5, Histogram: &telemetry.Histogram{
			Count: 6, Exponential: &telemetry.Exponential{Scale: -2, ZeroCount: 1, ZeroThreshold: 0.25, PositiveOffset: -3, Positive: []uint64{1, 2}, Negative: []uint64{2}},
		}},
		{Name: "gc.count", Unit: "1", Kind: telemetry.Cumulative, Start: start, Value: 4},
		{Name: "gc.sum", Unit: "s", Kind: telemetry.Cumulative, Start: start, Value: 2},
		{Name: "gc", Unit: "s", Kind: telemetry.Gauge, Start: start, Value: 0.4, Attributes: map[string]string{"quantile": "0.5", "service.name": "coder"}},
	}
	for i := range want {
		want[i].Timestamp, want[i].Origin = at, origin
		if want[i].Attributes == nil {
			want[i].Attributes = service
		}
	}
	if d := cmp.Diff(want, r.Metrics); d != "" {
		t.Errorf("points (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[Reason]int{NotFinite: 1, NoData: 2, NoTemporality: 1, BadBuckets: 1, NoName: 1}, r.Refused); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[Reason]int{NoRecorded: 1, Quantiles: 2}, r.Dropped); d != "" {
		t.Error(d)
	}
}

func TestExponentialBucketsAreMergedToFewer(t *testing.T) {
	counts := make([]string, 1500)
	for i := range counts {
		counts[i] = strconv.Itoa(i % 3)
	}
	body := inMetrics(fmt.Sprintf(`{"name":"exp","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{%s,"count":1500,"scale":3,"positive":{"offset":-701,"bucketCounts":[%s]}}]}}`, atTen, strings.Join(counts, ",")))
	m := decoded(t, Metrics, body, options()).Metrics[0]
	e := m.Histogram.Exponential
	total := uint64(0)
	for _, c := range e.Positive {
		total += c
	}
	if e.Scale != 1 || len(e.Positive) > telemetry.MaxMetricBuckets || total != 1500 || e.PositiveOffset != -176 { // floor(-701/4)
		t.Errorf("scale %d, %d buckets from %d, %d values", e.Scale, len(e.Positive), e.PositiveOffset, total)
	}
	if e.Positive[0] != 0 || e.Positive[1] != 1+2+0+1 { // of bucket -701 alone, then of -700 to -697
		t.Errorf("first buckets %v", e.Positive[:2])
	}
}

func TestTheBindingDecidesWhoseRecordsTheyAre(t *testing.T) {
	foreign := attr("theazo.agent.id", "agt_other")
	for s, c := range map[Signal]struct{ body, answer string }{
		Logs:   {inLogs(foreign, `{}`, `{}`), `{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"2 log records were refused: 2 are of a resource that claims to be agent \"agt_other\""}}`},
		Traces: {inSpans(foreign, `{`+spanIDs+`}`), `{"partialSuccess":{"rejectedSpans":"1","errorMessage":"1 spans were refused: 1 are of a resource that claims to be agent \"agt_other\""}}`},
		Metrics: {
			strings.Replace(inMetrics(`{"name":"a","gauge":{"dataPoints":[{"asInt":1},{"asInt":2}]}}`, `{"name":"b"}`), attr("service.name", "coder"), foreign, 1),
			`{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"3 data points were refused: 3 are of a resource that claims to be agent \"agt_other\""}}`,
		},
	} {
		r := decoded(t, s, c.body, options())
		if r.Records() != 0 || string(r.Response(JSON)) != c.answer {
			t.Errorf("%s: %d records taken, answer %s\nwant %s", s, r.Records(), r.Response(JSON), c.answer)
		}
		if answer := r.Response(Protobuf); !strings.Contains(string(answer), "claims to be agent") {
			t.Errorf("%s: answer in protobuf %q", s, answer)
		}
	}
	mixed := `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"foreign"}}]}],"resource":{"attributes":[` + foreign + `]}},{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"own"}}]}]}]}`
	if r := decoded(t, Logs, mixed, options()); len(r.Entries) != 1 || r.Entries[0].Message != "own" || r.Refused[ForeignClaim] != 1 {
		t.Errorf("%+v", r)
	}
}

func TestContentOfModelMessagesIsOffByDefault(t *testing.T) {
	contents := []string{
		"gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.call.arguments", "gen_ai.prompt.0.content",
		"gen_ai.completion.0.tool_calls.0.arguments", "input.value", "llm.input_messages.0.message.content", "ai.prompt.messages", "ai.response.text",
		"traceloop.entity.input", "gcp.vertex.agent.llm_request", "own.secret.words", "exact",
	}
	kept := []string{"gen_ai.operation.name", "gen_ai.prompt.0.role", "gen_ai.completion.0.finish_reason", "llm.output_messages.0.message.tool_calls.0.tool_call.function.name", "ai.model.id", "exactly"}
	var attributes []string
	for _, name := range append(contents, kept...) {
		attributes = append(attributes, attr(name, "canary"))
	}
	attributes = append(attributes, `{"key":"events","value":{"intValue":5}}`) // a number is no content
	all := strings.Join(attributes, ",")
	span := inSpans(attr("gen_ai.input.messages", "canary"), `{`+spanIDs+`,"attributes":[`+all+`],"events":[{"name":"e","attributes":[`+all+`]}]}`)
	log := inLogs("", `{"eventName":"gen_ai.user.message","body":{"kvlistValue":{"values":[`+attr("content", "canary")+`]}},"attributes":[`+all+`]}`)

	o := options()
	o.ContentNames = []string{"own.*", "exact"}
	for s, body := range map[Signal]string{Traces: span, Logs: log} {
		r := decoded(t, s, body, o)
		b, err := json.Marshal([]any{r.Spans, r.Entries})
		if err != nil {
			t.Fatal(err)
		}
		got := string(b)
		for _, name := range contents {
			if strings.Contains(got, `"`+name+`"`) {
				t.Errorf("%s: %s was kept", s, name)
			}
		}
		for _, name := range append(kept, "events") {
			if !strings.Contains(got, `"`+name+`"`) {
				t.Errorf("%s: %s was dropped", s, name)
			}
		}
		if want := map[Signal]int{Traces: 2*len(contents) + 1, Logs: len(contents) + 1}[s]; r.Dropped[Content] != want {
			t.Errorf("%s: %d dropped, want %d", s, r.Dropped[Content], want)
		}
		o := o
		o.Content = true
		if r := decoded(t, s, body, o); r.Dropped[Content] != 0 {
			t.Errorf("%s: content was dropped although it is allowed", s)
		}
	}
	if e := decoded(t, Logs, log, o).Entries[0]; e.Message != "gen_ai.user.message" {
		t.Errorf("message %q", e.Message)
	}
}

func TestPartsBeyondTheLimitsAreDroppedAndSaid(t *testing.T) {
	repeat := func(n int, format string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(parts, ",")
	}
	deep := strings.Repeat(`{"arrayValue":{"values":[`, 40) + strings.Repeat(`]}}`, 40)
	long := strings.Repeat("ö", 40<<10)
	cases := map[string]struct {
		span    string
		dropped map[Reason]int
		ends    string
	}{
		"attributes":  {`"attributes":[` + repeat(200, `{"key":"k%d","value":{"intValue":1}}`) + `]`, map[Reason]int{Attributes: 72}, `"k127":1,"otel.dropped_attributes_count":72}`},
		"duplicates":  {`"attributes":[` + attr("a", "1") + `,` + attr("a", "2") + `,` + repeat(20, `{"key":"k%d","value":{"intValue":1}}`) + `,` + attr("a", "3") + `]`, map[Reason]int{Duplicate: 2}, `"k19":1}`},
		"bytes":       {`"attributes":[` + repeat(5, `{"key":"k%d","value":{"stringValue":"`+strings.Repeat("x", 20<<10)+`"}}`) + `]`, map[Reason]int{AttributeBytes: 2}, `x","otel.dropped_attributes_count":2}`},
		"text":        {`"attributes":[` + attr("a", long) + `]`, map[Reason]int{CutText: 1}, `ö"}`},
		"depth":       {`"attributes":[{"key":"a","value":` + deep + `}]`, map[Reason]int{CutValue: 1}, `[null` + strings.Repeat("]", MaxDepth) + `}`},
		"elements":    {`"attributes":[{"key":"a","value":{"arrayValue":{"values":[` + repeat(1500, `{"intValue":%d}`) + `]}}}]`, map[Reason]int{CutValue: 1}, `,1023]}`},
		"map":         {`"attributes":[{"key":"a","value":{"kvlistValue":{"values":[` + repeat(150, `{"key":"k%d","value":{"intValue":1}}`) + `,` + attr("k1", "twice") + `]}}}]`, map[Reason]int{CutValue: 1}, `"k127":1}}`},
		"long keys":   {`"attributes":[` + attr(strings.Repeat("k", 300), "x") + `,` + attr("", "x") + `,` + attr("b", "c") + `]`, map[Reason]int{Attributes: 2}, `{"b":"c","otel.dropped_attributes_count":2}`},
		"events":      {`"events":[` + repeat(200, `{"name":"e%d"}`) + `]`, map[Reason]int{SpanEvents: 72}, `{"otel.dropped_events_count":72}`},
		"links":       {`"links":[` + strings.Repeat(`{`+spanIDs+`},`, 69) + `{` + spanIDs + `}` + `]`, map[Reason]int{SpanLinks: 6}, `{"otel.dropped_links_count":6}`},
		"name":        {`"name":"` + long + `","attributes":[` + attr("a", "b") + `]`, map[Reason]int{NameCut: 1}, `{"a":"b"}`},
		"NUL":         {`"attributes":[{"key":"a\u0000b","value":{"stringValue":"x\u0000\ud800"}}]`, map[Reason]int{}, "{\"a\u2400b\":\"x\u2400\uFFFD\"}"},
		"event bytes": {`"attributes":[` + attr("a", "b") + `],"events":[` + repeat(10, `{"name":"e%d","attributes":[`+attr("x", strings.Repeat("y", 20<<10))+`]}`) + `]`, map[Reason]int{AttributeBytes: 7}, `{"a":"b"}`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := decoded(t, Traces, inSpans("", `{`+spanIDs+`,`+c.span+`}`), options())
			delete(r.Dropped, BadTime)
			if d := cmp.Diff(c.dropped, r.Dropped); d != "" {
				t.Errorf("dropped (-want +got):\n%s", d)
			}
			if got := string(r.Spans[0].Attributes); !strings.HasSuffix(got, c.ends) {
				t.Errorf("attributes end with %q, want %q", got[max(0, len(got)-100):], c.ends)
			}
		})
	}
}

func TestARequestYieldsBoundedRecords(t *testing.T) {
	t.Run("number", func(t *testing.T) {
		records := strings.Repeat(`{},`, MaxRecords+6) + `{}`
		r := decoded(t, Logs, inLogs("", records), options())
		if len(r.Entries) != MaxRecords || r.Refused[TooMany] != 7 {
			t.Errorf("%d taken, %v refused", len(r.Entries), r.Refused)
		}
		if r := decoded(t, Logs, inLogs("", `{"body":{"stringValue":"`+strings.Repeat("é", 200<<10)+`"}}`), options()); !r.Entries[0].Truncated || len(r.Entries[0].Message) != telemetry.MaxMessage {
			t.Errorf("a message of %d bytes", len(r.Entries[0].Message))
		}
	})
	t.Run("bytes", func(t *testing.T) { // control characters grow sixfold in JSON
		var span []byte
		span = protowire.AppendBytes(protowire.AppendTag(span, 1, protowire.BytesType), []byte("0123456789abcdef"))
		span = protowire.AppendBytes(protowire.AppendTag(span, 2, protowire.BytesType), []byte("01234567"))
		value := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), strings.Repeat("\x01", 10<<10))
		kv := protowire.AppendBytes(protowire.AppendTag(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "k"), 2, protowire.BytesType), value)
		span = protowire.AppendBytes(protowire.AppendTag(span, 9, protowire.BytesType), kv)
		var scope []byte
		n := MaxBody / (len(span) + 8)
		for range n {
			scope = protowire.AppendBytes(protowire.AppendTag(scope, 2, protowire.BytesType), span)
		}
		body := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), scope))
		r, err := Decode(Traces, Protobuf, body, options())
		if err != nil {
			t.Fatal(err)
		}
		check(t, r)
		if r.Bytes > MaxBytes+200<<10 || r.Refused[TooMany] == 0 || len(r.Spans)+r.Refused[TooMany] != n {
			t.Errorf("%d bytes of %d spans, %v refused of %d", r.Bytes, len(r.Spans), r.Refused, n)
		}
	})
	if _, err := Decode(Logs, Protobuf, make([]byte, MaxBody+1), options()); err == nil {
		t.Error("a body over the limit was taken")
	}
}

func TestTolerance(t *testing.T) {
	for name, body := range map[string]string{
		"unknown fields": `{"x":{"y":[1,{"z":null}]},"resourceLogs":[{"entityRefs":[{}],"scopeLogs":[{"logRecords":[{"flags":1,"new":"x","body":{"stringValue":"hi"}}]}]}]}`,
		"snake case":     `{"resource_logs":[{"scope_logs":[{"log_records":[{"body":{"string_value":"hi"}}]}]}]}`,
		"nulls":          `{"resourceLogs":[{"resource":null,"schemaUrl":"x","scopeLogs":[{"scope":null,"logRecords":[{"attributes":null,"traceId":null,"severityNumber":null,"body":{"stringValue":"hi"}}]},null]}]}`,
		"white space":    "\n{ \"resourceLogs\" :\t[ {\r\n\"scopeLogs\":[{\"logRecords\":[{\"body\" : {\"stringValue\" : \"h\\u0069\"} } ] } ] } ] } \n",
		"escaped names":  `{"resource\u004cogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hi"}}]}]}]}`,
	} {
		r, err := Decode(Logs, JSON, []byte(body), options())
		if err != nil || len(r.Entries) != 1 || r.Entries[0].Message != "hi" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	r, err := Decode(Logs, JSON, []byte(inLogs("", `{"severityNumber":"SEVERITY_NUMBER_DEBUG2"},{"severityNumber":"SEVERITY_NUMBER_FATAL"},{"severityNumber":"1.3e1"}`)), options())
	if err != nil || r.Entries[0].Level != telemetry.Debug || r.Entries[1].Level != telemetry.Error || r.Entries[2].Level != telemetry.Warn {
		t.Errorf("words of severity: %+v, %v", r, err)
	}
	for _, body := range []string{"", `{}`} {
		if r, err := Decode(Traces, map[bool]Format{true: Protobuf, false: JSON}[body == ""], []byte(body), options()); err != nil || r.Records() != 0 || string(r.Response(JSON)) != `{}` || len(r.Response(Protobuf)) != 0 {
			t.Errorf("an empty request: %+v, %v", r, err)
		}
	}
}

func TestWhatIsNoRequestIsRefused(t *testing.T) {
	record := func(s string) string { return inLogs("", s) }
	for name, body := range map[string]string{
		"nothing": ``, "not an object": `[]`, "a word": `nul`, "cut off": `{"resourceLogs":[{`, "two": `{}{}`, "trailing comma": `{"resourceLogs":[],}`,
		"no colon": `{"resourceLogs" []}`, "number for text": record(`{"severityText":5}`), "text for object": record(`{"body":"hi"}`),
		"object for list": `{"resourceLogs":{}}`, "bad escape": record(`{"severityText":"\x"}`), "control character": record("{\"severityText\":\"a\nb\"}"),
		"odd hex": record(`{"traceId":"abc"}`), "no hex": record(`{"traceId":"zz"}`), "bad base64": record(`{"body":{"bytesValue":"*"}}`),
		"fraction": record(`{"severityNumber":1.5}`), "huge": record(`{"timeUnixNano":"99999999999999999999999"}`), "negative": record(`{"timeUnixNano":-1}`),
		"bad number": record(`{"x":01}`), "bad nested": record(`{"x":[1 2]}`), "mixed brackets": record(`{"x":[{]}]}`), "deep": `{"x":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`,
		"bool": record(`{"body":{"boolValue":1}}`), "enum word": record(`{"severityNumber":"SEVERITY_NUMBER_LOUD"}`), "list for text": record(`{"severityText":["x"]}`),
	} {
		if r, err := Decode(Logs, JSON, []byte(body), options()); err == nil {
			t.Errorf("%s: %s gave %+v", name, body, r)
		}
	}
	whole := inProtobuf(t, Logs, inLogs(attr("a", "b"), `{`+atTen+`,"body":{"stringValue":"hi"}}`))
	for i := 1; i < len(whole); i++ {
		if r, err := Decode(Logs, Protobuf, whole[:i], options()); err == nil {
			t.Errorf("cut at %d of %d: %+v", i, len(whole), r)
		}
	}
	group := protowire.AppendTag(protowire.AppendTag(nil, 1, protowire.StartGroupType), 1, protowire.EndGroupType)
	if _, err := Decode(Logs, Protobuf, group, options()); err == nil {
		t.Error("a group was taken")
	}
}

func TestStatusBodies(t *testing.T) {
	if got := string(Status(JSON, 8, "too \"much\"")); got != `{"code":8,"message":"too \"much\""}` {
		t.Error(got)
	}
	if got := string(Status(Protobuf, 8, "hi")); got != "\x08\x08\x12\x02hi" {
		t.Errorf("%q", got)
	}
}

func TestEveryRefusalHasItsSentence(t *testing.T) {
	for why := range refusals {
		r := &Result{Signal: Traces, Refused: map[Reason]int{why: 2}}
		if m := r.Message(); m != "2 spans were refused: 2 "+refusals[why] {
			t.Error(m)
		}
	}
}
