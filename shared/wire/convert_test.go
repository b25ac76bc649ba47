package wire_test

import (
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
	event = rapid.Custom(func(t *rapid.T) telemetry.Event {
		code := rapid.IntRange(-128, 255).Draw(t, "exit code")
		return telemetry.Event{
			Type: telemetry.EventType(id.Draw(t, "type")), Timestamp: when.Draw(t, "time"), ExitCode: &code,
			Origin: telemetry.Origin{
				Agent: telemetry.AgentID(id.Draw(t, "agent")), Session: telemetry.SessionID(id.Draw(t, "session")),
				User: telemetry.UserID(text.Draw(t, "user")), Sandbox: telemetry.SandboxID(id.Draw(t, "sandbox")),
				Provider: telemetry.E2B, Stream: telemetry.Stderr, Source: telemetry.SourceProvider,
			},
			Reason: text.Draw(t, "reason"), Inferred: true, Attributes: map[string]string{"image": text.Draw(t, "image")},
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
		events := rapid.SliceOfN(event, 0, 3).Draw(t, "events")
		gaps := rapid.SliceOfN(gap, 0, 3).Draw(t, "gaps")
		b, err := wire.EncodeRecords(events, gaps)
		if err != nil {
			t.Fatal(err)
		}
		gotEvents, gotGaps, unknown, err := wire.DecodeRecords(b)
		if err != nil || unknown != 0 {
			t.Fatal(unknown, err)
		}
		if d := cmp.Diff(events, gotEvents, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
		if d := cmp.Diff(gaps, gotGaps, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
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

func FuzzDecodeRecords(f *testing.F) {
	code := 137
	b, err := wire.EncodeRecords([]telemetry.Event{{Type: telemetry.SandboxExited, Timestamp: time.Unix(1, 0), Origin: telemetry.Origin{Agent: "agt_a"}, ExitCode: &code}},
		[]telemetry.Gap{{Reason: telemetry.GapRotated, Count: -1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		events, gaps, _, err := wire.DecodeRecords(b)
		if err != nil {
			return
		}
		if _, err := wire.EncodeRecords(events, gaps); err != nil {
			t.Fatalf("taken, but cannot be written again: %v", err)
		}
	})
}
