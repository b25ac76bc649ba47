package intake

import (
	"bytes"
	"cmp"
)

// jsonScanner checks that text is one JSON object and notes its members. It
// takes exactly what encoding/json takes (a fuzz test holds it to that), within
// maxDepth, maxMembers and maxExponent, and allocates nothing but the list of
// members.
type jsonScanner struct {
	b       []byte
	members []member
	most    int  // members; 0: maxMembers
	rewrite bool // it holds what tame rewrites
}

// object scans the whole text.
func (s *jsonScanner) object() bool {
	i := s.space(0)
	if i >= len(s.b) || s.b[i] != '{' {
		return false
	}
	i, ok := s.pairs(i+1, 1, true)
	return ok && s.space(i) == len(s.b)
}

// pairs scans an object after its brace; at the top it notes the members.
func (s *jsonScanner) pairs(i, depth int, top bool) (end int, ok bool) {
	if depth > maxDepth {
		return 0, false
	}
	if i = s.space(i); s.at(i) == '}' {
		return i + 1, true
	}
	for {
		var m member
		m.key = s.space(i)
		if s.at(m.key) != '"' {
			return 0, false
		}
		if m.keyEnd, ok = s.text(m.key); !ok {
			return 0, false
		}
		if i = s.space(m.keyEnd); s.at(i) != ':' {
			return 0, false
		}
		m.value = s.space(i + 1)
		if m.valueEnd, ok = s.value(m.value, depth); !ok {
			return 0, false
		}
		if top {
			if len(s.members) == cmp.Or(s.most, maxMembers) {
				return 0, false
			}
			s.members = append(s.members, m)
		}
		switch i = s.space(m.valueEnd); s.at(i) {
		case ',':
			i++
		case '}':
			return i + 1, true
		default:
			return 0, false
		}
	}
}

func (s *jsonScanner) array(i, depth int) (end int, ok bool) {
	if depth > maxDepth {
		return 0, false
	}
	if i = s.space(i); s.at(i) == ']' {
		return i + 1, true
	}
	for {
		if i, ok = s.value(s.space(i), depth); !ok {
			return 0, false
		}
		switch i = s.space(i); s.at(i) {
		case ',':
			i++
		case ']':
			return i + 1, true
		default:
			return 0, false
		}
	}
}

func (s *jsonScanner) value(i, depth int) (end int, ok bool) {
	switch c := s.at(i); {
	case c == '"':
		return s.text(i)
	case c == '{':
		return s.pairs(i+1, depth+1, false)
	case c == '[':
		return s.array(i+1, depth+1)
	case c == '-' || c >= '0' && c <= '9':
		return s.number(i)
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if bytes.HasPrefix(s.b[min(i, len(s.b)):], []byte(word)) {
			return i + len(word), true
		}
	}
	return 0, false
}

// text scans a string from its quote on.
func (s *jsonScanner) text(i int) (end int, ok bool) {
	for i++; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			return i + 1, true
		case c < ' ':
			return 0, false
		case c == '\\':
			i++
			switch s.at(i) {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if i+4 >= len(s.b) || !hexDigits(s.b[i+1:i+5]) {
					return 0, false
				}
				s.rewrite = s.rewrite || string(s.b[i+1:i+5]) == "0000" || s.b[i+1]|0x20 == 'd' && s.b[i+2] >= '8' // a NUL, or half a pair
				i += 4
			default:
				return 0, false
			}
		}
	}
	return 0, false
}

func hexDigits(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

func (s *jsonScanner) number(i int) (end int, ok bool) {
	if s.at(i) == '-' {
		i++
	}
	switch c := s.at(i); {
	case c == '0':
		i++
	case c >= '1' && c <= '9':
		i = s.digits(i)
	default:
		return 0, false
	}
	if s.at(i) == '.' {
		start := i + 1
		if i = s.digits(start); i == start {
			return 0, false
		}
	}
	if s.at(i)|0x20 == 'e' {
		i++
		if c := s.at(i); c == '+' || c == '-' {
			i++
		}
		start := i
		if i = s.digits(start); i == start || i-start > maxExponent {
			return 0, false
		}
	}
	return i, true
}

func (s *jsonScanner) digits(i int) int {
	for c := s.at(i); c >= '0' && c <= '9'; c = s.at(i) {
		i++
	}
	return i
}

// space returns the next place that holds no white space.
func (s *jsonScanner) space(i int) int {
	for ; i < len(s.b); i++ {
		switch s.b[i] {
		case ' ', '\t':
		case '\r', '\n':
			s.rewrite = true
		default:
			return i
		}
	}
	return i
}

// at returns the byte at i; 0, which no JSON holds, after the end.
func (s *jsonScanner) at(i int) byte {
	if i < len(s.b) {
		return s.b[i]
	}
	return 0
}
