package redact

// Numbers of payment cards: 14 to 19 digits, in one piece or in groups as they
// are printed, of a known brand, with a right check digit. That leaves one in
// ten of the numbers that begin like a card's; most ids, and all times in
// seconds to nanoseconds, begin otherwise.
const (
	leastCard = 14
	mostCard  = 19
)

func isDigit(c byte) bool     { return '0' <= c && c <= '9' }
func isSeparator(c byte) bool { return c == ' ' || c == '-' }

// hasLongNumber reports whether a text has a run of digits, with single
// separators between them, that is long enough for a card. It looks at every
// 13th byte and its neighbour first: one of them is a digit of such a run.
func hasLongNumber(text []byte) bool {
	for p := leastCard - 2; p < len(text); p += leastCard - 1 {
		at := p
		if !isDigit(text[at]) {
			if at++; at == len(text) || !isDigit(text[at]) {
				continue
			}
		}
		n := 1
		for i := at - 1; n < leastCard && i >= 0 && (isDigit(text[i]) || isSeparator(text[i]) && i > 0 && isDigit(text[i-1])); i-- {
			n++
		}
		for i := at + 1; n < leastCard && i < len(text) && (isDigit(text[i]) || isSeparator(text[i]) && i+1 < len(text) && isDigit(text[i+1])); i++ {
			n++
		}
		if n >= leastCard {
			return true
		}
	}
	return false
}

// cardNumbers adds the numbers of cards.
func (s *scan) cardNumbers() {
	for i := 0; i < len(s.text); {
		if !isDigit(s.text[i]) {
			i++
			continue
		}
		end := s.digits(i)
		if last := s.card(i, end); last > 0 {
			s.specific(s.r.card, i, last)
			end = last
		}
		i = end
	}
	s.steps += len(s.text)
}

// digits returns the end of a run of digits.
func (s *scan) digits(from int) int {
	for from < len(s.text) && isDigit(s.text[from]) {
		from++
	}
	return from
}

// cardGroups are how the numbers of cards are printed; the last group may be
// shorter.
var cardGroups = [...][]int{{4, 4, 4, 4, 3}, {4, 4, 4, 4}, {4, 6, 5}}

// card returns the end of the card's number that begins with the group of
// digits [start,end), or 0.
func (s *scan) card(start, end int) int {
	if c := s.byteAt(start - 1); c == '_' || c == '.' || c == '+' || !s.startsWord(start) {
		return 0
	}
	if n := end - start; n >= leastCard {
		if n <= mostCard && s.isCard(start, end) {
			return end
		}
		return 0
	}
	if end-start != 4 || !isSeparator(s.byteAt(end)) {
		return 0
	}
	for _, groups := range cardGroups {
		last, separator := end, s.text[end]
		for i, want := range groups[1:] {
			if s.byteAt(last) != separator {
				last = 0
				break
			}
			n := s.digits(last+1) - last - 1
			if n != want && (i+2 < len(groups) || n < 1 || n > want) {
				last = 0
				break
			}
			last += 1 + n
		}
		if last > 0 && !s.inTable(start, last, separator) && s.isCard(start, last) {
			return last
		}
	}
	return 0
}

// inTable reports whether more groups of four stand on either side: then it is
// a table of numbers. A date such as 12/27 behind a card's is no such group.
func (s *scan) inTable(start, end int, separator byte) bool {
	return s.byteAt(start-1) == separator && s.isGroup(start-5) || s.byteAt(end) == separator && s.isGroup(end+1)
}

// isGroup reports whether there are four digits of hex, one of them decimal,
// and no more.
func (s *scan) isGroup(at int) bool {
	digits := 0
	for i := at; i < at+4; i++ {
		if !s.is(hexAny, i) {
			return false
		}
		if s.is(digit, i) {
			digits++
		}
	}
	return digits > 0 && !s.is(alnum, at-1) && !s.is(alnum, at+4)
}

// isCard checks boundary, brand and check digit of what may have separators.
func (s *scan) isCard(start, end int) bool {
	if s.is(word, end) || s.byteAt(end) == '.' && s.is(digit, end+1) {
		return false
	}
	var number [mostCard]byte
	n := 0
	for _, c := range s.text[start:end] {
		if isDigit(c) {
			if n == len(number) {
				return false
			}
			number[n] = c - '0'
			n++
		}
	}
	return n >= leastCard && brand(number[:n]) && luhn(number[:n])
}

// brand reports whether a number begins as a brand's does and has its length.
func brand(n []byte) bool {
	two := int(n[0])*10 + int(n[1])
	four := two*100 + int(n[2])*10 + int(n[3])
	switch len(n) {
	case 14: // Diners Club
		return two == 36 || two == 38 || four >= 3000 && four <= 3059
	case 15: // American Express
		return two == 34 || two == 37
	case 16: // Visa, Mastercard, Discover, JCB, UnionPay
		return n[0] == 4 || two >= 51 && two <= 55 || four >= 2221 && four <= 2720 || four == 6011 || two == 65 ||
			four >= 6440 && four <= 6499 || four >= 3528 && four <= 3589 || two == 62
	case 19: // Visa, UnionPay, Maestro
		return n[0] == 4 || two == 62 || two == 63 || two == 67
	}
	return false
}

// luhn checks the check digit.
func luhn(n []byte) bool {
	sum := 0
	for i, d := range n {
		v := int(d)
		if (len(n)-i)%2 == 0 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0
}
