package redact

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// builder puts a Redactor together.
type builder struct {
	r        *Redactor
	off      map[string]bool // id -> was met
	number   map[string]ruleNumber
	keywords []*keyword
	values   *prometheus.CounterVec
}

// rule returns the number of a rule, and whether it is wanted.
func (b *builder) rule(id string) (ruleNumber, bool) {
	if _, known := b.off[id]; known {
		b.off[id] = true // there is such a rule
		return -1, false
	}
	n, known := b.number[id]
	if !known {
		n = ruleNumber(len(b.r.rules))
		x := rule{id: id}
		if b.values != nil {
			x.counter = b.values.WithLabelValues(id)
		}
		b.r.rules = append(b.r.rules, x)
		b.number[id] = n
	}
	return n, true
}

func (b *builder) keyword(text string, fold bool, match func(s *scan, start, end int)) {
	b.keywords = append(b.keywords, &keyword{text: text, fold: fold, match: match})
}

// named adds a keyword that ends a name.
func (b *builder) named(text string, match func(s *scan, start, end int)) {
	b.keywords = append(b.keywords, &keyword{text: text, fold: true, named: true, match: match})
}

func (b *builder) build(cfg Config) error {
	for _, id := range cfg.Off {
		b.off[id] = false
	}
	b.tokens()
	b.assignments()
	b.forms()
	err := errors.Join(b.personal(cfg.Personal), b.custom(cfg.Rules))
	for _, id := range slices.Sorted(maps.Keys(b.off)) {
		if !b.off[id] {
			err = errors.Join(err, fmt.Errorf("there is no rule %.40q to leave out", id))
		}
	}
	b.r.index = newIndex(b.keywords)
	return err
}

func (b *builder) tokens() {
	for i := range tokens {
		t := &tokens[i]
		n, wanted := b.rule(t.id)
		if !wanted {
			continue
		}
		for _, p := range t.prefixes {
			b.keyword(p, t.fold, func(s *scan, start, end int) { t.match(s, n, start, end) })
		}
	}
}

func (b *builder) assignments() {
	for i := range assignments {
		a := &assignments[i]
		n, wanted := b.rule(a.id)
		if !wanted {
			continue
		}
		for _, text := range a.names {
			b.named(text, func(s *scan, start, end int) { a.match(s, n, start, end) })
		}
	}
}

// forms adds the matchers of what has a form of its own.
func (b *builder) forms() {
	b.r.card, b.r.pem = -1, -1
	if n, wanted := b.rule("jwt"); wanted {
		b.keyword("eyJ", false, func(s *scan, start, _ int) { s.jwt(n, start) })
	}
	if n, wanted := b.rule("private-key"); wanted {
		b.r.pem = n
		b.keyword("PRIVATE KEY", false, func(s *scan, start, end int) { s.privateKey(n, start, end) })
	}
	if n, wanted := b.rule("password"); wanted {
		b.keyword("curl ", false, func(s *scan, _, end int) { s.curlUser(n, end) })
		b.keyword("sshpass -p", false, func(s *scan, _, end int) { s.argument(n, s.skip(end, ' ', 1), 0) })
	}
	if n, wanted := b.rule("url-password"); wanted {
		b.keyword("://", false, func(s *scan, start, end int) { s.urlPassword(n, start, end) })
	}
	if n, wanted := b.rule("authorization"); wanted {
		b.named("authorization", func(s *scan, start, end int) { s.authorization(n, start, end) })
		b.keyword("bearer ", true, func(s *scan, start, end int) { s.bearer(n, start, end) })
		b.keyword("basic ", true, func(s *scan, start, end int) { s.basic(n, start, end) })
	}
	if n, wanted := b.rule("cookie"); wanted {
		b.named("cookie", func(s *scan, start, end int) { s.cookie(n, start, end) })
	}
	if n, wanted := b.rule("card-number"); wanted {
		b.r.card = n
	}
}

func (b *builder) personal(wanted []string) error {
	var errs []error
	for _, id := range wanted {
		find, known := personal[id]
		if !known {
			errs = append(errs, fmt.Errorf("personal data: %.40q is none of %s", id, strings.Join(slices.Sorted(maps.Keys(personal)), ", ")))
			continue
		}
		if n, ok := b.rule(id); ok {
			b.r.more = append(b.r.more, func(s *scan) { find(s, n) })
		}
	}
	return errors.Join(errs...)
}

func (b *builder) custom(rules []Rule) error {
	if len(rules) > maxRules {
		return fmt.Errorf("%d rules are given, %d are allowed", len(rules), maxRules)
	}
	var errs []error
	for i := range rules {
		x := &rules[i]
		re, keyword, err := x.compile()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, taken := b.number[x.Name]; taken {
			errs = append(errs, fmt.Errorf("rule %s: there is one of that name", x.Name))
			continue
		}
		n, wanted := b.rule(x.Name)
		if !wanted {
			continue
		}
		if keyword == "" {
			b.r.more = append(b.r.more, func(s *scan) { s.expression(n, re) })
			continue
		}
		slot := b.r.custom
		b.r.custom++
		b.keyword(keyword, true, func(s *scan, _, _ int) {
			if s.tried&(1<<slot) == 0 {
				s.tried |= 1 << slot
				s.expression(n, re)
			}
		})
	}
	return errors.Join(errs...)
}
