package intake

import (
	"bytes"

	"github.com/theazo/observability/shared/telemetry"
)

// How far into a line a level is looked for.
const (
	headBytes   = 96
	logfmtBytes = 512
	// proseWords of lower-case letters end the head of a line: what follows is
	// somebody's sentence.
	proseWords = 2
)

// plainLevel finds the level that a line of plain text states; doc.go lists
// the forms.
func plainLevel(text []byte) (level telemetry.Level, stated bool) {
	if level, ok := klogLevel(text); ok {
		return level, true
	}
	if level, ok := logfmtLevel(text[:min(len(text), logfmtBytes)]); ok {
		return level, true
	}
	if level, ok := headLevel(text[:min(len(text), headBytes)]); ok {
		return level, true
	}
	return telemetry.Info, false
}

// klogLevel reads "E1122 07:00:00.000000".
func klogLevel(b []byte) (telemetry.Level, bool) {
	if len(b) < 14 || !digits(b[1:5]) || b[5] != ' ' || b[8] != ':' || b[11] != ':' || !digits(b[6:8]) {
		return 0, false
	}
	switch b[0] {
	case 'I':
		return telemetry.Info, true
	case 'W':
		return telemetry.Warn, true
	case 'E', 'F':
		return telemetry.Error, true
	}
	return 0, false
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// logfmtLevel reads "level=warn".
func logfmtLevel(b []byte) (telemetry.Level, bool) {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '=')
		if i < 0 {
			return 0, false
		}
		key, value := lastWord(b[at:at+i]), b[at+i+1:]
		at += i + 1
		if !isLevelKey(key) {
			continue
		}
		value = bytes.TrimLeft(value, `"'`)
		n := 0
		for n < len(value) && letter(value[n]) {
			n++
		}
		if level, ok := levelOf(value[:n]); ok {
			return level, true
		}
	}
}

// lastWord is what follows the last space.
func lastWord(b []byte) []byte {
	i := len(b)
	for i > 0 && b[i-1] != ' ' && b[i-1] != '\t' {
		i--
	}
	return b[i:]
}

func isLevelKey(k []byte) bool {
	switch string(k) {
	case "level", "lvl", "severity", "loglevel", "levelname", "log.level", "@level", "LEVEL", "Level":
		return true
	}
	return false
}

// headLevel looks for a level word among the first words: in capitals, in
// brackets, or leading and with a colon.
func headLevel(b []byte) (telemetry.Level, bool) {
	prose, words := 0, 0
	for at := 0; at < len(b); {
		c := b[at]
		if classes[c] == 0 {
			if c == 0x1b {
				at += escapeLength(b[at:])
				continue
			}
			at++
			continue
		}
		end, all := at, inWord|isLetter|isCapital
		for end < len(b) && classes[b[end]] != 0 {
			all &= classes[b[end]]
			end++
		}
		if all&isLetter != 0 {
			capitals := all&isCapital != 0
			if level, ok := levelOf(b[at:end]); ok && (capitals || framed(b, at, end, words == 0)) {
				return level, true
			}
			words++
			if !capitals {
				if prose++; prose >= proseWords {
					return 0, false
				}
			}
		}
		at = end
	}
	return 0, false
}

// framed reports whether the word stands in brackets or bars, or begins the
// text and is followed by a colon.
func framed(b []byte, at, end int, first bool) bool {
	before, after := byte(0), byte(0)
	if at > 0 {
		before = b[at-1]
	}
	if end < len(b) {
		after = b[end]
	}
	switch {
	case before == '[' && after == ']', before == '<' && after == '>', before == '(' && after == ')', before == '|' && after == '|':
		return true
	}
	return first && after == ':'
}

// What a byte of a line's head is. A dot or slash is in a word, and makes it a
// name; 0: it parts words.
const (
	inWord uint8 = 1 << iota
	isLetter
	isCapital
)

var classes = func() (c [256]uint8) {
	for i := range c {
		b := byte(i)
		switch {
		case b >= 'A' && b <= 'Z':
			c[i] = inWord | isLetter | isCapital
		case letter(b):
			c[i] = inWord | isLetter
		case b >= '0' && b <= '9', b == '.', b == '/', b == '_', b == '=', b >= 0x80:
			c[i] = inWord
		}
	}
	return c
}()

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// escapeLength is the length of an ANSI escape sequence, at least 1.
func escapeLength(b []byte) int {
	if len(b) < 2 || b[1] != '[' {
		return 1
	}
	for i := 2; i < len(b); i++ {
		if b[i] >= 0x40 && b[i] <= 0x7e {
			return i + 1
		}
	}
	return len(b)
}

// levelOf reads a level word, case ignored.
func levelOf(word []byte) (telemetry.Level, bool) {
	var lower [12]byte
	if len(word) < 3 || len(word) > len(lower) {
		return 0, false
	}
	for i, c := range word {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		lower[i] = c
	}
	switch string(lower[:len(word)]) {
	case "debug", "dbg", "trace", "trc", "verbose":
		return telemetry.Debug, true
	case "info", "inf", "information", "notice":
		return telemetry.Info, true
	case "warn", "warning", "wrn":
		return telemetry.Warn, true
	case "error", "err", "eror", "fatal", "ftl", "critical", "crit", "panic", "dpanic", "severe", "alert", "emerg", "emergency":
		return telemetry.Error, true
	}
	return 0, false
}
