package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// row is what a scan knows of a row of log_hot or log_chunk without its columns.
type row struct {
	chunk    bool
	id, last int64 // the lowest and the highest position of its lines
	n        int
	levels   [telemetry.NumLevels]int
	raw      int64
	t0, t1   time.Time
	recv     time.Time // of a hot row: its partition
	class    int16     // of a chunk: its partition
	day      time.Time
	whole    bool   // the filter's agents and sessions are those of all its lines
	bloom    int    // size
	absent   bool   // the bloom says that no line matches
	counts   []byte // of a chunk, where the scan asks for them
}

// rowKey names a row within a snapshot.
type rowKey struct {
	chunk bool
	id    int64
}

func (r *row) key() rowKey { return rowKey{r.chunk, r.id} }

// atEdge reports whether a timestamp was moved to the edge of the calendar, so
// that t0 and t1 do not bound the lines.
func (r *row) atEdge() bool { return !r.t0.After(minTime) || !r.t1.Before(maxTime) }

// covers reports whether all lines of the row lie in the scan's range, and
// none is erased: whether its counters are of lines that may be shown.
func (sc *scan) covers(r *row) bool {
	if sc.excluded.mayHold(r.last, r.t0) {
		return false
	}
	if sc.in.Since.IsZero() && sc.in.Until.IsZero() {
		return true
	}
	return !r.atEdge() && sc.in.Covers(&segment.Stats{Min: r.t0, Max: r.t1})
}

// matching is how many of the row's lines have a level asked for.
func (sc *scan) matching(levels *[telemetry.NumLevels]int) (n int64) {
	for l, count := range levels {
		if sc.filter.MatchLevel(telemetry.Level(l)) {
			n += int64(count)
		}
	}
	return n
}

// query is a statement that is put together from what a scan knows.
type query struct {
	text strings.Builder
	args []any
}

// arg adds a parameter and returns its name.
func (q *query) arg(v any) string {
	q.args = append(q.args, v)
	return "$" + strconv.Itoa(len(q.args))
}

func (q *query) add(parts ...string) {
	for _, p := range parts {
		q.text.WriteString(p)
	}
}

// rowOrder is in which order candidates come.
type rowOrder uint8

const (
	byNewest   rowOrder = iota // t1 falling
	byOldest                   // t1 rising
	byPosition                 // position falling; hot rows are all above chunks
)

// rowSet parts rows by whether their counters answer for them.
type rowSet uint8

const (
	allRows     rowSet = iota
	countedRows        // their counters are of lines that all match, but for levels
	otherRows
)

// choice says which rows are candidates.
type choice struct {
	span   segment.Range // rows that may have lines in it
	order  rowOrder
	after  *row  // the last one that came
	below  int64 // rows with a position below it; 0: all
	limit  int
	counts bool // with the counts of chunks
	of     rowSet
	lowest int64 // rows with a position from it on
}

// candidates returns the next rows that may hold lines of the query.
func (sc *scan) candidates(ctx context.Context, c *choice) ([]*row, error) {
	if sc.none {
		return nil, nil
	}
	hot, chunks := sc.parts(c)
	if !hot && !chunks {
		return nil, nil
	}
	order := c.orderSQL(chunks)
	var q query
	q.add("select chunk, id, last, n, l0, l1, l2, l3, raw, t0, t1, recv_at, class, day, whole, counts, ")
	if len(sc.tokens) > 0 { // of those that come alone, not of all that are sorted
		q.add("coalesce(octet_length(bloom), 0), ", bloomSlice(&q, sc.tokens[0]))
	} else {
		q.add("0, bloom")
	}
	q.add(" from (select * from (")
	sc.addRows(&q, c)
	q.add(") r", order, " limit ", strconv.Itoa(c.limit), ") r", order)
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	rows, err := sc.conn.Query(call, q.text.String(), q.args...)
	if err != nil {
		return nil, fmt.Errorf("list rows: %w", err)
	}
	list, err := sc.collect(rows, c.limit)
	if err != nil {
		return nil, fmt.Errorf("list rows: %w", err)
	}
	if len(list) == 0 && c.order == byPosition && hot && sc.compacted > 0 {
		next := *c
		next.after = &row{chunk: true, last: sc.compacted}
		return sc.candidates(ctx, &next)
	}
	return list, nil
}

// orderSQL is the order of rows, of which chunks are some.
func (c *choice) orderSQL(chunks bool) string {
	switch {
	case c.order == byNewest:
		return " order by t1 desc, id desc"
	case c.order == byOldest:
		return " order by t1, id"
	case chunks:
		return " order by last desc"
	}
	return " order by id desc"
}

// parts says which tables the next candidates can be in.
func (sc *scan) parts(c *choice) (hot, chunks bool) {
	hot, chunks = sc.compacted <= sc.head, sc.compacted > 0
	if c.order == byPosition {
		hot = hot && (c.after == nil || !c.after.chunk) && (c.below == 0 || c.below > sc.compacted)
		chunks = chunks && !hot
	}
	return hot, chunks
}

// addRows selects the rows of a choice, in no order.
func (sc *scan) addRows(q *query, c *choice) {
	org, env := q.arg(string(sc.scope.Org)), q.arg(int16(sc.scope.Env))
	hot, chunks := sc.parts(c)
	if hot {
		sc.addHot(q, c, org, env)
	}
	if hot && chunks {
		q.add(" union all ")
	}
	if chunks {
		sc.addChunks(q, c, org, env)
	}
}

func (sc *scan) addHot(q *query, c *choice, org, env string) {
	whole := sc.wholeHot(q)
	q.add("select false as chunk, pos as id, pos + n - 1 as last, n, l0, l1, l2, l3, raw, t0, t1, recv_at, 0::smallint as class, null::date as day, ", whole,
		" as whole, null::bytea as bloom, null::bytea as counts from log_hot where org = ", org, " and env = ", env,
		" and pos >= ", q.arg(sc.compacted))
	if !c.span.Since.IsZero() {
		q.add(" and recv_at >= ", q.arg(clampTime(time.UnixMicro(clampTime(c.span.Since).UnixMicro()-sc.ahead))))
	}
	if c.below > 0 {
		q.add(" and pos < ", q.arg(c.below))
	}
	if len(sc.filter.Agents) > 0 {
		q.add(" and (agents is null or agents && ", q.arg(texts(sc.filter.Agents)), ")")
	}
	if len(sc.filter.Sessions) > 0 {
		q.add(" and (sessions is null or sessions && ", q.arg(texts(sc.filter.Sessions)), ")")
	}
	sc.addBounds(q, c, "pos", whole)
}

// addChunks looks for chunks of the class that nearly all are of, and for
// others: only where the class is one can the database tell partitions by day.
func (sc *scan) addChunks(q *query, c *choice, org, env string) {
	// Each of them in order and no more than are asked for, so that an index
	// yields them and not all chunks are sorted.
	end := ")"
	if c.limit > 0 {
		end = c.orderSQL(true) + " limit " + strconv.Itoa(c.limit) + ")"
	}
	q.add("(")
	sc.addChunksOf(q, c, org, env, " and class = 0")
	q.add(end, " union all (")
	sc.addChunksOf(q, c, org, env, " and class > 0")
	q.add(end)
}

func (sc *scan) addChunksOf(q *query, c *choice, org, env, class string) {
	whole := sc.wholeChunk(q)
	q.add("select true as chunk, id, last, n, l0, l1, l2, l3, raw, t0, t1, recv1 as recv_at, class, day, ", whole, " as whole, ")
	if len(sc.tokens) > 0 {
		q.add("bloom, ")
	} else {
		q.add("null::bytea as bloom, ")
	}
	if c.counts {
		q.add("counts")
	} else {
		q.add("null::bytea as counts")
	}
	q.add(" from log_chunk where org = ", org, " and env = ", env, class)
	first, last := sc.days(&c.span)
	if !first.IsZero() {
		q.add(" and day >= ", q.arg(first))
	}
	if !last.IsZero() {
		q.add(" and day <= ", q.arg(last))
	}
	if c.below > 0 {
		q.add(" and id < ", q.arg(c.below))
	}
	if c.lowest > 0 {
		q.add(" and last >= ", q.arg(c.lowest))
	}
	if ids := texts(sc.filter.Sessions); len(ids) > 0 {
		q.add(" and session_lo <= ", q.arg(slices.Max(ids)), " and session_hi >= ", q.arg(slices.Min(ids)),
			" and (sessions && ", q.arg(ids), " or sessions is null and ", ownersHold(q, sc.filter.Sessions, segment.SessionOwner), ")")
	}
	if ids := sc.filter.Agents; len(ids) > 0 {
		q.add(" and (agents && ", q.arg(texts(ids)), " or agents is null and ", ownersHold(q, ids, segment.AgentOwner), ")")
	}
	sc.addBounds(q, c, "id", whole)
}

// maxAskedOwners is how many owners a chunk is asked for: with more of them, the
// answer is that it may have some.
const maxAskedOwners = 16

// ownersHold asks for chunks that may have lines of some of the owners.
func ownersHold[T ~string](q *query, ids []T, owner func(T) segment.Owner) string {
	if len(ids) > maxAskedOwners {
		return "true"
	}
	var text strings.Builder
	text.WriteString("(owners is null")
	for _, id := range ids {
		for i, probe := range owner(id).Probes() {
			text.WriteString([]string{" or ", " and "}[min(i, 1)])
			text.WriteString("get_bit(owners, ((" + q.arg(probe) + "::bigint * (8 * octet_length(owners))) >> 32)::int) = 1")
		}
	}
	text.WriteString(")")
	return text.String()
}

// addBounds adds what both tables have in common.
func (sc *scan) addBounds(q *query, c *choice, id, whole string) {
	if !c.span.Since.IsZero() {
		q.add(" and t1 >= ", q.arg(clampTime(c.span.Since)))
	}
	if !c.span.Until.IsZero() {
		q.add(" and t0 <= ", q.arg(clampTime(c.span.Until)))
	}
	switch {
	case c.after == nil:
	case c.order == byNewest:
		at := q.arg(c.after.t1)
		q.add(" and t1 <= ", at, " and (t1 < ", at, " or ", id, " < ", q.arg(c.after.id), ")")
	case c.order == byOldest:
		at := q.arg(c.after.t1)
		q.add(" and t1 >= ", at, " and (t1 > ", at, " or ", id, " > ", q.arg(c.after.id), ")")
	case c.after.chunk:
		q.add(" and last < ", q.arg(c.after.last))
	default:
		q.add(" and pos < ", q.arg(c.after.id))
	}
	switch c.of {
	case allRows:
	case countedRows:
		q.add(" and ", whole, " and ", sc.coveredSQL(q, id))
	case otherRows:
		q.add(" and not (", whole, " and ", sc.coveredSQL(q, id), ")")
	}
}

// coveredSQL is covers, as the database can tell.
func (sc *scan) coveredSQL(q *query, id string) string {
	text := "true"
	if !sc.excluded.empty() {
		last := "last"
		if id == "pos" {
			last = "pos + n - 1"
		}
		open, done, from := sc.excluded.bounds()
		text = "t0 > " + q.arg(open) + " and (t0 > " + q.arg(done) + " or " + last + " < " + q.arg(from) + ")"
	}
	if sc.in.Since.IsZero() && sc.in.Until.IsZero() {
		return text
	}
	text += " and t0 > " + q.arg(minTime) + " and t1 < " + q.arg(maxTime)
	if !sc.in.Since.IsZero() {
		text += " and t0 >= " + q.arg(clampTime(sc.in.Since))
	}
	if !sc.in.Until.IsZero() {
		text += " and t1 < " + q.arg(clampTime(sc.in.Until))
	}
	return text
}

// wholeHot is row.whole of a hot row, whose list leaves lines without a session out.
func (sc *scan) wholeHot(q *query) string {
	if len(sc.filter.Sessions) > 0 {
		return "false"
	}
	return sc.wholeAgents(q)
}

func (sc *scan) wholeChunk(q *query) string {
	text := sc.wholeAgents(q)
	if ids := texts(sc.filter.Sessions); len(ids) > 0 {
		text += " and coalesce(session_lo <> '' and sessions <@ " + q.arg(ids) + ", false)"
	}
	return text
}

func (sc *scan) wholeAgents(q *query) string {
	bare := telemetry.LogFilter{Agents: sc.filter.Agents, Sessions: sc.filter.Sessions, Levels: sc.filter.Levels}
	rest := *sc.filter
	rest.Agents, rest.Sessions = nil, nil
	switch {
	case rest.FiltersOrigins() || sc.readsText() || sc.uses != 0:
		return "false"
	case len(bare.Agents) > 0:
		return "coalesce(agents <@ " + q.arg(texts(bare.Agents)) + ", false)"
	}
	return "true"
}

// Lines with timestamps after arrival + 10 minutes are in the day of that, and
// lines from before arrival - 30 days in the day of their arrival.
const (
	oldestAtArrival = 30 * 24 * time.Hour
	newestAtArrival = 10 * time.Minute
	clocksDiffer    = 24 * time.Hour // between aggregators
)

// days bounds the partitions of chunks that can have lines of a span. A zero
// bound is none.
func (sc *scan) days(span *segment.Range) (first, last time.Time) {
	if !span.Since.IsZero() {
		// A line that was ahead of its arrival lies before its own day.
		ahead := max(0, sc.ahead-newestAtArrival.Microseconds())
		first = clampTime(time.UnixMicro(clampTime(span.Since).UnixMicro() - ahead)).Truncate(24 * time.Hour)
	}
	// A line that was older than 30 days lies in the day of its arrival, which may be
	// any: the end of the range bounds days only where no such line can be in it.
	if !span.Until.IsZero() && span.Since.After(time.Now().Add(clocksDiffer-oldestAtArrival)) {
		last = clampTime(span.Until).Truncate(24 * time.Hour)
	}
	return first, last
}

// bloomSlice is the part of the bloom that answers for a token.
func bloomSlice(q *query, t segment.Token) string {
	return "substring(bloom from (1 + 64 * ((" + q.arg(t.Slot()) + "::bigint * (octet_length(bloom) / 64)) >> 32))::int for 64)"
}

// collect reads candidates and asks their blooms.
func (sc *scan) collect(rows pgx.Rows, limit int) ([]*row, error) {
	defer rows.Close()
	list := make([]*row, 0, min(limit, 64))
	for rows.Next() {
		r := &row{}
		var day *time.Time
		var slice []byte
		if err := rows.Scan(&r.chunk, &r.id, &r.last, &r.n, &r.levels[0], &r.levels[1], &r.levels[2], &r.levels[3], &r.raw, &r.t0, &r.t1, &r.recv,
			&r.class, &day, &r.whole, &r.counts, &r.bloom, &slice); err != nil {
			return nil, err
		}
		if day != nil {
			r.day = *day
		}
		r.absent = r.bloom%segment.BloomSlice == 1 && !sc.tokens[0].In(slice)
		list = append(list, r)
	}
	return list, rows.Err()
}
