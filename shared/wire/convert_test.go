package wire_test

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// Every field is filled, so that one forgotten in the converter shows.
var (
	id   = rapid.StringMatching(`[a-zA-Z0-9_.:-]{1,20}`)
	text = rapid.StringMatching(`[a-zé ]{1,20}`)
	when = rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMicro(rapid.Int64Range(1, 4e15).Draw(t, "us")).UTC()
	})
	object = rapid.Map(text, func(s string) json.RawMessage { return json.RawMessage(`{"k":"` + s + `"}`) })
	origin = rapid.Custom(func(t *rapid.T) telemetry.Origin {
		return telemetry.Origin{
			Agent: telemetry.AgentID(id.Draw(t, "agent")), Session: telemetry.SessionID(id.Draw(t, "session")),
			User: telemetry.UserID(text.Draw(t, "user")), Sandbox: telemetry.SandboxID(id.Draw(t, "sandbox")),
			Provider: telemetry.E2B, Stream: telemetry.Stderr, Source: telemetry.SourceProvider,
		}
	})
	event = rapid.Custom(func(t *rapid.T) telemetry.Event {
		code := rapid.IntRange(-128, 255).Draw(t, "exit code")
		return telemetry.Event{
			Type: telemetry.EventType(id.Draw(t, "type")), Timestamp: when.Draw(t, "time"), ExitCode: &code,
			Origin: origin.Draw(t, "origin"), Content: object.Draw(t, "content"),
			Reason: text.Draw(t, "reason"), Inferred: true, Attributes: map[string]string{"image": text.Draw(t, "image")},
			LastWords: &telemetry.LastWords{
				Signal: "SIGKILL", OOMKilled: true, Duration: 3 * time.Second, MemoryPeak: rapid.Int64Range(1, 1e12).Draw(t, "peak"), CPUTime: 7 * time.Millisecond,
				ImageDigest: id.Draw(t, "digest"), Stdout: text.Draw(t, "stdout"), Stderr: text.Draw(t, "stderr"), StdoutOmitted: 5, StderrOmitted: 6,
			},
		}
	})
	span = rapid.Custom(func(t *rapid.T) telemetry.Span {
		return telemetry.Span{
			Trace: telemetry.TraceID(id.Draw(t, "trace")), ID: telemetry.SpanID(id.Draw(t, "span")), Parent: telemetry.SpanID(id.Draw(t, "parent")),
			Name: text.Draw(t, "name"), Kind: telemetry.SpanConsumer, Origin: origin.Draw(t, "origin"), Start: when.Draw(t, "start"), End: when.Draw(t, "end"),
			Status: telemetry.SpanError, Error: text.Draw(t, "error"), Scope: text.Draw(t, "scope"), Attributes: object.Draw(t, "attributes"), Resource: object.Draw(t, "resource"),
			Events: []telemetry.SpanEvent{{Name: text.Draw(t, "event"), Timestamp: when.Draw(t, "event time"), Attributes: object.Draw(t, "event attributes")}},
			Links:  []telemetry.SpanLink{{Trace: telemetry.TraceID(id.Draw(t, "link trace")), Span: telemetry.SpanID(id.Draw(t, "link span")), Attributes: object.Draw(t, "link attributes")}},
		}
	})
	modelCall = rapid.Custom(func(t *rapid.T) telemetry.ModelCall {
		tokens := rapid.Int64Range(1, 1e9)
		return telemetry.ModelCall{
			Timestamp: when.Draw(t, "time"), Origin: origin.Draw(t, "origin"), Model: text.Draw(t, "model"), Vendor: text.Draw(t, "vendor"),
			Trace: telemetry.TraceID(id.Draw(t, "trace")), Span: telemetry.SpanID(id.Draw(t, "span")), InputTokens: tokens.Draw(t, "in"), OutputTokens: tokens.Draw(t, "out"),
			CacheReadTokens: tokens.Draw(t, "read"), CacheWriteTokens: tokens.Draw(t, "written"), Metadata: object.Draw(t, "metadata"),
			Cost: &telemetry.Money{Nanos: rapid.Int64Range(1, 1e15).Draw(t, "nanos"), Currency: "usd"},
		}
	})
	metric = rapid.Custom(func(t *rapid.T) telemetry.MetricPoint {
		number, count := rapid.Float64Range(0.5, 1e12), rapid.Uint64Range(1, 1e12)
		low, high := number.Draw(t, "min"), number.Draw(t, "max")
		return telemetry.MetricPoint{
			Name: text.Draw(t, "name"), Unit: "By", Kind: telemetry.CumulativeDistribution, Timestamp: when.Draw(t, "time"), Start: when.Draw(t, "start"),
			Origin: origin.Draw(t, "origin"), Value: number.Draw(t, "value"), Attributes: map[string]string{"a": text.Draw(t, "attribute")},
			Histogram: &telemetry.Histogram{
				Count: count.Draw(t, "count"), Min: &low, Max: &high, Bounds: []float64{1, 2}, Counts: []uint64{3, 4, 5},
				Exponential: &telemetry.Exponential{
					Scale: -3, ZeroCount: 4, ZeroThreshold: 0.5, PositiveOffset: -7, Positive: []uint64{1, 2}, NegativeOffset: 9, Negative: []uint64{3},
				},
			},
		}
	})
	gap = rapid.Custom(func(t *rapid.T) telemetry.Gap {
		return telemetry.Gap{
			Reason: telemetry.GapReason(id.Draw(t, "reason")), Count: rapid.Int64Range(-1, 1e9).Draw(t, "count"), Bytes: rapid.Int64Range(1, 1e9).Draw(t, "bytes"),
			Since: when.Draw(t, "since"), Until: when.Draw(t, "until"), FirstSeq: rapid.Uint64().Draw(t, "first"), LastSeq: rapid.Uint64().Draw(t, "last"),
			Agent: telemetry.AgentID(id.Draw(t, "agent")), Session: telemetry.SessionID(id.Draw(t, "session")),
			Sandbox: telemetry.SandboxID(id.Draw(t, "sandbox")), Detail: text.Draw(t, "detail"),
		}
	})
)

func TestRecordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := telemetry.Records{
			Events: rapid.SliceOfN(event, 0, 3).Draw(t, "events"), Spans: rapid.SliceOfN(span, 0, 3).Draw(t, "spans"),
			ModelCalls: rapid.SliceOfN(modelCall, 0, 3).Draw(t, "model calls"), Metrics: rapid.SliceOfN(metric, 0, 3).Draw(t, "metrics"),
			Gaps: rapid.SliceOfN(gap, 0, 3).Draw(t, "gaps"),
		}
		b, err := wire.EncodeRecords(&want)
		if err != nil {
			t.Fatal(err)
		}
		got, unknown, err := wire.DecodeRecords(b)
		if err != nil || unknown != 0 {
			t.Fatal(unknown, err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}

// A generator that forgets a field would let the converter forget it too.
func TestTheGeneratorsFillEveryField(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		filled(t, reflect.ValueOf(event.Draw(t, "event")), "Node")
		filled(t, reflect.ValueOf(span.Draw(t, "span")), "Node")
		filled(t, reflect.ValueOf(modelCall.Draw(t, "model call")), "Node")
		filled(t, reflect.ValueOf(metric.Draw(t, "metric")), "Node")
		filled(t, reflect.ValueOf(gap.Draw(t, "gap")), "Node", "ObservedAt", "Cursor", "Position", "Count", "FirstSeq", "LastSeq")
	})
}

// filled fails for a field of zero, but for those that only the aggregator sets.
func filled(t *rapid.T, v reflect.Value, but ...string) {
	switch v.Kind() { //nolint:exhaustive // the rest has no fields
	case reflect.Pointer:
		filled(t, v.Elem(), but...)
	case reflect.Slice:
		for i := range v.Len() {
			filled(t, v.Index(i), but...)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if slices.Contains(but, f.Name) {
				continue
			}
			if v.Field(i).IsZero() {
				t.Fatalf("%s.%s is never filled", v.Type(), f.Name)
			}
			filled(t, v.Field(i), but...)
		}
	}
}

func TestReportRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.Uint64Range(1, 1<<38)
		assigned := count.Draw(t, "assigned")
		want := telemetry.NodeReport{
			At: when.Draw(t, "at"), StartedAt: when.Draw(t, "started"), Oldest: when.Draw(t, "oldest"), BufferBytes: 5, BufferBudget: 7,
			Counts: map[string]uint64{id.Draw(t, "reason"): count.Draw(t, "count")}, Pressure: 0.25, Skew: -3 * time.Second, CanaryLag: time.Second,
			Sequences: []telemetry.Sequence{{
				Org: telemetry.OrgID(id.Draw(t, "org")), Epoch: rapid.Uint64Min(1).Draw(t, "epoch"), Lane: telemetry.LaneEvents,
				Assigned: assigned, Acknowledged: assigned, Lost: 1,
			}},
		}
		b, err := wire.EncodeReport(&want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.DecodeReport(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
		filled(t, reflect.ValueOf(want))
	})
}

// A report is never refused for what a node has much of, and a large one is
// refused before anything is made of it.
func TestReportsAreBounded(t *testing.T) {
	var r telemetry.NodeReport
	for i := range 10_000 {
		r.Sequences = append(r.Sequences, telemetry.Sequence{Org: telemetry.OrgID(strings.Repeat("o", telemetry.MaxIDLength)), Epoch: uint64(i) + 1, Assigned: 1 << 39})
	}
	b, err := wire.EncodeReport(&r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeReport(b)
	if n := len(got.Sequences); err != nil || n < 1000 || got.Sequences[n-1] != r.Sequences[n-1] {
		t.Fatalf("%d sequences: %v", n, err)
	}
	bomb := bytes.Repeat([]byte{0x12, 0}, 2<<20) // sequences, each of nothing
	if n := testing.AllocsPerRun(1, func() { _, err = wire.DecodeReport(bomb) }); n > 10 || err == nil {
		t.Fatalf("%.0f allocations for %d bytes: %v", n, len(bomb), err)
	}
}

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := frame.Frame{Header: frame.Header{
			Org: telemetry.OrgID(id.Draw(t, "org")), Env: telemetry.Environment(rapid.IntRange(0, 1).Draw(t, "env")),
			Lane: telemetry.Lane(rapid.IntRange(0, 1).Draw(t, "lane")), Class: telemetry.Class(rapid.IntRange(0, 2).Draw(t, "class")),
			Tombstone: rapid.Bool().Draw(t, "tombstone"), Epoch: rapid.Uint64Min(1).Draw(t, "epoch"),
			First: rapid.Uint64Range(1, 1<<39).Draw(t, "first"), Count: rapid.Uint32Range(1, frame.MaxCount).Draw(t, "count"),
		}, Body: rapid.SliceOfN(rapid.Byte(), 1, 10).Draw(t, "body")}
		b, err := proto.Marshal(wire.FrameToWire(&f))
		if err != nil {
			t.Fatal(err)
		}
		var p wire.Frame
		if err := proto.Unmarshal(b, &p); err != nil {
			t.Fatal(err)
		}
		got, err := wire.FrameFromWire(&p)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(f, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestFramesThatMakeNoSenseAreRefused(t *testing.T) {
	good := func() *wire.Frame {
		return wire.FrameToWire(&frame.Frame{Header: frame.Header{Org: "org_a", Epoch: 1, First: 1, Count: 1}})
	}
	if _, err := wire.FrameFromWire(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*wire.Frame){
		"no lane": func(f *wire.Frame) { f.Lane = 0 }, "lane 9": func(f *wire.Frame) { f.Lane = 9 },
		"no class": func(f *wire.Frame) { f.Class = 0 }, "class 9": func(f *wire.Frame) { f.Class = 9 }, "class -1": func(f *wire.Frame) { f.Class = -1 },
		"no epoch": func(f *wire.Frame) { f.Epoch = 0 }, "first 0": func(f *wire.Frame) { f.First = 0 }, "count 0": func(f *wire.Frame) { f.Count = 0 },
		"overflow": func(f *wire.Frame) { f.First = 1<<64 - 1 }, "too many": func(f *wire.Frame) { f.Count = frame.MaxCount + 1 },
		"organisation": func(f *wire.Frame) { f.Organisation = "a/../b" }, "too large": func(f *wire.Frame) { f.Body = make([]byte, frame.MaxBody+1) },
	} {
		f := good()
		spoil(f)
		if _, err := wire.FrameFromWire(f); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// The store keeps parts of records as JSON, which has no word for infinity.
func TestNumbersWithoutAJSONFormAreRefused(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for name, m := range map[string]telemetry.MetricPoint{
		"value": {Value: inf}, "value that is none": {Value: nan},
		"last bound":  {Histogram: &telemetry.Histogram{Bounds: []float64{1, inf}, Counts: []uint64{1, 2, 3}}},
		"first bound": {Histogram: &telemetry.Histogram{Bounds: []float64{-inf, 1}, Counts: []uint64{1, 2, 3}}},
		"bound":       {Histogram: &telemetry.Histogram{Bounds: []float64{nan}, Counts: []uint64{1, 2}}},
		"smallest":    {Histogram: &telemetry.Histogram{Min: &nan}}, "largest": {Histogram: &telemetry.Histogram{Max: &inf}},
		"around zero": {Histogram: &telemetry.Histogram{Exponential: &telemetry.Exponential{ZeroThreshold: inf}}},
	} {
		m.Name, m.Timestamp, m.Origin.Agent = "m", time.Unix(1, 0), "agt_a"
		b, err := wire.EncodeRecords(&telemetry.Records{Metrics: []telemetry.MetricPoint{m}})
		if err != nil {
			t.Fatal(name, err)
		}
		if _, _, err := wire.DecodeRecords(b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzDecodeRecords(f *testing.F) {
	code := 137
	b, err := wire.EncodeRecords(&telemetry.Records{
		Events:  []telemetry.Event{{Type: telemetry.SandboxExited, Timestamp: time.Unix(1, 0), Origin: telemetry.Origin{Agent: "agt_a"}, ExitCode: &code}},
		Spans:   []telemetry.Span{{Trace: "trc_1", ID: "spn_1", Start: time.Unix(1, 0), Origin: telemetry.Origin{Agent: "agt_a"}, Attributes: []byte(`{"a":1}`)}},
		Metrics: []telemetry.MetricPoint{{Name: "m", Timestamp: time.Unix(1, 0), Origin: telemetry.Origin{Agent: "agt_a"}}},
		Gaps:    []telemetry.Gap{{Reason: telemetry.GapRotated, Count: -1}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, _, err := wire.DecodeRecords(b)
		if err != nil {
			return
		}
		if _, err := wire.EncodeRecords(&r); err != nil {
			t.Fatalf("taken, but cannot be written again: %v", err)
		}
		if _, err := json.Marshal(&r); err != nil {
			t.Fatalf("taken, but has no JSON form: %v", err)
		}
	})
}
