package redact

import (
	"bytes"
	"strings"
)

// jwt adds a JSON web token whose first part begins at start: three parts in
// base64, or five where it is encrypted.
func (s *scan) jwt(rule ruleNumber, start int) {
	if start < s.specificEnd || start < s.jwtFailed || !s.startsWord(start) {
		return
	}
	const least = 8
	first := s.run(url64, start)
	end := first
	n := 1
	for n < 5 && s.byteAt(end) == '.' && s.is(url64, end+1) {
		end = s.run(url64, end+1)
		n++
	}
	if n < 2 || first-start < least || end-first < least {
		s.jwtFailed = first // so will every other one inside this part
		return
	}
	s.specific(rule, start, end)
}

// privateKey adds the body of a PEM block whose label ends with the keyword at
// [start,end).
func (s *scan) privateKey(rule ruleNumber, start, end int) {
	const least = 32
	body, ok := s.keyHeader(start, end)
	if !ok {
		s.keyRest(rule, start, least)
		return
	}
	if body < s.specificEnd {
		return
	}
	if !s.pemEnd.holds(body) {
		s.pemEnd = extent{body, len(s.text) + 1}
		if i := bytes.Index(s.text[body:], []byte(pemFooter)); i >= 0 {
			s.pemEnd.end = body + i + 1
		}
	}
	if footer := s.pemEnd.end - 1; footer < len(s.text) && footer-body >= least {
		s.specific(rule, body, footer)
		return
	}
	// The rest is missing: as much as looks like a key.
	p := body
	for p-body < 8 && s.is(pemBody, p) && (!s.is(b64, p) || s.byteAt(p-1) == '\\') {
		p++
	}
	if s.run(b64, p)-p >= least {
		s.specific(rule, body, s.run(pemBody, body))
	}
}

// keyRest adds the end of a PEM block whose beginning is in an earlier piece of
// the text, or was cut off: what looks like a key before the -----END that the
// keyword at start belongs to.
func (s *scan) keyRest(rule ruleNumber, start, least int) {
	from := max(0, start-24, s.specificEnd)
	i := bytes.LastIndex(s.text[from:max(from, start)], []byte(pemFooter))
	if i < 0 {
		return
	}
	footer, run, longest := from+i, 0, 0
	begin := footer
	for begin > s.specificEnd && s.is(pemBody, begin-1) {
		begin--
		if run++; !s.is(b64, begin) {
			run = 0
		}
		longest = max(longest, run)
	}
	s.steps += footer - begin
	if longest >= least {
		s.specific(rule, begin, footer)
	}
}

const (
	pemHeader = "-----BEGIN "
	pemFooter = "-----END"
)

// keyHeader returns the end of the line -----BEGIN … PRIVATE KEY-----.
func (s *scan) keyHeader(start, end int) (body int, ok bool) {
	from := max(0, start-24)
	if !bytes.Contains(s.text[from:start], []byte(pemHeader)) {
		return 0, false
	}
	rest := s.text[end:min(len(s.text), end+16)]
	rest, block := bytes.CutPrefix(rest, []byte(" BLOCK"))
	if !bytes.HasPrefix(rest, []byte("-----")) {
		return 0, false
	}
	end += len("-----")
	if block {
		end += len(" BLOCK")
	}
	return end, true
}

// urlPassword adds the password in scheme://user:password@host, whose :// is
// at [start,end).
func (s *scan) urlPassword(rule ruleNumber, start, end int) {
	if !s.is(alnum, start-1) || start < s.genericEnd {
		return
	}
	p := end
	defer func() { s.steps += p - end + 1 }()
	for ; p < len(s.text) && s.text[p] != ':'; p++ {
		if n := markerLen(s.text[p:]); n > 0 {
			p += n - 1
			continue
		}
		if s.text[p] == '@' || endsAuthority(s.text[p]) {
			return
		}
	}
	p++
	from, at := p, -1
	for ; p < len(s.text) && !endsAuthority(s.text[p]); p++ {
		if s.text[p] == '@' {
			at = p
		}
	}
	if at < 0 {
		return
	}
	if from = skipMarkers(s.text, from); from < at && !placeholder(s.text[from:at]) {
		s.generic(rule, from, at)
	}
}

// curlUser adds the password in curl -u user:password, whose arguments begin
// at end.
func (s *scan) curlUser(rule ruleNumber, end int) {
	const window, longestName = 256, 64
	arguments := s.text[end-1 : min(len(s.text), end+window)]
	s.steps += 2 * len(arguments)
	for _, flag := range [...]string{" -u ", " --user "} {
		i := bytes.Index(arguments, []byte(flag))
		if i < 0 {
			continue
		}
		p := end - 1 + i + len(flag)
		quote := byte(0)
		if s.isQuote(p) {
			quote = s.text[p]
			p++
		}
		user := p
		for p-user < longestName && (s.is(dotted, p) || s.byteAt(p) == '@' || s.byteAt(p) == '+') {
			p++
		}
		if s.byteAt(p) == ':' {
			s.argument(rule, p+1, quote)
		}
	}
}

// argument adds what is a command's argument from a position on, before which
// a quote may be open.
func (s *scan) argument(rule ruleNumber, from int, quote byte) {
	if quote == 0 && s.isQuote(from) {
		quote = s.text[from]
		from++
	}
	from = skipMarkers(s.text, from)
	if from < s.genericEnd {
		return
	}
	to, closed := 0, false
	if quote != 0 {
		to, closed = s.quoteEnd(from, quote, false)
	}
	if !closed {
		to = s.bareEnd(from)
	}
	if to > from && !placeholder(s.text[from:min(to, from+maxValue)]) {
		s.generic(rule, from, to)
	}
}

func endsAuthority(c byte) bool {
	return c <= ' ' || strings.IndexByte("/?#\"'`<>\\|", c) >= 0
}

// authSchemes are the schemes of the header; several parameters follow the
// first ones.
var authSchemes = []string{
	"digest", "aws4-hmac-sha256", "hawk", "signature",
	"bearer", "basic", "token", "bot", "apikey", "key", "negotiate", "ntlm", "splunk", "oauth",
}

const wholeSchemes = 4

// authorization adds the credentials of an Authorization header, whose name
// is at [start,end).
func (s *scan) authorization(rule ruleNumber, start, end int) {
	if start < s.genericEnd {
		return
	}
	p, separator, ok := s.separator(start, end)
	if !ok || separator == '>' || separator == ' ' {
		return
	}
	p = s.skip(p, '[', 1) // {"Authorization":["Bearer …"]}
	p = s.skip(p, '\\', 8)
	if s.isQuote(p) {
		p++
	}
	scheme := s.text[p:min(len(s.text), p+20)]
	space := bytes.IndexByte(scheme, ' ')
	whole := false // several parameters follow
	known := false
	if space > 0 {
		for i, s := range authSchemes {
			if equalFold(scheme[:space], s) {
				known, whole = true, i < wholeSchemes
			}
		}
	}
	if known {
		p = s.skip(p+space, ' ', 4)
	}
	p = skipMarkers(s.text, p)
	to := s.run(credential, p)
	if whole {
		to = s.lineEnd(p)
	}
	v := s.text[p:to]
	if len(v) < 4 || placeholder(v) || len(v) < 20 && !hasDigit(v) || !known && !looksRandom(v) {
		return
	}
	s.generic(rule, p, to)
}

// lineEnd returns the end of a header's value: a quote or the line's end.
func (s *scan) lineEnd(from int) int {
	end := bytes.IndexAny(s.text[from:], "\"'`\r\n\\")
	if end < 0 {
		end = len(s.text) - from
	}
	s.steps += end
	return from + end
}

// bearer adds the token after "Bearer ".
func (s *scan) bearer(rule ruleNumber, start, end int) {
	if start < s.genericEnd || !s.startsWord(start) {
		return
	}
	p := skipMarkers(s.text, end)
	to := s.run(credential, p)
	v := s.text[p:min(to, p+checkLimit)]
	if to-p >= 16 && (looksRandom(v) || to-p >= 40 && hasDigit(v)) {
		s.generic(rule, p, to)
	}
}

// basic adds what follows "Basic " where it is user:password in base64.
func (s *scan) basic(rule ruleNumber, start, end int) {
	if start < s.genericEnd || !s.startsWord(start) {
		return
	}
	if to := s.run(b64, end); basic(s.text[end:min(to, end+513)]) {
		s.generic(rule, end, to)
	}
}

// cookie adds the value of a Cookie or Set-Cookie header.
func (s *scan) cookie(rule ruleNumber, start, end int) {
	if start < s.genericEnd {
		return
	}
	p, separator, ok := s.separator(start, end)
	if !ok || separator == '>' || separator == ' ' {
		return
	}
	p = s.skip(p, '[', 1)
	p = s.skip(p, '\\', 8)
	if s.isQuote(p) {
		p++
	}
	equals := p
	for equals-p < 64 && s.is(name, equals) {
		equals++
	}
	s.steps += equals - p
	if equals == p || s.byteAt(equals) != '=' {
		return
	}
	if to := s.lineEnd(equals); to-equals > 8 {
		s.generic(rule, p, to)
	}
}
