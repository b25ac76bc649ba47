package redact

import (
	"bytes"
	"net/netip"
)

// Personal data, each only where it is asked for. These walk over the whole
// text, which costs more than the keywords do.
var personal = map[string]func(s *scan, rule ruleNumber){
	"email": (*scan).emails,
	"ipv4":  (*scan).addresses,
	"phone": (*scan).phones,
	"iban":  (*scan).ibans,
}

// emails adds addresses of mail: a part before the @ and a host with a dot.
func (s *scan) emails(rule ruleNumber) {
	const most = 64
	for at := 0; ; at++ {
		i := bytes.IndexByte(s.text[at:], '@')
		if i < 0 {
			break
		}
		at += i
		first, last := at, at+1
		for at-first < most && (s.is(dotted, first-1) || s.byteAt(first-1) == '+' || s.byteAt(first-1) == '%') {
			first--
		}
		dot := 0
		for last-at < 4*most && (s.is(alnum, last) || (s.byteAt(last) == '-' || s.byteAt(last) == '.') && s.is(alnum, last+1)) {
			if s.text[last] == '.' {
				dot = last
			}
			last++
		}
		s.steps += last - first
		if first < at && dot > 0 && last-dot > 2 {
			s.specific(rule, first, last)
		}
	}
	s.steps += len(s.text)
}

// addresses adds IPv4 addresses in four parts.
func (s *scan) addresses(rule ruleNumber) {
	for i := 0; i < len(s.text); i++ {
		if !isDigit(s.text[i]) || s.is(dotted, i-1) {
			continue
		}
		last := i
		for last < len(s.text) && last-i <= len("255.255.255.255") && (isDigit(s.text[last]) || s.text[last] == '.' && s.is(digit, last+1)) {
			last++
		}
		if a, err := netip.ParseAddr(string(s.text[i:last])); err == nil && a.Is4() && !s.is(dotted, last) {
			s.specific(rule, i, last)
		}
		i = last
	}
	s.steps += len(s.text)
}

// phones adds numbers in international form: + and 8 to 15 digits.
func (s *scan) phones(rule ruleNumber) {
	for at := 0; ; at++ {
		i := bytes.IndexByte(s.text[at:], '+')
		if i < 0 {
			break
		}
		at += i
		digits, last := 0, at+1
		for p := at + 1; p < len(s.text) && p-at < 32; p++ {
			if isDigit(s.text[p]) {
				digits++
				last = p + 1
				continue
			}
			if c := s.text[p]; c != ' ' && c != '-' && c != '(' && c != ')' && c != '.' {
				break
			}
		}
		if digits >= 8 && digits <= 15 && isDigit(s.byteAt(at+1)) && !s.is(word, at-1) && !s.is(word, last) {
			s.specific(rule, at, last)
			at = last - 1
		}
	}
	s.steps += len(s.text)
}

// ibans adds international bank account numbers with a right checksum.
func (s *scan) ibans(rule ruleNumber) {
	const least, most = 15, 34
	for i := 0; i+least <= len(s.text); i++ {
		if !s.is(upper, i) || isDigit(s.text[i]) || s.is(word, i-1) || !s.is(digit, i+2) || !s.is(digit, i+3) {
			continue
		}
		// The longest reading first: the next word may look like a part of it.
		var ends [most + 1]int
		n, p := 0, i
		for ; p < len(s.text) && n < most; p++ {
			if s.text[p] == ' ' && n%4 == 0 && s.is(upper, p+1) {
				continue
			}
			if !s.is(upper, p) {
				break
			}
			n++
			ends[n] = p + 1
		}
		s.steps += p - i
		for ; n >= least; n-- {
			if !s.is(word, ends[n]) && iban(s.text[i:ends[n]]) {
				s.specific(rule, i, ends[n])
				i = ends[n] - 1
				break
			}
		}
	}
	s.steps += len(s.text)
}

// iban checks the checksum: moved to the end, the first four characters make
// the number leave 1 when divided by 97.
func iban(text []byte) bool {
	rest := 0
	add := func(part []byte) {
		for _, c := range part {
			switch {
			case isDigit(c):
				rest = (rest*10 + int(c-'0')) % 97
			case c != ' ':
				rest = (rest*100 + int(c-'A') + 10) % 97
			}
		}
	}
	add(text[4:])
	add(text[:4])
	return rest == 1
}
