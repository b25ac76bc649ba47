package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// Limits that a decoder enforces before it allocates.
const (
	MaxLines   = 8192
	MaxOrigins = 8192
	MaxColumn  = 4 << 20 // bytes of one column, decoded

	// MaxAllocation bounds what decoding every column of one segment takes:
	// the decoded columns, their offsets, and the dictionary, whose strings
	// are views of one copy of the head.
	MaxAllocation = int(NumColumns)*MaxColumn + MaxLines*(8+4+4*4) + MaxOrigins*128 + MaxColumn
)

// Version of the head that Writer makes.
const Version = 1

const (
	plainV1 = 0x10
	zstdV1  = 0x11
	timesV2 = 0x20 // of the column of times alone
)

// ErrCorrupt is what every refusal of bytes wraps.
var ErrCorrupt = errors.New("corrupt segment")

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// Column names a group of values that is stored and decoded by itself.
type Column uint8

// The columns. The numbers are stored: never renumber.
const (
	Time Column = iota
	Flags
	Origin
	Message
	Metadata
	Trace
	NumColumns
)

// Stats is what a reader can know without decoding a column.
type Stats struct {
	Lines    int
	Min, Max time.Time // of the timestamps, both inclusive
	Levels   [telemetry.NumLevels]int
	RawBytes int // of messages and metadata
}

// Segment is a parsed segment: the head read, the columns still encoded.
// It is safe for concurrent use.
type Segment struct {
	Stats
	Origins []telemetry.Origin
	head    []byte // origins and stats as encoded, without the column directory
	columns [NumColumns][]byte
	// unloaded has a bit for each column that its row was read without.
	unloaded uint8
	extents  [NumColumns]extent // of a part: in the columns of its row
	// many: it is a block of a chunk, whose lines come from many nodes.
	many bool
}

// Encoded returns the column as encoded, with its own version byte; nil where
// all lines are empty.
func (s *Segment) Encoded(c Column) []byte { return s.columns[c] }

// extent is where a part's column lies in that of its row.
type extent struct{ offset, length int }

// Extent says where the column of a part lies in that of its row, so that a
// reader can fetch it alone.
func (s *Segment) Extent(c Column) (offset, length int) {
	return s.extents[c].offset, s.extents[c].length
}

// Bare returns the part of a row without its columns, in memory of its own, which
// a reader can keep when the row is gone, and Attach columns to.
func (s *Segment) Bare() *Segment {
	bare := &Segment{many: s.many, extents: s.extents}
	r := reader{b: bytes.Clone(s.head), own: true}
	bare.readHead(&r) // which was read before
	for c, e := range s.extents {
		if e.length > 0 {
			bare.unloaded |= 1 << c
		}
	}
	return bare
}

// Attach gives the part of a row a column that it was read without.
func (s *Segment) Attach(c Column, column []byte) error {
	if len(column) != s.extents[c].length {
		return corrupt("%d bytes of a column of %d", len(column), s.extents[c].length)
	}
	if len(column) > 0 {
		s.columns[c] = column
		s.unloaded &^= 1 << c
	}
	return nil
}

// DecodedBytes is about what decoding every column takes: what the columns say
// they hold, which decoding refuses to exceed, and their offsets.
func (s *Segment) DecodedBytes() int {
	n := s.Lines * (8 + 4 + 4*4)
	for _, c := range s.columns {
		if len(c) > 0 {
			raw, _ := binary.Uvarint(c[1:])
			n += int(min(raw, MaxColumn))
		}
	}
	return n
}

// Parse reads the head of an encoded segment and finds its columns, which
// stay views of b.
func Parse(b []byte) (*Segment, error) { return parse(reader{b: b}) }

// ParseOwned is Parse of bytes that nobody ever writes again: its ids are views
// of b, too, and keep all of it in memory.
func ParseOwned(b []byte) (*Segment, error) { return parse(reader{b: b, own: true}) }

func parse(r reader) (*Segment, error) {
	s := &Segment{}
	size := len(r.b)
	s.readHead(&r)
	var lengths [NumColumns]int
	for range r.count(int(NumColumns), "columns") {
		id := Column(r.byte())
		if id >= NumColumns || lengths[id] != 0 { //nolint:gosec // compared first
			r.fail("column %d unknown or given twice", id)
			break
		}
		lengths[id] = r.count(size, "column length") //nolint:gosec // compared above
	}
	for id, n := range lengths {
		s.columns[id] = r.bytes(n)
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes after the last column", len(r.b))
	}
	if r.err != nil {
		return nil, r.err
	}
	return s, nil
}

// readHead reads everything but the column directory, and keeps the bytes it
// read in s.head.
func (s *Segment) readHead(r *reader) {
	start := r.b
	if v := r.byte(); v != Version && r.err == nil {
		r.fail("version %d is not known here", v)
	}
	s.Lines = r.count(MaxLines, "lines")
	minimum := r.varint()
	span := r.uvarint()
	if span > math.MaxInt64/2 || minimum > maxMicros || minimum < -maxMicros || int64(span) > 2*maxMicros {
		r.fail("times out of range")
		return
	}
	s.Min, s.Max = fromMicros(minimum), fromMicros(minimum+int64(span))
	sum := 0
	for i := range s.Levels {
		s.Levels[i] = r.count(MaxLines, "level count")
		sum += s.Levels[i]
	}
	if r.err == nil && (sum != s.Lines || s.Lines == 0) {
		r.fail("%d lines, %d by level", s.Lines, sum)
	}
	s.RawBytes = r.count(2*MaxColumn, "raw bytes")
	s.readOrigins(r)
	if r.err == nil {
		s.head = start[:len(start)-len(r.b)]
	}
}

func (s *Segment) readOrigins(r *reader) {
	n := r.count(min(MaxOrigins, s.Lines), "origins")
	if r.err != nil {
		return
	}
	if n*minOriginSize > len(r.b) { // before the allocation, so that a small input cannot ask for a large one
		r.fail("%d origins in %d bytes", n, len(r.b))
		return
	}
	s.Origins = slices.Grow(s.Origins[:0], n)[:n]
	for i := range s.Origins {
		o := &s.Origins[i]
		o.Provider, o.Stream, o.Source = telemetry.Provider(r.byte()), telemetry.Stream(r.byte()), telemetry.LogSource(r.byte())
		if o.Provider > telemetry.E2B || o.Stream > telemetry.Stderr || o.Source > telemetry.SourceModel {
			r.fail("origin %d has an unknown provider, stream or source", i)
			return
		}
		o.Agent, o.Session = telemetry.AgentID(r.string()), telemetry.SessionID(r.string())
		o.User, o.Sandbox = telemetry.UserID(r.string()), telemetry.SandboxID(r.string())
	}
}

const minOriginSize = 3 + 4 // three enumerations, four lengths

// maxMicros bounds timestamps to what time.Time prints with four-digit years
// and PostgreSQL stores: intake clamps far earlier.
const maxMicros = 253402300799_000000 // 9999-12-31T23:59:59Z

func fromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }

// reader takes values off the front of b; after a failure it returns zeros.
type reader struct {
	b   []byte
	err error
	own bool // nobody writes to b again: strings are views of it
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = corrupt(format, args...)
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("it ends early")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 { // as nearly all are
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads a number of at most most.
func (r *reader) count(most int, what string) int {
	v := r.uvarint()
	if v > uint64(most) { //nolint:gosec // most is never negative
		r.fail("%s: %d is over %d", what, v, most)
		return 0
	}
	return int(v) //nolint:gosec // checked above
}

func (r *reader) bytes(n int) []byte {
	if n == 0 {
		return nil
	}
	if n > len(r.b) {
		r.fail("it ends early")
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string {
	b := r.bytes(r.count(telemetry.MaxUserLength, "id length"))
	if r.own {
		return view(b)
	}
	return string(b)
}
