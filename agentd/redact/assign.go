package redact

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// assignment is a value that its name gives away: password=…, "api_key": "…",
// --token …, <secret>…</secret>.
type assignment struct {
	id    string
	names []string // ends of names, in lower case
	// owner judges what of the name stands before; nil takes any.
	owner func(before []byte) bool
	// secret judges the value.
	secret func(v value) bool
}

// value is what stands after a name.
type value struct {
	text      []byte
	quoted    bool
	separator byte // = : > or a space
	spaced    bool // there is a space before it
	// more is set where a space follows, and something else after it.
	more bool
}

var assignments = []assignment{
	{id: "password", names: []string{"password", "passwd", "passphrase", "pwd", "_pass", "passcode", "identified by"}, secret: isPassword},
	{id: "secret", names: []string{"secret"}, owner: nil, secret: func(v value) bool { return plausible(v) && looksRandom(v.text) }},
	{id: "secret", names: []string{"client_secret", "client-secret", "clientsecret", "app_secret", "appsecret", "shared_secret"}, secret: isKey},
	{id: "api-key", names: []string{"key"}, owner: ownsKey, secret: isKey},
	{id: "token", names: []string{"token"}, owner: ownsToken, secret: func(v value) bool { return plausible(v) && looksRandom(v.text) }},
	{id: "token", names: []string{"credential", "credentials"}, secret: func(v value) bool { return plausible(v) && looksRandom(v.text) }},
	{id: "basic-auth", names: []string{"auth"}, secret: func(v value) bool { return basic(v.text) }},
}

// keyOwners are what a key is called that is a secret.
var keyOwners = []string{
	"api", "access", "secret", "private", "signing", "encryption", "auth", "master", "account", "sharedaccess",
	"app", "application", "subscription", "service", "servicerole", "admin", "deploy", "webhook", "storage", "hmac",
}

// ownsKey tells api_key and DD_KEY from primary_key and key.
func ownsKey(before []byte) bool {
	var buf [maxOwner]byte
	bare, shouted := bareName(buf[:0], before)
	// PROVIDER_KEY, as the environment has them.
	if shouted && before[len(before)-1] == '_' {
		return !endsWithAny(bare, notSecret)
	}
	return endsWithAny(bare, keyOwners)
}

// notSecret is what keys are called that are none: names of rows and entries.
var notSecret = []string{"public", "primary", "cache", "foreign", "partition", "sort", "routing", "object", "idempotency"}

// positions are what tokens are called that are places in a list.
var positions = []string{"page", "next", "continuation", "cursor", "sync", "resume", "prev", "idempotency", "eos", "pad", "bos"}

// ownsToken leaves out the tokens that are positions in a list.
func ownsToken(before []byte) bool {
	var buf [maxOwner]byte
	bare, _ := bareName(buf[:0], before)
	return !endsWithAny(bare, positions)
}

// bareName returns a name's letters and digits in lower case, and whether it
// has capitals only.
func bareName(out, before []byte) (bare []byte, shouted bool) {
	shouted = true
	for _, c := range before {
		if classes[c]&(1<<alnum) != 0 {
			out = append(out, toLower(c))
			shouted = shouted && (c < 'a' || c > 'z')
		}
	}
	return out, shouted && len(out) > 0
}

func endsWithAny(b []byte, ends []string) bool {
	for _, e := range ends {
		if len(b) >= len(e) && string(b[len(b)-len(e):]) == e {
			return true
		}
	}
	return false
}

// plausible is what every key and token must be.
func plausible(v value) bool {
	if v.separator == ' ' && len(v.text) < 20 { // "token expired"
		return false
	}
	return !placeholder(v.text) && !path(v.text) && !number(v.text) && (v.quoted || !call(v.text)) && bytes.IndexByte(v.text, ' ') < 0
}

func isPassword(v value) bool {
	switch {
	case v.separator == ' ' || placeholder(v.text) || statusWord(v.text) || sentence(v.text):
		return false
	case v.quoted:
		return true
	case call(v.text) || path(v.text):
		return false
	case (v.separator == ':' || v.spaced) && v.more && lettersOnly(v.text): // "wrong password: try again"
		return false
	case v.spaced && member(v.text): // password = options.password
		return false
	case number(v.text) && len(v.text) < 4: // "passed: 3"
		return false
	}
	return true
}

func isKey(v value) bool {
	if !plausible(v) || statusWord(v.text) {
		return false
	}
	return looksRandom(v.text) || len(v.text) >= 6 && (v.quoted || v.separator == '=') && hasDigit(v.text) &&
		!lettersOnly(v.text) && bytes.IndexByte(v.text, '/') < 0 && bytes.IndexByte(v.text, ':') < 0
}

// basic reports whether a text is user:password in base64.
func basic(v []byte) bool {
	const most = 512
	v = bytes.TrimRight(v, "=")
	if len(v) < 6 || len(v) > most {
		return false
	}
	var out [most]byte
	n, err := base64.RawStdEncoding.Decode(out[:], v)
	if err != nil || bytes.IndexByte(out[:n], ':') < 0 {
		return false
	}
	for _, c := range out[:n] {
		if c < 0x20 || c == 0x7f {
			return false
		}
	}
	return true
}

// How much of a name before its end, and of a value, is looked at.
const (
	maxOwner = 40
	maxValue = 256
)

// match adds the span of a value whose name ends with the keyword at [start,end).
func (a *assignment) match(s *scan, rule ruleNumber, start, end int) {
	if start < s.genericEnd {
		return
	}
	first := start
	for start-first < maxOwner && s.is(name, first-1) {
		first--
	}
	s.steps += start - first
	p, separator, ok := s.separator(first, end)
	if !ok || a.owner != nil && !a.owner(s.text[first:start]) {
		return
	}
	from, to, quoted := s.value(p, separator)
	from = min(skipMarkers(s.text, from), to)
	if from == to {
		return
	}
	v := value{text: s.text[from:min(to, from+maxValue)], quoted: quoted, separator: separator}
	v.spaced = s.byteAt(from-1) == ' '
	v.more = s.byteAt(to) == ' ' && to+1 < len(s.text)
	if a.secret(v) {
		s.generic(rule, from, to)
	}
}

// separator returns where the value begins of a name at [first,end), and what
// stands between them.
func (s *scan) separator(first, end int) (at int, separator byte, ok bool) {
	p := s.skip(end, '\\', 8)
	closed := s.isQuote(p)
	if closed {
		p++
		if s.byteAt(p) == ']' {
			p++
		}
	}
	gap := s.skip(p, ' ', 8)
	flag := s.byteAt(first) == '-' && !s.is(alnum, first-1)
	switch c := s.byteAt(gap); {
	case c == '=' || c == ':':
		if s.byteAt(gap+1) == '=' && c == '=' { // a comparison: with a text it gives the secret away
			p = s.skip(s.skip(gap+1, '=', 2), ' ', 2)
			return p, c, s.isQuote(p)
		}
		if p = gap + 1; s.byteAt(p) == '>' || s.byteAt(p) == '=' {
			p++
		}
		return s.skip(p, ' ', 16), c, true
	case c == '>' && gap == end: // <password>
		return gap + 1, '>', true
	case c == ',' && closed && s.valueMember(gap) > 0: // {"name":"DB_PASSWORD","value":"…"}
		return s.valueMember(gap), ':', true
	case c == ',' && closed && flag: // "--password", "…"
		p = s.skip(gap+1, ' ', 2)
		return p, '=', s.isQuote(p)
	case gap == end+1 && !closed && flag: // --password …
		return gap, '=', c != '-'
	case gap == end+1 && c == '\'': // PASSWORD '…'
		return gap, '=', true
	case gap == end+1 && s.is(alnum, gap): // token …
		return gap, ' ', true
	}
	return 0, 0, false
}

// valueMember returns the position after ,"value": or 0.
func (s *scan) valueMember(at int) int {
	const member = "value"
	p := s.skip(s.skip(at+1, ' ', 2), '\\', 8)
	if !s.isQuote(p) || p+1+len(member) > len(s.text) || string(s.text[p+1:p+1+len(member)]) != member {
		return 0
	}
	p = s.skip(p+1+len(member), '\\', 8)
	if !s.isQuote(p) || s.byteAt(p+1) != ':' {
		return 0
	}
	return s.skip(p+2, ' ', 2)
}

func (s *scan) skip(at int, c byte, most int) int {
	for most > 0 && s.byteAt(at) == c && at < len(s.text) {
		at++
		most--
	}
	return at
}

func (s *scan) isQuote(at int) bool {
	c := s.byteAt(at)
	return c == '"' || c == '\'' || c == '`'
}

// value returns the extent of the value that begins at a position.
func (s *scan) value(at int, separator byte) (from, to int, quoted bool) {
	switch s.byteAt(at) {
	case 'b', 'u', 'f', 'r': // Python's kinds of strings
		if s.isQuote(at + 1) {
			at++
		}
	case '[', '{', '(': // not one value, unless it is a marker
		if skipMarkers(s.text, at) == at {
			return at, at, false
		}
	}
	open := s.skip(at, '\\', 8)
	if s.isQuote(open) {
		escaped := open > at
		if end, ok := s.quoteEnd(open+1, s.text[open], escaped); ok {
			return open + 1, end, true
		}
		at = open + 1
	}
	if separator == '>' {
		end := bytes.IndexByte(s.text[at:min(len(s.text), at+256)], '<')
		s.steps += 256
		if end < 0 {
			return at, at, false
		}
		return at, at + end, true
	}
	return at, s.bareEnd(at), false
}

// quoteEnd returns where a quoted value ends: at the next quote that is not
// escaped or, inside of a quoted text, that is escaped itself.
func (s *scan) quoteEnd(from int, quote byte, escaped bool) (int, bool) {
	slot := strings.IndexByte("\"'`", quote)
	if escaped {
		slot += 3
	}
	if s.noQuote[slot].holds(from) {
		return 0, false
	}
	i := from
	defer func() { s.steps += i - from + 1 }()
	for ; i < len(s.text) && s.text[i] != '\n'; i++ {
		switch c := s.text[i]; {
		case c == quote:
			return i, true
		case c == '\\' && escaped && s.byteAt(s.skip(i, '\\', 8)) == quote:
			return i, true
		case c == '\\' && !escaped:
			i++
		}
	}
	i = min(i, len(s.text))
	s.noQuote[slot] = extent{from, i}
	return 0, false
}

// bareEnd returns where a value without quotes ends. A comma or a bracket
// ends it only where something else begins after it, because passwords have
// them too.
func (s *scan) bareEnd(from int) int {
	if !s.bare.holds(from) {
		s.bare = extent{from, s.findBareEnd(from)}
		s.steps += s.bare.end - from + 1
	}
	return s.bare.end
}

func (s *scan) findBareEnd(from int) int {
	i := from
	for ; i < len(s.text); i++ {
		switch s.text[i] {
		case 0, ' ', '\t', '\n', '\r', '"', '\'', '`', '<', '>':
			return i
		case '[':
			if n := markerLen(s.text[i:]); n > 0 {
				i += n - 1
			}
		case '\\':
			switch s.byteAt(i + 1) {
			case '"', '\'', 'n', 'r', 't', '\\', 'u':
				return i
			}
		case ',', ';', '&', ')', '}', ']', '|':
			if s.valueEnds(i + 1) {
				return i
			}
		}
	}
	return i
}

// valueEnds reports whether what begins after a comma or bracket is not a
// part of the value: nothing, another one of them, or another name.
func (s *scan) valueEnds(at int) bool {
	switch s.byteAt(at) {
	case 0, ' ', '\t', '\n', '\r', '"', '\'', '`', '<', '>', '\\', ',', ';', '&', ')', '}', ']', '|', '.', ':', '[':
		return true
	}
	p := at
	for p-at < maxOwner && s.is(name, p) {
		p++
	}
	s.steps += p - at
	return p > at && (s.byteAt(p) == '=' || s.byteAt(p) == ':')
}
