package segment_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// chunkLine is a line with everything that a chunk keeps of it.
type chunkLine struct {
	telemetry.LogEntry
	At segment.Place
}

// chunkLines draws the lines of hot rows: parts of several nodes, each of
// consecutive positions and sequences, in the order of a chunk.
func chunkLines(t *rapid.T) []chunkLine {
	var lines []chunkLine
	position := rapid.Int64Range(1, 1<<40).Draw(t, "position")
	for range rapid.IntRange(1, 5).Draw(t, "parts") {
		node := rapid.SampledFrom([]telemetry.NodeID{"nod_a", "nod_b", ""}).Draw(t, "node")
		epoch := rapid.Uint64().Draw(t, "epoch")
		seq := rapid.Uint64Range(0, 1<<40).Draw(t, "seq")
		observed := base.Add(time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, "observed")) * time.Microsecond)
		position += rapid.Int64Range(0, 3).Draw(t, "lines of others")
		for i, e := range entries(t) {
			e.Node = node
			lines = append(lines, chunkLine{e, segment.Place{Position: position, Node: node, Epoch: epoch, Seq: seq + uint64(i), Observed: observed}})
			position++
		}
	}
	slices.SortFunc(lines, func(a, b chunkLine) int {
		if c := strings.Compare(string(a.Session), string(b.Session)); c != 0 {
			return c
		}
		if c := strings.Compare(string(a.Agent), string(b.Agent)); c != 0 {
			return c
		}
		return telemetry.LogKey{Timestamp: a.Timestamp, Position: a.At.Position}.Compare(telemetry.LogKey{Timestamp: b.Timestamp, Position: b.At.Position})
	})
	return lines
}

// failer is a test, or a case of a property.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// fill appends the lines, each from a segment of its own, or a common one.
func fill(tb failer, w *segment.ChunkWriter, lines []chunkLine) {
	tb.Helper()
	for len(lines) > 0 {
		n := min(len(lines), 100)
		var sw segment.Writer
		for i := range lines[:n] {
			sw.Append(&lines[i].LogEntry)
		}
		s, err := segment.Parse(sw.Encode(nil))
		if err != nil {
			tb.Fatal(err)
		}
		l := s.Read()
		if err := l.DecodeAll(); err != nil {
			tb.Fatal(err)
		}
		for i := range n {
			w.Append(l, i, lines[i].At)
		}
		lines = lines[n:]
	}
}

// readChunk returns the blocks of a chunk with their places.
func readChunk(tb failer, c *segment.Chunk) []*segment.Lines {
	tb.Helper()
	parts, err := segment.Split(c.Head, &c.Columns)
	if err != nil {
		tb.Fatal(err)
	}
	places, err := segment.ReadPlaces(c.Places)
	if err != nil {
		tb.Fatal(err)
	}
	if places.Blocks() != len(parts) {
		tb.Fatalf("%d blocks of places, %d of lines", places.Blocks(), len(parts))
	}
	blocks := make([]*segment.Lines, len(parts))
	for i := range parts {
		block, err := places.Block(i)
		if err != nil {
			tb.Fatal(err)
		}
		blocks[i] = parts[i].Read()
		if err := blocks[i].Place(block); err != nil {
			tb.Fatal(err)
		}
	}
	return blocks
}

func readLines(tb failer, c *segment.Chunk) []chunkLine {
	tb.Helper()
	places, err := segment.ReadPlaces(c.Places)
	if err != nil {
		tb.Fatal(err)
	}
	var lines []chunkLine
	for b, l := range readChunk(tb, c) {
		block, err := places.Block(b)
		if err == nil {
			err = l.DecodeAll()
		}
		if err != nil {
			tb.Fatal(err)
		}
		for i := range l.Segment.Lines {
			var e telemetry.LogEntry
			l.Entry(i, &e)
			at := block.At(i)
			e.Node = at.Node
			lines = append(lines, chunkLine{e, at})
		}
	}
	return lines
}

func TestAChunkHoldsItsLines(t *testing.T) {
	var w segment.ChunkWriter // one writer for all cases: nothing of a chunk may leak into the next
	rapid.Check(t, func(t *rapid.T) {
		in := chunkLines(t)
		fill(t, &w, in)
		raw := 0
		for i := range in {
			raw += len(in[i].Message) + len(in[i].Metadata)
		}
		if w.Lines() != len(in) || w.RawBytes() != raw {
			t.Fatalf("the writer says %d lines and %d bytes, has %d and %d", w.Lines(), w.RawBytes(), len(in), raw)
		}
		c := w.Encode()
		if d := cmp.Diff(in, readLines(t, c), cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
		checkSummary(t, c, in)
	})
	if w.Encode() != nil {
		t.Fatal("a chunk of no lines")
	}
}

// checkSummary compares what a chunk says of its lines with the lines.
func checkSummary(t *rapid.T, c *segment.Chunk, in []chunkLine) {
	t.Helper()
	counts, err := segment.ReadCounts(nil, c.Counts)
	if err != nil {
		t.Fatal(err)
	}
	want := map[time.Time][telemetry.NumLevels]int{}
	for i := range in {
		l := &in[i]
		at := l.Timestamp.Truncate(segment.CountStep)
		n := want[at]
		n[l.Level]++
		want[at] = n
		if l.At.Position < c.First || l.At.Position > c.Last || l.At.Observed.Before(c.Observed0) || l.At.Observed.After(c.Observed1) {
			t.Fatalf("line %d is outside the bounds", i)
		}
		if s := string(l.Session); s < c.SessionLo || s > c.SessionHi || s != "" && c.Sessions != nil && !slices.Contains(c.Sessions, s) ||
			c.Agents != nil && !slices.Contains(c.Agents, string(l.Agent)) {
			t.Fatalf("line %d is not listed", i)
		}
	}
	got := map[time.Time][telemetry.NumLevels]int{}
	for _, n := range counts {
		got[n.Start] = n.Levels
	}
	if d := cmp.Diff(want, got); d != "" || len(counts) != len(want) {
		t.Fatalf("counts: %s", d)
	}
}

func TestSelectInAChunkFindsWhatTheFilterMatches(t *testing.T) {
	var w segment.ChunkWriter
	rapid.Check(t, func(t *rapid.T) {
		in := chunkLines(t)
		f := filter(t, in)
		var want, got []int64
		for i := range in {
			if f.Match(&in[i].LogEntry) {
				want = append(want, in[i].At.Position)
			}
		}
		fill(t, &w, in)
		for _, l := range readChunk(t, w.Encode()) {
			chosen, err := l.Select(nil, &f, "", segment.Range{})
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range chosen {
				got = append(got, l.Places().Position(i))
			}
		}
		if !slices.Equal(want, got) {
			t.Fatalf("filter %+v: got lines at %v, want %v", f, got, want)
		}
	})
}

func filter(t *rapid.T, in []chunkLine) telemetry.LogFilter {
	var f telemetry.LogFilter
	e := rapid.SampledFrom(in).Draw(t, "like")
	has := func(name string) bool { return rapid.IntRange(0, 3).Draw(t, name) == 0 }
	if has("session") {
		f.Sessions = []telemetry.SessionID{e.Session}
	}
	if has("agent") {
		f.Agents = []telemetry.AgentID{e.Agent, "other"}
	}
	if has("node") {
		f.Nodes = []telemetry.NodeID{e.Node}
	}
	if has("level") {
		f.Levels = []telemetry.Level{e.Level}
	}
	if has("trace") {
		f.Traces = []telemetry.TraceID{e.Trace}
	}
	if has("search") {
		f.Search = rapid.SampledFrom([]string{"timeout", "TIME", "t", "i̇x", "line of", "zzz", e.Message}).Draw(t, "text")
	}
	return f
}

// A bloom that says that a text is absent must be right.
func TestABloomNeverDeniesWhatIsThere(t *testing.T) {
	message := rapid.OneOf(rapid.String(), rapid.StringMatching(`([A-Za-zİıſK0-9_]{1,8}[ =/:]){0,8}`),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	var w segment.ChunkWriter
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(message, 1, 8).Draw(t, "messages")
		lines := make([]chunkLine, len(texts))
		for i, text := range texts {
			lines[i] = chunkLine{telemetry.LogEntry{Timestamp: base, Message: text}, segment.Place{Position: int64(i), Observed: base}}
		}
		fill(t, &w, lines)
		c := w.Encode()
		for _, text := range texts {
			runes := []rune(text)
			from := rapid.IntRange(0, len(runes)).Draw(t, "from")
			part := string(runes[from:rapid.IntRange(from, len(runes)).Draw(t, "to")])
			part = rapid.SampledFrom([]string{part, strings.ToUpper(part), strings.ToLower(part), telemetry.FoldText(part)}).Draw(t, "needle")
			if !telemetry.ContainsFold(text, part) {
				continue // upper case is not always folded back
			}
			tokens := segment.Tokens(part)
			if !segment.BloomMayHold(c.Bloom, tokens) {
				t.Fatalf("the bloom denies %q, which is in %q", part, text)
			}
			for _, token := range tokens { // as a reader in SQL does it
				at := 64 * ((token.Slot() * int64(len(c.Bloom)/64)) >> 32)
				if !token.In(c.Bloom[at : at+64]) {
					t.Fatalf("the slice at %d denies %q, which is in %q", at, part, text)
				}
			}
		}
	})
}

func TestABloomDeniesWhatIsAbsent(t *testing.T) {
	lines := make([]chunkLine, 1000)
	for i := range lines {
		lines[i] = chunkLine{telemetry.LogEntry{Timestamp: base, Message: "connection refused by upstream"}, segment.Place{Position: int64(i), Observed: base}}
	}
	var w segment.ChunkWriter
	fill(t, &w, lines)
	c := w.Encode()
	for _, absent := range []string{"timeout", "zzabsentzz", "Refused BY Timeout"} {
		if segment.BloomMayHold(c.Bloom, segment.Tokens(absent)) {
			t.Errorf("the bloom of 1000 equal lines does not deny %q", absent)
		}
	}
}

func FuzzPlacesAndCounts(f *testing.F) {
	var w segment.ChunkWriter
	lines := make([]chunkLine, 700)
	for i := range lines {
		lines[i] = chunkLine{telemetry.LogEntry{Timestamp: base.Add(time.Duration(i) * time.Minute)}, segment.Place{Position: int64(i * i % 7919), Seq: uint64(i), Observed: base}}
	}
	fill(f, &w, lines)
	c := w.Encode()
	f.Add(c.Places)
	f.Add(c.Counts)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		if _, err := segment.ReadCounts(nil, b); err != nil && !errors.Is(err, segment.ErrCorrupt) {
			t.Fatal(err)
		}
		p, err := segment.ReadPlaces(b)
		for i := 0; err == nil && i < p.Blocks(); i++ {
			var block *segment.BlockPlaces
			if block, err = p.Block(i); err == nil {
				for j := range block.Lines() {
					block.At(j)
				}
			}
		}
		if err != nil && !errors.Is(err, segment.ErrCorrupt) {
			t.Fatal(err)
		}
	})
}
