package telemetry

import (
	"slices"
	"strings"
)

// Verdict is what is known of a condition when some fields are not.
type Verdict uint8

// The verdicts, in the order that "and" and "or" take the least and greatest of.
const (
	No Verdict = iota
	Maybe
	Yes
)

// Match reports whether an entry meets the condition. nil is met by all.
func (e *LogExpr) Match(entry *LogEntry) bool { return e.Eval(entry, AllFields) == Yes }

// Eval says what follows from the known fields of an entry alone, so that a
// reader can ask before it decodes the others.
func (e *LogExpr) Eval(entry *LogEntry, known LogFields) Verdict {
	if e == nil {
		return Yes
	}
	in := subject{entry: entry, known: known}
	return in.eval(e)
}

// subject is an entry under examination.
type subject struct {
	entry  *LogEntry
	known  LogFields
	folded string // the message; made when it is first asked for
	isFold bool
}

func (s *subject) eval(e *LogExpr) Verdict {
	switch e.kind {
	case exprAll:
		v := Yes
		for _, x := range e.args {
			if v = min(v, s.eval(x)); v == No {
				return No
			}
		}
		return v
	case exprAny:
		v := No
		for _, x := range e.args {
			if v = max(v, s.eval(x)); v == Yes {
				return Yes
			}
		}
		return v
	case exprNot:
		return Yes - s.eval(e.args[0])
	case exprText, exprRegexp, exprIs, exprMeta, exprHas:
	}
	switch {
	case e.uses&^s.known != 0:
		return Maybe
	case s.leaf(e):
		return Yes
	}
	return No
}

func (s *subject) leaf(e *LogExpr) bool {
	switch e.kind {
	case exprText:
		if !s.isFold {
			s.folded, s.isFold = FoldText(s.entry.Message), true
		}
		return strings.Contains(s.folded, e.folded)
	case exprRegexp:
		return strings.Contains(s.entry.Message, e.exact) && e.re.MatchString(s.entry.Message)
	case exprIs:
		return e.isOne(s.entry)
	case exprMeta:
		return metaValue(s.entry.Metadata, e.text, e.metaIs)
	case exprHas:
		if e.text != "" {
			return metaValue(s.entry.Metadata, e.text, isPresent)
		}
		return e.has(s.entry)
	case exprAll, exprAny, exprNot:
	}
	return false
}

func (e *LogExpr) isOne(entry *LogEntry) bool {
	switch e.field {
	case FieldLevel:
		return e.set&(1<<entry.Level) != 0
	case FieldProvider:
		return e.set&(1<<entry.Provider) != 0
	case FieldSource:
		return e.set&(1<<entry.Source) != 0
	case FieldStream:
		return e.set&(1<<entry.Stream) != 0
	case FieldAgent:
		return slices.Contains(e.values, string(entry.Agent))
	case FieldSession:
		return slices.Contains(e.values, string(entry.Session))
	case FieldUser:
		return slices.Contains(e.values, string(entry.User))
	case FieldNode:
		return slices.Contains(e.values, string(entry.Node))
	case FieldSandbox:
		return slices.Contains(e.values, string(entry.Sandbox))
	case FieldTrace:
		return slices.Contains(e.values, string(entry.Trace))
	case FieldSpan:
		return slices.Contains(e.values, string(entry.Span))
	case FieldEnv, FieldMetadata, FieldMessage, numFields:
	}
	return false
}

func (e *LogExpr) has(entry *LogEntry) bool {
	switch e.field {
	case FieldTrace:
		return entry.Trace != ""
	case FieldSpan:
		return entry.Span != ""
	case FieldSession:
		return entry.Session != ""
	case FieldUser:
		return entry.User != ""
	case FieldMetadata:
		return len(entry.Metadata) > 0
	default:
		return false
	}
}

// Add adds a condition to the filter: what its lists can say goes there,
// because readers have indexes for lists, and the rest is kept as it is.
func (f *LogFilter) Add(e *LogExpr) {
	if e == nil {
		return
	}
	all := []*LogExpr{e}
	if e.kind == exprAll {
		all = e.args
	}
	search := longestText(all)
	rest := []*LogExpr{f.Where}
	for _, x := range all {
		switch {
		case x == search && f.Search == "":
			f.Search = x.text
		case x.kind != exprIs || !f.lower(x):
			rest = append(rest, x)
		}
	}
	f.Where = ExprAll(rest...)
}

func longestText(all []*LogExpr) (longest *LogExpr) {
	for _, x := range all {
		if x.kind == exprText && (longest == nil || len(x.text) > len(longest.text)) {
			longest = x
		}
	}
	return longest
}

// lower narrows the list of a field. It reports false where nothing would be
// left of it, which a list cannot say.
func (f *LogFilter) lower(e *LogExpr) bool {
	switch e.field {
	case FieldLevel:
		return narrow(&f.Levels, setOf[Level](e))
	case FieldProvider:
		return narrow(&f.Provider, setOf[Provider](e))
	case FieldSource:
		return narrow(&f.Sources, setOf[LogSource](e))
	case FieldStream:
		return narrow(&f.Streams, setOf[Stream](e))
	case FieldEnv:
		return narrow(&f.Envs, setOf[Environment](e))
	case FieldAgent:
		return narrow(&f.Agents, idsOf[AgentID](e))
	case FieldSession:
		return narrow(&f.Sessions, idsOf[SessionID](e))
	case FieldUser:
		return narrow(&f.Users, idsOf[UserID](e))
	case FieldNode:
		return narrow(&f.Nodes, idsOf[NodeID](e))
	case FieldSandbox:
		return narrow(&f.Sandbox, idsOf[SandboxID](e))
	case FieldTrace:
		return narrow(&f.Traces, idsOf[TraceID](e))
	case FieldSpan:
		return narrow(&f.Spans, idsOf[SpanID](e))
	case FieldMetadata, FieldMessage, numFields:
	}
	return false
}

func setOf[T ~uint8](e *LogExpr) []T {
	var all []T
	for _, v := range setWords(e.set) {
		all = append(all, T(v))
	}
	return all
}

func idsOf[T ~string](e *LogExpr) []T {
	all := make([]T, len(e.values))
	for i, v := range e.values {
		all[i] = T(v)
	}
	return all
}

func narrow[T comparable](list *[]T, to []T) bool {
	if len(*list) == 0 {
		*list = to
		return true
	}
	var both []T
	for _, v := range *list {
		if slices.Contains(to, v) {
			both = append(both, v)
		}
	}
	if len(both) == 0 {
		return false
	}
	*list = both
	return true
}
