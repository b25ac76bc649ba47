package redact

import "bytes"

// keyLines is how many lines a private key may have.
const keyLines = 400

// RedactNext is Redact for the next line of a stream. A private key is printed
// over several lines, of which only the first says what they are: state
// remembers it. It is the stream's own, begins with zero, and tells nothing
// of the text.
func (r *Redactor) RedactNext(state *uint32, dst, text []byte, hit func(rule string)) []byte {
	if *state > 0 && r.pem >= 0 {
		if *state < keyLines && keyLine(text) {
			*state++
			if len(bytes.TrimSpace(text)) == 0 {
				return text
			}
			s := &scan{r: r, text: text}
			s.specific(r.pem, 0, len(text))
			return s.replace(dst, hit)
		}
		*state = 0
	}
	if r.pem >= 0 && len(text) >= len(pemHeader) && opensKey(text) {
		*state = 1
	}
	return r.Redact(dst, text, hit)
}

// opensKey reports whether a private key begins in a text and does not end in it.
func opensKey(text []byte) bool {
	i := bytes.LastIndex(text, []byte("PRIVATE KEY"))
	if i < 0 {
		return false
	}
	s := scan{text: text}
	body, ok := s.keyHeader(i, i+len("PRIVATE KEY"))
	return ok && !bytes.Contains(text[body:], []byte(pemFooter))
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
