package emitters

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	logs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
)

// fill gives every field of a message a value, so that a number or a name which
// shared/otlp has wrong makes the two encodings differ.
func fill(t *rapid.T, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if depth > 9 && f.Kind() == protoreflect.MessageKind || rapid.IntRange(0, 9).Draw(t, "left out") == 0 {
			continue
		}
		// Of those of which there can be one, one.
		if one := f.ContainingOneof(); one != nil && !one.IsSynthetic() {
			if m.WhichOneof(one) != nil && rapid.Bool().Draw(t, "keep") {
				continue
			}
		}
		if !f.IsList() {
			if f.Kind() == protoreflect.MessageKind {
				fill(t, m.Mutable(f).Message(), depth+1)
				continue
			}
			m.Set(f, scalar(t, f))
			continue
		}
		list := m.Mutable(f).List()
		n := rapid.IntRange(0, 3).Draw(t, "elements")
		if f.Name() == "bucket_counts" {
			n = 3
		} else if f.Name() == "explicit_bounds" {
			n = 2
		}
		for j := range n {
			switch {
			case f.Kind() == protoreflect.MessageKind:
				e := list.NewElement()
				fill(t, e.Message(), depth+1)
				list.Append(e)
			case f.Name() == "explicit_bounds":
				list.Append(protoreflect.ValueOfFloat64(float64(j)))
			default:
				list.Append(scalar(t, f))
			}
		}
	}
}

func scalar(t *rapid.T, f protoreflect.FieldDescriptor) protoreflect.Value {
	name := string(f.Name())
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.StringN(1, 6, 20).Draw(t, name))
	case protoreflect.BytesKind:
		size := map[string]int{"trace_id": 16, "span_id": 8, "parent_span_id": 8}[name]
		if size == 0 {
			size = rapid.IntRange(0, 5).Draw(t, name)
		}
		return protoreflect.ValueOfBytes(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, name))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, name))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(f.Enum().Values().Get(rapid.IntRange(0, f.Enum().Values().Len()-1).Draw(t, name)).Number())
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(rapid.Float64().Draw(t, name))
	case protoreflect.Sint32Kind, protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32Range(-20, 20).Draw(t, name))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32Range(0, 2).Draw(t, name) &^ 1)
	case protoreflect.Int64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, name))
	}
	switch name {
	case "count":
		return protoreflect.ValueOfUint64(3)
	case "bucket_counts":
		return protoreflect.ValueOfUint64(1)
	case "zero_count":
		return protoreflect.ValueOfUint64(0)
	}
	return protoreflect.ValueOfUint64(rapid.Uint64Range(1.7e18, 1.8e18).Draw(t, name))
}

// otlpJSON is what OTLP makes of protobuf's JSON: numbers for enumerations,
// hexadecimal ids.
func otlpJSON(t *rapid.T, m proto.Message) []byte {
	b, err := protojson.MarshalOptions{UseEnumNumbers: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
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
				if text, ok := e.(string); ok && (k == "traceId" || k == "spanId" || k == "parentSpanId") {
					raw, err := base64.StdEncoding.DecodeString(text)
					if err != nil {
						t.Fatal(err)
					}
					v[k] = hex.EncodeToString(raw)
					continue
				}
				walk(e)
			}
		}
	}
	walk(v)
	if b, err = json.Marshal(v); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGeneratedMessagesAreReadAlikeInBothEncodings(t *testing.T) {
	for signal, empty := range map[otlp.Signal]func() proto.Message{
		otlp.Logs: func() proto.Message { return &logs.ExportLogsServiceRequest{} }, otlp.Traces: func() proto.Message { return &traces.ExportTraceServiceRequest{} },
		otlp.Metrics: func() proto.Message { return &metrics.ExportMetricsServiceRequest{} },
	} {
		t.Run(signal.String(), func(t *testing.T) {
			taken := 0
			rapid.Check(t, func(t *rapid.T) {
				m := empty()
				fill(t, m.ProtoReflect(), 0)
				b, err := proto.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				o := otlp.Options{Received: time.Unix(1763805600, 0).UTC(), Content: true, Bind: func(otlp.Claim) (telemetry.Origin, error) { return bound.Origin, nil }}
				one, err := otlp.Decode(signal, otlp.Protobuf, b, o)
				if err != nil {
					t.Fatal(err)
				}
				other, err := otlp.Decode(signal, otlp.JSON, otlpJSON(t, m), o)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(one, other, cmpopts.IgnoreUnexported(otlp.Result{}), cmpopts.EquateEmpty()); d != "" {
					t.Fatalf("protobuf and JSON differ (-protobuf +json):\n%s\n%s", d, otlpJSON(t, m))
				}
				taken += one.Records()
			})
			if t.Logf("%d records were compared", taken); taken < 50 {
				t.Errorf("only %d", taken)
			}
		})
	}
}

func TestAnswersAreWhatGeneratedCodeReads(t *testing.T) {
	foreign := func(otlp.Claim) (telemetry.Origin, error) {
		return telemetry.Origin{}, fmt.Errorf("are somebody else's")
	}
	body := []byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{},{}]}]}]}`)
	r, err := otlp.Decode(otlp.Traces, otlp.JSON, body, otlp.Options{Bind: foreign})
	if err != nil {
		t.Fatal(err)
	}
	var a, b traces.ExportTraceServiceResponse
	if err := proto.Unmarshal(r.Response(otlp.Protobuf), &a); err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(r.Response(otlp.JSON), &b); err != nil {
		t.Fatal(err)
	}
	if p := a.GetPartialSuccess(); !proto.Equal(&a, &b) || p.GetRejectedSpans() != 2 || p.GetErrorMessage() != "2 spans were refused: 2 are somebody else's" {
		t.Errorf("%v, %v", &a, &b)
	}
}
