package segment_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

var update = flag.Bool("update", false, "write the golden file of the current version anew")

var base = time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC)

// entries draws lines as hostile as intake lets through: few origins, times
// that go back, empty and long messages.
func entries(t *rapid.T) []telemetry.LogEntry {
	id := rapid.StringMatching(`[a-c_]{0,3}`)
	origins := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) telemetry.Origin {
		return telemetry.Origin{
			Agent: telemetry.AgentID(id.Draw(t, "agent")), Session: telemetry.SessionID(id.Draw(t, "session")),
			User: telemetry.UserID(rapid.StringN(0, 4, 16).Draw(t, "user")), Sandbox: telemetry.SandboxID(id.Draw(t, "sandbox")),
			Provider: rapid.SampledFrom([]telemetry.Provider{telemetry.NoProvider, telemetry.Docker, telemetry.E2B}).Draw(t, "provider"),
			Stream:   rapid.SampledFrom([]telemetry.Stream{telemetry.NoStream, telemetry.Stdout, telemetry.Stderr}).Draw(t, "stream"),
			Source:   rapid.SampledFrom([]telemetry.LogSource{telemetry.SourceAgent, telemetry.SourceModel}).Draw(t, "source"),
		}
	}), 1, 5).Draw(t, "origins")
	message := rapid.OneOf(rapid.StringMatching(`(timeout|Time|İx|user|[a-z ]){0,6}`), rapid.String(),
		rapid.Custom(func(t *rapid.T) string { return strings.Repeat("line of text ", rapid.IntRange(0, 400).Draw(t, "n")) }))
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) telemetry.LogEntry {
		e := telemetry.LogEntry{
			Timestamp:     base.Add(time.Duration(rapid.Int64Range(-1e6, 1e6).Draw(t, "us")) * time.Microsecond),
			Level:         telemetry.Level(rapid.IntRange(0, 3).Draw(t, "level")),
			LevelInferred: rapid.Bool().Draw(t, "inferred"), Truncated: rapid.Bool().Draw(t, "truncated"),
			Origin: rapid.SampledFrom(origins).Draw(t, "origin"), Message: message.Draw(t, "message"),
		}
		if rapid.IntRange(0, 3).Draw(t, "extras") == 0 {
			e.Metadata = json.RawMessage(`{"k":"` + id.Draw(t, "meta") + `"}`)
			e.Trace, e.Span = telemetry.TraceID(id.Draw(t, "trace")), telemetry.SpanID(id.Draw(t, "span"))
		}
		return e
	}), 1, 60).Draw(t, "entries")
}

func encode(list []telemetry.LogEntry) []byte {
	var w segment.Writer
	for i := range list {
		w.Append(&list[i])
	}
	return w.Encode(nil)
}

func decode(tb testing.TB, b []byte) []telemetry.LogEntry {
	tb.Helper()
	s, err := segment.Parse(b)
	if err != nil {
		tb.Fatal(err)
	}
	return readAll(tb, s)
}

func readAll(tb testing.TB, s *segment.Segment) []telemetry.LogEntry {
	tb.Helper()
	l := s.Read()
	if err := l.DecodeAll(); err != nil {
		tb.Fatal(err)
	}
	out := make([]telemetry.LogEntry, s.Lines)
	for i := range out {
		l.Entry(i, &out[i])
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	var w segment.Writer // one writer for all cases: nothing of a segment may leak into the next
	rapid.Check(t, func(t *rapid.T) {
		in := entries(t)
		for i := range in {
			w.Append(&in[i])
		}
		want := w.Stats()
		b := w.Encode([]byte("before"))
		s, err := segment.Parse(b[len("before"):])
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, s.Stats); d != "" {
			t.Fatalf("stats: %s", d)
		}
		l := s.Read()
		if err := l.DecodeAll(); err != nil {
			t.Fatal(err)
		}
		for i := range in {
			var got telemetry.LogEntry
			l.Entry(i, &got)
			if d := cmp.Diff(in[i], got, cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("line %d: %s", i, d)
			}
		}
	})
}

func TestSelectFindsWhatTheFilterMatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := entries(t)
		var f telemetry.LogFilter
		pick := func(name string) *telemetry.LogEntry {
			if rapid.IntRange(0, 2).Draw(t, name) > 0 {
				return nil
			}
			return &in[rapid.IntRange(0, len(in)-1).Draw(t, name+" of")]
		}
		if e := pick("session"); e != nil {
			f.Sessions = []telemetry.SessionID{e.Session}
		}
		if e := pick("agent"); e != nil {
			f.Agents = []telemetry.AgentID{e.Agent, "other"}
		}
		if e := pick("stream"); e != nil {
			f.Streams = []telemetry.Stream{e.Stream}
		}
		if e := pick("level"); e != nil {
			f.Levels = []telemetry.Level{e.Level}
		}
		if e := pick("trace"); e != nil {
			f.Traces = []telemetry.TraceID{e.Trace}
		}
		if e := pick("span"); e != nil {
			f.Spans = []telemetry.SpanID{e.Span}
		}
		f.Search = rapid.SampledFrom([]string{"", "", "timeout", "TIME", "t", "i̇x", "line of", "zzz"}).Draw(t, "search")
		var in1 segment.Range
		if rapid.Bool().Draw(t, "since") {
			in1.Since = base.Add(time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, "from")))
		}
		if rapid.Bool().Draw(t, "until") {
			in1.Until = base.Add(time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, "to")))
		}
		var want []int
		for i := range in {
			ts := in[i].Timestamp
			if f.Match(&in[i]) && (in1.Since.IsZero() || !ts.Before(in1.Since)) && (in1.Until.IsZero() || ts.Before(in1.Until)) {
				want = append(want, i)
			}
		}
		s, err := segment.Parse(encode(in))
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Read().Select(nil, &f, "", in1)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("filter %+v range %v: got lines %v, want %v", f, in1, got, want)
		}
	})
}

// The live hub decodes lines once and searches them for every view.
func TestDecodedLinesAreSearchedByMany(t *testing.T) {
	s, err := segment.Parse(encode(golden()))
	if err != nil {
		t.Fatal(err)
	}
	l := s.Read()
	if err := l.DecodeAll(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, search := range []string{"end", "status", "absent", "Ä", "GET"} {
		all.Go(func() {
			f := telemetry.LogFilter{Search: search}
			for range 50 {
				chosen, err := l.Select(nil, &f, "", segment.Range{})
				n, err2 := l.Count(&f, "", segment.Range{})
				if err != nil || err2 != nil || len(chosen) != n {
					t.Errorf("%q: %d lines, counted %d (%v, %v)", search, len(chosen), n, err, err2)
				}
			}
		})
	}
	all.Wait()
}

func TestJoinAndSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var parts []segment.Part
		var want []telemetry.LogEntry
		for range rapid.IntRange(1, 4).Draw(t, "parts") {
			in := entries(t)
			s, err := segment.Parse(encode(in))
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, segment.Part{
				Segment: s, Node: telemetry.NodeID(rapid.StringMatching(`nod_[a-z]{1,3}`).Draw(t, "node")),
				Epoch: rapid.Uint64().Draw(t, "epoch"), FirstSeq: rapid.Uint64().Draw(t, "seq"),
			})
			want = append(want, in...)
		}
		row := segment.Join(parts)
		if row.Lines != len(want) {
			t.Fatalf("row of %d lines, want %d", row.Lines, len(want))
		}
		back, err := segment.Split(row.Head, &row.Columns)
		if err != nil {
			t.Fatal(err)
		}
		var got []telemetry.LogEntry
		for i, p := range back {
			if p.Node != parts[i].Node || p.Epoch != parts[i].Epoch || p.FirstSeq != parts[i].FirstSeq {
				t.Fatalf("part %d: %+v", i, p)
			}
			l := p.Read()
			if err := l.DecodeAll(); err != nil {
				t.Fatal(err)
			}
			for i := range p.Lines {
				var e telemetry.LogEntry
				l.Entry(i, &e)
				got = append(got, e)
			}
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}

func TestAColumnLeftInTheDatabaseIsAnErrorAndNotEmpty(t *testing.T) {
	in := []telemetry.LogEntry{{Timestamp: base, Message: "hello"}}
	s, err := segment.Parse(encode(in))
	if err != nil {
		t.Fatal(err)
	}
	row := segment.Join([]segment.Part{{Segment: s}})
	row.Columns[segment.Message] = nil
	parts, err := segment.Split(row.Head, &row.Columns)
	if err != nil {
		t.Fatal(err)
	}
	l := parts[0].Read()
	if err := l.Decode(segment.Time, segment.Flags, segment.Metadata); err != nil {
		t.Fatal(err)
	}
	if err := l.Decode(segment.Message); err == nil {
		t.Fatal("a message column that was not loaded decoded as empty")
	}
}

// golden is what the first byte version looked like: the files were written
// by it and are never written again.
func golden() []telemetry.LogEntry {
	var list []telemetry.LogEntry
	for i := range 40 {
		e := telemetry.LogEntry{
			Timestamp: base.Add(time.Duration(i*i) * time.Millisecond), Level: telemetry.Level(i % 4), LevelInferred: i%3 == 0, Truncated: i == 7,
			Origin:  telemetry.Origin{Agent: "agt_x7y8z9", Session: "ses_a1b2c3", User: "user ä", Provider: telemetry.Docker, Sandbox: "4f5e", Stream: telemetry.Stdout},
			Message: strings.Repeat("GET /api/v1/orders status=200 ", i%6) + "end",
		}
		if i%5 == 0 {
			e.Stream, e.Metadata = telemetry.Stderr, json.RawMessage(`{"attempt":2}`)
			e.Trace, e.Span = "trc_0123456789abcdef0123456789abcdef", "spn_0123456789abcdef"
		}
		list = append(list, e)
	}
	return list
}

func TestGoldenFiles(t *testing.T) {
	for name, list := range map[string][]telemetry.LogEntry{"plain": golden()[:3], "zstd": golden()} {
		path := filepath.Join("testdata", "v1-"+name+".hex")
		if *update {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(encode(list))+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(list, decode(t, b), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s no longer decodes to what was written: %s", path, d)
		}
		if name == "plain" && !bytes.Equal(b, encode(list)) {
			t.Errorf("the layout of version %d changed: a change takes a new version", segment.Version)
		}
	}
}

func TestEveryCutAndFlippedByteIsRefusedOrHarmless(t *testing.T) {
	good := encode(golden())
	for i := range good {
		for _, bit := range []byte{1, 0x80} {
			bad := slices.Clone(good)
			bad[i] ^= bit
			tryDecode(t, bad)
		}
		tryDecode(t, good[:i])
	}
}

// tryDecode decodes what may be anything: an error must be ErrCorrupt.
func tryDecode(tb testing.TB, b []byte) {
	tb.Helper()
	s, err := segment.Parse(b)
	if err == nil {
		l := s.Read()
		if err = l.DecodeAll(); err == nil {
			var e telemetry.LogEntry
			for i := range s.Lines {
				l.Entry(i, &e)
			}
		}
	}
	if err != nil && !errors.Is(err, segment.ErrCorrupt) {
		tb.Fatalf("refused with %v, which is not ErrCorrupt", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(golden()))
	f.Add(encode(golden()[:2]))
	f.Add([]byte{segment.Version, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		tryDecode(t, b)
		parts, err := segment.Split(b, &[segment.NumColumns][]byte{b, b, b, b, b, b})
		if err != nil && !errors.Is(err, segment.ErrCorrupt) {
			t.Fatal(err)
		}
		for _, p := range parts {
			if err := p.Read().DecodeAll(); err != nil && !errors.Is(err, segment.ErrCorrupt) {
				t.Fatal(err)
			}
		}
	})
}
