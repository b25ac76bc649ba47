package segment

import (
	"slices"
	"unsafe"

	"github.com/theazo/observability/shared/telemetry"
)

// Lines decodes the columns of one segment when they are first asked for. It
// is for one goroutine; after DecodeAll it may be read, and searched, by many. A
// reader of many segments keeps one Lines, for itself alone, and goes from one
// to the next by Reset.
type Lines struct {
	*Segment
	done   [NumColumns]bool
	places *BlockPlaces // nil: the lines of one node

	times    []int64
	flags    []byte
	origin   []uint32
	message  Texts
	metadata Texts
	trace    Texts

	small inflater           // for columns that are decoded into something else
	kept  [NumColumns][]byte // memory of columns that are used as they are

	// own is memory of Select and Count, which only a Lines that goes from segment to
	// segment keeps: others are searched by many at once.
	own *scratch
}

// Read returns the lines of a parsed segment, with no column decoded yet.
func (s *Segment) Read() *Lines { return &Lines{Segment: s} }

// Reset makes l the lines of s, with no column decoded yet, and uses the memory
// of the lines before again: nothing that l returned before is valid after it.
func (l *Lines) Reset(s *Segment) {
	l.Segment, l.done, l.places = s, [NumColumns]bool{}, nil
	if l.own == nil {
		l.own = &scratch{}
	}
}

// Place tells lines of a chunk where they stand, which a filter by node needs:
// Select then goes by the node of each line.
func (l *Lines) Place(b *BlockPlaces) error {
	if b.Lines() != l.Segment.Lines {
		return corrupt("a block of %d lines has %d places", l.Segment.Lines, b.Lines())
	}
	l.places = b
	return nil
}

// Places returns what Place told; nil: nothing.
func (l *Lines) Places() *BlockPlaces { return l.places }

// Texts is a decoded column of byte strings.
type Texts struct {
	data []byte
	ends []uint32 // of each value in data; none: all are empty
}

// At returns value i, a view.
func (t *Texts) At(i int) []byte {
	if len(t.ends) == 0 {
		return nil
	}
	start := uint32(0)
	if i > 0 {
		start = t.ends[i-1]
	}
	return t.data[start:t.ends[i]]
}

func (t *Texts) isEmpty() bool { return len(t.ends) == 0 }

// Decode decodes the columns that are still encoded.
func (l *Lines) Decode(columns ...Column) error {
	for _, c := range columns {
		if l.done[c] {
			continue
		}
		if err := l.decode(c); err != nil {
			return err
		}
		l.done[c] = true
	}
	return nil
}

// DecodeAll decodes every column, which validates the segment.
func (l *Lines) DecodeAll() error { return l.Decode(Time, Flags, Origin, Message, Metadata, Trace) }

func (l *Lines) decode(c Column) error {
	if l.unloaded&(1<<c) != 0 {
		return errNotLoaded
	}
	if c == Time && len(l.columns[c]) > 0 && l.columns[c][0] == timesV2 {
		return l.decodeScaled(l.columns[c])
	}
	raw, err := l.inflate(c)
	if err != nil {
		return err
	}
	r := reader{b: raw}
	switch c {
	case Time:
		l.decodeTimes(&r)
	case Flags:
		l.decodeFlags(&r)
	case Origin:
		l.decodeOrigins(&r)
	case Message:
		l.message.decode(&r, l.Segment.Lines)
	case Metadata:
		l.metadata.decode(&r, l.Segment.Lines)
	case Trace:
		l.trace.decode(&r, 2*l.Segment.Lines)
	case NumColumns:
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes after the last value of column %d", len(r.b), c)
	}
	return r.err
}

// inflate returns the raw bytes of a column: those that are used as they are in memory of
// their own.
func (l *Lines) inflate(c Column) ([]byte, error) {
	column := l.columns[c]
	if c == Time || c == Origin {
		return l.small.inflate(column)
	}
	raw, err := inflateInto(l.kept[c], column)
	if err == nil && len(column) > 0 && column[0] == zstdV1 {
		l.kept[c] = raw
	}
	return raw, err
}

// sized returns a slice of n, of the same memory where it suffices.
func sized[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

func (l *Lines) decodeTimes(r *reader) {
	minimum, maximum := l.Min.UnixMicro(), l.Max.UnixMicro()
	l.times = sized(l.times, l.Segment.Lines)
	at := minimum
	for i := range l.times {
		at += r.varint()
		if r.err == nil && (at < minimum || at > maximum) {
			r.fail("a timestamp outside the head's bounds")
		}
		l.times[i] = at
	}
}

// decodeScaled decodes times of version 2: see appendScaled.
func (l *Lines) decodeScaled(column []byte) error {
	minimum, maximum := l.Min.UnixMicro(), l.Max.UnixMicro()
	r := reader{b: column[1:]}
	if n := r.uvarint(); n != uint64(8*l.Segment.Lines) && r.err == nil { //nolint:gosec // a count
		r.fail("times of %d bytes of %d lines", n, l.Segment.Lines)
	}
	scale, first := r.uvarint(), r.uvarint()
	span := uint64(maximum - minimum) //nolint:gosec // readHead checked that it is not negative
	if r.err == nil && (scale == 0 || scale > 2*maxMicros || first > span) {
		r.fail("times begin %d after the first, by steps of %d", first, scale)
	}
	if r.err != nil {
		return r.err
	}
	l.times = sized(l.times, l.Segment.Lines)
	l.small.readValues(l.times, &r)
	if r.err != nil {
		return r.err
	}
	at := minimum + int64(first)         //nolint:gosec // at most maximum
	most := 2 * maxMicros / int64(scale) //nolint:gosec // checked above
	for i, delta := range l.times {
		if delta > most || delta < -most {
			return corrupt("a timestamp outside the head's bounds")
		}
		at += delta * int64(scale) //nolint:gosec // checked above
		if at < minimum || at > maximum {
			return corrupt("a timestamp outside the head's bounds")
		}
		l.times[i] = at
	}
	return nil
}

func (l *Lines) decodeFlags(r *reader) {
	l.flags = r.bytes(l.Segment.Lines)
	var levels [telemetry.NumLevels]int
	for _, f := range l.flags {
		levels[f&flagLevel]++
	}
	if r.err == nil && levels != l.Levels {
		r.fail("levels are not those that the head counts")
	}
}

func (l *Lines) decodeOrigins(r *reader) {
	l.origin = sized(l.origin, l.Segment.Lines)
	for i := range l.origin {
		var v uint64
		if len(r.b) > 0 && r.b[0] < 0x80 {
			v, r.b = uint64(r.b[0]), r.b[1:]
		} else {
			v = r.uvarint()
		}
		if v >= uint64(len(l.Origins)) {
			r.fail("origin %d of %d", v, len(l.Origins))
			return
		}
		l.origin[i] = uint32(v) //nolint:gosec // checked above
	}
}

// decode reads n lengths and as many texts; an absent column is n empty ones.
func (t *Texts) decode(r *reader, n int) {
	t.data, t.ends = nil, t.ends[:0]
	if len(r.b) == 0 && r.err == nil {
		return
	}
	ends := sized(t.ends, n)
	sum := uint64(0)
	for i := range ends {
		if len(r.b) > 0 && r.b[0] < 0x80 {
			sum += uint64(r.b[0])
			r.b = r.b[1:]
		} else {
			sum += uint64(r.count(MaxColumn, "text length")) //nolint:gosec // never negative; bounded, so that the sum cannot wrap around
		}
		if sum > uint64(len(r.b)) {
			r.fail("texts longer than their column")
			return
		}
		ends[i] = uint32(sum) //nolint:gosec // at most MaxColumn
	}
	t.data, t.ends = r.bytes(int(sum)), ends
}

// Micros returns the timestamp of line i in microseconds since 1970. Time
// must be decoded.
func (l *Lines) Micros(i int) int64 { return l.times[i] }

// Level returns the level of line i. Flags must be decoded.
func (l *Lines) Level(i int) telemetry.Level { return telemetry.Level(l.flags[i] & flagLevel) }

// Origin returns the origin of line i. Origin must be decoded.
func (l *Lines) Origin(i int) *telemetry.Origin { return &l.Origins[l.origin[i]] }

// OriginIndex returns the index in Origins of line i's origin. Origin must be decoded.
func (l *Lines) OriginIndex(i int) uint32 { return l.origin[i] }

// Message returns the message of line i, a view. Message must be decoded.
func (l *Lines) Message(i int) []byte { return l.message.At(i) }

// Entry fills e with what the segment holds of line i. All columns must be
// decoded. The message is a view of the decoded column, which nobody changes.
func (l *Lines) Entry(i int, e *telemetry.LogEntry) {
	f := l.flags[i]
	*e = telemetry.LogEntry{
		Timestamp: fromMicros(l.times[i]), Level: telemetry.Level(f & flagLevel),
		LevelInferred: f&flagInferred != 0, Truncated: f&flagTruncated != 0,
		Origin: l.Origins[l.origin[i]], Message: view(l.message.At(i)),
		Trace: telemetry.TraceID(l.trace.At(2 * i)), Span: telemetry.SpanID(l.trace.At(2*i + 1)),
	}
	if m := l.metadata.At(i); len(m) > 0 {
		e.Metadata = m
	}
}

// view gives the bytes of a decoded column as a string without a copy:
// decoded columns are never written again, and a copy of each message would
// double the cost of a page and of the live hub.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) } //nolint:gosec // see above
