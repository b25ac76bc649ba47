package segment

import (
	"errors"
	"sync"
	"unsafe"

	"github.com/klauspost/compress/zstd"

	"github.com/theazo/observability/shared/telemetry"
)

// Lines decodes the columns of one segment when they are first asked for. It
// is for one goroutine; after DecodeAll it may be read by many.
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
}

// Read returns the lines of a parsed segment, with no column decoded yet.
func (s *Segment) Read() *Lines { return &Lines{Segment: s} }

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
	ends []uint32 // of each value in data; nil: all are empty
}

// At returns value i, a view.
func (t *Texts) At(i int) []byte {
	if t.ends == nil {
		return nil
	}
	start := uint32(0)
	if i > 0 {
		start = t.ends[i-1]
	}
	return t.data[start:t.ends[i]]
}

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
	raw, err := inflate(l.columns[c])
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
		l.message = decodeTexts(&r, l.Segment.Lines)
	case Metadata:
		l.metadata = decodeTexts(&r, l.Segment.Lines)
	case Trace:
		l.trace = decodeTexts(&r, 2*l.Segment.Lines)
	case NumColumns:
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes after the last value of column %d", len(r.b), c)
	}
	return r.err
}

func (l *Lines) decodeTimes(r *reader) {
	minimum, maximum := l.Min.UnixMicro(), l.Max.UnixMicro()
	times := make([]int64, l.Segment.Lines)
	at := minimum
	for i := range times {
		at += r.varint()
		if r.err == nil && (at < minimum || at > maximum) {
			r.fail("a timestamp outside the head's bounds")
		}
		times[i] = at
	}
	l.times = times
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
	origin := make([]uint32, l.Segment.Lines)
	for i := range origin {
		v := r.uvarint()
		if v >= uint64(len(l.Origins)) {
			r.fail("origin %d of %d", v, len(l.Origins))
			return
		}
		origin[i] = uint32(v) //nolint:gosec // checked above
	}
	l.origin = origin
}

// decodeTexts reads n lengths and as many texts; an absent column is n empty ones.
func decodeTexts(r *reader, n int) Texts {
	if len(r.b) == 0 && r.err == nil {
		return Texts{}
	}
	ends := make([]uint32, n)
	sum := uint64(0)
	for i := range ends {
		sum += uint64(r.count(MaxColumn, "text length")) //nolint:gosec // never negative; bounded, so that the sum cannot wrap around
		if sum > uint64(len(r.b)) {
			r.fail("texts longer than their column")
			return Texts{}
		}
		ends[i] = uint32(sum) //nolint:gosec // at most MaxColumn
	}
	return Texts{data: r.bytes(int(sum)), ends: ends}
}

// errNotLoaded is a fault of the caller: the column was left in the database.
var errNotLoaded = errors.New("segment: column was not loaded with its row")

// inflate returns the raw bytes of a column. Plain columns are views.
func inflate(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r := reader{b: b}
	encoding := r.byte()
	n := r.count(MaxColumn, "column size")
	if r.err != nil {
		return nil, r.err
	}
	switch encoding {
	case plainV1:
		if len(r.b) != n {
			return nil, corrupt("a column of %d bytes says %d", len(r.b), n)
		}
		return r.b, nil
	case zstdV1:
		// The content size of the zstd frame is not believed: the buffer has
		// room for what the column says, the decoder refuses to go beyond MaxColumn.
		raw, err := decoder().DecodeAll(r.b, make([]byte, 0, n))
		if err != nil {
			return nil, corrupt("zstd: %v", err)
		}
		if len(raw) != n {
			return nil, corrupt("a column says %d bytes and holds %d", n, len(raw))
		}
		return raw, nil
	}
	return nil, corrupt("column encoding %#x is not known here", encoding)
}

// decoder is shared: DecodeAll is safe for concurrent use.
var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(MaxColumn),
		zstd.WithDecoderMaxWindow(MaxColumn), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("segment: the options of the zstd decoder are constants: " + err.Error())
	}
	return d
})

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
