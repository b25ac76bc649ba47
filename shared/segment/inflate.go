package segment

import (
	"errors"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// errNotLoaded is a fault of the caller: the column was left in the database.
var errNotLoaded = errors.New("segment: column was not loaded with its row")

// errNotPlaced is one, too: lines of a chunk have nodes of their own.
var errNotPlaced = errors.New("segment: lines of a chunk are searched by node without their places")

// inflater takes columns out of their encoding, into memory that it keeps.
type inflater struct{ buffer []byte }

// inflate returns the raw bytes of a column, until the next call. Plain
// columns are views.
func (l *inflater) inflate(column []byte) ([]byte, error) {
	raw, err := inflateInto(l.buffer[:0], column)
	if err == nil && len(column) > 0 && column[0] == zstdV1 {
		l.buffer = raw
	}
	return raw, err
}

// inflateInto returns the raw bytes of a column: a view where it is plain, and
// otherwise in dst, which grows to what the column says.
func inflateInto(dst, column []byte) ([]byte, error) {
	if len(column) == 0 {
		return nil, nil
	}
	r := reader{b: column}
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
		if cap(dst) < n {
			dst = make([]byte, 0, n)
		}
		raw, err := decoder().DecodeAll(r.b, dst[:0])
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

// decoder is shared: DecodeAll is safe for concurrent use, by as many at a
// time as there are processors.
var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(MaxColumn),
		zstd.WithDecoderMaxWindow(MaxColumn), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("segment: the options of the zstd decoder are constants: " + err.Error())
	}
	return d
})
