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
//	head := version(1) parts{ node epoch(8 bytes) firstSeq segmentHead lengths[6] }
type Row struct {
	Stats
	Head    []byte
	Columns [NumColumns][]byte
}

const rowVersion = 1

// Join makes a row of one organisation's segments, in stream order.
func Join(parts []Part) Row {
	var r Row
	h := binary.AppendUvarint([]byte{rowVersion}, uint64(len(parts)))
	for i := range parts {
		p := &parts[i]
		h = appendString(h, string(p.Node))
		h = binary.BigEndian.AppendUint64(h, p.Epoch)
		h = binary.AppendUvarint(h, p.FirstSeq)
		h = append(binary.AppendUvarint(h, uint64(len(p.head))), p.head...)
		for c := range NumColumns {
			h = binary.AppendUvarint(h, uint64(len(p.columns[c])))
			r.Columns[c] = append(r.Columns[c], p.columns[c]...)
		}
		r.merge(&p.Stats)
	}
	r.Head = h
	return r
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
	r := reader{b: head}
	if v := r.byte(); v != rowVersion && r.err == nil {
		r.fail("row version %d is not known here", v)
	}
	n := r.count(MaxParts, "parts")
	if r.err == nil && n*minPartSize > len(r.b) {
		r.fail("%d parts in %d bytes", n, len(r.b))
	}
	if r.err != nil {
		return nil, r.err
	}
	rest := *columns
	parts := make([]Part, 0, n)
	for range n {
		p, err := splitPart(&r, &rest)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	if len(r.b) != 0 {
		r.fail("%d bytes after the last part", len(r.b))
	}
	return parts, r.err
}

const minPartSize = 1 + 8 + 1 + 1 + int(NumColumns)

func splitPart(r *reader, rest *[NumColumns][]byte) (Part, error) {
	p := Part{Segment: &Segment{}, Node: telemetry.NodeID(r.string())}
	if epoch := r.bytes(8); r.err == nil {
		p.Epoch = binary.BigEndian.Uint64(epoch)
	}
	p.FirstSeq = r.uvarint()
	h := reader{b: r.bytes(r.count(len(r.b), "head length"))}
	if r.err != nil {
		return p, r.err
	}
	p.readHead(&h)
	if h.err == nil && len(h.b) != 0 {
		h.fail("%d bytes after the head", len(h.b))
	}
	if h.err != nil {
		return p, h.err
	}
	for c := range NumColumns {
		n := r.count(MaxColumn*2, "column length")
		switch {
		case n == 0:
		case rest[c] == nil:
			p.unloaded |= 1 << c
		default:
			col := reader{b: rest[c]}
			p.columns[c] = col.bytes(n)
			if col.err != nil {
				return p, col.err
			}
			rest[c] = slices.Clip(col.b)
		}
	}
	return p, r.err
}
