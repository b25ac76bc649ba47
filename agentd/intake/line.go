package intake

import (
	"bytes"
	"time"
	"unicode/utf8"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// parser finds out what a line says. It keeps its buffers from line to line,
// so that a plain line costs no allocation; results are valid until the next.
type parser struct {
	text     []byte // a cleaned line
	message  []byte // an unescaped message
	metadata []byte
	members  []member
	trace    idCache
	span     idCache
	origin   telemetry.Origin // the last one that was found good
}

// line fills in all of e but its origin, and returns the message.
func (p *parser) line(l *source.Line, e *telemetry.LogEntry, done *marks) []byte {
	e.Timestamp = l.Timestamp // the codec keeps microseconds
	if s := l.Timestamp.Unix(); s <= firstSecond || s >= lastSecond {
		e.Timestamp = time.Now()
		done[markUntimed]++
	}
	e.Truncated = l.Truncated
	e.Metadata, e.Trace, e.Span = nil, "", ""
	text := l.Text
	if len(text) > telemetry.MaxMessage || !isClean(text) {
		clean := len(text) > telemetry.MaxMessage && isClean(text)
		var cut bool
		if text, cut = p.cleaned(text, telemetry.MaxMessage); cut {
			e.Truncated = true
		}
		if !clean {
			done[markCleaned]++
		}
	}
	if e.Truncated {
		done[markTruncated]++
	}
	r := p.read(text, e)
	if !r.stated {
		done[markInferred]++
	}
	if r.structured {
		done[markStructured]++
	}
	e.Level, e.LevelInferred = r.level, !r.stated
	return r.message
}

// Seconds of the first and the last year that receivers take; the zero time is
// the first one.
const (
	firstSecond = -62135596800
	lastSecond  = 253402300799
)

func (p *parser) read(text []byte, e *telemetry.LogEntry) reading {
	if looksLikeObject(text) {
		if r, ok := p.object(text, e); ok {
			return r
		}
	}
	level, stated := plainLevel(text)
	return reading{message: text, level: level, stated: stated}
}

// isClean reports whether text is UTF-8 without NUL.
func isClean(text []byte) bool { return utf8.Valid(text) && bytes.IndexByte(text, 0) < 0 }

const (
	replacement = "\uFFFD"
	picturedNUL = "\u2400"
)

// cleaned returns text as UTF-8 without NUL, cut at a rune boundary to at most
// most bytes.
func (p *parser) cleaned(text []byte, most int) (clean []byte, cut bool) {
	out := p.text[:0]
	bad := false // within a run of bytes that are not UTF-8
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		part := text[i : i+size]
		i += size
		switch {
		case r == utf8.RuneError && size == 1:
			if bad {
				continue
			}
			bad = true
			part = []byte(replacement)
		case r == 0:
			bad = false
			part = []byte(picturedNUL)
		default:
			bad = false
		}
		if len(out)+len(part) > most {
			cut = true
			break
		}
		out = append(out, part...)
	}
	p.text = out
	return out, cut
}

// idCache keeps the last id that was made: the lines of one request share it.
type idCache struct {
	from []byte
	id   string
}

// get returns the public id of a trace or span: hex digits of the given length
// get the prefix; one that has it already stays. "": it looks like neither.
func (c *idCache) get(raw []byte, prefix string, digits int) string {
	if c.id != "" && bytes.Equal(raw, c.from) {
		return c.id
	}
	var id string
	switch {
	case len(raw) == digits && isHex(raw):
		id = prefix + string(bytes.ToLower(raw))
	case bytes.HasPrefix(raw, []byte(prefix)) && telemetry.CheckID(string(raw)) == nil:
		id = string(raw)
	default:
		return ""
	}
	c.from, c.id = append(c.from[:0], raw...), id
	return id
}

func isHex(b []byte) bool {
	zero := true
	for _, c := range b {
		if c|0x20 >= 'a' && c|0x20 <= 'f' || c >= '0' && c <= '9' {
			zero = zero && c == '0'
			continue
		}
		return false
	}
	return !zero // all zeros is how tracers say "none"
}
