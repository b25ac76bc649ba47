package telemetry_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/telemetry"
)

// plain has the fields and tags of a LogEntry, and none of its methods.
type plain telemetry.LogEntry

func TestHandWrittenJSONReadsBackAsTheTagsSay(t *testing.T) {
	word := rapid.OneOf(rapid.String(), rapid.Just(""), rapid.SampledFrom([]string{"a\u2028b", "\x00\x1b[31m", "</script>", `"\`, "é\u202e"}))
	rapid.Check(t, func(t *rapid.T) {
		in := telemetry.LogEntry{
			ID: telemetry.LogID(word.Draw(t, "id")), Timestamp: time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "ms")).UTC(),
			Level: telemetry.Level(rapid.IntRange(0, 3).Draw(t, "level")), Message: word.Draw(t, "message"),
			Origin: telemetry.Origin{
				Agent: telemetry.AgentID(word.Draw(t, "agent")), Session: telemetry.SessionID(word.Draw(t, "session")),
				User: telemetry.UserID(word.Draw(t, "user")), Sandbox: telemetry.SandboxID(word.Draw(t, "sandbox")),
				Provider: telemetry.Provider(rapid.IntRange(0, 3).Draw(t, "provider")), Stream: telemetry.Stream(rapid.IntRange(0, 2).Draw(t, "stream")),
				Source: telemetry.LogSource(rapid.IntRange(0, 3).Draw(t, "source")),
			},
			Trace: telemetry.TraceID(word.Draw(t, "trace")), Span: telemetry.SpanID(word.Draw(t, "span")),
			LevelInferred: rapid.Bool().Draw(t, "inferred"), Truncated: rapid.Bool().Draw(t, "truncated"),
			Node: telemetry.NodeID(word.Draw(t, "node")), Seq: rapid.Uint64Max(1<<53).Draw(t, "seq"), Cursor: word.Draw(t, "cursor"),
		}
		if rapid.Bool().Draw(t, "metadata") {
			in.Metadata = json.RawMessage(`{"a":[1,{"b":null}]}`)
			in.ObservedAt = in.Timestamp
		}
		b := in.AppendJSON(nil)
		if strings.ContainsAny(string(b), "\n\r\u2028\u2029\x00\x1b") {
			t.Fatalf("%q cannot stand in an event stream", b)
		}
		var got plain
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(plain(in), got, cmpopts.EquateEmpty(), cmp.Transformer("utf8", func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") })); d != "" {
			t.Fatal(d)
		}
	})
}

func TestEveryEnumerationReadsWhatItPrints(t *testing.T) {
	for l := telemetry.Debug; l <= telemetry.Error; l++ {
		if got, err := telemetry.ParseLevel(l.String()); err != nil || got != l {
			t.Errorf("%s: %v %v", l, got, err)
		}
	}
	for s := telemetry.AgentBooting; s <= telemetry.AgentFailed; s++ {
		if got, err := telemetry.ParseAgentStatus(s.String()); err != nil || got != s {
			t.Errorf("%s: %v %v", s, got, err)
		}
	}
	if _, err := telemetry.ParseLevel("fatal"); err == nil || !strings.Contains(err.Error(), "debug, info, warn, error") {
		t.Errorf("an unknown word should list the known ones: %v", err)
	}
	if _, err := json.Marshal(telemetry.Level(9)); err == nil {
		t.Error("a level that does not exist was printed")
	}
}

func TestIDsOfTheWorldAreChecked(t *testing.T) {
	for _, s := range []string{"", "a b", "ä", "a/../b", "a\x00", strings.Repeat("a", telemetry.MaxIDLength+1)} {
		if telemetry.CheckID(s) == nil {
			t.Errorf("id %q was taken", s)
		}
	}
	for _, s := range []string{"", "a\x00", "\xff", strings.Repeat("a", telemetry.MaxUserLength+1)} {
		if telemetry.CheckUser(s) == nil {
			t.Errorf("user %q was taken", s)
		}
	}
	if err := telemetry.CheckUser("müller@example.com / 7"); err != nil {
		t.Error(err)
	}
}
