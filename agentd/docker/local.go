package docker

import (
	"bytes"
	"encoding/binary"

	"github.com/theazo/observability/shared/telemetry"
)

// The local driver's files, and the engine's cache of other drivers, are frames:
//
//	length (4 bytes, big endian)   LogEntry (protobuf)   length again
//
//	message LogEntry {                       message Partial {
//	  string  source    = 1; // "stdout"       bool   last    = 1;
//	  int64   time_nano = 2;                   string id      = 2;
//	  bytes   line      = 3; // no newline     int32  ordinal = 3;
//	  bool    partial   = 4;                 }
//	  Partial partial_metadata = 5;
//	}
//
// The decoder is written by hand: it runs once per line, and neither copies nor
// allocates.
const (
	frameEnds    = 4 + 4     // the lengths around an entry
	maxEntry     = 1_000_000 // the engine's own bound
	sourcePrefix = "\x0a\x06std"
)

// frameState is what cutFrame has found.
type frameState uint8

// The outcomes.
const (
	frameWhole  frameState = iota
	frameShort             // it goes on beyond the bytes at hand
	frameBroken            // no frame begins here
)

// cutFrame returns the entry of the frame that b begins with, and how long the
// frame is.
func cutFrame(b []byte) (entry []byte, size int, state frameState) {
	if len(b) < 4 {
		return nil, 0, frameShort
	}
	n := binary.BigEndian.Uint32(b)
	if n == 0 || n > maxEntry {
		return nil, 0, frameBroken
	}
	size = int(n) + frameEnds
	if len(b) < size {
		return nil, size, frameShort
	}
	if binary.BigEndian.Uint32(b[size-4:]) != n {
		return nil, 0, frameBroken
	}
	return b[4 : size-4], size, frameWhole
}

// cutLastFrame is cutLast of the local driver's files. What is no frame is passed
// over byte by byte.
func cutLastFrame(_ *scanner, b []byte, whole bool) (r record, size int, ok bool) {
	if len(b) <= frameEnds {
		if whole {
			size = len(b)
		}
		return r, size, false
	}
	n := binary.BigEndian.Uint32(b[len(b)-4:])
	if n == 0 || n > maxEntry {
		return r, 1, false
	}
	size = int(n) + frameEnds
	if len(b) < size && !whole {
		return r, 0, false
	}
	if len(b) < size || binary.BigEndian.Uint32(b[len(b)-size:]) != n {
		return r, 1, false
	}
	if r, ok = parseEntry(b[len(b)-size+4 : len(b)-4]); !ok {
		size = 1
	}
	return r, size, ok
}

// nextFrame returns how many bytes of b, which begins with no frame, come
// before the next place where one may begin: every entry begins with its source.
func nextFrame(b []byte) int {
	for at := 1; ; {
		i := bytes.Index(b[min(at+4, len(b)):], []byte(sourcePrefix))
		if i < 0 {
			// One may begin in the last bytes.
			return max(len(b)-4-len(sourcePrefix)+1, 1)
		}
		at += i
		if n := binary.BigEndian.Uint32(b[at:]); n > 0 && n <= maxEntry {
			return at
		}
		at++
	}
}

// parseEntry reads one entry of the local driver. The text lies in b.
func parseEntry(b []byte) (r record, ok bool) {
	var nanos uint64
	var partial, last, timed bool
	r.stream = telemetry.Stdout // proto3 leaves out what is empty
	for len(b) > 0 {
		field, value, bytes, rest, ok := cutField(b)
		if !ok {
			return r, false
		}
		switch field {
		case 1<<3 | wireBytes:
			switch string(bytes) {
			case "stdout", "":
				r.stream = telemetry.Stdout
			case "stderr":
				r.stream = telemetry.Stderr
			default:
				return r, false
			}
		case 2<<3 | wireVarint:
			nanos, timed = value, true
		case 3<<3 | wireBytes:
			r.text = bytes
		case 4<<3 | wireVarint:
			partial = value != 0
		case 5<<3 | wireBytes:
			if last, ok = isLast(bytes); !ok {
				return r, false
			}
		}
		b = rest
	}
	r.at = unixNano(int64(nanos))
	r.whole = !partial || last
	return r, timed
}

// isLast reads whether a piece of a long line is its last.
func isLast(b []byte) (last, ok bool) {
	for len(b) > 0 {
		field, value, _, rest, ok := cutField(b)
		if !ok {
			return false, false
		}
		if field == 1<<3|wireVarint {
			last = value != 0
		}
		b = rest
	}
	return last, true
}

// Wire types of protobuf.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// cutField reads one field: its number and wire type as they are written, and
// its value or bytes.
func cutField(b []byte) (field, value uint64, content, rest []byte, ok bool) {
	field, n := binary.Uvarint(b)
	if n <= 0 || field>>3 == 0 || field>>3 >= 1<<29 {
		return 0, 0, nil, nil, false
	}
	b = b[n:]
	switch field & 7 {
	case wireVarint:
		if value, n = binary.Uvarint(b); n <= 0 {
			return 0, 0, nil, nil, false
		}
		return field, value, nil, b[n:], true
	case wireBytes:
		if value, n = binary.Uvarint(b); n <= 0 || value > uint64(len(b)-n) { //nolint:gosec // n is not more than len(b)
			return 0, 0, nil, nil, false
		}
		return field, 0, b[n : n+int(value)], b[n+int(value):], true //nolint:gosec // not more than len(b)
	case wire64:
		n = 8
	case wire32:
		n = 4
	default:
		return 0, 0, nil, nil, false
	}
	if len(b) < n {
		return 0, 0, nil, nil, false
	}
	return field, 0, nil, b[n:], true
}
