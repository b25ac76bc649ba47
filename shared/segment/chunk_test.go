package segment_test

import (
	"cmp"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"
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
// consecutive positions and sequences, in the order of a chunk. Some are of several blocks.
func chunkLines(t *rapid.T) []chunkLine {
	var lines []chunkLine
	position := rapid.Int64Range(1, 1<<40).Draw(t, "position")
	copies := rapid.SampledFrom([]int{1, 1, 1, 8}).Draw(t, "copies")
	for range rapid.IntRange(1, 5).Draw(t, "parts") {
		node := rapid.SampledFrom([]telemetry.NodeID{"nod_a", "nod_b", ""}).Draw(t, "node")
		epoch := rapid.Uint64().Draw(t, "epoch")
		seq := rapid.Uint64Range(0, 1<<40).Draw(t, "seq")
		observed := base.Add(time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, "observed")) * time.Microsecond)
		position += rapid.Int64Range(0, 3).Draw(t, "lines of others")
		part := entries(t)
		for range copies {
			for _, e := range part {
				e.Node = node
				lines = append(lines, chunkLine{e, segment.Place{Position: position, Node: node, Epoch: epoch, Seq: seq, Observed: observed}})
				position++
				seq++
			}
			observed = observed.Add(time.Millisecond)
		}
	}
	sortLines(lines)
	return lines
}

func sortLines(lines []chunkLine) {
	slices.SortFunc(lines, func(a, b chunkLine) int {
		return cmp.Or(strings.Compare(string(a.Session), string(b.Session)), strings.Compare(string(a.Agent), string(b.Agent)),
			telemetry.LogKey{Timestamp: a.Timestamp, Position: a.At.Position}.Compare(telemetry.LogKey{Timestamp: b.Timestamp, Position: b.At.Position}))
	})
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
	var interner segment.Interner
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
		interner.Intern(s, nil)
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
	var block segment.BlockPlaces // one for all: nothing of a block may leak into the next
	for b, l := range readChunk(tb, c) {
		err := places.ReadBlock(&block, b)
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
		if d := gocmp.Diff(in, readLines(t, c), cmpopts.EquateEmpty()); d != "" {
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
	if d := gocmp.Diff(want, got); d != "" || len(counts) != len(want) {
		t.Fatalf("counts: %s", d)
	}
}

func TestSelectInAChunkFindsWhatTheFilterMatches(t *testing.T) {
	var w segment.ChunkWriter
	var l segment.Lines // one for all blocks: nothing of a block may leak into the next
	rapid.Check(t, func(t *rapid.T) {
		in := chunkLines(t)
		f := filter(t, in)
		bounds := segment.Range{Since: base.Add(time.Duration(rapid.Int64Range(-2e9, 1e9).Draw(t, "since")))}
		if rapid.Bool().Draw(t, "no bound") {
			bounds = segment.Range{}
		}
		var want, got []int64
		counts := map[telemetry.Origin]int{}
		for i := range in {
			if f.Match(&in[i].LogEntry) && (bounds.Since.IsZero() || !in[i].Timestamp.Before(bounds.Since)) {
				want = append(want, in[i].At.Position)
				counts[in[i].Origin]++
			}
		}
		fill(t, &w, in)
		c := w.Encode()
		n, origins := 0, map[telemetry.Origin]int{}
		for _, block := range readChunk(t, c) {
			l.Reset(block.Segment)
			if err := l.Place(block.Places()); err != nil {
				t.Fatal(err)
			}
			count, err := l.Count(&f, "", bounds)
			if err != nil {
				t.Fatal(err)
			}
			n += count
			l.Reset(block.Segment)
			if err := l.Place(block.Places()); err != nil {
				t.Fatal(err)
			}
			chosen, err := l.Select([]int{-1}, &f, "", bounds)
			if err == nil {
				err = l.Decode(segment.Origin)
			}
			if err != nil || chosen[0] != -1 {
				t.Fatal(err, chosen)
			}
			for _, i := range chosen[1:] {
				origins[*l.Origin(i)]++
				got = append(got, l.Places().Position(i))
			}
		}
		if !slices.Equal(want, got) {
			t.Fatalf("filter %+v: got lines at %v, want %v", f, got, want)
		}
		if n != len(want) {
			t.Fatalf("filter %+v: counted %d, want %d", f, n, len(want))
		}
		if d := gocmp.Diff(counts, origins); d != "" {
			t.Fatalf("filter %+v: lines of origins: %s", f, d)
		}
		if len(want) > 0 && !segment.BloomMayHold(c.Bloom, segment.Tokens(f.Needles()...)) {
			t.Fatalf("the bloom denies %q, which %d lines hold", f.Needles(), len(want))
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
	if has("condition") {
		f.Where = condition(t, &e, 2)
	}
	return f
}

// condition draws what queries are made of, much of it true of e.
func condition(t *rapid.T, e *chunkLine, depth int) *telemetry.LogExpr {
	must := func(x *telemetry.LogExpr, err error) *telemetry.LogExpr {
		if err != nil { // an id or a text that e has and a query cannot ask for
			return telemetry.ExprMinLevel(telemetry.Warn)
		}
		return x
	}
	kinds := 9
	if depth == 0 {
		kinds = 6
	}
	switch rapid.IntRange(0, kinds).Draw(t, "kind") {
	case 0:
		return must(telemetry.ExprText(rapid.SampledFrom([]string{"time", "İX", "LINE", "user"}).Draw(t, "part")))
	case 1:
		return must(telemetry.ExprRegexp("time(out)?|u[st]er", rapid.Bool().Draw(t, "fold")))
	case 2:
		return must(telemetry.ExprIs(telemetry.FieldNode, rapid.SampledFrom([]string{"nod_a", "nod_b"}).Draw(t, "node")))
	case 3:
		return must(telemetry.ExprIs(telemetry.FieldAgent, string(e.Agent)))
	case 4:
		return must(telemetry.ExprMeta("k", telemetry.Equal, "a"))
	case 5:
		return must(telemetry.ExprHas(telemetry.FieldTrace))
	case 6:
		return telemetry.ExprMinLevel(e.Level)
	case 7:
		return telemetry.ExprNot(condition(t, e, depth-1))
	case 8:
		return telemetry.ExprAny(condition(t, e, depth-1), condition(t, e, depth-1))
	default:
		return telemetry.ExprAll(condition(t, e, depth-1), condition(t, e, depth-1))
	}
}

func TestAChunkIsNotSearchedByNodeWithoutItsPlaces(t *testing.T) {
	var w segment.ChunkWriter
	fill(t, &w, []chunkLine{{telemetry.LogEntry{Timestamp: base}, segment.Place{Node: "nod_a", Observed: base}}})
	c := w.Encode()
	parts, err := segment.Split(c.Head, &c.Columns)
	if err != nil {
		t.Fatal(err)
	}
	f := telemetry.LogFilter{Nodes: []telemetry.NodeID{"nod_a"}}
	if chosen, err := parts[0].Read().Select(nil, &f, "", segment.Range{}); err == nil {
		t.Fatalf("it found %v", chosen)
	}
}

// A bloom that says that a text is absent must be right.
func TestABloomNeverDeniesWhatIsThere(t *testing.T) {
	message := rapid.OneOf(rapid.String(), rapid.StringMatching(`([A-Za-zİıſK0-9_]{1,8}[ =/:]){0,8}`),
		rapid.StringMatching(`(([A-Fa-f0-9_-]{8,24})[ =/é]?){0,4}`),
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

// tryChunk decodes what may be anything: an error must be ErrCorrupt.
func tryChunk(tb testing.TB, c *segment.Chunk) {
	tb.Helper()
	if err := decodeChunk(c); err != nil && !errors.Is(err, segment.ErrCorrupt) {
		tb.Fatalf("refused with %v, which is not ErrCorrupt", err)
	}
}

func decodeChunk(c *segment.Chunk) error {
	if _, err := segment.ReadCounts(nil, c.Counts); err != nil {
		return err
	}
	segment.BloomMayHold(c.Bloom, segment.Tokens("some text", "request_id=0123456789abcdef"))
	parts, err := segment.Split(c.Head, &c.Columns)
	if err != nil {
		return err
	}
	places, err := segment.ReadPlaces(c.Places)
	if err != nil {
		return err
	}
	var l segment.Lines
	for i := range parts {
		block, err := places.Block(i)
		if err != nil {
			return err
		}
		l.Reset(parts[i].Segment)
		if err := l.Place(block); err != nil {
			return err
		}
		if _, err := l.Select(nil, &telemetry.LogFilter{Search: "in", Nodes: []telemetry.NodeID{"nod_0"}}, "", segment.Range{Since: base}); err != nil {
			return err
		}
		if err := l.DecodeAll(); err != nil {
			return err
		}
		var e telemetry.LogEntry
		for j := range l.Segment.Lines {
			l.Entry(j, &e)
			block.At(j)
		}
	}
	return nil
}

func FuzzChunk(f *testing.F) {
	var w segment.ChunkWriter
	fill(f, &w, goldenLines()[:60])
	c := w.Encode()
	f.Add(c.Head, c.Columns[segment.Time], c.Places, c.Counts)
	f.Fuzz(func(t *testing.T, head, times, places, counts []byte) {
		if len(head)+len(times)+len(places)+len(counts) > 1<<20 {
			return
		}
		bad := *c
		bad.Head, bad.Columns[segment.Time], bad.Places, bad.Counts = head, times, places, counts
		tryChunk(t, &bad)
	})
}

// What a chunk says of its size is not believed.
func TestChunkBombsStayWithinTheBound(t *testing.T) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	var w segment.ChunkWriter
	fill(t, &w, goldenLines()[:60])
	good := w.Encode()
	inflated := e.EncodeAll(make([]byte, 256<<20), binary.AppendUvarint([]byte{0x11}, segment.MaxColumn))
	long := binary.AppendUvarint(nil, uint64(len(inflated)))
	for name, change := range map[string]func(c *segment.Chunk){
		"head": func(c *segment.Chunk) { c.Head = append([]byte{2}, inflated...) },
		"runs": func(c *segment.Chunk) { c.Places = slices.Concat([]byte{1}, long, inflated) },
		"times": func(c *segment.Chunk) {
			c.Columns[segment.Time] = slices.Concat([]byte{0x20, 0xe0, 3, 1, 0}, long, inflated)
		},
		"counts": func(c *segment.Chunk) { c.Counts = []byte{1, 0xff, 0xff, 3} },
	} {
		bad := *good
		change(&bad)
		var before, after runtime.MemStats
		tryChunk(t, good) // makes the shared decoder
		runtime.ReadMemStats(&before)
		if err := decodeChunk(&bad); !errors.Is(err, segment.ErrCorrupt) {
			t.Errorf("%s: decoded, %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(segment.MaxAllocation)+8<<20 {
			t.Errorf("%s: decoding allocated %d, the bound is %d", name, took, segment.MaxAllocation)
		}
	}
}
