package segment

import (
	"bytes"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// needle is a folded search text.
type needle struct {
	folded string
	ascii  bool
	low    byte // first byte, both cases
	up     byte
}

func newNeedle(search string) needle {
	n := needle{folded: telemetry.FoldText(search), ascii: true}
	for i := range len(n.folded) {
		if n.folded[i] >= utf8.RuneSelf {
			n.ascii = false
		}
	}
	if n.folded != "" {
		n.low, n.up = n.folded[0], n.folded[0]
		if n.low >= 'a' && n.low <= 'z' {
			n.up = n.low - 'a' + 'A'
		}
	}
	return n
}

// in reports whether text contains the needle as telemetry.ContainsFold
// defines it. Text of ASCII alone, which is nearly all, is searched in place.
func (n *needle) in(text []byte) bool {
	if n.folded == "" {
		return true
	}
	if !isASCII(text) {
		return telemetry.ContainsFold(string(text), n.folded)
	}
	if !n.ascii {
		return false
	}
	for at := 0; at+len(n.folded) <= len(text); at++ {
		i := n.next(text[at : len(text)-len(n.folded)+1])
		if i < 0 {
			return false
		}
		at += i
		if equalFoldASCII(text[at:at+len(n.folded)], n.folded) {
			return true
		}
	}
	return false
}

func (n *needle) next(text []byte) int {
	if n.low == n.up {
		return bytes.IndexByte(text, n.low)
	}
	for i, c := range text {
		if c == n.low || c == n.up {
			return i
		}
	}
	return -1
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// equalFoldASCII compares ASCII text with a folded needle of the same length.
func equalFoldASCII(text []byte, folded string) bool {
	for i, c := range text {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != folded[i] {
			return false
		}
	}
	return true
}
