package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/theazo/observability/shared/telemetry"
)

// received is when every request of these tests came.
var received = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// nested is what each declaration of a message holds, by its JSON name; the
// decoder has no need of such a table.
var nested = map[string]*schema{
	"resourceLogs": resourceLogs, "scopeLogs": scopeLogs, "logRecords": logMessage,
	"resourceSpans": resourceSpans, "scopeSpans": scopeSpans, "spans": spanMessage, "events": spanEvent, "links": spanLink, "status": spanStatus,
	"resourceMetrics": resourceMetrics, "scopeMetrics": scopeMetrics, "metrics": metricMessage,
	"gauge": metricData, "sum": metricData, "histogram": metricData, "exponentialHistogram": metricData, "summary": metricData,
	"positive": bucketsMessage, "negative": bucketsMessage, "quantileValues": quantileValue,
	"resource": resourceMessage, "scope": scopeMessage, "attributes": keyValue, "value": anyValue, "body": anyValue,
	"arrayValue": valueList, "kvlistValue": keyValueList,
}

var pointsOf = map[string]*schema{
	"gauge": numberPoint, "sum": numberPoint, "histogram": histogramPoint, "exponentialHistogram": exponentialPoint, "summary": summaryPoint,
}

// encode writes a message that is given as decoded JSON in protobuf: the test's
// own way from one encoding to the other.
func encode(t testing.TB, s *schema, in map[string]any, within string) []byte {
	t.Helper()
	var b []byte
	for name, v := range in {
		f := s.byName[name]
		if f == nil {
			t.Fatalf("%s has no field %q", s.name, name)
		}
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		for _, v := range list {
			b = protowire.AppendTag(b, protowire.Number(f.number), f.kind.wireType())
			inner := nested[name]
			switch {
			case name == "dataPoints":
				inner = pointsOf[within]
			case name == "values" && s == valueList:
				inner = anyValue
			case name == "values":
				inner = keyValue
			case name == "sum" && s != metricMessage:
				inner = nil
			}
			b = encodeValue(t, b, f, inner, v)
		}
	}
	return b
}

func encodeValue(t testing.TB, b []byte, f *field, inner *schema, v any) []byte {
	t.Helper()
	text := fmt.Sprint(v)
	must := func(err error) {
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
	}
	switch f.kind {
	case textKind:
		return protowire.AppendString(b, text)
	case bytesKind:
		raw, err := base64.StdEncoding.DecodeString(text)
		must(err)
		return protowire.AppendBytes(b, raw)
	case idKind:
		raw, err := hex.DecodeString(text)
		must(err)
		return protowire.AppendBytes(b, raw)
	case messageKind:
		return protowire.AppendBytes(b, encode(t, inner, v.(map[string]any), f.name))
	case doubleKind:
		x, err := strconv.ParseFloat(text, 64)
		must(err)
		return protowire.AppendFixed64(b, math.Float64bits(x))
	case varintKind, zigzagKind, fixed64Kind:
		var bits uint64
		if v, ok := v.(bool); ok {
			bits = protowire.EncodeBool(v)
		} else if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			bits = uint64(i)
		} else {
			bits, err = strconv.ParseUint(text, 10, 64)
			must(err)
		}
		if f.kind == fixed64Kind {
			return protowire.AppendFixed64(b, bits)
		}
		if f.kind == zigzagKind {
			bits = protowire.EncodeZigZag(int64(bits))
		}
		return protowire.AppendVarint(b, bits)
	}
	t.Fatalf("kind %d", f.kind)
	return nil
}

// requests are the messages of the three signals.
var requests = [...]*schema{Logs: logsRequest, Traces: tracesRequest, Metrics: metricsRequest}

// inProtobuf turns a request in JSON into one in protobuf.
func inProtobuf(t testing.TB, s Signal, body string) []byte {
	t.Helper()
	var in map[string]any
	d := json.NewDecoder(bytesReader(body))
	d.UseNumber()
	if err := d.Decode(&in); err != nil {
		t.Fatalf("the test's own JSON: %v\n%s", err, body)
	}
	return encode(t, requests[s], in, "")
}

// origin is whose the records of these tests are.
var origin = telemetry.Origin{Agent: "agt_one", Session: "ses_one", User: "u1", Provider: telemetry.Docker, Sandbox: "4f5e", Source: telemetry.SourceAgent}

// bindOne refuses claims of another agent, as a node does.
func bindOne(c Claim) (telemetry.Origin, error) {
	if c.Agent != "" && c.Agent != origin.Agent {
		return telemetry.Origin{}, fmt.Errorf("are of a resource that claims to be agent %q", c.Agent)
	}
	return origin, nil
}

func options() Options { return Options{Bind: bindOne, Received: received} }
