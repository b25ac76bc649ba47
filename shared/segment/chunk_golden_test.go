package segment_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// goldenLines are 600 lines of three sessions and two nodes: two blocks.
func goldenLines() []chunkLine {
	var lines []chunkLine
	list := golden()
	for i := range 600 {
		e := list[i%len(list)]
		e.Timestamp = base.Add(time.Duration(i*i%7919) * 250 * time.Millisecond)
		e.Session = telemetry.SessionID(fmt.Sprintf("ses_%d", i%3))
		e.Message += fmt.Sprintf(" request_id=%016x Größe=%d", uint64(i)*0x9E3779B97F4A7C15, i)
		e.Node = telemetry.NodeID(fmt.Sprintf("nod_%d", i/25%2))
		lines = append(lines, chunkLine{e, segment.Place{
			Position: int64(1000 + i + i/100), Node: e.Node, Epoch: uint64(i / 25 % 2), Seq: uint64(i), Observed: base.Add(time.Duration(i/25) * time.Second),
		}})
	}
	sortLines(lines)
	return lines
}

// The file was written by the first version of chunks and is never written again.
func TestGoldenChunk(t *testing.T) {
	want := goldenLines()
	var w segment.ChunkWriter
	fill(t, &w, want)
	now := w.Encode()
	path := filepath.Join("testdata", "chunk-v1.hex")
	if *update {
		writeChunk(t, path, now)
	}
	old := readGolden(t, path)
	if d := gocmp.Diff(want, readLines(t, old), cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("%s no longer decodes to what was written: %s", path, d)
	}
	if !bytes.Equal(old.Bloom, now.Bloom) {
		t.Error("blooms changed: a change takes a new version, or old ones deny what is there")
	}
	for _, l := range want {
		if !segment.BloomMayHold(old.Bloom, segment.Tokens(l.Message)) {
			t.Errorf("the bloom denies %q", l.Message)
		}
	}
	oldCounts, err := segment.ReadCounts(nil, old.Counts)
	if err != nil {
		t.Fatal(err)
	}
	if newCounts, err := segment.ReadCounts(nil, now.Counts); err != nil || !slices.Equal(oldCounts, newCounts) {
		t.Errorf("counts were %v, are %v (%v)", oldCounts, newCounts, err)
	}
}

func chunkParts(c *segment.Chunk) []*[]byte {
	parts := []*[]byte{&c.Head, &c.Places, &c.Bloom, &c.Counts}
	for i := range c.Columns {
		parts = append(parts, &c.Columns[i])
	}
	return parts
}

func writeChunk(t *testing.T, path string, c *segment.Chunk) {
	t.Helper()
	var b strings.Builder
	for _, part := range chunkParts(c) {
		b.WriteString(hex.EncodeToString(*part) + "\n")
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t *testing.T, path string) *segment.Chunk {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	c := &segment.Chunk{}
	for _, part := range chunkParts(c) {
		lines.Scan()
		if *part, err = hex.DecodeString(lines.Text()); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestEveryFlippedByteOfAChunkIsRefusedOrHarmless(t *testing.T) {
	var w segment.ChunkWriter
	fill(t, &w, goldenLines()[:100])
	good := w.Encode()
	for p, part := range chunkParts(good) {
		step := 1 + len(*part)/60
		for i := 0; i < len(*part); i += step {
			bad := *good
			*chunkParts(&bad)[p] = slices.Clone(*part)
			(*chunkParts(&bad)[p])[i] ^= 0x81
			tryChunk(t, &bad)
			*chunkParts(&bad)[p] = (*part)[:i]
			tryChunk(t, &bad)
		}
	}
}
