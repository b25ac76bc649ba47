package logquery

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// fields are the names of fields: those of the grammar, and those of the
// API's parameters.
var fields = map[string]telemetry.LogField{
	"level": telemetry.FieldLevel, "provider": telemetry.FieldProvider, "source": telemetry.FieldSource, "stream": telemetry.FieldStream,
	"agent": telemetry.FieldAgent, "agentId": telemetry.FieldAgent, "session": telemetry.FieldSession, "sessionId": telemetry.FieldSession,
	"user": telemetry.FieldUser, "userId": telemetry.FieldUser, "node": telemetry.FieldNode, "nodeId": telemetry.FieldNode,
	"sandbox": telemetry.FieldSandbox, "sandboxId": telemetry.FieldSandbox, "trace": telemetry.FieldTrace, "traceId": telemetry.FieldTrace,
	"span": telemetry.FieldSpan, "spanId": telemetry.FieldSpan, "env": telemetry.FieldEnv, "metadata": telemetry.FieldMetadata,
}

const fieldNames = "level, agent, session, user, node, sandbox, trace, span, provider, source, stream, env, meta.<path>, has"

// metaPrefix is before a path into the metadata.
const metaPrefix = "meta."

// fieldName returns the name before a colon, without taking it.
func (p *parser) fieldName() (string, bool) {
	name, _, found := strings.Cut(p.word(), ":")
	if !found || name == "" {
		return "", false
	}
	if c := name[0] | ' '; c < 'a' || c > 'z' {
		return "", false // a time, for example
	}
	return name, true
}

// field takes a condition on a field.
func (p *parser) field(name string) (*telemetry.LogExpr, error) {
	start := p.at
	path, isMeta := strings.CutPrefix(name, metaPrefix)
	field, known := fields[name]
	if !isMeta && name != "has" && (!known || field == telemetry.FieldMetadata) {
		return nil, p.fail(start, "%.40q is no field (%s): put the text in quotes to search for it (%s)", name, fieldNames, telemetry.QuoteQuery(clip(p.word())))
	}
	p.at += len(name) + 1
	if name == "has" {
		return p.has()
	}
	compare := telemetry.Equal
	if isMeta || field == telemetry.FieldLevel {
		compare = p.comparison()
	}
	at := p.at
	values, err := p.values(name)
	if err != nil {
		return nil, err
	}
	var e *telemetry.LogExpr
	switch {
	case isMeta:
		e, err = telemetry.ExprMeta(path, compare, values...)
	case compare != telemetry.Equal:
		e, err = compareLevel(compare, values)
	default:
		if field == telemetry.FieldEnv {
			p.env = start
		}
		e, err = telemetry.ExprIs(field, values...)
	}
	return e, p.wrap(at, err)
}

func clip(s string) string {
	if len(s) <= 40 {
		return s
	}
	end := 40
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

func (p *parser) comparison() telemetry.Comparison {
	for _, c := range []telemetry.Comparison{telemetry.GreaterOrEqual, telemetry.LessOrEqual, telemetry.Greater, telemetry.Less} {
		if strings.HasPrefix(p.text[p.at:], c.String()) {
			p.at += len(c.String())
			return c
		}
	}
	return telemetry.Equal
}

var errOneLevel = errors.New("a comparison takes one level: level:>=warn")

// compareLevel is met by the levels on one side of another.
func compareLevel(compare telemetry.Comparison, values []string) (*telemetry.LogExpr, error) {
	if len(values) != 1 {
		return nil, errOneLevel
	}
	edge, err := telemetry.ParseLevel(values[0])
	if err != nil {
		return nil, err
	}
	switch compare {
	case telemetry.GreaterOrEqual:
		return telemetry.ExprMinLevel(edge), nil
	case telemetry.Greater:
		return beyond(edge, false)
	case telemetry.Less:
		return beyond(edge, true)
	case telemetry.LessOrEqual, telemetry.Equal:
	}
	if edge == telemetry.NumLevels-1 {
		return telemetry.ExprMinLevel(telemetry.Debug), nil
	}
	return telemetry.ExprNot(telemetry.ExprMinLevel(edge + 1)), nil
}

var errNoLevel = errors.New("no level lies beyond it: debug < info < warn < error")

// beyond is the levels below or above an edge.
func beyond(edge telemetry.Level, below bool) (*telemetry.LogExpr, error) {
	switch {
	case below && edge == telemetry.Debug, !below && edge == telemetry.NumLevels-1:
		return nil, errNoLevel
	case below:
		return telemetry.ExprNot(telemetry.ExprMinLevel(edge)), nil
	default:
		return telemetry.ExprMinLevel(edge + 1), nil
	}
}

// values takes one value, or a list of them in parentheses.
func (p *parser) values(name string) ([]string, error) {
	if p.peek() != '(' {
		v, err := p.value(name)
		return []string{v}, err
	}
	start := p.at
	p.at++
	var list []string
	for p.space(); p.peek() != ')'; p.space() {
		if p.done() {
			return nil, p.fail(start, `this list is never closed: write %s:(a b)`, name)
		}
		if len(list) > 0 && p.keyword("OR") {
			continue
		}
		if err := p.count(p.at); err != nil {
			return nil, err
		}
		v, err := p.value(name)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	p.at++
	if len(list) == 0 {
		return nil, p.fail(start, "the list is empty: write %s:(a b)", name)
	}
	return list, nil
}

func (p *parser) value(name string) (string, error) {
	if p.peek() == '"' {
		return p.quoted()
	}
	v := p.word()
	switch {
	case v == "":
		return "", p.fail(p.at, "%s: needs a value directly behind the colon: %s:value, or a list of them: %s:(a b)", name, name, name)
	case strings.Contains(v, ",") && name != "user" && name != "userId" && !strings.HasPrefix(name, metaPrefix):
		return "", p.fail(p.at, "several values stand in parentheses with spaces between them: %s:(%s)", name, strings.Join(strings.FieldsFunc(v, isComma), " "))
	}
	p.at += len(v)
	return v, nil
}

func isComma(r rune) bool { return r == ',' || unicode.IsSpace(r) }

// has takes what an entry must have: any of a list.
func (p *parser) has() (*telemetry.LogExpr, error) {
	at := p.at
	names, err := p.values("has")
	if err != nil {
		return nil, err
	}
	var list []*telemetry.LogExpr
	for _, name := range names {
		e, err := hasOne(name)
		if err != nil {
			return nil, p.wrap(at, err)
		}
		list = append(list, e)
	}
	return telemetry.ExprAny(list...), nil
}

func hasOne(name string) (*telemetry.LogExpr, error) {
	if path, isMeta := strings.CutPrefix(name, metaPrefix); isMeta {
		return telemetry.ExprHasMeta(path)
	}
	field, known := fields[name]
	if !known {
		return nil, fmt.Errorf("has: takes trace, span, session, user, metadata or meta.<path>, not %.40q", name)
	}
	return telemetry.ExprHas(field)
}
