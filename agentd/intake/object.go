package intake

import (
	"bytes"
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
	inner           *member // the message, where it lies in this one's object
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
// the line is no such object, or one over the limits. whole says that the line
// must stay as it is.
func (p *parser) object(text []byte, e *telemetry.LogEntry, whole bool) (r reading, ok bool) {
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
				r.level, r.stated, m.taken = level, true, saysAll(value)
			}
		case message == nil && value[0] == '"' && isMessageKey(key):
			message = m
		case e.Trace == "" && isKey(key, "traceId", "trace_id"):
			e.Trace = telemetry.TraceID(p.trace.get(unquoted(value), "trc_", 32))
			m.taken = e.Trace != ""
		case e.Span == "" && isKey(key, "spanId", "span_id"):
			e.Span = telemetry.SpanID(p.span.get(unquoted(value), "spn_", 16))
			m.taken = e.Span != ""
		case value[0] == '{' && isKey(key, "fields", "log"):
			inner := p.inner(value)
			if inner.message.valueEnd > 0 && message == nil {
				m.inner = inner.message.moved(m.value)
			}
			if inner.stated && !r.stated {
				r.level, r.stated = inner.level, true
			}
		}
	}
	if message == nil {
		message = innerMessage(s.members)
	}
	if message == nil || whole {
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

// inner is what an object within the line's says: tracing of Rust has the
// message in "fields", Elastic's schema the level in "log".
func (p *parser) inner(value []byte) (found struct {
	message member
	level   telemetry.Level
	stated  bool
},
) {
	s := jsonScanner{b: value, members: p.nested[:0]}
	s.object()
	p.nested = s.members[:0]
	for i := range s.members {
		m := &s.members[i]
		key, v := value[m.key+1:m.keyEnd-1], value[m.value:m.valueEnd]
		switch {
		case found.message.valueEnd == 0 && v[0] == '"' && string(key) == "message":
			found.message = *m
		case !found.stated && string(key) == "level":
			found.level, found.stated = jsonLevel(v)
		}
	}
	return found
}

// moved is the member as it lies in the text that its object begins at.
func (m member) moved(by int) *member {
	return &member{key: m.key + by, keyEnd: m.keyEnd + by, value: m.value + by, valueEnd: m.valueEnd + by}
}

func innerMessage(list []member) *member {
	for i := range list {
		if list[i].inner != nil {
			return list[i].inner
		}
	}
	return nil
}

func isMessageKey(k []byte) bool { return isKey(k, "msg", "message") || isKey(k, "@message", "@m") }

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
		return levelValue(unquoted(value))
	}
	if len(value) != 2 || value[1] != '0' {
		return 0, false // syslog counts the other way round: do not guess
	}
	switch value[0] {
	case '1', '2':
		return telemetry.Debug, true
	case '3':
		return telemetry.Info, true
	case '4':
		return telemetry.Warn, true
	case '5', '6':
		return telemetry.Error, true
	}
	return 0, false
}

// saysAll reports whether our level says all that the value does: a fatal or a
// notice is more than an error or an info.
func saysAll(value []byte) bool {
	if len(value) > 0 && value[0] == '"' {
		value = unquoted(value)
	}
	if len(value) < 2 || len(value) > 7 {
		return false
	}
	var lower [7]byte
	for i, c := range value {
		lower[i] = c | 0x20 // of digits too: they have that bit
	}
	switch string(lower[:len(value)]) {
	case "debug", "info", "warn", "warning", "error", "20", "30", "40", "50":
		return true
	}
	return false
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
		out = m.appendValue(out, text)
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

// appendValue appends the member's value as it was written, but for a message
// that was taken out of it.
func (m *member) appendValue(out, text []byte) []byte {
	in := m.inner
	if in == nil || !in.taken {
		return append(out, text[m.value:m.valueEnd]...)
	}
	before, after := bytes.TrimRight(text[m.value:in.key], " \t\r\n"), bytes.TrimLeft(text[in.valueEnd:m.valueEnd], " \t\r\n")
	switch { // one comma goes with it
	case after[0] == ',':
		after = after[1:]
	case before[len(before)-1] == ',':
		before = before[:len(before)-1]
	}
	return append(append(out, before...), after...)
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
