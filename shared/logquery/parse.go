package logquery

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// Bounds of a query.
const (
	MaxQuery   = 2048 // bytes
	MaxDepth   = 16   // parentheses and negations in each other
	MaxTerms   = 100  // conditions and values of lists
	MaxRegexps = 4
)

// Error says what is wrong with a query, where, and what to write instead.
type Error struct {
	Position  int // of the fault, in bytes from the beginning
	Character int // the same, counted in characters from 1
	Detail    string
}

func (e *Error) Error() string { return fmt.Sprintf("at character %d: %s", e.Character, e.Detail) }

// Parse adds what a query says to a filter. An empty query asks for everything.
func Parse(text string, into *telemetry.LogFilter) error {
	p := parser{text: text}
	e, err := p.query()
	if err != nil {
		return err
	}
	f := *into
	f.Add(e)
	if f.Where.Uses().Has(telemetry.FieldEnv) {
		return p.fail(p.env, "env: can only stand once and for itself, beside everything else: env:live …, not within OR or a negated group")
	}
	*into = f
	return nil
}

// ParseExpr reads a query as one condition; nil where it is empty.
func ParseExpr(text string) (*telemetry.LogExpr, error) {
	p := parser{text: text}
	return p.query()
}

// parser reads from left to right and never goes back.
type parser struct {
	text    string
	at      int
	depth   int
	terms   int
	regexps int
	env     int // where the last env: stands
}

func (p *parser) fail(at int, format string, args ...any) error {
	at = min(at, len(p.text))
	return &Error{Position: at, Character: 1 + utf8.RuneCountInString(p.text[:at]), Detail: fmt.Sprintf(format, args...)}
}

func (p *parser) query() (*telemetry.LogExpr, error) {
	if len(p.text) > MaxQuery {
		return nil, p.fail(MaxQuery, "the query is longer than %d bytes: use fewer conditions", MaxQuery)
	}
	for i := 0; i < len(p.text); {
		r, size := utf8.DecodeRuneInString(p.text[i:])
		if r == 0 || r == utf8.RuneError && size == 1 {
			return nil, p.fail(i, "a query is UTF-8 text without NUL")
		}
		i += size
	}
	if p.space(); p.done() {
		return nil, nil //nolint:nilnil // nil is the condition that everything meets
	}
	e, err := p.either()
	if err != nil {
		return nil, err
	}
	if !p.done() {
		return nil, p.fail(p.at, `this ")" closes nothing: leave it out, or put the text in quotes`)
	}
	return e, nil
}

func (p *parser) done() bool { return p.at >= len(p.text) }

// peek is the next byte; 0 at the end.
func (p *parser) peek() byte {
	if p.done() {
		return 0
	}
	return p.text[p.at]
}

func (p *parser) space() {
	for !p.done() {
		r, size := utf8.DecodeRuneInString(p.text[p.at:])
		if !unicode.IsSpace(r) {
			return
		}
		p.at += size
	}
}

// word returns what stands at the cursor up to white space, a parenthesis or
// a quote, without taking it.
func (p *parser) word() string {
	rest := p.text[p.at:]
	end := strings.IndexFunc(rest, func(r rune) bool { return unicode.IsSpace(r) || r == '(' || r == ')' || r == '"' })
	if end < 0 {
		return rest
	}
	return rest[:end]
}

// keyword takes a word and the space behind it if it is the next.
func (p *parser) keyword(word string) bool {
	if p.word() != word {
		return false
	}
	p.at += len(word)
	p.space()
	return true
}

func (p *parser) either() (*telemetry.LogExpr, error) {
	var list []*telemetry.LogExpr
	for {
		e, err := p.all()
		if err != nil {
			return nil, err
		}
		list = append(list, e)
		if !p.keyword("OR") {
			return telemetry.ExprAny(list...), nil
		}
	}
}

func (p *parser) all() (*telemetry.LogExpr, error) {
	var list []*telemetry.LogExpr
	for {
		e, err := p.term()
		if err != nil {
			return nil, err
		}
		list = append(list, e)
		p.space()
		and := p.keyword("AND")
		if !and && (p.done() || p.peek() == ')' || p.word() == "OR") {
			return telemetry.ExprAll(list...), nil
		}
	}
}

// deeper counts a step into parentheses or a negation.
func (p *parser) deeper(at int) error {
	if p.depth++; p.depth > MaxDepth {
		return p.fail(at, "parentheses and negations are nested more than %d deep", MaxDepth)
	}
	return nil
}

// count counts conditions and values.
func (p *parser) count(at int) error {
	if p.terms++; p.terms > MaxTerms {
		return p.fail(at, "the query has more than %d conditions and values", MaxTerms)
	}
	return nil
}

func (p *parser) term() (*telemetry.LogExpr, error) {
	start := p.at
	switch word := p.word(); {
	case p.done():
		return nil, p.fail(start, `a condition is missing at the end: to search for OR, AND or NOT write it in quotes ("OR")`)
	case p.peek() == ')':
		return nil, p.fail(start, `a condition is missing before this ")": to search for parentheses put the text in quotes`)
	case word == "OR", word == "AND":
		return nil, p.fail(start, `%s needs a condition on both sides: to search for the word write "%s" in quotes`, word, word)
	case word == "NOT":
		p.keyword(word)
		return p.negation(start)
	case p.peek() == '-':
		p.at++
		if r, _ := utf8.DecodeRuneInString(p.text[p.at:]); p.done() || unicode.IsSpace(r) {
			return nil, p.fail(start, `"-" negates what follows it directly (-level:debug): to search for the sign write "-" in quotes`)
		}
		return p.negation(start)
	case p.peek() == '(':
		return p.group()
	}
	if err := p.count(start); err != nil {
		return nil, err
	}
	switch {
	case p.peek() == '"':
		text, err := p.quoted()
		if err != nil {
			return nil, err
		}
		return p.textOf(start, text)
	case p.peek() == '/':
		return p.regexp()
	}
	if name, ok := p.fieldName(); ok {
		return p.field(name)
	}
	text := p.word()
	p.at += len(text)
	return p.textOf(start, text)
}

func (p *parser) negation(start int) (*telemetry.LogExpr, error) {
	if err := p.deeper(start); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	e, err := p.term()
	if err != nil {
		return nil, err
	}
	return telemetry.ExprNot(e), nil
}

func (p *parser) group() (*telemetry.LogExpr, error) {
	start := p.at
	if err := p.deeper(start); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	p.at++
	p.space()
	if p.done() {
		return nil, p.fail(start, `this "(" is never closed: add ")", or put the text in quotes`)
	}
	e, err := p.either()
	if err != nil {
		return nil, err
	}
	if p.peek() != ')' {
		return nil, p.fail(start, `this "(" is never closed: add ")", or put the text in quotes`)
	}
	p.at++
	return e, nil
}

func (p *parser) textOf(start int, text string) (*telemetry.LogExpr, error) {
	e, err := telemetry.ExprText(text)
	return e, p.wrap(start, err)
}

// wrap gives an error of a condition's maker its place.
func (p *parser) wrap(at int, err error) error {
	if err == nil {
		return nil
	}
	return p.fail(at, "%v", err)
}

// quoted takes a text in quotes.
func (p *parser) quoted() (string, error) {
	start := p.at
	var b strings.Builder
	for p.at++; !p.done(); p.at++ {
		switch c := p.text[p.at]; c {
		case '"':
			p.at++
			return b.String(), nil
		case '\\':
			p.at++
			i := strings.IndexByte(`"\nrt`, p.peek())
			if p.done() || i < 0 {
				return "", p.fail(p.at-1, `after "\" in quotes comes ", \, n, r or t: write "\\" for the sign itself`)
			}
			b.WriteByte("\"\\\n\r\t"[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", p.fail(start, `this quote is never closed: add ", or write \" for the sign itself`)
}

// regexp takes /pattern/ or /pattern/i.
func (p *parser) regexp() (*telemetry.LogExpr, error) {
	start := p.at
	if p.regexps++; p.regexps > MaxRegexps {
		return nil, p.fail(start, "a query takes at most %d regexps: join them with |", MaxRegexps)
	}
	for p.at++; p.peek() != '/'; p.at++ {
		if p.peek() == '\\' {
			p.at++
		}
		if p.done() {
			return nil, p.fail(start, `this regexp is never closed: write /pattern/, or put a text that begins with / in quotes`)
		}
	}
	pattern := p.text[start+1 : p.at]
	p.at++
	flags := p.word()
	if flags != "" && flags != "i" {
		return nil, p.fail(p.at, `behind a regexp stands nothing or "i" (case is ignored), not %.40q: put a path such as "/v1/logs" in quotes`, flags)
	}
	p.at += len(flags)
	e, err := telemetry.ExprRegexp(pattern, flags == "i")
	return e, p.wrap(start, err)
}
