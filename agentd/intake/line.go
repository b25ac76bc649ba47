package intake

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// parser finds out what a line says. It keeps its buffers from line to line,
// so that a plain line costs no allocation; results are valid until the next.
type parser struct {
	plain     bool // no structure: the level of a line's head is all that is looked for
	keepANSI  bool
	text      []byte // a cleaned line
	message   []byte // an unescaped message
	metadata  []byte
	members   []member
	nested    []member
	pairs     []pair
	trace     idCache
	span      idCache
	given     objectCache
	origin    telemetry.Origin // the last one that was found good
	unescaped []byte
}

// line fills in all of e but its origin, and returns the message. changed says
// what was done to the bytes.
func (p *parser) line(l *source.Line, e *telemetry.LogEntry, done *marks) (message []byte, changed change) {
	e.Timestamp = l.Timestamp // the codec keeps microseconds
	if s := l.Timestamp.Unix(); s <= firstSecond || s >= lastSecond {
		e.Timestamp = time.Now()
		done[markUntimed]++
	}
	e.Truncated = l.Truncated
	e.Metadata, e.Trace, e.Span = nil, "", ""
	text, changed := p.cleanLine(l, e, done)
	if e.Truncated {
		done[markTruncated]++
	}
	r := p.read(text, e, l.KeepRaw && len(text) > maxRaw)
	if !r.stated {
		done[markInferred]++
	}
	if r.structured {
		changed |= changedForm
		done[markStructured]++
	}
	e.Level, e.LevelInferred = r.level, !r.stated
	if len(l.Metadata) > 0 {
		e.Metadata = p.joined(e.Metadata, p.given.get(l.Metadata, done))
	}
	if original := max(l.Original, int64(len(l.Text))); e.Truncated && original > telemetry.MaxMessage {
		note := strconv.AppendInt([]byte(`{"originalBytes":`), original, 10)
		e.Metadata = p.joined(e.Metadata, append(note, '}'))
	}
	return r.message, changed
}

// Seconds of the first and the last year that receivers take; the zero time is
// the first one.
const (
	firstSecond = -62135596800
	lastSecond  = 253402300799
)

// change is what was done to the bytes of a line on the way to its message.
type change uint8

const (
	changedBytes change = 1 << iota // what was not UTF-8, or NUL
	changedANSI                     // escape sequences, or carriage returns at the end
	changedForm                     // it was taken apart
)

// cleanLine is the text of a line: UTF-8, not too long, and plain.
func (p *parser) cleanLine(l *source.Line, e *telemetry.LogEntry, done *marks) (text []byte, changed change) {
	text = l.Text
	clean := isClean(text)
	if !clean {
		changed |= changedBytes
		done[markCleaned]++
	}
	strip := !p.keepANSI
	if strip && l.KeepRaw && clean && len(text) > maxRaw {
		strip = false // there is no room beside the message for what it was
	}
	escapes := strip && (hasEscape(text) || bytes.Contains(text, []byte("\r\n"))) // those of lines that were joined
	if !clean || escapes || len(text) > telemetry.MaxMessage {
		var cut bool
		if text, cut = p.cleanedPlain(text, telemetry.MaxMessage, escapes); cut {
			e.Truncated = true
		}
	}
	if strip {
		n := len(text)
		for n > 0 && text[n-1] == '\r' {
			n--
		}
		if escapes || n < len(text) {
			text = text[:n]
			changed |= changedANSI
			done[markStripped]++
		}
	}
	return text, changed
}

// read finds the level and the structure. whole says that the line must stay
// as it is.
func (p *parser) read(text []byte, e *telemetry.LogEntry, whole bool) reading {
	if !p.plain && len(text) > 0 {
		if looksLikeObject(text) {
			if r, ok := p.object(text, e, whole); ok {
				return r
			}
		} else if r, ok := p.logfmt(text, e, whole); ok {
			return r
		}
	}
	level, stated := plainLevel(text)
	return reading{message: text, level: level, stated: stated}
}

// joined puts the members of another object behind those of an object.
func (p *parser) joined(object, other []byte) []byte {
	if len(object) == 0 || len(other) == 0 || len(object)+len(other) > telemetry.MaxMetadata {
		if len(object) == 0 {
			return other
		}
		return object
	}
	p.metadata = append(p.metadata[:0], object...) // which may be the cache's
	p.metadata[len(object)-1] = ','
	p.metadata = append(p.metadata, other[1:]...)
	return p.metadata
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
	return p.cleanedPlain(text, most, false)
}

// cleanedPlain is cleaned without escape sequences, where strip says so.
func (p *parser) cleanedPlain(text []byte, most int, strip bool) (clean []byte, cut bool) {
	out := p.text[:0]
	bad := false // within a run of bytes that are not UTF-8
	s := stripper{text: text}
	for i := 0; i < len(text); {
		if n := plainRun(text[i:], most-len(out)); n > 0 {
			out = append(out, text[i:i+n]...)
			i += n
			bad = false
			continue
		}
		if strip && (text[i] == escape || text[i] == 0xc2) {
			if n := s.sequence(i); n > 0 {
				i += n
				continue
			}
		}
		if strip && text[i] == '\r' && i+1 < len(text) && text[i+1] == '\n' {
			i++
			continue
		}
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

// plainRun is how many bytes, up to most, are ASCII that stays as it is.
func plainRun(text []byte, most int) int {
	text = text[:min(len(text), most)]
	for i, c := range text {
		if c < ' ' && c != '\t' || c >= utf8.RuneSelf {
			return i
		}
	}
	return len(text)
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

// objectCache keeps the last object that was checked: the lines of one source
// share it.
type objectCache struct {
	from, object []byte
}

// maxGiven is how much metadata a source may give a line.
const maxGiven = 4 << 10

// get returns the object as receivers take it; nil where it is none.
func (c *objectCache) get(raw []byte, done *marks) []byte {
	if c.object != nil && bytes.Equal(raw, c.from) {
		return c.object
	}
	s := jsonScanner{b: bytes.TrimSpace(raw)}
	if len(raw) > maxGiven || !isClean(raw) || !s.object() {
		done[markBadObject]++
		return nil
	}
	if len(s.members) == 0 {
		return nil
	}
	c.from, c.object = append(c.from[:0], raw...), members(s.b, s.members)
	if s.rewrite {
		tame(c.object)
	}
	return c.object
}
