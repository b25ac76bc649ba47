package telemetry

import (
	"strings"
)

// String writes the condition in the grammar of queries, in one way: reading
// it gives the same condition again. nil is the empty text.
func (e *LogExpr) String() string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	e.write(&b)
	return b.String()
}

// MarshalText is String for JSON.
func (e *LogExpr) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

func (e *LogExpr) write(b *strings.Builder) {
	switch e.kind {
	case exprAll:
		for i, x := range e.args {
			if i > 0 {
				b.WriteByte(' ')
			}
			x.writeIn(b, x.kind == exprAny)
		}
	case exprAny:
		for i, x := range e.args {
			if i > 0 {
				b.WriteString(" OR ")
			}
			x.writeIn(b, false)
		}
	case exprNot:
		b.WriteByte('-')
		x := e.args[0]
		x.writeIn(b, x.kind == exprAll || x.kind == exprAny)
	case exprText:
		writeWord(b, e.text, isPlainText)
	case exprRegexp:
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(e.text, "/", `\/`))
		b.WriteByte('/')
		if e.fold {
			b.WriteByte('i')
		}
	case exprIs:
		b.WriteString(e.field.String() + ":")
		writeValues(b, e.names())
	case exprMeta:
		b.WriteString("meta." + e.text + ":" + e.compare.String())
		writeValues(b, e.values)
	case exprHas:
		b.WriteString("has:")
		if e.text != "" {
			b.WriteString("meta." + e.text)
		} else {
			b.WriteString(e.field.String())
		}
	}
}

func (e *LogExpr) writeIn(b *strings.Builder, parentheses bool) {
	if !parentheses {
		e.write(b)
		return
	}
	b.WriteByte('(')
	e.write(b)
	b.WriteByte(')')
}

// names are the values of an exprIs as they are written.
func (e *LogExpr) names() []string {
	if e.set == 0 {
		return e.values
	}
	var all []string
	for _, v := range setWords(e.set) {
		switch e.field { //nolint:exhaustive // the others hold ids
		case FieldLevel:
			all = append(all, Level(v).String())
		case FieldSource:
			all = append(all, LogSource(v).String())
		case FieldProvider:
			all = append(all, Provider(v).String())
		case FieldStream:
			all = append(all, Stream(v).String())
		case FieldEnv:
			all = append(all, Environment(v).String())
		}
	}
	return all
}

func writeValues(b *strings.Builder, values []string) {
	if len(values) == 1 {
		writeWord(b, values[0], isPlainValue)
		return
	}
	for i, v := range values {
		b.WriteByte("( "[min(i, 1)])
		writeWord(b, v, isPlainValue)
	}
	b.WriteByte(')')
}

func writeWord(b *strings.Builder, s string, isPlain func(string) bool) {
	if isPlain(s) {
		b.WriteString(s)
		return
	}
	b.WriteString(QuoteQuery(s))
}

var quoteQuery = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

// QuoteQuery writes a text so that a query takes it as it is.
func QuoteQuery(s string) string { return `"` + quoteQuery.Replace(s) + `"` }

// isPlainText reports whether a text needs no quotes as a search word.
func isPlainText(s string) bool { return isPlain(s, "_./@-") && s != "OR" && s != "AND" && s != "NOT" }

// isPlainValue reports whether a text needs no quotes behind a field.
func isPlainValue(s string) bool { return isPlain(s, "_./@-:") && s != "OR" }

func isPlain(s, marks string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || i > 0 && strings.IndexByte(marks, c) >= 0 {
			continue
		}
		return false
	}
	return s != ""
}
