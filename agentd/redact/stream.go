package redact

import "bytes"

// A stream's state is 0 outside of PEM blocks, and within one the number of
// its lines so far; those of certificates and the like have the bit public.
const (
	public   = 1 << 31
	keyLines = 400 // that a block may have
)

// RedactNext is Redact for the next line of a stream. A private key is printed
// over several lines, of which only the first says what they are: state
// remembers it, and that a certificate's lines are none. It is the stream's
// own, begins with zero, and tells nothing of the text.
func (r *Redactor) RedactNext(state *uint32, dst, text []byte, hit func(rule string)) []byte {
	if r.pem < 0 {
		return r.redact(dst, text, false, hit)
	}
	if *state&^public >= keyLines || *state > 0 && !keyLine(text) {
		*state = 0
	}
	switch {
	case *state&public != 0:
		*state++
		return r.redact(dst, text, false, hit)
	case *state > 0:
		*state++
		if len(bytes.TrimSpace(text)) == 0 {
			return text
		}
		s := &scan{r: r, text: text}
		s.specific(r.pem, 0, len(text))
		return s.replace(dst, hit)
	}
	*state = opens(text)
	return r.Redact(dst, text, hit)
}

// opens returns the state after a line: within a block if one begins in it and
// does not end.
func opens(text []byte) uint32 {
	begin := bytes.LastIndex(text, []byte(pemHeader))
	switch {
	case begin < 0 || bytes.Contains(text[begin:], []byte(pemFooter)):
		return 0
	case bytes.Contains(text[begin:], []byte("PRIVATE KEY")):
		return 1
	}
	return public | 1
}

// keyLine reports whether a line may be a part of a key: base64, a header of
// an encrypted one, or nothing.
func keyLine(text []byte) bool {
	text = bytes.TrimSpace(text)
	if bytes.HasPrefix(text, []byte("Proc-Type:")) || bytes.HasPrefix(text, []byte("DEK-Info:")) || markerLen(text) == len(text) && len(text) > 0 {
		return true
	}
	return len(text) <= 128 && onlyOf(b64)(text)
}

// loneKeyLine reports whether a line is what the lines of PEM look like: 64 or
// 70 characters of base64 and nothing else, of all kinds. It catches what a
// stream's state has missed.
func loneKeyLine(text []byte) bool {
	if len(text) < 64 || len(text) > 72 {
		return false
	}
	text = bytes.TrimRight(text, "\r\n")
	if len(text) != 64 && len(text) != 70 {
		return false
	}
	return onlyOf(b64)(text) && mixed(text)
}
