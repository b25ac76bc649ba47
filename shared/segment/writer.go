package segment

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/theazo/observability/shared/telemetry"
)

// uncompressedBelow is the raw size under which a segment is written plain.
const uncompressedBelow = 2 << 10

// Writer collects lines and encodes them into one segment. It keeps its
// buffers from one segment to the next. Not safe for concurrent use.
type Writer struct {
	stats      Stats
	minUS, max int64
	lastUS     int64
	firstUS    int64
	origins    map[telemetry.Origin]uint32
	inOrder    []telemetry.Origin
	recent     [2]uint32 // indices in inOrder: a container's two streams take turns

	// scaled writes times of version 2, which readers of before chunks do not know.
	scaled bool
	deltas []int64 // scaled: each time less the one before

	time, flags, origin []byte
	message, metadata   texts
	trace               texts
	scratch, classes    []byte
}

// texts is a column of byte strings while it is being written.
type texts struct {
	lengths, data []byte
	any           bool
}

func (t *texts) add(s string) {
	t.lengths = binary.AppendUvarint(t.lengths, uint64(len(s)))
	t.data = append(t.data, s...)
	t.any = t.any || s != ""
}

func (t *texts) addBytes(s []byte) {
	t.lengths = binary.AppendUvarint(t.lengths, uint64(len(s)))
	t.data = append(t.data, s...)
	t.any = t.any || len(s) > 0
}

func (t *texts) each(do func(text []byte)) {
	data := t.data
	for lengths := t.lengths; len(lengths) > 0; {
		length, n := binary.Uvarint(lengths)
		do(data[:length])
		data, lengths = data[length:], lengths[n:]
	}
}

func (t *texts) reset() { t.lengths, t.data, t.any = t.lengths[:0], t.data[:0], false }

// Lines is the number of lines since the last Encode.
func (w *Writer) Lines() int { return w.stats.Lines }

// RawBytes is the size of their messages and metadata.
func (w *Writer) RawBytes() int { return w.stats.RawBytes }

// Stats describes the lines since the last Encode.
func (w *Writer) Stats() Stats {
	s := w.stats
	s.Min, s.Max = fromMicros(w.minUS), fromMicros(w.max)
	return s
}

// Append adds a line. The caller keeps to MaxLines, telemetry.MaxMessage and
// telemetry.MaxMetadata and cuts before MaxColumn is reached; ids are no
// longer than telemetry.MaxUserLength.
func (w *Writer) Append(e *telemetry.LogEntry) { w.AppendText(e, e.Message) }

// AppendBytes adds a line whose message is given as bytes, which are copied;
// e.Message is ignored.
func (w *Writer) AppendBytes(e *telemetry.LogEntry, message []byte) {
	w.message.addBytes(message)
	w.appendRest(e, len(message))
}

// AppendText adds a line whose message is given apart; e.Message is ignored.
func (w *Writer) AppendText(e *telemetry.LogEntry, message string) {
	w.message.add(message)
	w.appendRest(e, len(message))
}

func (w *Writer) appendRest(e *telemetry.LogEntry, messageBytes int) {
	w.appendTime(min(max(e.Timestamp.UnixMicro(), -maxMicros), maxMicros))
	flags := byte(e.Level) & flagLevel
	if e.LevelInferred {
		flags |= flagInferred
	}
	if e.Truncated {
		flags |= flagTruncated
	}
	w.flags = append(w.flags, flags)
	w.origin = binary.AppendUvarint(w.origin, uint64(w.originIndex(&e.Origin)))
	w.metadata.addBytes(e.Metadata)
	w.trace.add(string(e.Trace))
	w.trace.add(string(e.Span))
	w.stats.Lines++
	w.stats.Levels[flags&flagLevel]++
	w.stats.RawBytes += messageBytes + len(e.Metadata)
}

func (w *Writer) appendTime(us int64) {
	if w.stats.Lines == 0 {
		w.minUS, w.max, w.firstUS, w.lastUS = us, us, us, us
	}
	switch {
	case w.scaled:
		w.deltas = append(w.deltas, us-w.lastUS)
	case w.stats.Lines > 0:
		w.time = binary.AppendVarint(w.time, us-w.lastUS)
	}
	w.lastUS = us
	w.minUS, w.max = min(w.minUS, us), max(w.max, us)
}

// lineRef is a line of a decoded segment.
type lineRef struct {
	l *Lines
	i int
}

// appendLines adds lines from all over the memory. It goes by columns, so that
// the processor can wait for many lines at once.
func (w *Writer) appendLines(refs []lineRef) {
	for _, r := range refs {
		w.appendTime(r.l.times[r.i])
		flags := r.l.flags[r.i]
		w.flags = append(w.flags, flags)
		w.stats.Lines++
		w.stats.Levels[flags&flagLevel]++
	}
	for _, r := range refs {
		w.origin = binary.AppendUvarint(w.origin, uint64(w.originIndex(&r.l.Origins[r.l.origin[r.i]])))
	}
	for _, r := range refs {
		message := r.l.message.At(r.i)
		w.message.addBytes(message)
		w.stats.RawBytes += len(message)
	}
	for _, r := range refs {
		metadata := r.l.metadata.At(r.i)
		w.metadata.addBytes(metadata)
		w.stats.RawBytes += len(metadata)
		w.trace.addBytes(r.l.trace.At(2 * r.i))
		w.trace.addBytes(r.l.trace.At(2*r.i + 1))
	}
}

const (
	flagLevel     = 3
	flagInferred  = 4
	flagTruncated = 8
)

func (w *Writer) originIndex(o *telemetry.Origin) uint32 {
	if len(w.inOrder) > 0 {
		for _, i := range w.recent {
			if w.inOrder[i] == *o {
				return i
			}
		}
	}
	if w.origins == nil {
		w.origins = make(map[telemetry.Origin]uint32)
	}
	i, known := w.origins[*o]
	if !known {
		i = uint32(len(w.inOrder)) //nolint:gosec // at most MaxLines
		w.origins[*o] = i
		w.inOrder = append(w.inOrder, *o)
	}
	w.recent[1], w.recent[0] = w.recent[0], i
	return i
}

// Encode appends the lines to dst as one segment and forgets them. Without
// lines it returns dst as it is.
func (w *Writer) Encode(dst []byte) []byte {
	if w.stats.Lines == 0 {
		return dst
	}
	body, lengths := w.appendColumns(w.scratch[:0], w.stats.RawBytes >= uncompressedBelow)
	dst = w.appendHead(dst)
	n := 0
	for _, l := range lengths {
		if l > 0 {
			n++
		}
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	for c, l := range lengths {
		if l > 0 {
			dst = append(dst, byte(c))
			dst = binary.AppendUvarint(dst, uint64(l))
		}
	}
	dst = append(dst, body...)
	w.scratch = body
	w.reset()
	return dst
}

// appendColumns appends the columns, and says how long each is.
func (w *Writer) appendColumns(body []byte, compress bool) (appended []byte, lengths [NumColumns]int) {
	add := func(c Column, parts ...[]byte) {
		n := len(body)
		body = appendColumn(body, compress, parts...)
		lengths[c] = len(body) - n
	}
	if w.scaled {
		body = w.appendScaled(body)
		lengths[Time] = len(body)
	} else {
		add(Time, binary.AppendVarint(nil, w.firstUS-w.minUS), w.time)
	}
	add(Flags, w.flags)
	add(Origin, w.origin)
	add(Message, w.message.lengths, w.message.data)
	if w.metadata.any {
		add(Metadata, w.metadata.lengths, w.metadata.data)
	}
	if w.trace.any {
		add(Trace, w.trace.lengths, w.trace.data)
	}
	return body, lengths
}

// appendScaled appends the column of times in version 2:
//
//	0x20 decodedBytes scale first-minTime values
//
// The values are the differences from line to line, in units of scale: clocks often
// tick in milliseconds, or more.
func (w *Writer) appendScaled(dst []byte) []byte {
	scale := int64(0)
	for _, d := range w.deltas {
		if scale == 0 || d%scale != 0 {
			if scale = divisor(scale, d); scale == 1 {
				break
			}
		}
	}
	if scale > 1 {
		for i := range w.deltas {
			w.deltas[i] /= scale
		}
	}
	dst = append(dst, timesV2)
	dst = binary.AppendUvarint(dst, uint64(8*w.stats.Lines)) //nolint:gosec // a count
	dst = binary.AppendUvarint(dst, uint64(max(scale, 1)))
	dst = binary.AppendUvarint(dst, uint64(w.firstUS-w.minUS)) //nolint:gosec // the minimum is not above
	dst, w.classes = appendValues(dst, w.deltas, w.classes)
	return dst
}

// divisor is the greatest common divisor, never negative; that of 0 and v is v.
func divisor(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return max(a, -a)
}

// encodeSegment makes a parsed segment of the lines, in memory of its own, and forgets them.
func (w *Writer) encodeSegment() *Segment {
	s := &Segment{Stats: w.Stats(), Origins: slices.Clone(w.inOrder)}
	body, lengths := w.appendColumns(w.scratch[:0], w.stats.RawBytes >= uncompressedBelow)
	w.scratch = body
	head := w.appendHead(nil)
	own := append(make([]byte, 0, len(head)+len(body)), head...)
	own = append(own, body...)
	s.head, own = own[:len(head):len(head)], own[len(head):]
	for c, n := range lengths {
		if n > 0 {
			s.columns[c], own = own[:n:n], own[n:]
		}
	}
	w.reset()
	return s
}

func (w *Writer) appendHead(dst []byte) []byte {
	dst = append(dst, Version)
	dst = binary.AppendUvarint(dst, uint64(w.stats.Lines)) //nolint:gosec // a count
	dst = binary.AppendVarint(dst, w.minUS)
	dst = binary.AppendUvarint(dst, uint64(w.max-w.minUS)) //nolint:gosec // max is not below
	for _, n := range w.stats.Levels {
		dst = binary.AppendUvarint(dst, uint64(n)) //nolint:gosec // a count
	}
	dst = binary.AppendUvarint(dst, uint64(w.stats.RawBytes)) //nolint:gosec // a size
	dst = binary.AppendUvarint(dst, uint64(len(w.inOrder)))
	for i := range w.inOrder {
		o := &w.inOrder[i]
		dst = append(dst, byte(o.Provider), byte(o.Stream), byte(o.Source))
		dst = appendString(dst, string(o.Agent))
		dst = appendString(dst, string(o.Session))
		dst = appendString(dst, string(o.User))
		dst = appendString(dst, string(o.Sandbox))
	}
	return dst
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (w *Writer) reset() {
	w.stats = Stats{}
	clear(w.origins)
	w.inOrder = w.inOrder[:0]
	w.recent = [2]uint32{}
	w.deltas, w.time, w.flags, w.origin = w.deltas[:0], w.time[:0], w.flags[:0], w.origin[:0]
	w.message.reset()
	w.metadata.reset()
	w.trace.reset()
}

// appendColumn appends encoding, raw length and data of one column.
func appendColumn(dst []byte, compress bool, parts ...[]byte) []byte {
	raw := parts[0]
	if len(parts) > 1 {
		raw = append(append(columnBuffer.get(), parts[0]...), parts[1]...)
		defer columnBuffer.put(raw)
	}
	start := len(dst)
	if compress && len(raw) >= 64 {
		dst = append(dst, zstdV1)
		dst = binary.AppendUvarint(dst, uint64(len(raw)))
		head := len(dst)
		dst = encoder().EncodeAll(raw, dst)
		if len(dst)-head < len(raw) {
			return dst
		}
		dst = dst[:start]
	}
	dst = append(dst, plainV1)
	dst = binary.AppendUvarint(dst, uint64(len(raw)))
	return append(dst, raw...)
}

// encoder is shared: EncodeAll is safe for concurrent use, one at a time,
// because each more would keep 1.5 MiB of tables and a node encodes in one
// goroutine. The fastest level loses 2 % of ratio on log text and takes a third
// of the default's time.
var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithAllLitEntropyCompression(true), zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("segment: the options of the zstd encoder are constants: " + err.Error())
	}
	return e
})

// columnBuffer keeps the buffers in which two-part columns are put together.
var columnBuffer bufferPool

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return nil
}

func (p *bufferPool) put(b []byte) { p.pool.Put(&b) }
