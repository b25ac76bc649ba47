package intake

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// Limits of a JSON line that is taken apart.
const (
	maxDepth   = 32
	maxMembers = 1024
	// maxExponent digits: databases refuse larger numbers.
	maxExponent = 3
)

// member is one member of the line's object: offsets into the text.
type member struct {
	key, keyEnd     int // with the quotes
	value, valueEnd int
	taken           bool
}

func looksLikeObject(text []byte) bool {
	if len(text) < 2 || text[0] != '{' {
		return false
	}
	trimmed := bytes.TrimRight(text, " \t\r")
	return trimmed[len(trimmed)-1] == '}'
}

// reading is what a line says.
type reading struct {
	message    []byte
	level      telemetry.Level
	stated     bool // the level is the line's own word
	structured bool // the line was taken apart
}

// object takes a line apart that is one JSON object. It returns ok false where
// the line is no such object, or one over the limits.
func (p *parser) object(text []byte, e *telemetry.LogEntry) (r reading, ok bool) {
	s := jsonScanner{b: text, members: p.members[:0]}
	ok = s.object()
	p.members = s.members[:0]
	if !ok {
		return r, false
	}
	r = reading{message: text, level: telemetry.Info}
	var message *member
	for i := range s.members {
		m := &s.members[i]
		key, value := text[m.key+1:m.keyEnd-1], text[m.value:m.valueEnd]
		switch {
		case !r.stated && isLevelKey(key):
			if level, stated := jsonLevel(value); stated {
				r.level, r.stated, m.taken = level, true, true
			}
		case message == nil && value[0] == '"' && isMessageKey(key):
			message = m
		case e.Trace == "" && isKey(key, "traceId", "trace_id"):
			e.Trace = telemetry.TraceID(p.trace.get(unquoted(value), "trc_", 32))
			m.taken = e.Trace != ""
		case e.Span == "" && isKey(key, "spanId", "span_id"):
			e.Span = telemetry.SpanID(p.span.get(unquoted(value), "spn_", 16))
			m.taken = e.Span != ""
		}
	}
	if message == nil {
		return r, true
	}
	message.taken = true
	rest := p.rest(text, s.members, s.rewrite)
	if len(rest) > telemetry.MaxMetadata {
		return r, true
	}
	e.Metadata = rest
	p.message = unescape(p.message[:0], text[message.value+1:message.valueEnd-1])
	r.message, r.structured = p.message, true
	return r, true
}

func isMessageKey(k []byte) bool { return isKey(k, "msg", "message") || string(k) == "@message" }

func isKey(k []byte, a, b string) bool { return string(k) == a || string(k) == b }

// unquoted is the inside of a plain string value; nil for any other value.
func unquoted(value []byte) []byte {
	if len(value) < 2 || value[0] != '"' {
		return nil
	}
	return value[1 : len(value)-1]
}

// jsonLevel reads a level word, or a number as pino and bunyan write it.
func jsonLevel(value []byte) (telemetry.Level, bool) {
	if value[0] == '"' {
		return levelOf(unquoted(value))
	}
	n, err := strconv.ParseUint(string(value), 10, 16)
	switch {
	case err != nil || n < 10:
		return 0, false // syslog counts the other way round: do not guess
	case n < 30:
		return telemetry.Debug, true
	case n < 40:
		return telemetry.Info, true
	case n < 50:
		return telemetry.Warn, true
	}
	return telemetry.Error, true
}

// rest puts the members that were not taken into an object again, as they were
// written; nil where there is none. rewrite says that the text holds escapes
// that no text of ours may hold, NULs and half surrogate pairs, which are
// pictured, or line breaks between values, which become spaces: metadata travels
// in one line.
func (p *parser) rest(text []byte, members []member, rewrite bool) []byte {
	out := p.metadata[:0]
	out = append(out, '{')
	for i := range members {
		m := &members[i]
		if m.taken {
			continue
		}
		out = append(out, text[m.key:m.keyEnd]...)
		out = append(out, ':')
		out = append(out, text[m.value:m.valueEnd]...)
		out = append(out, ',')
	}
	p.metadata = out
	if len(out) == 1 {
		return nil
	}
	out[len(out)-1] = '}'
	if rewrite {
		tame(out)
	}
	return out
}

// tame rewrites valid JSON in place.
func tame(b []byte) {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\r', '\n':
			b[i] = ' '
		case '\\':
			i += tameEscape(b[i:]) - 1
		}
	}
}

// tameEscape rewrites the escape that b begins with, and returns its length.
func tameEscape(b []byte) int {
	if b[1] != 'u' {
		return 2
	}
	switch r := hex4(b[2:]); {
	case r == 0:
		copy(b, `\u2400`)
	case utf16.IsSurrogate(r):
		if len(b) >= 12 && b[6] == '\\' && b[7] == 'u' && utf16.DecodeRune(r, hex4(b[8:])) != utf8.RuneError {
			return 12
		}
		copy(b, `\ufffd`)
	}
	return 6
}

// unescape appends the text of a valid JSON string's inside. A NUL is pictured
// and half a surrogate pair replaced.
func unescape(dst, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		c := s[i+1]
		s = s[i+2:]
		switch c {
		case 'n':
			dst = append(dst, '\n')
		case 't':
			dst = append(dst, '\t')
		case 'r':
			dst = append(dst, '\r')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'u':
			r := hex4(s)
			s = s[4:]
			if utf16.IsSurrogate(r) {
				r, s = surrogates(r, s)
			}
			if r == 0 {
				dst = append(dst, picturedNUL...)
				continue
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, c)
		}
	}
}

// surrogates joins the half r with the one that s begins with.
func surrogates(r rune, s []byte) (joined rune, rest []byte) {
	if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
		if pair := utf16.DecodeRune(r, hex4(s[2:])); pair != utf8.RuneError {
			return pair, s[6:]
		}
	}
	return utf8.RuneError, s
}

// hex4 reads four hex digits that were checked.
func hex4(s []byte) (r rune) {
	for _, c := range s[:4] {
		switch {
		case c <= '9':
			c -= '0'
		default:
			c = c | 0x20 - 'a' + 10
		}
		r = r<<4 | rune(c)
	}
	return r
}
