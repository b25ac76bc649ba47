package sandbox

import (
	"bytes"
	"time"
	"unicode/utf8"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// Longest lines of an exec session; a longer one comes in pieces, each marked
// partial, so that no byte is missing. What is not plain text is kept in base64
// within the metadata beside the message, which leaves it less room.
const (
	maxLine    = 64 << 10
	maxRawLine = 32 << 10
)

// joiner makes lines of one stream's bytes.
type joiner struct {
	stream  telemetry.Stream
	told    int64 // bytes of the stream that were made lines of
	partial []byte
	at      time.Time // of partial's first byte
}

// next is the offset of the byte that comes next.
func (j *joiner) next() int64 { return j.told + int64(len(j.partial)) }

// add appends the lines that b completes. They hold b's bytes only until the
// next call.
func (j *joiner) add(lines []source.Line, at time.Time, b []byte) []source.Line {
	for len(b) > 0 {
		if len(j.partial) == 0 {
			j.at = at
		}
		i, room := bytes.IndexByte(b, '\n'), maxLine-len(j.partial)
		switch {
		case i >= 0 && i < room:
			j.partial = append(j.partial, b[:i]...)
			lines = j.flush(lines, true)
			b = b[i+1:]
		case len(b) < room:
			j.partial = append(j.partial, b...)
			return lines
		default: // no newline within the longest line
			j.partial = append(j.partial, b[:room]...)
			b = b[room:]
			n := boundary(j.partial)
			lines = j.pieces(lines, j.partial[:n])
			j.partial = bytes.Clone(j.partial[n:])
		}
	}
	return lines
}

// flush makes a line of what there is: a whole one, whose newline was read, or
// a part.
func (j *joiner) flush(lines []source.Line, whole bool) []source.Line {
	if !whole && len(j.partial) == 0 {
		return lines
	}
	lines = j.pieces(lines, j.partial)
	if whole {
		lines[len(lines)-1].Partial = false
		j.told++
	}
	j.partial = nil // the lines hold the bytes
	return lines
}

// pieces appends parts of a line, as many as its room needs; at least one.
func (j *joiner) pieces(lines []source.Line, text []byte) []source.Line {
	most := maxLine
	if !plain(text) {
		most = maxRawLine
	}
	for {
		part := text
		if len(part) > most {
			part = part[:boundary(part[:most])]
		}
		text = text[len(part):]
		j.told += int64(len(part))
		lines = append(lines, source.Line{Timestamp: j.at, Text: part, Partial: true, Stream: j.stream, KeepRaw: true})
		if len(text) == 0 {
			return lines
		}
	}
}

// plain reports whether a message can hold the bytes as they are.
func plain(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return utf8.Valid(b)
}

// boundary is where to cut text that is too long: before the last control
// sequence or after the last carriage return near its end, or between two runes.
func boundary(b []byte) int {
	const near = 256
	tail := max(1, len(b)-near)
	if i := bytes.LastIndexByte(b[tail:], 0x1b); i >= 0 {
		return tail + i
	}
	if i := bytes.LastIndexByte(b[tail:], '\r'); i >= 0 {
		return tail + i + 1
	}
	for n := len(b) - 1; n > len(b)-utf8.UTFMax && n > 0; n-- {
		if utf8.RuneStart(b[n]) {
			if !utf8.FullRune(b[n:]) {
				return n
			}
			break
		}
	}
	return len(b)
}
