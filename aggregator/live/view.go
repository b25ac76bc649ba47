package live

import (
	"slices"
	"sync"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

// chunkSize is about how many encoded bytes lie in one buffer: what waits
// keeps little more alive than it holds.
const chunkSize = 64 << 10

// gapSize is what a recorded gap counts in a queue.
const gapSize = 256

// view is one filter and its readers. Its tailer's lock guards it; the
// filter never changes.
type view struct {
	filter  telemetry.LogFilter
	readers map[*Reader]struct{}
}

// following reports whether a reader takes what the tailer hands out.
func (v *view) following() bool {
	for r := range v.readers {
		if r.following() {
			return true
		}
	}
	return false
}

// cut is what a view takes of a part.
type cut struct {
	chunks       []chunk
	through      int64 // last position of the part
	since, until time.Time
}

// chunk is records that share a buffer.
type chunk struct {
	records []stream.Record
	bytes   int
}

func (c *chunk) last() int64 { return c.records[len(c.records)-1].Position }

// after returns the records behind a position.
func (c *chunk) after(position int64) []stream.Record {
	i, _ := slices.BinarySearchFunc(c.records, position+1, func(r stream.Record, p int64) int { return int(r.Position - p) })
	return c.records[i:]
}

// cut chooses and encodes what matches. The columns of published lines are
// decoded, so choosing cannot fail.
func (t *tailer) cut(v *view, p *frame.Published) *cut {
	c := &cut{through: p.Next() - 1}
	if p.Lines != nil {
		c.since, c.until = p.Lines.Min, p.Lines.Max
		chosen, err := p.Lines.Select(nil, &v.filter, p.Node, segment.Range{})
		if err != nil {
			t.hub.options.Log.Error("published lines cannot be read", "scope", t.scope.String(), "position", p.Position, "error", err)
		}
		t.encode(c, p, chosen)
	}
	var gaps chunk
	for i := range p.Gaps {
		if !v.filter.MatchGap(&p.Gaps[i]) {
			continue
		}
		g := p.Gaps[i]
		g.Cursor = t.cursor(g.Position).String()
		gaps.records = append(gaps.records, stream.Record{Position: g.Position, Gap: &g})
		gaps.bytes += gapSize
	}
	if len(gaps.records) > 0 {
		c.chunks = append(c.chunks, gaps)
	}
	return c
}

var scratch = sync.Pool{New: func() any { return new([]byte) }}

// encode writes the chosen lines into chunks of their own size.
func (t *tailer) encode(c *cut, p *frame.Published, chosen []int) {
	if len(chosen) == 0 {
		return
	}
	kept, _ := scratch.Get().(*[]byte)
	defer scratch.Put(kept)
	var e telemetry.LogEntry
	ends := make([]int, 0, len(chosen))
	for first := 0; first < len(chosen); first += len(ends) {
		buf := (*kept)[:0]
		ends = ends[:0]
		for _, i := range chosen[first:] {
			p.Entry(i, &e)
			e.Cursor = t.cursor(e.Position).String()
			buf = e.AppendJSON(buf)
			if ends = append(ends, len(buf)); len(buf) >= chunkSize {
				break
			}
		}
		if cap(buf) <= 4*chunkSize { // a rare giant is not kept
			*kept = buf
		}
		c.chunks = append(c.chunks, newChunk(slices.Clone(buf), ends, p.Position, chosen[first:]))
	}
}

// newChunk cuts own, which holds the encoded lines at indices, at ends.
func newChunk(own []byte, ends []int, position int64, indices []int) chunk {
	c := chunk{records: make([]stream.Record, len(ends)), bytes: len(own)}
	start := 0
	for i, end := range ends {
		c.records[i] = stream.Record{Position: position + int64(indices[i]), JSON: own[start:end:end]}
		start = end
	}
	return c
}
