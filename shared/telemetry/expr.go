package telemetry

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// LogField is a field of a log entry that a condition can be about.
type LogField uint8

// The fields.
const (
	FieldLevel LogField = iota
	FieldAgent
	FieldSession
	FieldUser
	FieldNode
	FieldSandbox
	FieldProvider
	FieldSource
	FieldStream
	FieldTrace
	FieldSpan
	FieldEnv // of the scope and not of the entry: no entry matches it
	FieldMetadata
	FieldMessage
	numFields
)

// logFields are the fields as they are written in a query.
var logFields = words[LogField]{kind: "field", names: []string{
	"level", "agent", "session", "user", "node", "sandbox", "provider", "source", "stream", "trace", "span", "env", "metadata", "message",
}}

func (f LogField) String() string { return logFields.name(f) }

// LogFields is a set of fields.
type LogFields uint16

// Sets of fields: OriginFields are the same for all lines of one origin on one
// node, and AllFields are those that a whole entry has.
const (
	OriginFields = 1<<FieldAgent | 1<<FieldSession | 1<<FieldUser | 1<<FieldNode | 1<<FieldSandbox | 1<<FieldProvider | 1<<FieldSource | 1<<FieldStream
	AllFields    = 1<<numFields - 1
)

// Has reports whether a field is in the set.
func (s LogFields) Has(f LogField) bool { return s&(1<<f) != 0 }

type exprKind uint8

const (
	exprAll exprKind = iota
	exprAny
	exprNot
	exprText
	exprRegexp
	exprIs
	exprMeta
	exprHas
)

// LogExpr is a condition on log entries, as the grammar of queries writes it
// (shared/logquery reads it). It never changes once it is made, so many may
// use it at once; nil is the condition that every entry meets. Its makers keep
// one form for what means the same in an obvious way, so that String is a key.
type LogExpr struct {
	kind   exprKind
	args   []*LogExpr // all, any: two or more; not: one
	field  LogField   // is, has
	values []string   // is (ids), meta: any of them
	set    uint16     // is (words): any of them, by number
	text   string     // text as written; the pattern of a regexp; the path of meta and has
	folded string     // text
	re     *regexp.Regexp
	fold   bool     // regexp: case is ignored
	parts  []string // regexp: texts that every match contains, folded semantics
	exact  string   // regexp: the longest text that every match contains as it is

	compare Comparison // meta
	number  float64    // meta, but for Equal

	uses LogFields
}

// Comparison is how metadata is held against a value.
type Comparison uint8

// The comparisons. All but Equal compare numbers.
const (
	Equal Comparison = iota
	Less
	LessOrEqual
	Greater
	GreaterOrEqual
)

var comparisons = words[Comparison]{kind: "comparison", names: []string{"", "<", "<=", ">", ">="}}

func (c Comparison) String() string { return comparisons.name(c) }

// Bounds of a condition's parts. A regexp is matched in time linear in the
// text and in its compiled size, so that size is bounded.
const (
	MaxPattern    = 256 // bytes
	MaxRegexpSize = 300 // instructions
	MaxMetaPath   = 128 // bytes
)

// ExprAll is met where all of list are; nil members are left out.
func ExprAll(list ...*LogExpr) *LogExpr { return combine(exprAll, list) }

// ExprAny is met where any of list is. Conditions on one field become one.
func ExprAny(list ...*LogExpr) *LogExpr {
	if slices.Contains(list, nil) {
		return nil
	}
	return combine(exprAny, list)
}

func combine(kind exprKind, list []*LogExpr) *LogExpr {
	e := &LogExpr{kind: kind}
	for _, x := range list {
		switch {
		case x == nil:
		case x.kind == kind:
			for _, arg := range x.args {
				e.add(arg)
			}
		default:
			e.add(x)
		}
	}
	switch len(e.args) {
	case 0:
		return nil
	case 1:
		return e.args[0]
	}
	for _, x := range e.args {
		e.uses |= x.uses
	}
	return e
}

func (e *LogExpr) add(x *LogExpr) {
	if e.kind == exprAny && x.kind == exprIs {
		for i, have := range e.args {
			if have.kind == exprIs && have.field == x.field {
				both := *have
				both.set |= x.set
				both.values = union(have.values, x.values)
				e.args[i] = &both
				return
			}
		}
	}
	e.args = append(e.args, x)
}

func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, v := range b {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}

// ExprNot is met where x is not. nil, which is always met, has no opposite.
func ExprNot(x *LogExpr) *LogExpr {
	if x == nil {
		return nil
	}
	if x.kind == exprNot {
		return x.args[0]
	}
	if n := everyWord(x.field); x.kind == exprIs && n != 0 && x.set != n {
		return &LogExpr{kind: exprIs, field: x.field, set: n &^ x.set, uses: x.uses}
	}
	return &LogExpr{kind: exprNot, args: []*LogExpr{x}, uses: x.uses}
}

// everyWord is the set of all words of a field that every entry has one of.
func everyWord(f LogField) uint16 {
	switch f {
	case FieldLevel:
		return 1<<len(levels.names) - 1
	case FieldSource:
		return 1<<len(logSources.names) - 1
	case FieldEnv:
		return 1<<len(environments.names) - 1
	default:
		return 0
	}
}

// ExprText is met where the message contains text, as ContainsFold says.
func ExprText(text string) (*LogExpr, error) {
	if text == "" {
		return nil, errors.New("an empty text is in every message: leave it out")
	}
	if len(text) > MaxSearch {
		return nil, fmt.Errorf("the text is longer than %d bytes", MaxSearch)
	}
	return &LogExpr{kind: exprText, text: text, folded: FoldText(text), uses: 1 << FieldMessage}, nil
}

// ExprRegexp is met where the message matches a pattern of Go's regexp
// package (RE2). fold ignores case.
func ExprRegexp(pattern string, fold bool) (*LogExpr, error) {
	if pattern == "" {
		return nil, errors.New("an empty regexp matches every message: leave it out")
	}
	if len(pattern) > MaxPattern {
		return nil, fmt.Errorf("the regexp is longer than %d bytes", MaxPattern)
	}
	pattern = bareSlashes(pattern)
	flags := syntax.Perl
	if fold {
		flags |= syntax.FoldCase
	}
	tree, err := syntax.Parse(pattern, flags)
	if err != nil {
		return nil, fmt.Errorf("the regexp cannot be read: %w", err)
	}
	tree = tree.Simplify()
	prog, err := syntax.Compile(tree)
	if err != nil {
		return nil, fmt.Errorf("the regexp cannot be compiled: %w", err)
	}
	if len(prog.Inst) > MaxRegexpSize {
		return nil, fmt.Errorf("the regexp is too large (%d instructions, at most %d): make its repetitions {m,n} smaller", len(prog.Inst), MaxRegexpSize)
	}
	source := pattern
	if fold {
		source = "(?i)" + pattern // no parentheses, which \Q would take for text
	}
	re, err := regexp.Compile(source)
	if err != nil {
		return nil, fmt.Errorf("the regexp cannot be read: %w", err)
	}
	e := &LogExpr{kind: exprRegexp, text: pattern, re: re, fold: fold, uses: 1 << FieldMessage}
	e.parts, e.exact = required(tree)
	return e, nil
}

// bareSlashes writes "/" for "\/", which mean the same, so that a pattern has
// one form.
func bareSlashes(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] == '\\' && i+1 < len(pattern) {
			if i++; pattern[i] != '/' {
				b.WriteByte('\\')
			}
		}
		b.WriteByte(pattern[i])
	}
	return b.String()
}

// ExprIs is met where a field is any of values: ids as they are, words of
// level, provider, source, stream and env by name.
func ExprIs(field LogField, values ...string) (*LogExpr, error) {
	e := &LogExpr{kind: exprIs, field: field, uses: 1 << field}
	if len(values) == 0 {
		return nil, fmt.Errorf("%s needs a value", field)
	}
	for _, v := range values {
		if err := e.addValue(v); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *LogExpr) addValue(v string) (err error) {
	switch e.field {
	case FieldLevel:
		err = addWord(e, levels, v)
	case FieldSource:
		err = addWord(e, logSources, v)
	case FieldProvider:
		err = addWord(e, providers, v)
	case FieldStream:
		err = addWord(e, streams, v)
	case FieldEnv:
		err = addWord(e, environments, v)
	case FieldUser:
		err = e.addID(v, CheckUser)
	case FieldAgent, FieldSession, FieldNode, FieldSandbox, FieldTrace, FieldSpan:
		err = e.addID(v, CheckID)
	case FieldMetadata, FieldMessage:
		err = fmt.Errorf("%s cannot be compared as a whole", e.field)
	default:
		err = fmt.Errorf("no field has the number %d", uint8(e.field))
	}
	return err
}

func addWord[T ~uint8](e *LogExpr, w words[T], name string) error {
	if name == "" {
		return fmt.Errorf("%s needs a value", w.kind)
	}
	v, err := w.parse(name)
	if err != nil {
		return fmt.Errorf("unknown %s %.40q: use one of %s", w.kind, name, w.list())
	}
	e.set |= 1 << v
	return nil
}

func (e *LogExpr) addID(id string, check func(string) error) error {
	if err := check(id); err != nil {
		return fmt.Errorf("%s %.40q %w", e.field, id, err)
	}
	if !slices.Contains(e.values, id) {
		e.values = append(e.values, id)
	}
	return nil
}

// ExprMinLevel is met by entries of at least a level.
func ExprMinLevel(lowest Level) *LogExpr {
	return &LogExpr{kind: exprIs, field: FieldLevel, set: everyWord(FieldLevel) &^ (1<<lowest - 1), uses: 1 << FieldLevel}
}

// ExprMeta is met where the metadata has any of values at path: keys joined
// by dots, where a key may hold dots itself. A list there matches by any of
// its members, a text or number by what it says. Comparisons other than Equal
// take one value, a number.
func ExprMeta(path string, compare Comparison, values ...string) (*LogExpr, error) {
	e := &LogExpr{kind: exprMeta, text: path, compare: compare, uses: 1 << FieldMetadata}
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("meta.%s needs a value", path)
	}
	e.values = union(nil, values)
	if compare == Equal {
		return e, nil
	}
	n, err := strconv.ParseFloat(values[0], 64)
	if err != nil || len(values) != 1 || math.IsInf(n, 0) || math.IsNaN(n) || strings.ContainsAny(values[0], "xX_") {
		return nil, fmt.Errorf("%s compares numbers: %.40q is none", compare, strings.Join(values, " "))
	}
	e.number = n
	return e, nil
}

func checkPath(path string) error {
	if path == "" || len(path) > MaxMetaPath {
		return fmt.Errorf("a path into the metadata has 1 to %d characters", MaxMetaPath)
	}
	for i := range len(path) {
		if !isPathByte(path[i]) {
			return fmt.Errorf("a path into the metadata holds only A-Z a-z 0-9 _ . - / @ $: %.40q does not", path)
		}
	}
	return nil
}

func isPathByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-/@$", c) >= 0
}

// ExprHas is met where an entry has a trace, span, session, user or metadata.
func ExprHas(field LogField) (*LogExpr, error) {
	switch field {
	case FieldTrace, FieldSpan, FieldSession, FieldUser, FieldMetadata:
		return &LogExpr{kind: exprHas, field: field, uses: 1 << field}, nil
	default:
		return nil, fmt.Errorf("has: takes trace, span, session, user, metadata or meta.<path>, not %s", field)
	}
}

// ExprHasMeta is met where the metadata has something but null at a path.
func ExprHasMeta(path string) (*LogExpr, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	return &LogExpr{kind: exprHas, field: FieldMetadata, text: path, uses: 1 << FieldMetadata}, nil
}

// Uses returns the fields that the condition reads.
func (e *LogExpr) Uses() LogFields {
	if e == nil {
		return 0
	}
	return e.uses
}

// Needles returns texts that the message of every match contains, as
// ContainsFold says. It finds those that are plain to see, never a wrong one.
func (e *LogExpr) Needles() []string {
	if e == nil {
		return nil
	}
	switch e.kind {
	case exprText:
		return []string{e.text}
	case exprRegexp:
		return slices.Clone(e.parts)
	case exprAll:
		var all []string
		for _, x := range e.args {
			all = union(all, x.Needles())
		}
		return all
	case exprAny, exprNot, exprIs, exprMeta, exprHas:
	}
	return nil
}

// setWords lists the members of a set of words.
func setWords(set uint16) []uint8 {
	var all []uint8
	for ; set != 0; set &= set - 1 {
		all = append(all, uint8(bits.TrailingZeros16(set))) //nolint:gosec // below 16
	}
	return all
}
