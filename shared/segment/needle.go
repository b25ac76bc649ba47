package segment

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// needle is a search text. It finds what telemetry.ContainsFold finds, but in
// the messages of a whole block at once and without folding them: the rarest
// byte of the text is looked for, in both cases, and the rest compared there.
type needle struct {
	folded []byte
	ascii  bool
	rare   int    // index in folded of the byte that is looked for
	odd    bool   // runes that are not ASCII fold to one of its letters
	text   []byte // scratch: the text searched last, folded
}

func newNeedle(search string) needle {
	n := needle{folded: []byte(telemetry.FoldText(search))}
	n.ascii = isASCII(n.folded)
	n.odd = bytes.ContainsAny(n.folded, oddLetters)
	for i, c := range n.folded {
		if rarity(c) > rarity(n.folded[n.rare]) {
			n.rare = i
		}
	}
	return n
}

// oddLetters are what İ and ı, ſ, and K fold to; no other rune folds to ASCII.
const oddLetters = "isk"

var oddRunes = [...][]byte{[]byte("İ"), []byte("ı"), []byte("ſ"), []byte("\u212a")}

// rarity is higher for bytes that are seldom seen in logs.
func rarity(c byte) int { return -classWeight[class[c]&classBits] }

// in reports whether text contains the needle as telemetry.ContainsFold
// defines it. Text of ASCII alone, which is nearly all, is folded by table and
// searched in time that grows with its length alone, whatever the needle.
func (n *needle) in(text []byte) bool {
	if len(n.folded) == 0 {
		return true
	}
	if isASCII(text) {
		if !n.ascii || len(n.folded) > len(text) {
			return false
		}
		n.text = appendLower(n.text[:0], text)
	} else {
		n.text = appendFold(n.text[:0], text)
	}
	return bytes.Contains(n.text, n.folded)
}

// find appends to dst the numbers of the texts that contain the needle, rising.
func (n *needle) find(dst []int, t *Texts) []int {
	if len(n.folded) == 0 {
		for i := range t.ends {
			dst = append(dst, i)
		}
		return dst
	}
	if !n.ascii {
		if isASCII(t.data) {
			return dst
		}
		return n.findFolded(dst, t)
	}
	if n.odd && !isASCII(t.data) && slices.ContainsFunc(oddRunes[:], func(r []byte) bool { return bytes.Contains(t.data, r) }) {
		return n.findEach(dst, t)
	}
	return n.findASCII(dst, t)
}

// findEach looks at one text after the other.
func (n *needle) findEach(dst []int, t *Texts) []int {
	for i := range t.ends {
		if n.in(t.At(i)) {
			dst = append(dst, i)
		}
	}
	return dst
}

// findFolded does so for a needle that no text of ASCII contains.
func (n *needle) findFolded(dst []int, t *Texts) []int {
	for i := range t.ends {
		if text := t.At(i); !isASCII(text) && n.in(text) {
			dst = append(dst, i)
		}
	}
	return dst
}

// findASCII finds a needle of ASCII in all texts at once. Bytes of runes that
// are not ASCII equal none of it, and runes that fold to ASCII were dealt with.
func (n *needle) findASCII(dst []int, t *Texts) []int {
	data, line := t.data, 0
	marks := markReader{data: data, small: n.folded[n.rare], at: n.rare}
	if c := marks.small; c >= 'a' && c <= 'z' {
		marks.large = c - 'a' + 'A'
	}
	marks.start()
	effort := 8*len(data) + 4096
	for {
		mark := marks.next()
		from := mark - n.rare
		if mark < 0 || from+len(n.folded) > len(data) {
			return dst
		}
		equal := 0
		for equal < len(n.folded) && lower[data[from+equal]] == n.folded[equal] {
			equal++
		}
		if effort -= equal; effort < 0 {
			// A text made so that the needle nearly matches everywhere: what is left is
			// searched in linear time.
			return n.findRest(dst, t, line)
		}
		if equal < len(n.folded) {
			continue
		}
		for int(t.ends[line]) <= from {
			line++
		}
		if from+len(n.folded) <= int(t.ends[line]) {
			dst = append(dst, line)
			if line++; line == len(t.ends) {
				return dst
			}
			marks.skip(int(t.ends[line-1]) + n.rare)
		}
	}
}

// findRest looks at the texts from first on, one after the other.
func (n *needle) findRest(dst []int, t *Texts, first int) []int {
	for i := first; i < len(t.ends); i++ {
		if n.in(t.At(i)) {
			dst = append(dst, i)
		}
	}
	return dst
}

// markReader finds one byte after the other, in two cases.
type markReader struct {
	data         []byte
	small, large byte // large: 0 where there is no other case
	at           int  // where to look on
	s, l         int  // the next of each from at on; len(data): none
}

func (m *markReader) start() {
	m.s, m.l = -1, -1
	if m.large == 0 {
		m.l = len(m.data)
	}
}

// next returns the place of the next mark, or -1.
func (m *markReader) next() int {
	if m.at > len(m.data) {
		return -1
	}
	if m.s < m.at {
		m.s = m.index(m.small)
	}
	if m.l < m.at {
		m.l = m.index(m.large)
	}
	found := min(m.s, m.l)
	if found == len(m.data) {
		return -1
	}
	m.at = found + 1
	return found
}

func (m *markReader) index(c byte) int {
	if i := bytes.IndexByte(m.data[m.at:], c); i >= 0 {
		return m.at + i
	}
	return len(m.data)
}

// skip goes on from there, if that is ahead.
func (m *markReader) skip(to int) { m.at = max(m.at, to) }

func isASCII(b []byte) bool {
	for len(b) >= 32 {
		w := binary.LittleEndian.Uint64(b) | binary.LittleEndian.Uint64(b[8:]) | binary.LittleEndian.Uint64(b[16:]) | binary.LittleEndian.Uint64(b[24:])
		if w&0x8080808080808080 != 0 {
			return false
		}
		b = b[32:]
	}
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func appendLower(dst, ascii []byte) []byte {
	n := len(dst)
	dst = append(dst, ascii...)
	for i, c := range dst[n:] {
		dst[n+i] = lower[c]
	}
	return dst
}

// appendFold appends what telemetry.FoldText makes of text that is not all ASCII.
func appendFold(dst, text []byte) []byte {
	runes := foldedRunes()
	for len(text) > 0 {
		if c := text[0]; c < utf8.RuneSelf {
			dst = append(dst, lower[c])
			text = text[1:]
			continue
		}
		r, size := utf8.DecodeRune(text)
		if int(r) < len(runes) {
			r = runes[r]
		} else {
			r = foldRune(r)
		}
		dst = utf8.AppendRune(dst, r)
		text = text[size:]
	}
	return dst
}

func foldRune(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }

// foldedRunes holds what scripts with cases fold to: looking it up anew takes longer than the search.
var foldedRunes = sync.OnceValue(func() []rune {
	runes := make([]rune, 0x2200)
	for r := range runes {
		runes[r] = foldRune(rune(r))
	}
	return runes
})

// search keeps the needles of a filter from one segment to the next.
type search struct {
	text    string
	where   *telemetry.LogExpr // never changes
	needles []needle
	made    bool
}

func (s *search) of(f *telemetry.LogFilter) []needle {
	if !s.made || s.text != f.Search || s.where != f.Where {
		*s = search{text: f.Search, where: f.Where, needles: needlesOf(f), made: true}
	}
	return s.needles
}

// needlesOf returns the texts that every match holds, without those that are
// part of another.
func needlesOf(f *telemetry.LogFilter) []needle {
	texts := f.Needles()
	for i := range texts {
		texts[i] = telemetry.FoldText(texts[i])
	}
	slices.SortFunc(texts, func(a, b string) int { return len(b) - len(a) })
	var needles []needle
	for i, text := range texts {
		if text != "" && !slices.ContainsFunc(texts[:i], func(longer string) bool { return strings.Contains(longer, text) }) {
			needles = append(needles, newNeedle(text))
		}
	}
	return needles
}
