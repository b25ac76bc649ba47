package intake

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// pair is one key=value of a logfmt line: offsets into the text.
type pair struct {
	key, keyEnd     int
	value, valueEnd int // with the quotes
	quoted, taken   bool
}

// logfmt takes a line apart that is key=value pairs and nothing else, with a
// text under "msg" or "message": as a JSON line is, the values being texts. A
// line that only begins with pairs keeps its form, and its level is lifted.
func (p *parser) logfmt(text []byte, e *telemetry.LogEntry, whole bool) (r reading, ok bool) {
	if !beginsWithPair(text) {
		return r, false
	}
	pairs, all := scanPairs(text, p.pairs[:0])
	p.pairs = pairs[:0]
	r = reading{message: text, level: telemetry.Info}
	message := -1
	for i := range pairs {
		f := &pairs[i]
		key, value := text[f.key:f.keyEnd], f.inside(text)
		switch {
		case !r.stated && isLevelKey(key):
			if level, stated := levelValue(value); stated {
				r.level, r.stated, f.taken = level, true, saysAll(value)
			}
		case message < 0 && isMessageKey(key):
			message = i
		case e.Trace == "" && isKey(key, "traceId", "trace_id"):
			e.Trace = telemetry.TraceID(p.trace.get(value, "trc_", 32))
			f.taken = e.Trace != ""
		case e.Span == "" && isKey(key, "spanId", "span_id"):
			e.Span = telemetry.SpanID(p.span.get(value, "spn_", 16))
			f.taken = e.Span != ""
		}
	}
	if !all || message < 0 || whole || len(pairs) < 2 {
		if !r.stated {
			e.Trace, e.Span = "", "" // it may be anything: a line of settings, a URL's query
		}
		return r, r.stated
	}
	f := &pairs[message]
	f.taken = true
	rest := p.pairsObject(text, pairs)
	if len(rest) > telemetry.MaxMetadata {
		return r, r.stated
	}
	e.Metadata = rest
	if r.message = f.inside(text); f.quoted {
		p.message = unquotePair(p.message[:0], r.message)
		r.message = p.message
	}
	r.structured = true
	return r, true
}

// beginsWithPair is a quick look at how a line begins.
func beginsWithPair(text []byte) bool {
	const most = 64 // bytes of a first key
	for i, c := range text[:min(len(text), most)] {
		if c == '=' {
			return i > 0
		}
		if !isKeyByte(c) {
			return false
		}
	}
	return false
}

func isKeyByte(c byte) bool {
	return letter(c) || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-' || c == '@' || c == '/'
}

// scanPairs reads pairs from the text's beginning on, as far as there are any;
// all says that this was all of the text.
func scanPairs(text []byte, pairs []pair) (_ []pair, all bool) {
	for i := 0; ; {
		for i < len(text) && text[i] == ' ' {
			i++
		}
		if i == len(text) {
			return pairs, true
		}
		f := pair{key: i}
		for i < len(text) && isKeyByte(text[i]) {
			i++
		}
		f.keyEnd = i
		if i == f.key || i == len(text) || text[i] != '=' || len(pairs) == maxMembers {
			return pairs, false
		}
		i++
		f.value = i
		if i < len(text) && text[i] == '"' {
			f.quoted = true
			if i = quotedEnd(text, i); i < 0 || i < len(text) && text[i] != ' ' {
				return pairs, false
			}
		} else {
			for i < len(text) && text[i] != ' ' {
				if text[i] == '"' || text[i] < ' ' {
					return pairs, false
				}
				i++
			}
		}
		f.valueEnd = i
		pairs = append(pairs, f)
	}
}

// quotedEnd is what follows the quoted text at i; -1: it does not end.
func quotedEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// inside is the value without its quotes, escapes as they are.
func (f *pair) inside(text []byte) []byte {
	if f.quoted {
		return text[f.value+1 : f.valueEnd-1]
	}
	return text[f.value:f.valueEnd]
}

// pairsObject makes an object of the pairs that were not taken; nil where there
// are none.
func (p *parser) pairsObject(text []byte, pairs []pair) []byte {
	out := p.metadata[:0]
	out = append(out, '{')
	for i := range pairs {
		f := &pairs[i]
		if f.taken {
			continue
		}
		out = append(out, '"')
		out = append(out, text[f.key:f.keyEnd]...) // of bytes that need no escape
		out = append(out, `":`...)
		value := f.inside(text)
		if f.quoted && bytes.IndexByte(value, '\\') >= 0 {
			p.unescaped = unquotePair(p.unescaped[:0], value)
			value = p.unescaped
		}
		out = appendJSONText(out, value)
		out = append(out, ',')
	}
	p.metadata = out
	if len(out) == 1 {
		return nil
	}
	out[len(out)-1] = '}'
	return out
}

// appendJSONText appends clean text as a JSON string.
func appendJSONText(out, text []byte) []byte {
	out = append(out, '"')
	start := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		out = append(out, text[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\n':
			out = append(out, `\n`...)
		case '\t':
			out = append(out, `\t`...)
		case '\r':
			out = append(out, `\r`...)
		default:
			const digits = "0123456789abcdef"
			out = append(out, `\u00`...)
			out = append(out, digits[c>>4], digits[c&15])
		}
	}
	return append(append(out, text[start:]...), '"')
}

// unquotePair appends the text of a quoted value, escaped as Go escapes; what
// is no escape stays as it is.
func unquotePair(dst, s []byte) []byte {
	for len(s) > 0 {
		i := bytes.IndexByte(s, '\\')
		if i < 0 || i+1 == len(s) {
			break
		}
		dst = append(dst, s[:i]...)
		s = s[i:]
		n := min(len(s), 10) // the longest escape is \U and eight digits
		for n > 2 && !utf8.RuneStart(s[n-1]) {
			n--
		}
		r, multibyte, tail, err := strconv.UnquoteChar(string(s[:n]), '"')
		switch {
		case err != nil:
			dst = append(dst, s[0])
			s = s[1:]
			continue
		case r == 0:
			dst = append(dst, picturedNUL...)
		case r < utf8.RuneSelf || multibyte:
			dst = utf8.AppendRune(dst, r)
		default: // \xff: a byte that is no text of its own
			dst = append(dst, replacement...)
		}
		s = s[n-len(tail):]
	}
	return append(dst, s...)
}
