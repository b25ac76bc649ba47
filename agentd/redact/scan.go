package redact

import (
	"bytes"
	"cmp"
	"slices"
)

// span is a value to replace.
type span struct {
	start, end int
	rule       ruleNumber
	weight     int // of spans that overlap, the heaviest one names the marker
}

// Weights of spans.
const (
	generic  = iota // found by what stands before it: password=…
	specific        // found by its own form: ghp_…
)

// scan is one look at one text.
type scan struct {
	r     *Redactor
	text  []byte
	spans []span
	spare []byte // for results that are looked at again

	// What is known of the text, so that nothing is walked over again and
	// again: see run, quoteEnd and their users.
	runs                    [numClasses]extent
	noQuote                 [6]extent
	bare                    extent
	specificEnd, genericEnd int // ends of the furthest spans of each weight
	jwtFailed               int
	pemEnd                  extent
	tried                   uint64 // operator's rules, of which each is tried once

	steps int // bytes walked over, for the test of the bound
}

// extent is a part of the text, of which something is known.
type extent struct{ start, end int }

func (x extent) holds(at int) bool { return x.start <= at && at < x.end }

// begin makes a scan, used before or new, ready for a text.
func (s *scan) begin(r *Redactor, text []byte) {
	*s = scan{r: r, text: text, spans: s.spans[:0], spare: s.spare}
}

// end forgets the text. Memory is kept for the next one, unless it is much.
func (s *scan) end() {
	s.text = nil
	clear(s.spare)
	if cap(s.spans) > 1<<10 {
		s.spans = nil
	}
	if cap(s.spare) > 16<<10 {
		s.spare = nil
	}
}

// look finds all spans; there is no keyword before position at.
func (s *scan) look(at int) {
	s.keywords(at)
	if s.r.card >= 0 && hasLongNumber(s.text) {
		s.cardNumbers()
	}
	for _, find := range s.r.more {
		find(s)
	}
}

// keywords calls the matcher of each keyword from position at on.
func (s *scan) keywords(at int) {
	ix := s.r.index
	for at = ix.next(s.text, at&^1); at >= 0; at = ix.next(s.text, at+2) {
		for _, p := range ix.probes(s.text, at) {
			if start, ok := p.found(s.text, at); ok {
				p.keyword.match(s, start, start+len(p.keyword.text))
			}
		}
	}
}

func (s *scan) specific(rule ruleNumber, start, end int) {
	s.specificEnd = max(s.specificEnd, end)
	s.spans = append(s.spans, span{start, end, rule, specific})
}

func (s *scan) generic(rule ruleNumber, start, end int) {
	s.genericEnd = max(s.genericEnd, end)
	s.spans = append(s.spans, span{start, end, rule, generic})
}

// run returns the end of the run of a class's bytes that begins at from.
func (s *scan) run(c class, from int) int {
	known := &s.runs[c]
	if known.holds(from) {
		return known.end
	}
	end := from
	for end < len(s.text) && classes[s.text[end]]&(1<<c) != 0 {
		end++
	}
	s.steps += end - from + 1
	*known = extent{from, end}
	return end
}

// is reports whether the byte at position at is there and of a class.
func (s *scan) is(c class, at int) bool {
	return at >= 0 && at < len(s.text) && classes[s.text[at]]&(1<<c) != 0
}

// byteAt returns the byte at a position, 0 outside of the text.
func (s *scan) byteAt(at int) byte {
	if at < 0 || at >= len(s.text) {
		return 0
	}
	return s.text[at]
}

// startsWord reports whether a token may begin at a position: no letter or
// digit stands before it, unless that is the end of an escape such as \n or %3D.
func (s *scan) startsWord(at int) bool {
	if !s.is(alnum, at-1) {
		return true
	}
	switch s.text[at-1] {
	case 'n', 'r', 't':
		if s.byteAt(at-2) == '\\' {
			return true
		}
	}
	return s.byteAt(at-3) == '%' && s.is(hexAny, at-2) && s.is(hexAny, at-1)
}

// replace writes the text with its spans replaced.
func (s *scan) replace(dst []byte, hit func(rule string)) []byte {
	byStart := func(a, b span) int { return cmp.Compare(a.start, b.start) }
	if !slices.IsSortedFunc(s.spans, byStart) {
		slices.SortStableFunc(s.spans, byStart)
	}
	dst = dst[:0]
	done := 0
	for i := 0; i < len(s.spans); {
		joined := s.spans[i]
		for i++; i < len(s.spans) && s.spans[i].start < joined.end; i++ {
			x := s.spans[i]
			joined.end = max(joined.end, x.end)
			if x.weight > joined.weight {
				joined.rule, joined.weight = x.rule, x.weight
			}
		}
		r := &s.r.rules[joined.rule]
		dst = append(dst, s.text[done:joined.start]...)
		dst = append(dst, markerOpen...)
		dst = append(dst, r.id...)
		dst = append(dst, markerClose)
		done = joined.end
		if r.counter != nil {
			r.counter.Inc()
		}
		if hit != nil {
			hit(r.id)
		}
	}
	return append(dst, s.text[done:]...)
}

// A marker stands where a value was: [redacted:rule-id].
const (
	markerOpen  = "[redacted:"
	markerClose = ']'
)

// skipMarkers returns the position after the markers that begin at one.
func skipMarkers(text []byte, at int) int {
	for {
		n := markerLen(text[at:])
		if n == 0 {
			return at
		}
		at += n
	}
}

// markerLen returns the length of the marker that text begins with, or 0.
func markerLen(text []byte) int {
	if len(text) < len(markerOpen) || string(text[:len(markerOpen)]) != markerOpen {
		return 0
	}
	id := text[len(markerOpen):min(len(text), len(markerOpen)+maxName+1)]
	end := bytes.IndexByte(id, markerClose)
	if end < 1 {
		return 0
	}
	for _, c := range id[:end] {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return 0
		}
	}
	return len(markerOpen) + end + 1
}
