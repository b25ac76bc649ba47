package segment

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// needle is a folded search text.
type needle struct {
	folded []byte
	ascii  bool
	text   []byte // scratch: the text searched last, folded
}

func newNeedle(search string) needle {
	folded := []byte(telemetry.FoldText(search))
	return needle{folded: folded, ascii: isASCII(folded)}
}

// in reports whether text contains the needle as telemetry.ContainsFold
// defines it. Text of ASCII alone, which is nearly all, is folded by table and
// searched in time that grows with its length alone, whatever the needle.
func (n *needle) in(text []byte) bool {
	if len(n.folded) == 0 {
		return true
	}
	if !isASCII(text) {
		return telemetry.ContainsFold(string(text), string(n.folded))
	}
	if !n.ascii || len(n.folded) > len(text) {
		return false
	}
	n.text = append(n.text[:0], text...)
	for i, c := range n.text {
		if c >= 'A' && c <= 'Z' {
			n.text[i] = c + 'a' - 'A'
		}
	}
	return bytes.Contains(n.text, n.folded)
}

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
