package segment_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// TestABareBlockOutlivesItsRow: it decodes to the same lines, from columns that
// are fetched alone, when its row is gone.
func TestABareBlockOutlivesItsRow(t *testing.T) {
	first, second := chunkOfOwners(1300, 40), chunkOfOwners(700, 900)
	var s segment.Splitter
	parts, err := s.Split(first.Head, &first.Columns)
	if err != nil || len(parts) < 3 {
		t.Fatalf("%d blocks: %v", len(parts), err)
	}
	var want [][]telemetry.LogEntry
	var bare []*segment.Segment
	for i := range parts {
		want = append(want, entriesOf(t, parts[i].Segment))
		bare = append(bare, parts[i].Bare())
	}
	if _, err := s.Split(second.Head, &second.Columns); err != nil {
		t.Fatal(err)
	}
	for i, b := range bare {
		if err := b.Read().DecodeAll(); err == nil {
			t.Errorf("block %d is decoded without its columns", i)
		}
		for c := range segment.NumColumns {
			offset, length := b.Extent(c)
			if length == 0 {
				continue
			}
			if err := b.Attach(c, first.Columns[c][offset:offset+length-1]); !errors.Is(err, segment.ErrCorrupt) {
				t.Errorf("a column that is too short: %v", err)
			}
			if err := b.Attach(c, first.Columns[c][offset:offset+length]); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(want[i], entriesOf(t, b)); d != "" {
			t.Errorf("block %d: %s", i, d)
		}
	}
}

// entriesOf decodes a segment, without views of its memory.
func entriesOf(t *testing.T, s *segment.Segment) []telemetry.LogEntry {
	t.Helper()
	lines := s.Read()
	if err := lines.DecodeAll(); err != nil {
		t.Fatal(err)
	}
	entries := make([]telemetry.LogEntry, s.Lines)
	for i := range entries {
		lines.Entry(i, &entries[i])
		o := &entries[i].Origin
		o.Session, o.Agent = telemetry.SessionID([]byte(o.Session)), telemetry.AgentID([]byte(o.Agent))
	}
	return entries
}
