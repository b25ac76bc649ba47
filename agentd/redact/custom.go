package redact

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// maxValues bounds how often one of the operator's rules is applied to one
// text: an expression may read to the end of the text for each value. After
// that many the rest of the text is replaced as a whole, so that nothing
// remains because there was much of it.
const maxValues = 1000

// compile checks one of the operator's rules and compiles it. keyword is a text
// that every match has in it, in lower case, or "".
func (x *Rule) compile() (re *regexp.Regexp, keyword string, err error) {
	if x.Name == "" || markerLen([]byte(markerOpen+x.Name+string(markerClose))) == 0 {
		return nil, "", fmt.Errorf("rule %.40q: a name is 1 to %d lower-case letters, digits and dashes", x.Name, maxName)
	}
	if x.Pattern == "" || len(x.Pattern) > maxPattern {
		return nil, "", fmt.Errorf("rule %s: its pattern has %d bytes, 1 to %d are allowed", x.Name, len(x.Pattern), maxPattern)
	}
	if x.Keyword != "" && (len(x.Keyword) < minKeyword || len(x.Keyword) > 64) {
		return nil, "", fmt.Errorf("rule %s: its keyword %.70q has %d bytes, %d to 64 are allowed", x.Name, x.Keyword, len(x.Keyword), minKeyword)
	}
	tree, err := syntax.Parse(x.Pattern, syntax.Perl)
	if err != nil {
		return nil, "", fmt.Errorf("rule %s: %w", x.Name, err)
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, "", fmt.Errorf("rule %s: %w", x.Name, err)
	}
	if len(program.Inst) > maxProgram {
		return nil, "", fmt.Errorf("rule %s: its pattern is too large: %d steps, %d are allowed; use smaller counts in {…}", x.Name, len(program.Inst), maxProgram)
	}
	re, err = regexp.Compile(x.Pattern)
	if err != nil {
		return nil, "", fmt.Errorf("rule %s: %w", x.Name, err)
	}
	if keyword = strings.ToLower(x.Keyword); keyword == "" {
		if keyword = required(tree); len(keyword) < minKeyword {
			keyword = ""
		}
	}
	return re, keyword, nil
}

// required returns the longest text that every match of an expression has in
// it, in lower case: what is found in any case is found all the more.
func required(tree *syntax.Regexp) string {
	switch tree.Op { //nolint:exhaustive // no other form tells of a text
	case syntax.OpLiteral:
		return plain(tree)
	case syntax.OpCapture, syntax.OpPlus:
		return required(tree.Sub[0])
	case syntax.OpRepeat:
		if tree.Min > 0 {
			return required(tree.Sub[0])
		}
	case syntax.OpConcat:
		longest := ""
		for _, part := range tree.Sub {
			if text := required(part); len(text) > len(longest) {
				longest = text
			}
		}
		return longest
	}
	return ""
}

// plain returns the longest part of a literal that has no other spellings than
// ASCII's: (?i)k is also the sign of Kelvin, and (?i)s the long s.
func plain(literal *syntax.Regexp) string {
	fold := literal.Flags&syntax.FoldCase != 0
	longest, part := "", []byte(nil)
	for _, r := range literal.Rune {
		if r >= 0x80 || fold && (r|0x20 == 'k' || r|0x20 == 's') {
			part = part[:0]
			continue
		}
		part = append(part, toLower(byte(r))) //nolint:gosec // it is ASCII
		if len(part) > len(longest) {
			longest = string(part)
		}
	}
	return longest[:min(len(longest), 64)]
}

// expression adds the matches of an operator's expression, except for what is
// a marker already.
func (s *scan) expression(rule ruleNumber, re *regexp.Regexp) {
	for i, m := range re.FindAllSubmatchIndex(s.text, maxValues) {
		start, end := m[0], m[1]
		if len(m) > 2 && m[2] >= 0 {
			start, end = m[2], m[3]
		}
		if i == maxValues-1 {
			end = len(s.text)
		}
		s.outsideMarkers(rule, start, end)
	}
}

// outsideMarkers adds what of [start,end) belongs to no marker.
func (s *scan) outsideMarkers(rule ruleNumber, start, end int) {
	// A marker may begin before start and reach into it.
	for p := max(0, start-len(markerOpen)-maxName); p < start; p++ {
		if n := markerLen(s.text[p:]); n > 0 && p+n > start {
			start = min(p+n, end)
			break
		}
	}
	from := start
	for p := start; p < end; p++ {
		n := markerLen(s.text[p:])
		if n == 0 {
			continue
		}
		if p > from {
			s.generic(rule, from, p)
		}
		from = p + n
		p = from - 1
	}
	if from < end {
		s.generic(rule, from, end)
	}
}
