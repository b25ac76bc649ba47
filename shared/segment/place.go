package segment

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// MaxChunkLines bounds the lines of one chunk, for readers.
const MaxChunkLines = 1 << 16

// Place is what a hot row says of a line by where the line stands, and a chunk
// must say of each line: a chunk is sorted by what queries ask for.
type Place struct {
	Position int64 // in the organisation's stream
	Node     telemetry.NodeID
	Epoch    uint64
	Seq      uint64
	Observed time.Time // microseconds
}

// source is who numbers lines.
type source struct {
	node  telemetry.NodeID
	epoch uint64
}

// A run is a stretch of the stream, as far as the chunk has lines of it, in
// which sequences and positions rise together and everything else is the same:
// what is left of the segments of a hot row.
type run struct {
	position int64 // of its first line
	seq      uint64
	source   uint32
	observed int64
}

func (r *run) holds(p *placed) bool {
	return r.source == p.source && r.observed == p.observed && p.seq-r.seq == uint64(p.position-r.position) //nolint:gosec // both wrap around alike
}

// placed is a line's place while a chunk is being written.
type placed struct {
	position int64
	seq      uint64
	observed int64
	source   uint32
}

const placesVersion = 1

// placeWriter collects the places of a chunk.
//
//	places := version(1) column(sources{ node epoch(8 bytes) } runs{ position source seq observed }) blocks{ lines length } values…
//
// The runs are in the order of positions; each number is a difference: the
// position from the run before, the sequence from the last run of its source,
// the observed time from the run before. A block's column is the positions of its
// lines: the values of each as the difference from the line before (values.go).
type placeWriter struct {
	lines   []placed
	blocks  []int // lines of each
	sources []source
	index   map[source]uint32
	recent  [64]uint32 // by epoch: the number of the source that had it last
	order   []uint64
	deltas  []int64
	classes []byte
}

func (w *placeWriter) append(p *Place) {
	s := source{node: p.Node, epoch: p.Epoch}
	if w.index == nil {
		w.index = make(map[source]uint32)
	}
	recent := &w.recent[p.Epoch%uint64(len(w.recent))]
	if int(*recent) >= len(w.sources) || w.sources[*recent] != s {
		i, known := w.index[s]
		if !known {
			i = uint32(len(w.sources)) //nolint:gosec // at most MaxChunkLines
			w.index[s] = i
			w.sources = append(w.sources, s)
		}
		*recent = i
	}
	w.lines = append(w.lines, placed{position: p.Position, seq: p.Seq, observed: p.Observed.UnixMicro(), source: *recent})
}

// cut ends a block.
func (w *placeWriter) cut(lines int) { w.blocks = append(w.blocks, lines) }

func (w *placeWriter) encode() []byte {
	dst := []byte{placesVersion}
	var table []byte
	table = binary.AppendUvarint(table, uint64(len(w.sources)))
	for _, s := range w.sources {
		table = appendString(table, string(s.node))
		table = binary.BigEndian.AppendUint64(table, s.epoch)
	}
	dst = appendLong(dst, w.appendRuns(table))
	dst = binary.AppendUvarint(dst, uint64(len(w.blocks)))
	var body []byte
	at := 0
	for _, n := range w.blocks {
		w.deltas = w.deltas[:0]
		last := int64(0)
		for _, l := range w.lines[at : at+n] {
			w.deltas = append(w.deltas, l.position-last)
			last = l.position
		}
		at += n
		before := len(body)
		body, w.classes = appendValues(body, w.deltas, w.classes)
		dst = binary.AppendUvarint(dst, uint64(n)) //nolint:gosec // a count
		dst = binary.AppendUvarint(dst, uint64(len(body)-before))
	}
	return append(dst, body...)
}

// appendLong appends a compressed column with its length before it.
func appendLong(dst, raw []byte) []byte {
	column := appendColumn(nil, true, raw)
	dst = binary.AppendUvarint(dst, uint64(len(column)))
	return append(dst, column...)
}

func (w *placeWriter) appendRuns(dst []byte) []byte {
	var runs []run
	for _, i := range w.byPosition() {
		l := &w.lines[i%MaxChunkLines]
		if len(runs) > 0 && runs[len(runs)-1].holds(l) {
			continue
		}
		runs = append(runs, run{position: l.position, seq: l.seq, source: l.source, observed: l.observed})
	}
	dst = binary.AppendUvarint(dst, uint64(len(runs)))
	last := make([]uint64, len(w.sources))
	var position, observed int64
	for _, r := range runs {
		dst = binary.AppendVarint(dst, r.position-position)
		dst = binary.AppendUvarint(dst, uint64(r.source))
		dst = binary.AppendVarint(dst, int64(r.seq-last[r.source])) //nolint:gosec // wraps around and back
		dst = binary.AppendVarint(dst, r.observed-observed)
		position, observed, last[r.source] = r.position, r.observed, r.seq
	}
	return dst
}

// byPosition returns the lines' numbers in the order of positions, in the low
// bits: sorting plain numbers is faster than sorting lines.
func (w *placeWriter) byPosition() []uint64 {
	first, last, _, _ := w.bounds()
	w.order = w.order[:0]
	if uint64(last-first) < 1<<47 { //nolint:gosec // not negative
		for i := range w.lines {
			w.order = append(w.order, uint64(w.lines[i].position-first)<<16|uint64(i)) //nolint:gosec // not negative
		}
		slices.Sort(w.order)
		return w.order
	}
	for i := range w.lines {
		w.order = append(w.order, uint64(i))
	}
	slices.SortFunc(w.order, func(a, b uint64) int { return cmp.Compare(w.lines[a].position, w.lines[b].position) })
	return w.order
}

// bounds returns the extremes of positions and observed times.
func (w *placeWriter) bounds() (first, last, observed0, observed1 int64) {
	for i := range w.lines {
		l := &w.lines[i]
		if i == 0 {
			first, last, observed0, observed1 = l.position, l.position, l.observed, l.observed
		}
		first, last = min(first, l.position), max(last, l.position)
		observed0, observed1 = min(observed0, l.observed), max(observed1, l.observed)
	}
	return first, last, observed0, observed1
}

func (w *placeWriter) reset() {
	w.lines, w.blocks, w.sources = w.lines[:0], w.blocks[:0], w.sources[:0]
	clear(w.index)
}

// Places is the column of places of a chunk: the runs decoded, the blocks not
// yet. It is safe for concurrent use.
type Places struct {
	sources []source
	runs    []run // by position
	blocks  []encodedPlaces
}

type encodedPlaces struct {
	lines  int
	column []byte
}

// ReadPlaces reads the column of places of a chunk; its blocks stay views of it.
func ReadPlaces(column []byte) (*Places, error) {
	r := reader{b: column}
	if v := r.byte(); v != placesVersion && r.err == nil {
		r.fail("places version %d is not known here", v)
	}
	table := r.bytes(r.count(len(column), "length of the runs"))
	p := &Places{}
	if r.err == nil {
		p.readTable(&r, table)
	}
	n := r.count(MaxParts, "blocks of places")
	if r.err == nil && 2*n > len(r.b) {
		r.fail("%d blocks in %d bytes", n, len(r.b))
	}
	if r.err != nil {
		return nil, r.err
	}
	p.blocks = make([]encodedPlaces, n)
	lengths := make([]int, n)
	for i := range p.blocks {
		p.blocks[i].lines, lengths[i] = r.count(MaxLines, "lines of a block"), r.count(len(column), "length of a block")
	}
	for i := range p.blocks {
		p.blocks[i].column = r.bytes(lengths[i])
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes after the last block of places", len(r.b))
	}
	return p, r.err
}

const (
	minSourceSize = 1 + 8
	minRunSize    = 4
)

func (p *Places) readTable(outer *reader, column []byte) {
	raw, err := inflateInto(nil, column)
	if err != nil {
		outer.err = err
		return
	}
	r := reader{b: raw}
	p.readSources(&r)
	p.readRuns(&r)
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes after the last run", len(r.b))
	}
	outer.err = r.err
}

func (p *Places) readSources(r *reader) {
	n := r.count(MaxChunkLines, "sources")
	if r.err == nil && n*minSourceSize > len(r.b) {
		r.fail("%d sources in %d bytes", n, len(r.b))
	}
	if r.err != nil {
		return
	}
	p.sources = make([]source, n)
	for i := range p.sources {
		p.sources[i].node = telemetry.NodeID(r.string())
		if epoch := r.bytes(8); r.err == nil {
			p.sources[i].epoch = binary.BigEndian.Uint64(epoch)
		}
	}
}

func (p *Places) readRuns(r *reader) {
	n := r.count(MaxChunkLines, "runs")
	if r.err == nil && n*minRunSize > len(r.b) {
		r.fail("%d runs in %d bytes", n, len(r.b))
	}
	if r.err != nil {
		return
	}
	p.runs = make([]run, n)
	last := make([]uint64, len(p.sources))
	var position, observed int64
	for i := range p.runs {
		position += r.varint()
		s := r.uvarint()
		if s >= uint64(len(p.sources)) || i > 0 && position <= p.runs[i-1].position {
			r.fail("run %d of unknown source %d, or out of order", i, s)
			return
		}
		last[s] += uint64(r.varint()) //nolint:gosec // wraps around and back
		observed += r.varint()
		if observed > maxMicros || observed < -maxMicros {
			r.fail("observed time out of range")
			return
		}
		p.runs[i] = run{position: position, seq: last[s], source: uint32(s), observed: observed} //nolint:gosec // checked above
	}
}

// Blocks is the number of blocks.
func (p *Places) Blocks() int { return len(p.blocks) }

// Block decodes the places of the lines of block i.
func (p *Places) Block(i int) (*BlockPlaces, error) {
	b := &BlockPlaces{}
	if err := p.ReadBlock(b, i); err != nil {
		return nil, err
	}
	return b, nil
}

// ReadBlock does so into b, of which nobody may read what it held before.
func (p *Places) ReadBlock(b *BlockPlaces, i int) error {
	if i < 0 || i >= len(p.blocks) {
		return corrupt("block %d of %d has no places", i, len(p.blocks))
	}
	if len(p.runs) == 0 {
		return corrupt("places without runs")
	}
	b.places, b.positions = p, sized(b.positions, p.blocks[i].lines)
	r := reader{b: p.blocks[i].column}
	b.in.readValues(b.positions, &r)
	last := int64(0)
	for i, delta := range b.positions {
		last += delta
		b.positions[i] = last
		if r.err == nil && last < p.runs[0].position {
			r.fail("a position before the first run")
		}
	}
	return r.err
}

// BlockPlaces holds the places of the lines of one block. It is safe for
// concurrent use.
type BlockPlaces struct {
	places    *Places
	positions []int64
	in        inflater
}

// Lines is the number of lines.
func (b *BlockPlaces) Lines() int { return len(b.positions) }

// Position returns the position of line i.
func (b *BlockPlaces) Position(i int) int64 { return b.positions[i] }

// Node returns the node of line i.
func (b *BlockPlaces) Node(i int) telemetry.NodeID {
	return b.places.sources[b.run(i).source].node
}

// At returns the place of line i.
func (b *BlockPlaces) At(i int) Place {
	r := b.run(i)
	s := &b.places.sources[r.source]
	return Place{
		Position: b.positions[i], Node: s.node, Epoch: s.epoch,
		Seq: r.seq + uint64(b.positions[i]-r.position), Observed: fromMicros(r.observed), //nolint:gosec // wraps around and back
	}
}

// run finds the last run that begins at or before line i.
func (b *BlockPlaces) run(i int) *run {
	runs := b.places.runs
	at, found := slices.BinarySearchFunc(runs, b.positions[i], func(r run, position int64) int { return cmp.Compare(r.position, position) })
	if !found {
		at-- // Block checked that there is one
	}
	return &runs[at]
}
