package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// load makes the entries of chosen lines, in order, and stops when their text
// is more than maxPageBytes.
func (sc *scan) load(ctx context.Context, lines []lineRef) ([]telemetry.LogEntry, error) {
	entries := make([]telemetry.LogEntry, 0, len(lines))
	bytes := 0
	for len(lines) > 0 && bytes < maxPageBytes {
		rows, n := nextRows(lines)
		group, err := sc.loadRows(ctx, rows, lines[:n])
		if err != nil {
			return nil, err
		}
		for i := range group {
			bytes += len(group[i].Message) + len(group[i].Metadata)
		}
		entries = append(entries, group...)
		lines = lines[n:]
	}
	return entries, nil
}

// nextRows returns the rows of as many of the next lines as may be loaded
// together.
func nextRows(lines []lineRef) (rows []*row, n int) {
	seen := map[*row]bool{}
	var size int64
	for _, l := range lines {
		if !seen[l.row] {
			if n > 0 && size+l.row.raw > maxLoadBytes {
				break
			}
			seen[l.row] = true
			size += l.row.raw
			rows = append(rows, l.row)
		}
		n++
	}
	return rows, n
}

// loadRows fills the lines from their rows.
func (sc *scan) loadRows(ctx context.Context, rows []*row, lines []lineRef) ([]telemetry.LogEntry, error) {
	entries := make([]telemetry.LogEntry, len(lines))
	hashes := newHashes()
	of := make(map[*row][]int, len(rows)) // indices in lines, by row
	blocks := map[blockKey]*loadBlock{}
	for i := range lines {
		l := &lines[i]
		if l.block == nil {
			of[l.row] = append(of[l.row], i)
			continue
		}
		k := blockKey{l.row, l.part}
		if blocks[k] == nil {
			blocks[k] = &loadBlock{row: l.row, segment: l.block}
		}
		blocks[k].wanted = append(blocks[k].wanted, i)
	}
	err := sc.eachBlock(ctx, slices.Collect(maps.Values(blocks)), func(k *loadBlock, b *segment.Lines) error {
		for _, i := range k.wanted {
			hashes.entry(b, lines[i].line, &lines[i].at, &entries[i])
			clone(&entries[i])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r *row) bool { return of[r] == nil })
	err = sc.each(ctx, allColumns|placeColumn, rows, func(d *rowData) error { return sc.loadRow(d, of[d.row], lines, entries, hashes) })
	return entries, err
}

// loadRow fills the wanted lines of a row that was read whole.
func (sc *scan) loadRow(d *rowData, wanted []int, lines []lineRef, entries []telemetry.LogEntry, hashes *hashes) error {
	slices.SortFunc(wanted, func(a, b int) int { return lines[a].part - lines[b].part })
	for len(wanted) > 0 {
		part := lines[wanted[0]].part
		n := 1
		for n < len(wanted) && lines[wanted[n]].part == part {
			n++
		}
		block, err := sc.openBlock(d, part, hashes)
		if err != nil {
			return err
		}
		for _, i := range wanted[:n] {
			block.entry(lines[i].line, &entries[i])
			// The page must not keep all other lines of the part alive.
			clone(&entries[i])
		}
		wanted = wanted[n:]
	}
	return nil
}

// block is a part with every column decoded, to make entries of.
type block struct {
	lines     *segment.Lines
	published *frame.Published // of a hot row
	hashes    *hashes
}

func (sc *scan) openBlock(d *rowData, part int, h *hashes) (*block, error) {
	lines := d.lines(part)
	if err := errors.Join(lines.DecodeAll(), d.locate(part, lines)); err != nil {
		return nil, err
	}
	b := &block{lines: lines, hashes: h}
	if lines.Places() == nil {
		first := d.id
		for i := range part {
			first += int64(d.parts[i].Lines)
		}
		b.published = frame.NewPublished(sc.scope, first, d.recv.UTC(), &d.parts[part], lines)
	}
	return b, nil
}

// entry fills e with line i. Its texts are views of the block.
func (b *block) entry(i int, e *telemetry.LogEntry) {
	if b.published != nil {
		b.published.Entry(i, e)
		return
	}
	at := b.lines.Places().At(i)
	b.hashes.entry(b.lines, i, &at, e)
}

// entry fills e with line i of a chunk's block.
func (h *hashes) entry(lines *segment.Lines, i int, at *segment.Place, e *telemetry.LogEntry) {
	lines.Entry(i, e)
	e.Node, e.Seq, e.ObservedAt, e.Position = at.Node, at.Seq, at.Observed, at.Position
	e.ID = ids.Log(ids.LogKey{Micros: lines.Micros(i), Agent: h.agent(e.Agent), Source: h.source(at.Node, at.Epoch), Seq: at.Seq})
}

// hashes remembers the hashes that log ids are made of: a page has few agents
// and fewer nodes. It is safe for concurrent use.
type hashes struct {
	mu      sync.Mutex
	agents  map[telemetry.AgentID]uint16
	sources map[sourceKey]uint64
}

type sourceKey struct {
	node  telemetry.NodeID
	epoch uint64
}

func newHashes() *hashes {
	return &hashes{agents: map[telemetry.AgentID]uint16{}, sources: map[sourceKey]uint64{}}
}

func (h *hashes) agent(id telemetry.AgentID) uint16 {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, known := h.agents[id]
	if !known {
		v = ids.AgentHash(id)
		h.agents[id] = v
	}
	return v
}

func (h *hashes) source(node telemetry.NodeID, epoch uint64) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := sourceKey{node, epoch}
	v, known := h.sources[k]
	if !known {
		v = ids.SourceHash(node, epoch)
		h.sources[k] = v
	}
	return v
}
