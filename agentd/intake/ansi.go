package intake

import "bytes"

// Terminal escape sequences (ECMA-48), which colour and move: what a person
// reads is left when they are taken out. Every byte is looked at once.

const escape = 0x1b

// hasEscape reports whether the text may hold an escape sequence: ESC, or the
// one-character form of ESC [ (U+009B).
func hasEscape(text []byte) bool {
	return bytes.IndexByte(text, escape) >= 0 || bytes.IndexByte(text, 0x9b) >= 0 && bytes.Contains(text, []byte("\u009b"))
}

// stripper takes escape sequences out of one text.
type stripper struct {
	text []byte
	// end is where the next end of a string of control is, once somebody has
	// asked; len(text): there is none.
	end    int
	sought bool
}

// sequence is the length of the escape sequence at i; 0: there is none.
func (s *stripper) sequence(i int) int {
	b := s.text[i:]
	switch {
	case b[0] == escape && len(b) > 1 && b[1] == '[':
		return controlSequence(b, 2)
	case b[0] == escape:
		return s.escaped(i, b)
	case b[0] == 0xc2 && len(b) > 1 && b[1] == 0x9b:
		return controlSequence(b, 2)
	}
	return 0
}

// controlSequence is the length of CSI, parameters, intermediates and a final
// byte. One that breaks off ends before the byte that cannot belong to it.
func controlSequence(b []byte, i int) int {
	for i < len(b) && b[i] >= 0x30 && b[i] <= 0x3f {
		i++
	}
	for i < len(b) && b[i] >= 0x20 && b[i] <= 0x2f {
		i++
	}
	if i < len(b) && b[i] >= 0x40 && b[i] <= 0x7e {
		i++
	}
	return i
}

func (s *stripper) escaped(i int, b []byte) int {
	if len(b) == 1 {
		return 1
	}
	switch c := b[1]; {
	case c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_': // a string of control: a title, a link, a picture
		if end := s.stringEnd(i + 2); end > 0 {
			return end - i
		}
		return 2 // without an end it would hide all the rest
	case c >= 0x20 && c <= 0x2f: // a character set and the like
		n := 2
		for n < len(b) && b[n] >= 0x20 && b[n] <= 0x2f {
			n++
		}
		if n < len(b) && b[n] >= 0x30 && b[n] <= 0x7e {
			n++
		}
		return n
	case c >= 0x30 && c <= 0x7e:
		return 2
	}
	return 1
}

// stringEnd is where the string of control that has begun before i ends: after
// BEL or ESC \; 0: it does not.
func (s *stripper) stringEnd(i int) int {
	if !s.sought || s.end < i {
		s.sought = true
		s.end = i
		for s.end < len(s.text) && s.text[s.end] != 0x07 && (s.text[s.end] != escape || s.end+1 == len(s.text) || s.text[s.end+1] != '\\') {
			s.end++
		}
	}
	switch {
	case s.end >= len(s.text):
		return 0
	case s.text[s.end] == escape:
		return s.end + 2
	}
	return s.end + 1
}
