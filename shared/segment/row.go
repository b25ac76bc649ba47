package segment

import (
	"encoding/binary"
	"slices"

	"github.com/theazo/observability/shared/telemetry"
)

// MaxParts is how many segments one row may join.
const MaxParts = 4096

// Part is a segment with what its frame said of it. Line i has the sequence
// FirstSeq + i.
type Part struct {
	*Segment
	Node     telemetry.NodeID
	Epoch    uint64
	FirstSeq uint64
}

// Row is a row of the store: parts joined column by column, so that each
// column lies in the database by itself and is read only where it is needed.
// Nothing is decoded or compressed again to make one.
//
//	head := version(1) parts{ node epoch(8 bytes) firstSeq length segmentHead lengths[6] }
//	head := version(2) column(blocks{ length segmentHead lengths[6] })
//
// Version 2 is of chunks, whose lines are of many nodes.
type Row struct {
	Stats
	Head    []byte
	Columns [NumColumns][]byte
}

const (
	rowVersion   = 1
	chunkVersion = 2
)

// Join makes a row of one organisation's segments, in stream order.
func Join(parts []Part) Row {
	var r Row
	size := 16
	for i := range parts {
		size += len(parts[i].head) + maxPartHead
	}
	r.reserve(func(c int) (n int) {
		for i := range parts {
			n += len(parts[i].columns[c])
		}
		return n
	})
	h := binary.AppendUvarint(append(make([]byte, 0, size), rowVersion), uint64(len(parts)))
	for i := range parts {
		p := &parts[i]
		h = appendString(h, string(p.Node))
		h = binary.BigEndian.AppendUint64(h, p.Epoch)
		h = binary.AppendUvarint(h, p.FirstSeq)
		h = r.join(h, p.Segment)
	}
	r.Head = h
	return r
}

// maxPartHead is what a part's head takes at most beside its segment's head and
// the bytes of a node's id beyond 64: a guess too low costs a copy.
const maxPartHead = 64 + 8 + 10 + 4 + 4*int(NumColumns)

// reserve makes room for columns of known sizes.
func (r *Row) reserve(size func(column int) int) {
	for c := range r.Columns {
		if n := size(c); n > 0 {
			r.Columns[c] = make([]byte, 0, n)
		}
	}
}

// joinBlocks makes the row of a chunk.
func joinBlocks(blocks []*Segment) Row {
	var r Row
	r.reserve(func(c int) (n int) {
		for _, s := range blocks {
			n += len(s.columns[c])
		}
		return n
	})
	h := binary.AppendUvarint(nil, uint64(len(blocks)))
	for _, s := range blocks {
		h = r.join(h, s)
	}
	r.Head = appendColumn([]byte{chunkVersion}, true, h)
	return r
}

// join adds a segment's columns to the row, and its head to h.
func (r *Row) join(h []byte, s *Segment) []byte {
	h = append(binary.AppendUvarint(h, uint64(len(s.head))), s.head...)
	for c := range NumColumns {
		h = binary.AppendUvarint(h, uint64(len(s.columns[c])))
		r.Columns[c] = append(r.Columns[c], s.columns[c]...)
	}
	r.merge(&s.Stats)
	return h
}

func (s *Stats) merge(o *Stats) {
	if s.Lines == 0 || o.Min.Before(s.Min) {
		s.Min = o.Min
	}
	if s.Lines == 0 || o.Max.After(s.Max) {
		s.Max = o.Max
	}
	s.Lines += o.Lines
	s.RawBytes += o.RawBytes
	for i, n := range o.Levels {
		s.Levels[i] += n
	}
}

// Split takes a row apart again. columns holds what was read of it: a nil
// column that is not empty in the row cannot be decoded afterwards.
func Split(head []byte, columns *[NumColumns][]byte) ([]Part, error) {
	return new(Splitter).Split(head, columns)
}

// Splitter takes rows apart in memory that it keeps: parts of a row, and all
// their strings, end with the next one. Not safe for concurrent use.
type Splitter struct {
	raw      []byte
	parts    []Part
	segments []Segment
}

// Split does what the function of that name does.
func (s *Splitter) Split(head []byte, columns *[NumColumns][]byte) ([]Part, error) {
	r := reader{b: head}
	version := r.byte()
	switch {
	case r.err != nil:
		return nil, r.err
	case version == rowVersion:
		s.raw = append(s.raw[:0], r.b...) // one copy, of which all strings are views
	case version == chunkVersion:
		raw, err := inflateInto(s.raw, r.b)
		if err != nil {
			return nil, err
		}
		if len(r.b) > 0 && r.b[0] == plainV1 {
			raw = append(s.raw[:0], raw...)
		}
		s.raw = raw
	default:
		return nil, corrupt("row version %d is not known here", version)
	}
	r.b, r.own = s.raw, true
	n, least := r.count(MaxParts, "parts"), minPartSize
	if version == chunkVersion {
		least = minBlockSize
	}
	if r.err == nil && n*least > len(r.b) {
		r.fail("%d parts in %d bytes", n, len(r.b))
	}
	if r.err != nil {
		return nil, r.err
	}
	rest := *columns
	s.parts, s.segments = sized(s.parts, n), sized(s.segments, n)
	var at [NumColumns]int
	for i := range s.parts {
		p := &s.parts[i]
		s.segments[i] = Segment{Origins: s.segments[i].Origins}
		*p = Part{Segment: &s.segments[i]}
		if p.many = version == chunkVersion; !p.many {
			p.Node = telemetry.NodeID(r.string())
			if epoch := r.bytes(8); r.err == nil {
				p.Epoch = binary.BigEndian.Uint64(epoch)
			}
			p.FirstSeq = r.uvarint()
		}
		if err := p.split(&r, &rest, &at); err != nil {
			return nil, err
		}
	}
	if len(r.b) != 0 {
		r.fail("%d bytes after the last part", len(r.b))
	}
	return s.parts, r.err
}

const (
	minBlockSize = 1 + 1 + int(NumColumns)
	minPartSize  = 1 + 8 + 1 + minBlockSize
)

// split reads a segment of a row, and takes its columns off the front of rest.
// at is where they begin in the row.
func (s *Segment) split(r *reader, rest *[NumColumns][]byte, at *[NumColumns]int) error {
	h := reader{b: r.bytes(r.count(len(r.b), "head length")), own: true}
	if r.err != nil {
		return r.err
	}
	s.readHead(&h)
	if h.err == nil && len(h.b) != 0 {
		h.fail("%d bytes after the head", len(h.b))
	}
	if h.err != nil {
		return h.err
	}
	for c := range NumColumns {
		n := r.count(MaxColumn*2, "column length")
		s.extents[c] = extent{at[c], n}
		at[c] += n
		switch {
		case n == 0:
		case rest[c] == nil:
			s.unloaded |= 1 << c
		default:
			col := reader{b: rest[c]}
			s.columns[c] = col.bytes(n)
			if col.err != nil {
				return col.err
			}
			rest[c] = slices.Clip(col.b)
		}
	}
	return r.err
}
