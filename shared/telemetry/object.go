package telemetry

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// MaxObjectDepth is how deep objects and lists may lie in each other in the
// JSON objects that records carry.
const MaxObjectDepth = 64

// CheckObject refuses everything but a JSON object on one line, of at most
// most bytes: readers put it into their own JSON and into lines of SSE as it
// is. Empty is good: there is none.
func CheckObject(b []byte, most int) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) > most {
		return fmt.Errorf("of %d bytes: at most %d are taken", len(b), most)
	}
	depth, deepest, quoted := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c < ' ' && c != '\t': // a raw line break would end a line of SSE
			return fmt.Errorf("holds the control character %#x", c)
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			depth++
			deepest = max(deepest, depth)
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	switch {
	case deepest > MaxObjectDepth:
		return fmt.Errorf("is nested %d deep: at most %d are taken", deepest, MaxObjectDepth)
	case !utf8.Valid(b):
		return errors.New("is not valid UTF-8")
	case b[0] != '{' || !json.Valid(b):
		return fmt.Errorf("%.40q is not a JSON object", b)
	}
	return nil
}
