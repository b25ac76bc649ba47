package intake

import "github.com/theazo/observability/shared/telemetry"

// headBytes is how far into a line of text a level is looked for.
const headBytes = 96

// plainLevel finds the level that a line of plain text states; doc.go lists
// the forms.
func plainLevel(text []byte) (level telemetry.Level, stated bool) {
	if level, ok := klogLevel(text); ok {
		return level, true
	}
	if level, ok := headLevel(text[:min(len(text), headBytes)]); ok {
		return level, true
	}
	return telemetry.Info, false
}

// klogLevel reads "E1122 07:00:00.000000", and "E20261122" as glog writes it.
func klogLevel(b []byte) (telemetry.Level, bool) {
	if len(b) < 14 || b[0] < 'E' || b[0] > 'W' || !digits(b[1:5]) {
		return 0, false
	}
	at := 5
	if len(b) >= 18 && digits(b[5:9]) {
		at = 9
	}
	if b[at] != ' ' || b[at+3] != ':' || b[at+6] != ':' || !digits(b[at+1:at+3]) {
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

func isLevelKey(k []byte) bool {
	switch string(k) {
	case "level", "lvl", "severity", "loglevel", "levelname", "log.level", "@level", "@l", "LEVEL", "Level", "Severity",
		"severity_text", "severityText", "SeverityText":
		return true
	}
	return false
}

// head is what was seen of a line before the word that is looked at.
type head struct {
	b       []byte
	words   int // of letters
	numbers int // words with digits, but for those in brackets
	prose   int // words that belong to somebody's sentence
	negates bool
}

// headLevel looks for a level word among the first words: in capitals, in
// brackets, or leading and with a colon. Words of a sentence end the search:
// "no ERROR found" states nothing.
func headLevel(b []byte) (telemetry.Level, bool) {
	h := head{b: b}
	for at := 0; at < len(b); {
		c := b[at]
		if classes[c] == 0 {
			if c == escape {
				s := stripper{text: b}
				at += max(s.sequence(at), 1)
				continue
			}
			at++
			continue
		}
		end, all, some := at, inWord|isLetter|isCapital, uint8(0)
		for end < len(b) {
			class := classes[b[end]]
			if class == 0 {
				break
			}
			all &= class
			some |= class
			end++
		}
		switch {
		case all&isLetter != 0:
			if level, ok, on := h.word(at, end, all&isCapital != 0); ok || !on {
				return level, ok
			}
		case some&isCapital != 0:
			if level, ok := h.nameLevel(at, end); ok {
				return level, true
			}
			fallthrough
		case some&isDigit != 0:
			if before, after := h.around(at, end); !opens(before) || !closes(after) {
				h.numbers++
			}
		}
		at = end
	}
	return 0, false
}

// word looks at one word of letters; on says whether to go on.
func (h *head) word(at, end int, capitals bool) (level telemetry.Level, ok, on bool) {
	word := h.b[at:end]
	before, after := h.around(at, end)
	bracketed := opens(before) || closes(after)
	leads := h.words == 0 && after == ':'
	if capitals || bracketed || leads || before == ':' {
		level, ok = h.levelWord(word, capitals, leads, after)
		switch {
		case !ok:
		case leads, framed(h.b, at, end):
			return level, true, false
		case capitals && before != '"' && before != '\'' && before != '`' && h.mayState(word, after):
			return level, true, false
		}
		if bracketed {
			return 0, false, true
		}
	}
	h.words++
	if after == ':' || !h.followed(end) || isCalendar(word) || capitals && h.zone(at) {
		return 0, false, true
	}
	h.prose++
	h.negates = negates(word)
	return 0, false, h.prose < 2
}

// levelWord reads a level, and the words that are one only where they stand.
func (h *head) levelWord(word []byte, capitals, leads bool, after byte) (telemetry.Level, bool) {
	level, ok := levelOf(word)
	switch {
	case ok:
	case capitals && after == ':' && string(word) == "LOG": // PostgreSQL's
		return telemetry.Info, true
	case leads:
		return leadingLevel(word)
	}
	return level, ok
}

// around returns the bytes before and after a word; 0: there is none.
func (h *head) around(at, end int) (before, after byte) {
	if at > 0 {
		before = h.b[at-1]
	}
	if end < len(h.b) {
		after = h.b[end]
	}
	return before, after
}

// mayState reports whether a word in capitals states a level after what was
// seen: nothing, or a time and at most one name.
func (h *head) mayState(word []byte, after byte) bool {
	switch {
	case h.prose > 0:
		return h.numbers >= 2 && !h.negates
	case h.numbers > 0:
		return h.numbers > 1
	case h.words == 0 && (h.b[0] == '-' || h.b[0] == '*' || h.b[0] == '#' || h.b[0] == '+' || h.b[0] == '>'):
		return false // an item of somebody's list
	case after == ':':
		return true
	}
	switch string(word) {
	case "EMERGENCY", "ALERT", "NOTICE", "PANIC", "SEVERE", "INFORMATION", "VERBOSE":
		return false // a text may begin so
	}
	return true
}

func opens(c byte) bool { return c == '[' || c == '(' || c == '<' || c == '{' || c == '|' }

func closes(c byte) bool { return c == ']' || c == ')' || c == '>' || c == '}' || c == '|' }

// followed reports whether the text goes on with another word.
func (h *head) followed(end int) bool {
	i := end
	for i < len(h.b) && h.b[i] == ' ' {
		i++
	}
	return i > end && i < len(h.b) && classes[h.b[i]] != 0
}

// zone reports whether a number stands before the word at: "07:00:00 UTC".
func (h *head) zone(at int) bool {
	return at >= 2 && h.b[at-1] == ' ' && classes[h.b[at-2]]&isDigit != 0
}

// nameLevel reads a level at the beginning or end of a name: "INFO/worker-1",
// and "app.ERROR:".
func (h *head) nameLevel(at, end int) (telemetry.Level, bool) {
	if h.prose > 0 {
		return 0, false
	}
	word := h.b[at:end]
	_, after := h.around(at, end)
	for i, c := range word {
		if c != '/' && c != '.' {
			continue
		}
		part := word[:i]
		if c == '.' {
			if after != ':' {
				return 0, false
			}
			part = word[i+1:]
		}
		for _, l := range part {
			if classes[l]&isCapital == 0 {
				return 0, false
			}
		}
		return levelOf(part)
	}
	return 0, false
}

// framed reports whether the word stands in brackets or bars, filled up with
// spaces or after a name.
func framed(b []byte, at, end int) bool {
	i, j := at-1, end
	for j < len(b) && b[j] == ' ' {
		j++
	}
	for i >= 0 && b[i] == ' ' {
		i--
	}
	if i < 0 || j == len(b) {
		return false
	}
	switch before, after := b[i], b[j]; {
	case before == '[' && after == ']', before == '<' && after == '>', before == '(' && after == ')', before == '|' && after == '|':
		return true
	case before == ':' && after == ']' && i == at-1: // Apache's [core:error]
		return true
	}
	return false
}

// What a byte of a line's head is. A dot or slash is in a word, and makes it a
// name; 0: it parts words.
const (
	inWord uint8 = 1 << iota
	isLetter
	isCapital
	isDigit
)

var classes = func() (c [256]uint8) {
	for i := range c {
		b := byte(i)
		switch {
		case b >= 'A' && b <= 'Z':
			c[i] = inWord | isLetter | isCapital
		case letter(b):
			c[i] = inWord | isLetter
		case b >= '0' && b <= '9':
			c[i] = inWord | isDigit
		case b == '.', b == '/', b == '_', b == '=', b >= 0x80:
			c[i] = inWord
		}
	}
	return c
}()

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// isCalendar reports whether the word is the name of a month or day, as times
// have it.
func isCalendar(word []byte) bool {
	if len(word) != 3 {
		return false
	}
	switch string(word) {
	case "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
		"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun":
		return true
	}
	return false
}

// negates reports whether the word makes a sentence of what follows it.
func negates(word []byte) bool {
	switch string(word) {
	case "no", "No", "NO", "not", "without", "an", "An", "a", "the", "The", "any", "zero", "of", "with", "as", "to", "is", "was", "for", "from", "if", "on":
		return true
	}
	return false
}

// levelValue reads what is given as a level: a word, with or without a number
// behind it ("INFO+2"), or its first letter.
func levelValue(value []byte) (telemetry.Level, bool) {
	n := 0
	for n < len(value) && letter(value[n]) {
		n++
	}
	if n < len(value) && value[n] != '+' && value[n] != '-' {
		return 0, false
	}
	if n == 1 && n == len(value) {
		switch value[0] {
		case 'T', 'D':
			return telemetry.Debug, true
		case 'I':
			return telemetry.Info, true
		case 'W':
			return telemetry.Warn, true
		case 'E', 'F':
			return telemetry.Error, true
		}
	}
	switch string(value[:n]) {
	case "silly":
		return telemetry.Debug, true
	case "http", "success", "SUCCESS":
		return telemetry.Info, true
	}
	return levelOf(value[:n])
}

// leadingLevel reads the words that are a level only at the beginning and with
// a colon: those of .NET's console and java.util.logging.
func leadingLevel(word []byte) (telemetry.Level, bool) {
	switch string(word) {
	case "trce", "dbug", "FINE", "FINER", "FINEST":
		return telemetry.Debug, true
	case "fail":
		return telemetry.Error, true
	}
	return 0, false
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
	case "debug", "dbg", "trace", "trc", "verbose", "vrb":
		return telemetry.Debug, true
	case "info", "inf", "information", "notice", "informational":
		return telemetry.Info, true
	case "warn", "warning", "wrn":
		return telemetry.Warn, true
	case "error", "err", "eror", "fatal", "ftl", "critical", "crit", "panic", "dpanic", "severe", "alert", "emerg", "emergency":
		return telemetry.Error, true
	}
	return 0, false
}
