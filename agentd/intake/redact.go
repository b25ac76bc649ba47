package intake

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// text cleans a text of a record, cuts it, and takes out what must not leave.
func (in *Intake) text(s string, most int, done *marks) string {
	if in.cfg.Redactor == nil && len(s) <= most && isClean([]byte(s)) {
		return s
	}
	// A secret must not be cut into one that nobody knows: cut last.
	b := in.longText(s, most+4*maxText, false, done)
	if len(b) > most {
		done[markTruncated]++
	}
	return cutText(b, most)
}

// cutText cuts s to at most most bytes of whole characters.
func cutText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// longText is text without the last cut; plain says that escape sequences go
// too.
func (in *Intake) longText(s string, most int, plain bool, done *marks) string {
	b := []byte(s)
	plain = plain && !in.cfg.KeepANSI && hasEscape(b)
	if clean := isClean(b); len(b) > most || !clean || plain {
		var cut bool
		b, cut = in.parse.cleanedPlain(b, most, plain)
		if !clean {
			done[markCleaned]++
		}
		if cut {
			done[markTruncated]++
		}
	}
	out := in.redact(b)
	if len(out) == len(s) && string(out) == s {
		return s
	}
	return string(out)
}

// redact takes out what the configured Redactor finds; the result is valid
// until the next call.
func (in *Intake) redact(text []byte) []byte {
	if in.cfg.Redactor == nil || len(text) == 0 {
		return text
	}
	before := in.hits.total
	out := in.cfg.Redactor.Redact(in.redacted[:0], text, in.onHit)
	if in.hits.total == before {
		return text
	}
	in.redacted = out
	return out
}

// hits counts what was taken out of one record, by rule.
type hits struct {
	rules []string
	count []int
	total int
}

// maxHitRules bounds what is noted in a record; the rest is only counted.
const maxHitRules = 16

func (h *hits) add(rule string) {
	h.total++
	if i := slices.Index(h.rules, rule); i >= 0 {
		h.count[i]++
		return
	}
	if len(h.rules) < maxHitRules && telemetry.CheckID(rule) == nil {
		h.rules, h.count = append(h.rules, rule), append(h.count, 1)
	}
}

func (h *hits) reset() { h.rules, h.count, h.total = h.rules[:0], h.count[:0], 0 }

// snapshot is a copy for restore.
func (h *hits) snapshot() hits {
	return hits{rules: slices.Clone(h.rules), count: slices.Clone(h.count), total: h.total}
}

func (h *hits) restore(from hits) { *h = from }

// appendTo appends {"rule":count}.
func (h *hits) appendTo(b []byte) []byte {
	b = append(b, '{')
	for i, rule := range h.rules {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(telemetry.AppendString(b, rule), ':')
		b = strconv.AppendInt(b, int64(h.count[i]), 10)
	}
	return append(b, '}')
}

// flagged notes in a record's object what was taken out of the record, and
// forgets it.
func (in *Intake) flagged(object json.RawMessage, done *marks) json.RawMessage {
	if in.hits.total == 0 {
		return object
	}
	done[markRedacted]++
	flag := in.hits.appendTo(nil)
	in.hits.reset()
	if len(object)+len(flag)+len(`,"redacted":`) > maxObject {
		object = nil
		done[markTruncated]++
	}
	return withMember(object, "redacted", flag)
}

// flaggedAttributes is flagged for a map of texts.
func (in *Intake) flaggedAttributes(m map[string]string, done *marks) map[string]string {
	done[markRedacted]++
	flag := string(in.hits.appendTo(nil))
	in.hits.reset()
	switch {
	case m == nil:
		m = map[string]string{}
	case len(m) >= maxAttributes || len(flag) > maxText:
		return m // counted all the same
	}
	m["redacted"] = flag
	return m
}

// withMember returns the object, or none, with one more member.
func withMember(object []byte, name string, value []byte) []byte {
	if len(object) > 2 {
		object = append(object[:len(object)-1:len(object)-1], ',')
	} else {
		object = []byte{'{'}
	}
	object = append(telemetry.AppendString(object, name), ':')
	return append(append(object, value...), '}')
}

// maxRecordMembers is how many members an object of a record may have.
const maxRecordMembers = 8 * maxMembers

// object returns a copy of a JSON object as receivers take it, on one line and
// within maxObject bytes, without what must not leave; nil where it is none.
func (in *Intake) object(raw []byte, done *marks) json.RawMessage {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil
	}
	if len(raw) > 4*maxObject {
		done[markBadObject]++
		return nil
	}
	text := raw
	if !isClean(text) {
		text, _ = in.parse.cleaned(text, 4*maxObject)
		done[markCleaned]++
	}
	s := jsonScanner{b: text, members: in.parse.members[:0], most: maxRecordMembers}
	good := s.object()
	in.parse.members = s.members[:0]
	if !good {
		done[markBadObject]++
		return nil
	}
	if len(s.members) == 0 {
		return nil
	}
	kept := in.redactObject(members(text, s.members))
	if s.rewrite {
		tame(kept)
	}
	if len(kept) > maxObject {
		done[markTruncated]++
		kept = in.firstMembers(kept)
	}
	return kept
}

// members puts members into an object again, as they were written.
func members(text []byte, list []member) []byte {
	out := append(make([]byte, 0, len(text)), '{')
	for i := range list {
		m := &list[i]
		out = append(append(out, text[m.key:m.keyEnd]...), ':')
		out = append(append(out, text[m.value:m.valueEnd]...), ',')
	}
	out[len(out)-1] = '}'
	return out
}

// firstMembers returns the object with as many of its first members as fit.
func (in *Intake) firstMembers(object []byte) []byte {
	s := jsonScanner{b: object, members: in.parse.members[:0], most: maxRecordMembers}
	s.object()
	in.parse.members = s.members[:0]
	n := 0
	for n < len(s.members) && s.members[n].valueEnd+1 <= maxObject {
		n++
	}
	if n == 0 {
		return nil
	}
	return members(object, s.members[:n])
}

// redactLine takes out of a line what must not leave, and notes what it was.
// secret says that there was something.
func (in *Intake) redactLine(e *telemetry.LogEntry, message []byte, done *marks) (_ []byte, secret bool) {
	if in.cfg.Redactor == nil {
		return message, false
	}
	if len(e.Metadata) > 0 {
		e.Metadata = in.redactObject(e.Metadata)
	}
	if looksLikeObject(message) && bytes.IndexByte(message, '\\') >= 0 && in.isObject(message) {
		if message = in.redactObject(message); message == nil {
			message = []byte("{}")
		}
	} else {
		message = in.redact(message)
	}
	if in.hits.total == 0 {
		return message, false
	}
	if len(e.Metadata) > maxObject {
		e.Metadata = in.firstMembers(e.Metadata)
		done[markTruncated]++
	}
	if len(message) > telemetry.MaxMessage {
		end := telemetry.MaxMessage
		for message[end]&0xC0 == 0x80 {
			end--
		}
		message, e.Truncated = message[:end], true
	}
	e.Metadata = in.flagged(e.Metadata, done)
	return message, true
}

// redactObject takes out of a valid object's texts what must not leave; nil
// where that leaves no object. The rules see the object as it is written,
// because a key can say what its value is, and apart what an escape hides.
func (in *Intake) redactObject(object []byte) []byte {
	if in.cfg.Redactor == nil {
		return object
	}
	if bytes.IndexByte(object, '\\') >= 0 {
		object = in.redactTexts(object, true)
	}
	before := in.hits.snapshot()
	out := in.redact(object)
	if in.hits.total == before.total {
		return object
	}
	if in.isObject(out) {
		return bytes.Clone(out)
	}
	// What was taken out was a part of the object's form, such as a number: first
	// text by text, then.
	in.hits.restore(before)
	object = in.redactTexts(object, false)
	before = in.hits.snapshot()
	switch out = in.redact(object); {
	case in.hits.total == before.total:
		return object
	case in.isObject(out):
		return bytes.Clone(out)
	}
	return nil
}

func (in *Intake) isObject(text []byte) bool {
	s := jsonScanner{b: text, members: in.parse.members[:0], most: maxRecordMembers}
	good := s.object()
	in.parse.members = s.members[:0]
	return good
}

// redactTexts takes what must not leave out of each string and number of a
// valid object: of those with an escape only, or of all.
func (in *Intake) redactTexts(object []byte, escaped bool) []byte {
	out := make([]byte, 0, len(object))
	s := jsonScanner{b: object}
	for i := 0; i < len(object); {
		c, end := object[i], i+1
		switch {
		case c == '"':
			end, _ = s.text(i)
		case c == '-' || c >= '0' && c <= '9':
			end, _ = s.number(i)
		default:
			out = append(out, c)
			i = end
			continue
		}
		token := object[i:end]
		i = end
		if escaped && (c != '"' || bytes.IndexByte(token, '\\') < 0) {
			out = append(out, token...)
			continue
		}
		text := token
		if c == '"' {
			text = unescape(in.unescaped[:0], token[1:len(token)-1])
			in.unescaped = text
		}
		before := in.hits.total
		if clean := in.redact(text); in.hits.total > before {
			out = telemetry.AppendString(out, string(clean))
			continue
		}
		out = append(out, token...)
	}
	return out
}
