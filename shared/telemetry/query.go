package telemetry

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// LogFilter chooses log entries. A zero field chooses all; a list chooses any
// of its members; fields are combined by "and".
type LogFilter struct {
	Sessions []SessionID `json:"sessionId,omitempty"`
	Agents   []AgentID   `json:"agentId,omitempty"`
	Users    []UserID    `json:"userId,omitempty"`
	Levels   []Level     `json:"level,omitempty"` // exact (contract.md); the API turns minLevel into a list
	Sources  []LogSource `json:"source,omitempty"`
	Provider []Provider  `json:"provider,omitempty"`
	Nodes    []NodeID    `json:"nodeId,omitempty"`
	Sandbox  []SandboxID `json:"sandboxId,omitempty"`
	Streams  []Stream    `json:"stream,omitempty"`
	Traces   []TraceID   `json:"traceId,omitempty"`
	Spans    []SpanID    `json:"spanId,omitempty"`
	Search   string      `json:"search,omitempty"` // part of the message, case ignored

	// Envs is what a query says of environments ("env:live"). A scope holds one
	// environment, so the door that reads the query compares the two; entries
	// carry none, and Match does not look at it.
	Envs []Environment `json:"env,omitempty"`
	// Where is what the fields above cannot say.
	Where *LogExpr `json:"q,omitempty"`
}

// MatchOrigin reports whether lines of this origin can match. It looks at
// everything that is the same for all lines of one origin on one node, so a
// reader asks it once per origin and not once per line. Where it says yes,
// Where may still say no to a line.
func (f *LogFilter) MatchOrigin(o *Origin, node NodeID) bool {
	return anyOf(f.Sessions, o.Session) && anyOf(f.Agents, o.Agent) && anyOf(f.Users, o.User) &&
		anyOf(f.Sources, o.Source) && anyOf(f.Provider, o.Provider) && anyOf(f.Sandbox, o.Sandbox) &&
		anyOf(f.Streams, o.Stream) && anyOf(f.Nodes, node) &&
		(f.Where.Uses()&OriginFields == 0 || f.Where.Eval(&LogEntry{Origin: *o, Node: node}, OriginFields) != No)
}

// FiltersOrigins reports whether MatchOrigin can ever say no.
func (f *LogFilter) FiltersOrigins() bool {
	return len(f.Sessions)+len(f.Agents)+len(f.Users)+len(f.Sources)+len(f.Provider)+len(f.Sandbox)+len(f.Streams)+len(f.Nodes) > 0 ||
		f.Where.Uses()&OriginFields != 0
}

// MatchLevel reports whether the level is among those asked for.
func (f *LogFilter) MatchLevel(l Level) bool { return anyOf(f.Levels, l) }

// Match reports whether the entry matches: the plain definition that every
// faster reader is tested against.
func (f *LogFilter) Match(e *LogEntry) bool {
	return f.MatchOrigin(&e.Origin, e.Node) && f.MatchLevel(e.Level) &&
		anyOf(f.Traces, e.Trace) && anyOf(f.Spans, e.Span) && ContainsFold(e.Message, f.Search) && f.Where.Match(e)
}

// Needles returns texts that the message of every match contains, as
// ContainsFold says: what an index of texts can be asked for.
func (f *LogFilter) Needles() []string {
	if f.Search == "" {
		return f.Where.Needles()
	}
	return union([]string{f.Search}, f.Where.Needles())
}

// MatchGap reports whether a gap belongs in an answer to this filter: a gap of
// another sandbox does not, one of a whole node or organisation always does,
// and nobody knows the text or level of what is missing. One that names an agent
// but no session is of a sandbox that has none.
func (f *LogFilter) MatchGap(g *Gap) bool {
	return (g.Agent == "" || anyOf(f.Agents, g.Agent)) && (g.Session == "" && g.Agent == "" || anyOf(f.Sessions, g.Session)) &&
		(g.Sandbox == "" || anyOf(f.Sandbox, g.Sandbox)) && (g.Node == "" || anyOf(f.Nodes, g.Node)) && f.Where.matchGap(g)
}

// matchGap reports whether a line that the gap is of could meet the condition.
func (e *LogExpr) matchGap(g *Gap) bool {
	var known LogFields
	if g.Agent != "" {
		known |= 1<<FieldAgent | 1<<FieldSession
	}
	if g.Session != "" {
		known |= 1 << FieldSession
	}
	if g.Sandbox != "" {
		known |= 1 << FieldSandbox
	}
	if g.Node != "" {
		known |= 1 << FieldNode
	}
	of := Origin{Agent: g.Agent, Session: g.Session, Sandbox: g.Sandbox}
	return e.Eval(&LogEntry{Origin: of, Node: g.Node}, known) != No
}

func anyOf[T comparable](list []T, v T) bool { return len(list) == 0 || slices.Contains(list, v) }

// ContainsFold reports whether s contains part, both folded by FoldText. It is
// the plain definition of text search; an empty part is in every text.
func ContainsFold(s, part string) bool {
	return part == "" || strings.Contains(FoldText(s), FoldText(part))
}

// FoldText folds case for text search: ASCII letters by table, others by
// Unicode lower case, invalid UTF-8 kept as it is.
func FoldText(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return strings.ToLower(strings.ToUpper(s))
		}
	}
	return strings.ToLower(s)
}

// Order of a page.
type Order uint8

// The orders.
const (
	NewestFirst Order = iota
	OldestFirst
)

var orders = words[Order]{kind: "order", names: []string{"desc", "asc"}}

func (o Order) String() string                { return orders.name(o) }
func (o Order) MarshalText() ([]byte, error)  { return orders.marshal(o) }
func (o *Order) UnmarshalText(b []byte) error { return orders.unmarshal(b, o) }

// ParseOrder reads "desc" or "asc".
func ParseOrder(s string) (Order, error) { return orders.parse(s) }

// Limits of a page of logs.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
	MaxOffset    = 10_000
	MaxSearch    = 512 // bytes
)

// LogKey is the place of an entry in the order of a page: unique in its
// scope, later timestamps later, lines of one stream in source order.
type LogKey struct {
	Timestamp time.Time
	Position  int64
}

// Compare orders keys, oldest first.
func (k LogKey) Compare(o LogKey) int {
	if c := k.Timestamp.Compare(o.Timestamp); c != 0 {
		return c
	}
	switch {
	case k.Position < o.Position:
		return -1
	case k.Position > o.Position:
		return 1
	}
	return 0
}

// LogQuery asks for one page of logs.
type LogQuery struct {
	LogFilter
	Since  time.Time // inclusive; zero: no bound
	Until  time.Time // exclusive; zero: no bound
	Order  Order
	Limit  int     // 1…MaxLimit
	Offset int     // 0…MaxOffset
	After  *LogKey // the last key of the page before, or nil
	Count  Count
}

// LogPage answers a LogQuery.
type LogPage struct {
	Entries []LogEntry
	Gaps    []Gap // gaps observed within the query's time bounds, in stream order, at most MaxLimit
	Total   int64 // number of entries that match, whatever limit, offset and After say; 0 with CountNone
	// CountAfter is where the count goes on that ran out of its budget; nil: Total
	// is exact (or was not asked for).
	CountAfter *CountKey
	More       bool  // further pages follow
	Stream     int64 // the organisation's stream counter at this snapshot: a stream resumed after it misses nothing
}

// Count says how much a query may spend on its total.
type Count uint8

// The ways to count.
const (
	CountExact Count = iota // count every match, within a budget of CPU time where text is searched
	CountNone               // the page alone
)

// CountKey is where a count that ran out of its budget goes on: everything
// that sorts before it was counted.
type CountKey struct {
	So    int64 // matches counted so far
	Time  time.Time
	ID    int64 // of the row that comes next among those of that time
	Until int64 // position: later records are not of this count
}

// LogCount is a total, or as much of it as the budget allowed.
type LogCount struct {
	Total int64
	After *CountKey // where to go on; nil: Total is exact
}

// LogContext is an entry among its neighbours: lines of the same agent and
// sandbox, whatever their stream or level, in the order of a page that starts
// with the oldest.
type LogContext struct {
	Entry      LogEntry
	Before     []LogEntry
	After      []LogEntry
	MoreBefore bool
	MoreAfter  bool
	Gaps       []Gap // about the same agent, observed between the first and the last entry
}

// MaxBuckets bounds a histogram.
const MaxBuckets = 2000

// LogHistogramQuery asks how many lines match in each step of a range. Since
// and Until are required; buckets begin at whole multiples of Step since 1970.
type LogHistogramQuery struct {
	LogFilter
	Since, Until time.Time
	Step         time.Duration
}

// LogHistogram answers a LogHistogramQuery: every bucket, also an empty one.
type LogHistogram struct {
	Step    time.Duration
	Buckets []LogBucket
	Total   int64
}

// LogBucket counts the lines of [Start, Start+Step) that lie within the query's range, by level.
type LogBucket struct {
	Start  time.Time
	Levels [NumLevels]int64
}

// LogFacetsQuery asks for the most frequent values of fields among the lines that match.
type LogFacetsQuery struct {
	LogFilter
	Since, Until time.Time
	Fields       []string // of FacetFields; none: all
	Limit        int      // values per field, 1…MaxFacet
}

// MaxFacet bounds the values of one facet.
const MaxFacet = 100

// FacetFields are the fields that facets are made of, by their names in the API.
var FacetFields = []string{"level", "sessionId", "agentId", "userId", "nodeId", "provider", "sandboxId", "source", "stream"}

// LogFacets answers a LogFacetsQuery.
type LogFacets struct {
	Fields  []LogFacet
	Total   int64
	IsExact bool // false: the budget ended, and the counts are of the newest lines only
}

// LogFacet is one field's most frequent values, the most frequent first.
type LogFacet struct {
	Field  string
	Values []FacetValue
	Others int64 // lines with other values
}

// FacetValue is a value and how many lines have it.
type FacetValue struct {
	Value string `json:"value"`
	Count int64  `json:"count"`
}
