package segment_test

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/theazo/observability/shared/segment"
)

// bomb is a segment of one line whose column c says rawLength and holds size
// zero bytes, compressed.
func bomb(tb testing.TB, c segment.Column, rawLength uint64, size int) []byte {
	tb.Helper()
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		tb.Fatal(err)
	}
	column := binary.AppendUvarint([]byte{0x11}, rawLength)
	column = e.EncodeAll(make([]byte, size), column)
	b := []byte{segment.Version, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}
	b = append(b, 1, byte(c))
	b = binary.AppendUvarint(b, uint64(len(column)))
	return append(b, column...)
}

func TestBombsStayWithinTheBound(t *testing.T) {
	for name, b := range map[string][]byte{
		"says little, holds 256 MiB": bomb(t, segment.Message, 10, 256<<20),
		"says 4 MiB, holds 256 MiB":  bomb(t, segment.Message, segment.MaxColumn, 256<<20),
		"says 1 GiB":                 bomb(t, segment.Message, 1<<30, 1<<20),
		"times":                      bomb(t, segment.Time, segment.MaxColumn, 64<<20),
	} {
		var before, after runtime.MemStats
		tryDecode(t, bomb(t, segment.Message, 10, 10)) // makes the shared decoder
		runtime.ReadMemStats(&before)
		tryDecode(t, b)
		runtime.ReadMemStats(&after)
		// The decoder's own window and tables come on top of the columns.
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(segment.MaxAllocation)+8<<20 {
			t.Errorf("%s: decoding %d bytes allocated %d, the bound is %d", name, len(b), took, segment.MaxAllocation)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	list := golden()
	var w segment.Writer
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		for i := range 4000 {
			w.Append(&list[i%len(list)])
		}
		buf = w.Encode(buf[:0])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4000, "ns/line")
}

func BenchmarkDecode(b *testing.B) {
	list := golden()
	var w segment.Writer
	for i := range 4000 {
		w.Append(&list[i%len(list)])
	}
	buf := w.Encode(nil)
	b.ReportAllocs()
	for b.Loop() {
		decodeQuick(b, buf)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4000, "ns/line")
}

func decodeQuick(b *testing.B, buf []byte) {
	b.Helper()
	s, err := segment.Parse(buf)
	if err == nil {
		err = s.Read().DecodeAll()
	}
	if err != nil {
		b.Fatal(err)
	}
}

func TestTextLengthsThatWrapAroundAreRefused(t *testing.T) {
	var lengths []byte
	for _, n := range []uint64{5, 1<<64 - 5, 5} { // the second text would end before it begins
		lengths = binary.AppendUvarint(lengths, n)
	}
	column := binary.AppendUvarint([]byte{0x10}, uint64(len(lengths)+5))
	column = append(append(column, lengths...), "12345"...)
	b := []byte{segment.Version, 3, 0, 0, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0} // three lines of one origin
	b = append(b, 4, byte(segment.Time), 5, byte(segment.Flags), 5, byte(segment.Origin), 5, byte(segment.Message), byte(len(column)))
	for range 3 {
		b = append(b, 0x10, 3, 0, 0, 0)
	}
	s, err := segment.Parse(append(b, column...))
	if err != nil {
		t.Fatal(err)
	}
	lines := s.Read()
	if err := lines.DecodeAll(); !errors.Is(err, segment.ErrCorrupt) {
		t.Fatalf("decoding ended with %v; the second text is %d bytes", err, len(lines.Message(1)))
	}
}
