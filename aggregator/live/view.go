package live

import (
	"slices"
	"time"

	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

// chunkSize is about how many encoded bytes a queue takes or misses at once.
const chunkSize = 64 << 10

// recordSize is what a record counts in a queue beside its encoded bytes, and
// gapSize what a recorded gap does.
const (
	recordSize = 48
	gapSize    = 256
)

// view is one filter and its readers. Its tailer's lock guards it; the
// filter never changes.
type view struct {
	filter  telemetry.LogFilter
	readers map[*Reader]struct{}

	// The tailer's own: its last round that met this view, and where it stands
	// among the candidates of that.
	round uint64
	slot  int
}

func newView(f telemetry.LogFilter) *view {
	return &view{filter: f, readers: make(map[*Reader]struct{})}
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
	since, until time.Time
}

// overhead is what the cut takes beside the encoded lines, which others share.
func (c *cut) overhead() int {
	n := 0
	for i := range c.chunks {
		n += recordSize * len(c.chunks[i].records)
	}
	return n
}

// chunk is records that are queued, or missed, together.
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

// cut chooses and encodes what a view takes of a part.
func (t *tailer) cut(of *candidate, p *part) *cut {
	c := &cut{}
	chosen, err := p.choose(of)
	if err != nil {
		t.hub.options.Log.Error("published lines cannot be read", "scope", t.scope.String(), "position", p.Position, "error", err)
	}
	if len(chosen) > 0 {
		c.since, c.until = p.Lines.Min, p.Lines.Max
		c.addLines(p, chosen)
	}
	c.addGaps(p, &of.view.filter)
	return c
}

// addLines makes chunks of the chosen lines.
func (c *cut) addLines(p *part, chosen []int) {
	records := make([]stream.Record, 0, len(chosen))
	size := 0
	for _, i := range chosen {
		json := p.json(i)
		records = append(records, stream.Record{Position: p.Position + int64(i), JSON: json})
		if size += len(json) + recordSize; size >= chunkSize {
			c.chunks = append(c.chunks, chunk{records: slices.Clip(records), bytes: size})
			records, size = records[len(records):], 0
		}
	}
	if size > 0 {
		c.chunks = append(c.chunks, chunk{records: records, bytes: size})
	}
}

func (c *cut) addGaps(p *part, f *telemetry.LogFilter) {
	var gaps chunk
	for i := range p.Gaps {
		if !f.MatchGap(&p.Gaps[i]) {
			continue
		}
		g := p.Gaps[i]
		g.Cursor = stream.Cursor{Epoch: p.epoch, Position: g.Position}.String()
		gaps.records = append(gaps.records, stream.Record{Position: g.Position, Gap: &g})
		gaps.bytes += gapSize
	}
	if len(gaps.records) > 0 {
		c.chunks = append(c.chunks, gaps)
	}
}
