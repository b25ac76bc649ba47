package push_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/theazo/observability/shared/telemetry"
)

const protobufType = "application/x-protobuf"

func message(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func field(n protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
}

func attribute(name, value string) []byte {
	return message(field(1, []byte(name)), field(2, field(1, []byte(value))))
}

// exportLogs is an ExportLogsServiceRequest: resources with an agent each, or
// none, and one line.
func exportLogs(agents ...string) []byte {
	var all []byte
	for _, agent := range agents {
		resource := []byte{}
		if agent != "" {
			resource = field(1, attribute("theazo.agent.id", agent))
		}
		line := field(5, field(1, []byte("a line of "+agent)))
		all = append(all, field(1, message(field(1, resource), field(2, field(2, line))))...)
	}
	return all
}

func TestOTLPLogsAreTakenByEitherPathAndFormat(t *testing.T) {
	const asJSON = `{"resourceLogs":[{"resource":{"attributes":[{"key":"theazo.agent.id","value":{"stringValue":"agt_a"}},{"key":"theazo.session.id","value":{"stringValue":"ses_a"}}]},
		"scopeLogs":[{"logRecords":[{"timeUnixNano":"1756720800000000000","severityNumber":17,"body":{"stringValue":"\u001b[31mboom\u001b[0m"}}]}]}]}`
	in, s := start(t)
	for _, path := range []string{"/v1/logs", "/otlp/v1/logs"} {
		a := post(t, in, path, "application/json", strings.NewReader(asJSON))
		if a.err != nil || string(a.raw) != `{}` {
			t.Errorf("%s: %v %s", path, a.err, a.raw)
		}
		a = post(t, in, path, protobufType, gzipped(exportLogs("agt_b")), "Content-Encoding", "gzip")
		if a.err != nil || len(a.raw) != 0 {
			t.Errorf("%s: %v %s", path, a.err, a.raw)
		}
	}
	if len(s.lines) != 4 || s.lines[0].Agent != "agt_a" || s.lines[0].Session != "ses_a" || s.lines[0].Level != telemetry.Error || s.lines[0].Message != "boom" || s.lines[1].Message != "a line of agt_b" {
		t.Errorf("%+v", s.lines)
	}
}

func TestOTLPResourcesWithoutAnAgentAreRefusedAlone(t *testing.T) {
	in, s := start(t)
	a := post(t, in, "/v1/logs", protobufType, bytes.NewReader(exportLogs("agt_a", "", "agt b", "agt_c")), "Idempotency-Key", "k")
	if a.err != nil || !strings.Contains(string(a.raw), "without theazo.agent.id") || len(s.lines) != 2 {
		t.Errorf("%v %q, %d lines", a.err, a.raw, len(s.lines))
	}
	if a := post(t, in, "/v1/logs", protobufType, bytes.NewReader(exportLogs("agt_a", "", "agt b", "agt_c")), "Idempotency-Key", "k"); a.err != nil || !a.repeated || len(s.lines) != 2 {
		t.Errorf("again: %v, %d lines", a.err, len(s.lines))
	}
	for path, body := range map[string]string{"/v1/logs": "\xff\xff", "/otlp/v1/logs": "\x0a\xff"} {
		if a := post(t, in, path, protobufType, strings.NewReader(body)); telemetry.CodeOf(a.err) != telemetry.InvalidRequest {
			t.Errorf("%q: %v", body, a.err)
		}
	}
	if a := post(t, in, "/otlp/v1/logs", "application/json", strings.NewReader(`[{"message":"x","agentId":"agt_a"}]`)); telemetry.CodeOf(a.err) != telemetry.InvalidRequest {
		t.Errorf("lines where OTLP is wanted: %v", a.err)
	}
}

func TestOTLPSpansAndMetricsBecomeRecords(t *testing.T) {
	in, s := start(t)
	const resource = `"resource":{"attributes":[{"key":"theazo.agent.id","value":{"stringValue":"agt_a"}}]}`
	var spans []string
	for i := range 1500 {
		spans = append(spans, fmt.Sprintf(`{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"%016x","name":"step","startTimeUnixNano":"1756720800000000000","endTimeUnixNano":"1756720801000000000"}`, i+1))
	}
	body := `{"resourceSpans":[{` + resource + `,"scopeSpans":[{"spans":[` + strings.Join(spans, ",") + `,{"name":"no id"}]}]}]}`
	a := post(t, in, "/v1/traces", "application/json", strings.NewReader(body))
	if a.err != nil || len(s.Spans) != 1500 || len(s.frames) != 3 || !strings.Contains(string(a.raw), `"rejectedSpans":"1"`) {
		t.Errorf("%v %s, %d spans in %d frames", a.err, a.raw, len(s.Spans), len(s.frames))
	}
	body = `{"resourceMetrics":[{` + resource + `,"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asDouble":1.5,"timeUnixNano":"1756720800000000000"}]}}]}]}]}`
	for _, path := range []string{"/v1/metrics", "/otlp/v1/metrics"} {
		if a := post(t, in, path, "application/json", strings.NewReader(body)); a.err != nil {
			t.Errorf("%s: %v", path, a.err)
		}
	}
	if len(s.Metrics) != 2 || s.Metrics[0].Value != 1.5 || s.Metrics[0].Agent != "agt_a" {
		t.Errorf("%+v", s.Metrics)
	}
}

// A span that is valid for OTLP may be larger than a frame's part of it.
func TestLargeSpansAreSpreadOverFrames(t *testing.T) {
	in, s := start(t)
	value := strings.Repeat("x", 30<<10)
	var spans []string
	for i := range 130 {
		spans = append(spans, fmt.Sprintf(`{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"%016x","name":"s","startTimeUnixNano":"1756720800000000000","attributes":[{"key":"a","value":{"stringValue":"%s"}}]}`, i+1, value))
	}
	a := post(t, in, "/v1/traces", "application/json", strings.NewReader(`{"resourceSpans":[{"resource":{"attributes":[{"key":"theazo.agent.id","value":{"stringValue":"agt_a"}}]},"scopeSpans":[{"spans":[`+strings.Join(spans, ",")+`]}]}]}`))
	if a.err != nil || len(s.Spans) != 130 || len(s.frames) < 3 {
		t.Errorf("%v %s, %d spans in %d frames", a.err, a.raw, len(s.Spans), len(s.frames))
	}
	for i, p := range s.Spans {
		if want := fmt.Sprintf("spn_%016x", i+1); string(p.ID) != want {
			t.Fatalf("span %d is %s", i, p.ID)
		}
	}
}
