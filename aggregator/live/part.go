package live

import (
	"slices"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

// part is published records on their way to views: what all views share is
// made once, when the first of them needs it. It is for one goroutine.
type part struct {
	*frame.Published
	epoch int64

	encoded [][]byte // of each line; nil: nobody wanted it yet
	bytes   int      // encoded so far
	lines   [][]int  // of each origin, rising
	chosen  []int    // scratch
	entry   telemetry.LogEntry
	buf     []byte // scratch
	cursor  []byte // scratch
}

func newPart(p *frame.Published, epoch int64) *part { return &part{Published: p, epoch: epoch} }

// json encodes line i: in memory of its own, so that what a slow reader holds
// keeps nothing else alive.
func (p *part) json(i int) []byte {
	if p.encoded == nil {
		p.encoded = make([][]byte, p.Count())
	}
	if p.encoded[i] == nil {
		p.Entry(i, &p.entry)
		p.cursor = stream.Cursor{Epoch: p.epoch, Position: p.entry.Position}.Append(p.cursor[:0])
		p.entry.Cursor = string(p.cursor)
		p.buf = p.entry.AppendJSON(p.buf[:0])
		p.encoded[i] = slices.Clone(p.buf)
		p.bytes += len(p.buf)
	}
	return p.encoded[i]
}

// of returns the lines of some origins, rising.
func (p *part) of(origins []uint32) []int {
	if p.lines == nil {
		p.lines = make([][]int, len(p.Lines.Origins))
		for i := range p.Count() {
			o := p.Lines.OriginIndex(i)
			p.lines[o] = append(p.lines[o], i)
		}
	}
	if len(origins) == 1 {
		return p.lines[origins[0]]
	}
	var all []int
	for _, o := range origins {
		all = append(all, p.lines[o]...)
	}
	slices.Sort(all)
	return all
}

// fewLines is up to how many lines are matched one by one: beyond, going over
// columns costs less.
const fewLines = 32

// choose returns the lines that match a view, rising, until it is called
// again. The columns of published lines are decoded, so it cannot fail but
// for a fault in the codec.
func (p *part) choose(c *candidate) (chosen []int, err error) {
	if p.Lines == nil {
		return nil, nil
	}
	f := &c.view.filter
	if !c.all {
		lines := p.of(c.origins)
		if len(lines) <= fewLines {
			p.chosen = p.chosen[:0]
			for _, i := range lines {
				p.Lines.Entry(i, &p.entry)
				if p.entry.Node = p.Node; f.Match(&p.entry) {
					p.chosen = append(p.chosen, i)
				}
			}
			return p.chosen, nil
		}
	}
	p.chosen, err = p.Lines.Select(p.chosen[:0], f, p.Node, segment.Range{})
	return p.chosen, err
}
