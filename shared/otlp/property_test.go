package otlp

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawMessage draws any message of a schema, in JSON: every field now and then,
// with values that are plain, extreme or odd.
func drawMessage(t *rapid.T, s *schema, within string, depth int) string {
	var members []string
	names := make([]string, 0, len(s.byName))
	for _, f := range s.byNumber {
		if f != nil {
			names = append(names, f.name)
		}
	}
	switch s { // one of
	case anyValue:
		names = []string{rapid.SampledFrom(names).Draw(t, "value")}
	case numberPoint:
		without := rapid.SampledFrom([]string{"asInt", "asDouble"}).Draw(t, "value")
		names = slices.DeleteFunc(names, func(n string) bool { return n == without })
	case metricMessage:
		names = []string{"name", "unit", rapid.SampledFrom(names[2:]).Draw(t, "data")}
	}
	for _, name := range names {
		f := s.byName[name]
		if len(names) > 1 && rapid.IntRange(0, 4).Draw(t, "left out") == 0 {
			continue
		}
		n := 1
		if f.repeated {
			n = rapid.IntRange(0, 3).Draw(t, "elements")
		}
		values := make([]string, n)
		for i := range values {
			values[i] = drawValue(t, s, f, within, depth)
		}
		v := strings.Join(values, ",")
		if f.repeated {
			v = "[" + v + "]"
		}
		members = append(members, fmt.Sprintf("%q:%s", name, v))
	}
	return "{" + strings.Join(rapid.Permutation(members).Draw(t, "order"), ",") + "}"
}

var (
	drawText   = rapid.OneOf(rapid.SampledFrom([]string{"", "a", "service.name", "gen_ai.prompt", "x\x00y", "\u2028\"\\\n", "theazo.agent.id", "agt_one", "agt_two"}), rapid.StringN(0, 8, 40))
	drawFloat  = rapid.SampledFrom([]string{"0", "1.5", "-2", "3", "1e300", `"NaN"`, `"Infinity"`, "0.1"})
	drawNumber = rapid.SampledFrom([]string{"0", "1", `"2"`, "3", "5", `"9"`, "17", "1763805600000000000", `"1763805601000000000"`, "9223372036854775807", "4"})
	drawSmall  = rapid.SampledFrom([]string{"0", "1", `"2"`, "-1", "5"})
)

func drawValue(t *rapid.T, s *schema, f *field, within string, depth int) string {
	switch f.kind {
	case textKind:
		b, err := json.Marshal(drawText.Draw(t, f.name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	case bytesKind:
		return rapid.SampledFrom([]string{`""`, `"AP8="`, `"aGVsbG8="`}).Draw(t, f.name)
	case idKind:
		size := map[string]int{"traceId": 16}[f.name]
		if size == 0 {
			size = 8
		}
		return rapid.SampledFrom([]string{`"` + strings.Repeat("0a", size) + `"`, `"` + strings.Repeat("00", size) + `"`, `"` + strings.Repeat("fe", size) + `"`, `""`, `"01"`}).Draw(t, f.name)
	case doubleKind:
		return drawFloat.Draw(t, f.name)
	case zigzagKind:
		return drawSmall.Draw(t, f.name)
	case varintKind, fixed64Kind:
		switch f.name {
		case "boolValue", "isMonotonic":
			return rapid.SampledFrom([]string{"true", "false"}).Draw(t, f.name)
		case "count", "zeroCount", "bucketCounts":
			return rapid.SampledFrom([]string{"0", "1", "2", `"3"`}).Draw(t, f.name)
		}
		return drawNumber.Draw(t, f.name)
	case messageKind:
	}
	inner := nested[f.name]
	switch {
	case f.name == "dataPoints":
		inner = pointsOf[within]
	case f.name == "values" && s == valueList:
		inner = anyValue
	case f.name == "values":
		inner = keyValue
	}
	if inner == anyValue && depth > 3 {
		return `{"intValue":"7"}`
	}
	return drawMessage(t, inner, f.name, depth+1)
}

func TestBothEncodingsSayTheSame(t *testing.T) {
	taken := 0
	rapid.Check(t, func(rt *rapid.T) {
		s := Signal(rapid.IntRange(0, 2).Draw(rt, "signal"))
		body := drawMessage(rt, requests[s], "", -6)
		o := options()
		o.Content = rapid.Bool().Draw(rt, "content")
		one, err := Decode(s, JSON, []byte(body), o)
		if err != nil {
			rt.Fatalf("%v\n%s", err, body)
		}
		other, err := Decode(s, Protobuf, inProtobuf(t, s, body), o)
		if err != nil {
			rt.Fatalf("%v\n%s", err, body)
		}
		if d := cmp.Diff(one, other, compare); d != "" {
			rt.Fatalf("%s\nJSON and protobuf differ (-json +protobuf):\n%s", body, d)
		}
		check(t, one)
		// Every record is taken or refused: what a partial success says is exact.
		if sent := countRecords(rt, body); s != Metrics && one.Records()+one.RefusedRecords() != sent {
			rt.Fatalf("%d taken and %d refused of %d\n%s", one.Records(), one.RefusedRecords(), sent, body)
		}
		taken += one.Records()
	})
	if taken == 0 {
		t.Error("no record was taken: nothing was compared")
	}
}

// countRecords counts the log records or spans of a request.
func countRecords(t *rapid.T, body string) (n int) {
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for k, e := range v {
				if list, ok := e.([]any); ok && (k == "logRecords" || k == "spans") {
					n += len(list)
					continue
				}
				walk(e)
			}
		}
	}
	walk(v)
	return n
}

func FuzzProtobuf(f *testing.F) {
	for s, body := range seeds() {
		f.Add(uint8(s), inProtobuf(f, s, body))
	}
	f.Add(uint8(0), []byte{0x0b, 0x0c})
	f.Fuzz(func(t *testing.T, s uint8, body []byte) {
		r, err := Decode(Signal(s%3), Protobuf, body, options())
		if (r == nil) == (err == nil) {
			t.Fatalf("%v, %v", r, err)
		}
		if err == nil {
			check(t, r)
			checkAnswer(t, r)
		}
	})
}

func FuzzJSON(f *testing.F) {
	for s, body := range seeds() {
		f.Add(uint8(s), []byte(body))
	}
	f.Add(uint8(0), []byte(`{"x":[{"y":"\ud83d\ude00\u0000"},1e5,-0.1,true,null]}`))
	f.Fuzz(func(t *testing.T, s uint8, body []byte) {
		r, err := Decode(Signal(s%3), JSON, body, options())
		if (r == nil) == (err == nil) {
			t.Fatalf("%v, %v", r, err)
		}
		if err != nil {
			return
		}
		if !json.Valid(body) {
			t.Fatalf("%q was taken and is no JSON", body)
		}
		check(t, r)
		checkAnswer(t, r)
	})
}

func checkAnswer(t *testing.T, r *Result) {
	t.Helper()
	if answer := r.Response(JSON); !json.Valid(answer) {
		t.Errorf("answer %q", answer)
	}
	walk := &reader{}
	for c := (node{r: walk, b: r.Response(Protobuf)}).walk(message("Response", one(1, "partialSuccess", messageKind))); c.next(); {
		continue
	}
	if walk.err != nil {
		t.Error(walk.err)
	}
}

func seeds() map[Signal]string {
	return map[Signal]string{
		Logs:    inLogs(attr("service.name", "a"), `{`+atTen+`,"severityNumber":"9","body":{"kvlistValue":{"values":[`+attr("a", "b")+`]}},`+spanIDs+`,"attributes":[{"key":"b","value":{"bytesValue":"AP8="}}]}`),
		Traces:  inSpans(attr("theazo.agent.id", "agt_one"), `{`+spanIDs+`,`+spanTime+`,"name":"x","kind":3,"status":{"code":2,"message":"m"},"events":[{"name":"e"}],"links":[{`+spanIDs+`}],"attributes":[{"key":"l","value":{"arrayValue":{"values":[{"doubleValue":1.5}]}}}]}`),
		Metrics: inMetrics(`{"name":"m","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[{"count":2,"scale":3,"positive":{"offset":-1,"bucketCounts":[1,1]}}]}},{"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[{"count":1,"bucketCounts":[1,0],"explicitBounds":[2]}]}},{"name":"s","summary":{"dataPoints":[{"quantileValues":[{"quantile":0.5,"value":1}]}]}}`),
	}
}
