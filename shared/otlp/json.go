package otlp

import (
	"unicode/utf16"
	"unicode/utf8"
)

// maxNesting is how deep brackets may be nested in JSON: a value that is
// MaxDepth deep has five levels of brackets for each of its own.
const maxNesting = 512

// nextJSON goes to the next field in OTLP's JSON encoding. The value before is
// left behind, whether anybody read it or not.
func (c *cursor) nextJSON() bool {
	r := c.r
	if !c.opened {
		c.opened = true
		r.pos = c.at
		if !r.open('{', '}') {
			return false
		}
	} else {
		if r.err == nil && r.pos <= c.at {
			r.pos = c.at
			r.skip()
		}
		if c.inList {
			if c.inList = r.more(']'); c.inList {
				return c.here()
			}
		}
		if !r.more('}') {
			return false
		}
	}
	for r.err == nil {
		r.space()
		key := r.quoted()
		if !r.expect(':') {
			return false
		}
		c.decl = c.schema.lookup(key)
		switch {
		case c.decl == nil:
			r.skip()
		case !c.decl.repeated:
			return c.here()
		default:
			if c.inList = r.open('[', ']'); c.inList {
				return c.here()
			}
		}
		if !r.more('}') {
			return false
		}
	}
	return false
}

// here makes the value at the reader's position the cursor's.
func (c *cursor) here() bool {
	c.r.space()
	c.number, c.at = c.decl.number, c.r.pos
	return c.r.err == nil
}

// open goes into an object or array, if there is anything in it. null is an
// empty one of either.
func (r *reader) open(opening, closing byte) bool {
	if r.next() == 'n' {
		r.word("null")
		return false
	}
	if !r.expect(opening) {
		return false
	}
	if r.next() == closing {
		r.pos++
		return false
	}
	return r.err == nil
}

// more goes to the next member, or behind the object or array.
func (r *reader) more(closing byte) bool {
	if r.next() == closing {
		r.pos++
		return false
	}
	return r.expect(',')
}

// lookup finds a field by its name; protobuf's own spelling is taken as well.
func (s *schema) lookup(name []byte) *field {
	if f, ok := s.byName[string(name)]; ok {
		return f
	}
	camel := make([]byte, 0, 32)
	for i := 0; i < len(name) && len(camel) < cap(camel); i++ {
		if name[i] == '_' && i+1 < len(name) && name[i+1] >= 'a' && name[i+1] <= 'z' {
			i++
			camel = append(camel, name[i]-'a'+'A')
			continue
		}
		camel = append(camel, name[i])
	}
	return s.byName[string(camel)]
}

func (r *reader) space() {
	for r.pos < len(r.data) {
		switch r.data[r.pos] {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return
		}
	}
}

// next is the next byte that is no white space; 0 at the end.
func (r *reader) next() byte {
	r.space()
	if r.pos >= len(r.data) || r.err != nil {
		return 0
	}
	return r.data[r.pos]
}

func (r *reader) expect(c byte) bool {
	if r.next() != c || r.err != nil {
		r.fail("JSON at byte %d: %q is missing", r.pos, c)
		return false
	}
	r.pos++
	return true
}

func (r *reader) word(w string) {
	if len(r.data)-r.pos < len(w) || string(r.data[r.pos:r.pos+len(w)]) != w {
		r.fail("JSON at byte %d: not a value", r.pos)
		return
	}
	r.pos += len(w)
}

// string goes over a string and returns what stands between its quotes, and
// whether it holds escapes.
func (r *reader) string() (inside []byte, escaped bool) {
	if !r.expect('"') {
		return nil, false
	}
	start := r.pos
	for i := start; i < len(r.data); i++ {
		c := r.data[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		r.pos = i
		if c == '"' {
			r.pos++
			return r.data[start:i], escaped
		}
		if c != '\\' {
			r.fail("JSON at byte %d: a control character in a string", i)
			return nil, false
		}
		if !r.escape() {
			return nil, false
		}
		i, escaped = r.pos, true
	}
	r.fail("JSON at byte %d: a string without an end", start)
	return nil, false
}

// escape goes to the last byte of an escape.
func (r *reader) escape() bool {
	r.pos++
	if r.pos < len(r.data) {
		switch r.data[r.pos] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			return true
		case 'u':
			if _, ok := hex4(r.data[r.pos+1:]); ok {
				r.pos += 4
				return true
			}
		}
	}
	r.fail("JSON at byte %d: not an escape", r.pos)
	return false
}

func hex4(b []byte) (v rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		v = v<<4 | rune(c)
	}
	return v, true
}

// quoted is the text of the string at the reader's position.
func (r *reader) quoted() []byte {
	inside, escaped := r.string()
	if !escaped {
		return inside
	}
	out := make([]byte, 0, len(inside))
	for i := 0; i < len(inside); i++ {
		if inside[i] != '\\' {
			out = append(out, inside[i])
			continue
		}
		i++
		switch c := inside[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			v, _ := hex4(inside[i+1:])
			i += 4
			if utf16.IsSurrogate(v) {
				low := rune(-1)
				if i+2 < len(inside) && inside[i+1] == '\\' && inside[i+2] == 'u' {
					low, _ = hex4(inside[i+3:])
				}
				if v = utf16.DecodeRune(v, low); v != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, v)
		default:
			out = append(out, c)
		}
	}
	return out
}

// jsonText is the string at that place; null is an empty one.
func (r *reader) jsonText(at int) string {
	r.pos = at
	if r.next() == 'n' {
		r.word("null")
		return ""
	}
	return string(r.quoted())
}

// scalar is the token of the number, word or string at that place.
func (r *reader) scalar(at int) []byte {
	r.pos = at
	c := r.next()
	if r.err != nil || c == '{' || c == '[' {
		r.fail("JSON at byte %d: not a simple value", at)
		return nil
	}
	start := r.pos
	r.skip()
	if r.err != nil {
		return nil
	}
	return r.data[start:r.pos]
}

// skip goes behind one value, which it checks. It needs no stack, so that deep
// nesting costs none.
func (r *reader) skip() {
	var objects [maxNesting / 64]uint64 // which of the open brackets are objects
	depth := 0
	for r.err == nil {
		switch c := r.next(); c {
		case '{', '[':
			r.pos++
			closing := c + 2 // in ASCII of both
			if r.next() == closing {
				r.pos++
				break
			}
			if depth == maxNesting {
				r.fail("JSON at byte %d: nested deeper than %d", r.pos, maxNesting)
				return
			}
			bit := uint64(1) << (depth % 64)
			objects[depth/64] &^= bit
			if c == '{' {
				objects[depth/64] |= bit
				r.memberName()
			}
			depth++
			continue
		case '"':
			r.string()
		case 't':
			r.word("true")
		case 'f':
			r.word("false")
		case 'n':
			r.word("null")
		default:
			r.number()
		}
		for { // a value has ended, and with it perhaps the brackets around it
			if depth == 0 || r.err != nil {
				return
			}
			object := objects[(depth-1)/64]&(1<<((depth-1)%64)) != 0
			if c := r.next(); c == ',' {
				r.pos++
				if object {
					r.memberName()
				}
				break
			} else if object && c == '}' || !object && c == ']' {
				r.pos++
				depth--
				continue
			}
			r.fail("JSON at byte %d: a comma or closing bracket is missing", r.pos)
		}
	}
}

func (r *reader) memberName() {
	r.string()
	r.expect(':')
}

// number goes over a number of JSON's grammar.
func (r *reader) number() {
	start := r.pos
	if r.at('-') {
		r.pos++
	}
	ok := true
	if r.at('0') {
		r.pos++
	} else {
		ok = r.digits()
	}
	if ok && r.at('.') {
		r.pos++
		ok = r.digits()
	}
	if ok && (r.at('e') || r.at('E')) {
		r.pos++
		if r.at('+') || r.at('-') {
			r.pos++
		}
		ok = r.digits()
	}
	if !ok {
		r.fail("JSON at byte %d: not a value", start)
	}
}

func (r *reader) at(c byte) bool { return r.pos < len(r.data) && r.data[r.pos] == c }

func (r *reader) digits() bool {
	start := r.pos
	for r.pos < len(r.data) && r.data[r.pos] >= '0' && r.data[r.pos] <= '9' {
		r.pos++
	}
	return r.pos > start
}
