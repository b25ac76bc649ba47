package docker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// record is one line of a json file: a line that a container printed, or a
// piece of 16 KiB of a longer one.
type record struct {
	at     time.Time
	text   []byte // without the newline; lives until the scanner's next reset
	stream telemetry.Stream
	whole  bool // the text ended with a newline; otherwise more of the line may follow
}

// scanner reads the engine's json-file records:
//
//	{"log":"text\n","stream":"stdout","time":"2026-01-02T15:04:05.123456789Z"}
//
// with any other members ("attrs") in any order. It is written by hand because
// it runs once per line: encoding/json costs about ten times the CPU. Fuzzing
// holds it against encoding/json.
type scanner struct {
	arena  []byte // texts that had escapes
	stamps stampParser
	// The last member that was skipped and found valid. A container's attrs are
	// the same in each of its records, so they are checked once.
	skipped []byte
}

// reset gives up the texts of earlier records.
func (s *scanner) reset() {
	if cap(s.arena) > maxArena {
		s.arena = nil
	}
	s.arena = s.arena[:0]
}

// maxArena is what a scanner keeps between blocks.
const maxArena = 1 << 20

const (
	logPrefix    = `{"log":"`
	stdoutMiddle = `,"stream":"stdout","time":"`
	stderrMiddle = `,"stream":"stderr","time":"`
)

// parse reads one record, without its final newline. The text may lie in line
// itself.
func (s *scanner) parse(line []byte) (record, bool) {
	if r, ok := s.parseUsual(line); ok {
		return r, true
	}
	return s.parseAny(line)
}

// parseUsual reads a record whose members stand as the engine writes them when
// no attributes are configured. It returns false on anything else.
func (s *scanner) parseUsual(line []byte) (r record, ok bool) {
	if len(line) < len(logPrefix) || string(line[:len(logPrefix)]) != logPrefix {
		return r, false
	}
	rest := line[len(logPrefix):]
	// The first quote ends the text, unless a backslash before it escapes it.
	i := bytes.IndexByte(rest, '"')
	if i >= 2 && rest[i-2] == '\\' && rest[i-1] == 'n' && plain(rest[:i-2]) {
		i -= 2
	} else {
		i = special(rest)
	}
	switch {
	case i+2 < len(rest) && rest[i] == '\\' && rest[i+1] == 'n' && rest[i+2] == '"':
		r.text, r.whole, rest = rest[:i], true, rest[i+3:]
	case i < len(rest) && rest[i] == '"':
		r.text, rest = rest[:i], rest[i+1:]
	default:
		if r.text, rest, ok = s.unescape(rest); !ok {
			return r, false
		}
		r.text, r.whole = cutNewline(r.text)
	}
	const middle = len(stdoutMiddle)
	if len(rest) < middle+len(`"}`) || string(rest[len(rest)-2:]) != `"}` {
		return r, false
	}
	switch string(rest[:middle]) {
	case stdoutMiddle:
		r.stream = telemetry.Stdout
	case stderrMiddle:
		r.stream = telemetry.Stderr
	default:
		return r, false
	}
	r.at, ok = s.stamps.parse(rest[middle : len(rest)-2])
	return r, ok
}

// parseAny reads any JSON object with a time, a stream and a text.
func (s *scanner) parseAny(line []byte) (r record, ok bool) {
	r.stream = telemetry.Stdout // the engine leaves out what is empty
	rest := blanks(line)
	if len(rest) == 0 || rest[0] != '{' {
		return r, false
	}
	timed := false
	for rest = blanks(rest[1:]); ; {
		var key, value []byte
		if key, rest, ok = s.member(rest); !ok {
			return r, false
		}
		switch string(key) {
		case "log", "stream", "time":
			if len(rest) == 0 || rest[0] != '"' {
				return r, false
			}
			if value, rest, ok = s.unescape(rest[1:]); !ok {
				return r, false
			}
		default:
			if rest, ok = s.skip(rest); !ok {
				return r, false
			}
		}
		switch string(key) {
		case "log":
			r.text, r.whole = cutNewline(value)
		case "stream":
			stream, err := telemetry.ParseStream(string(value))
			if err != nil || stream == telemetry.NoStream {
				return r, false
			}
			r.stream = stream
		case "time":
			if r.at, timed = s.stamps.parse(value); !timed {
				return r, false
			}
		}
		rest = blanks(rest)
		switch {
		case len(rest) > 0 && rest[0] == ',':
			rest = blanks(rest[1:])
		case len(rest) > 0 && rest[0] == '}':
			return r, timed && len(blanks(rest[1:])) == 0
		default:
			return r, false
		}
	}
}

// member reads a member's name up to its value.
func (s *scanner) member(b []byte) (key, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	if key, rest, ok = s.unescape(b[1:]); !ok {
		return nil, nil, false
	}
	rest = blanks(rest)
	if len(rest) == 0 || rest[0] != ':' {
		return nil, nil, false
	}
	return key, blanks(rest[1:]), true
}

// skip passes over one value of any kind.
func (s *scanner) skip(b []byte) (rest []byte, ok bool) {
	n := extent(b)
	if n == 0 {
		return nil, false
	}
	if !bytes.Equal(b[:n], s.skipped) {
		if !json.Valid(b[:n]) {
			return nil, false
		}
		s.skipped = append(s.skipped[:0], b[:n]...)
	}
	return b[n:], true
}

// extent returns the length of the JSON value that b begins with, if it is
// valid, and some length otherwise.
func extent(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return min(i+1, len(b))
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // the end of what encloses a bare value
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}

func blanks(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	return b
}

func cutNewline(b []byte) (text []byte, whole bool) {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		return b[:n-1], true
	}
	return b, false
}

// special returns the index of the first quote, backslash or control character
// in b, or len(b). It looks at eight bytes at a time.
func special(b []byte) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		quote, slash := x^ones*'"', x^ones*'\\'
		// Each term has its lowest set bit at the first byte that is zero in
		// quote or slash, or below 0x20 in x; higher bits may be wrong.
		found := (quote-ones)&^quote | (slash-ones)&^slash | (x-ones*0x20)&^x
		if found &= highs; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < 0x20 {
			return i
		}
	}
	return i
}

// plain reports whether b holds no backslash and no control character.
func plain(b []byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	for len(b) >= 16 {
		x, y := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		xs, ys := x^ones*'\\', y^ones*'\\'
		found := (xs-ones)&^xs | (x-ones*0x20)&^x | (ys-ones)&^ys | (y-ones*0x20)&^y
		if found&highs != 0 {
			return false
		}
		b = b[16:]
	}
	for _, c := range b {
		if c == '\\' || c < 0x20 {
			return false
		}
	}
	return true
}

// unescape reads a JSON string after its opening quote and returns what follows
// its closing one. A string without escapes is not copied.
func (s *scanner) unescape(b []byte) (text, rest []byte, ok bool) {
	i := special(b)
	if i < len(b) && b[i] == '"' {
		return b[:i], b[i+1:], true
	}
	start := len(s.arena)
	for {
		s.arena = append(s.arena, b[:i]...)
		b = b[i:]
		if len(b) == 0 || b[0] < 0x20 {
			return nil, nil, false
		}
		if b[0] == '"' {
			return s.arena[start:len(s.arena):len(s.arena)], b[1:], true
		}
		if b, ok = s.escape(b); !ok {
			return nil, nil, false
		}
		i = special(b)
	}
}

// escape reads one escape sequence into the arena.
func (s *scanner) escape(b []byte) (rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, false
	}
	c := b[1]
	switch c {
	case '"', '\\', '/':
	case 'n':
		c = '\n'
	case 't':
		c = '\t'
	case 'r':
		c = '\r'
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'u':
		r, ok := hexRune(b)
		if !ok {
			return nil, false
		}
		b = b[len(`\u0000`):]
		if utf16.IsSurrogate(r) {
			// Half a pair alone means nothing: U+FFFD, as encoding/json has it.
			low, _ := hexRune(b)
			if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
				b = b[len(`\u0000`):]
			}
		}
		s.arena = utf8.AppendRune(s.arena, r)
		return b, true
	default:
		return nil, false
	}
	s.arena = append(s.arena, c)
	return b[2:], true
}

// hexRune reads `\u00e9`.
func hexRune(b []byte) (rune, bool) {
	if len(b) < len(`\u0000`) || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
