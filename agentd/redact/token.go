package redact

import "bytes"

// token is a credential that its own form gives away: a literal that begins
// it and a run of one class of bytes.
type token struct {
	id       string
	prefixes []string
	class    class
	min, max int // length of the run after the prefix; max 0: any
	// check looks further at what follows the prefix (at most checkLimit
	// bytes of it); nil takes all.
	check func(body []byte) bool
	// before is what stands before the prefix and belongs to the token.
	before struct {
		class    class
		min, max int
	}
	anywhere bool // the prefix may follow a letter or digit
	fold     bool // the prefix is found in any case (it is in lower case here)
	keep     bool // only what follows the prefix is replaced
}

// checkLimit is how much of a token its check sees, which bounds what a line
// of nothing but prefixes costs.
const checkLimit = 80

// match adds the span of a token whose prefix is at [start,end).
func (t *token) match(s *scan, rule ruleNumber, start, end int) {
	if start < s.specificEnd {
		return // inside of another one
	}
	stop := s.run(t.class, end)
	n := stop - end
	if n < t.min || s.is(alnum, stop) {
		return
	}
	// What ends at a marker was longer before, so that its length says nothing.
	if t.max > 0 && (n > t.max || markerLen(s.text[stop:]) > 0) {
		return
	}
	if t.check != nil && !t.check(s.text[end:min(stop, end+checkLimit)]) {
		return
	}
	from := start
	if t.before.max > 0 {
		for start-from < t.before.max && s.is(t.before.class, from-1) {
			from--
		}
		s.steps += start - from
		if start-from < t.before.min {
			return
		}
	}
	if !t.anywhere && !s.startsWord(from) {
		return
	}
	if t.keep {
		from = skipMarkers(s.text, end)
		if from >= stop {
			return
		}
	}
	s.specific(rule, from, stop)
}

// dense reports whether a text has, among its first parts, a run of 16 letters
// and digits with both in it: what keys have and names made of words do not.
func dense(body []byte) bool {
	run, letters, digits, parts := 0, false, false, 0
	for _, c := range body {
		switch bits := classes[c]; {
		case bits&(1<<digit) != 0:
			digits = true
		case bits&(1<<alnum) != 0:
			letters = true
		default:
			run, letters, digits = 0, false, false
			if parts++; parts == 5 {
				return false
			}
			continue
		}
		if run++; run >= 16 && letters && digits {
			return true
		}
	}
	return false
}

// hasDigit keeps words out where a token is made of letters and digits.
func hasDigit(body []byte) bool { return bytes.ContainsAny(body, "0123456789") }

// mixed wants a digit and letters of both cases, as random text has.
func mixed(body []byte) bool {
	var digits, lowers, uppers bool
	for _, c := range body {
		digits = digits || '0' <= c && c <= '9'
		lowers = lowers || 'a' <= c && c <= 'z'
		uppers = uppers || 'A' <= c && c <= 'Z'
	}
	return digits && lowers && uppers
}

// parts wants runs of given lengths with separators between them; 0 stands
// for any length from one on.
func parts(separator byte, lengths ...int) func([]byte) bool {
	return func(body []byte) bool {
		for i, want := range lengths {
			part := body
			if i < len(lengths)-1 {
				end := bytes.IndexByte(body, separator)
				if end < 0 {
					return false
				}
				part, body = body[:end], body[end+1:]
			}
			if len(part) == 0 || want > 0 && len(part) != want {
				return false
			}
		}
		return true
	}
}

// onlyOf wants bytes of one class where the run's class is wider.
func onlyOf(c class) func([]byte) bool {
	return func(body []byte) bool {
		for _, b := range body {
			if classes[b]&(1<<c) == 0 {
				return false
			}
		}
		return true
	}
}
