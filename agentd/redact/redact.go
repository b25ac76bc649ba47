package redact

import (
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says what is redacted beside credentials, which always are.
type Config struct {
	// Off lists built-in rules that are not wanted, by id.
	Off []string
	// Personal data is left alone unless it is asked for: "email", "ipv4",
	// "phone", "iban".
	Personal []string
	// Rules are the operator's own.
	Rules []Rule
}

// Rule is one of the operator's own.
type Rule struct {
	Name    string // lower-case letters, digits and dashes; what stands in the marker
	Pattern string // RE2; where it has a group, only the first group is replaced
	// Keyword is a text, in any case, without which Pattern is not tried. Where
	// it is empty, one is taken from Pattern, if that has a text of three bytes
	// that no match can do without; else Pattern is tried on every text, which
	// costs more than all other rules together.
	Keyword string
}

// Redactor replaces secrets by markers.
type Redactor struct {
	index  *index
	rules  []rule     // by number, as spans name them
	card   ruleNumber // of card numbers; below 0: not wanted
	pem    ruleNumber // of private keys; below 0: not wanted
	more   []func(s *scan)
	custom int // operator's rules with a keyword
	scans  sync.Pool
}

type ruleNumber int

// rule is what is known of a rule when it has matched.
type rule struct {
	id      string
	counter prometheus.Counter // nil without a registerer
}

// Bounds of what an operator may configure.
const (
	maxRules   = 64
	maxPattern = 512
	maxName    = 40
	// maxProgram bounds the size of a compiled pattern: x{500}{2} is short.
	maxProgram = 4000
)

// New makes a redactor. Values replaced are counted by rule in
// agentd_redacted_values_total, registered with reg (which may be nil, and may
// have it already).
func New(cfg Config, reg prometheus.Registerer) (*Redactor, error) {
	b := &builder{r: &Redactor{scans: sync.Pool{New: func() any { return new(scan) }}}, off: map[string]bool{}, number: map[string]ruleNumber{}}
	if reg != nil {
		b.values = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agentd_redacted_values_total", Help: "Values replaced by [redacted:…] before they reached the disk, by rule.",
		}, []string{"rule"})
		if err := reg.Register(b.values); err != nil {
			known, ok := errors.AsType[prometheus.AlreadyRegisteredError](err)
			if !ok {
				return nil, fmt.Errorf("redact: %w", err)
			}
			b.values, _ = known.ExistingCollector.(*prometheus.CounterVec)
		}
	}
	if err := b.build(cfg); err != nil {
		return nil, fmt.Errorf("redact: %w", err)
	}
	return b.r, nil
}

// Redact returns text with its secrets replaced. Where there are none it
// returns text itself; else the result is written into dst (from its
// beginning, grown as needed), which must not overlap text. hit is called
// with the rule's id once for each value replaced; it may be nil.
func (r *Redactor) Redact(dst, text []byte, hit func(rule string)) []byte {
	return r.redact(dst, text, r.pem >= 0, hit)
}

// redact is Redact; lone says whether a line that looks like a part of a key is
// taken for one.
func (r *Redactor) redact(dst, text []byte, lone bool, hit func(rule string)) []byte {
	lone = lone && loneKeyLine(text)
	at := r.index.next(text, 0)
	for at >= 0 {
		for _, p := range r.index.probes(text, at) {
			if _, ok := p.found(text, at); ok {
				return r.scan(dst, text, at, lone, hit)
			}
		}
		at = r.index.next(text, at+2)
	}
	if r.card >= 0 && hasLongNumber(text) || len(r.more) > 0 || lone {
		return r.scan(dst, text, len(text), lone, hit)
	}
	return text
}

// maxPasses bounds how often a text is looked at. A second look sees what the
// first replacement uncovered, which takes texts that nobody writes by chance.
const maxPasses = 4

// scan looks closely at a text of which keywords are known to be absent before
// position at.
func (r *Redactor) scan(dst, text []byte, at int, lone bool, hit func(rule string)) []byte {
	s, _ := r.scans.Get().(*scan)
	defer func() {
		s.end()
		r.scans.Put(s)
	}()
	for pass := range maxPasses {
		s.begin(r, text)
		s.look(at)
		if lone {
			s.specific(r.pem, 0, len(text))
			lone = false
		}
		if len(s.spans) == 0 {
			break
		}
		if pass == 0 {
			dst = s.replace(dst, hit)
		} else {
			s.spare = s.replace(s.spare, hit)
			dst = append(dst[:0], s.spare...)
		}
		text, at = dst, 0
	}
	return text
}

// Rules returns the ids of all rules in force.
func (r *Redactor) Rules() []string {
	ids := make([]string, len(r.rules))
	for i := range r.rules {
		ids[i] = r.rules[i].id
	}
	return ids
}
