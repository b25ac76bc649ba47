package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// QueryLogs answers one page of logs from one snapshot. The total is exact.
// A page whose text grows beyond maxPageBytes ends early and says More.
func (s *Store) QueryLogs(ctx context.Context, scope telemetry.Scope, q *telemetry.LogQuery) (telemetry.LogPage, error) {
	began := time.Now()
	defer func() { s.metrics.queries.Observe(time.Since(began).Seconds()) }()
	if err := checkQuery(q); err != nil {
		return telemetry.LogPage{}, err
	}
	leave, err := s.enterScan(ctx, scope.Org)
	if err != nil {
		return telemetry.LogPage{}, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	var page telemetry.LogPage
	err = s.inScope(ctx, "query logs of "+scope.String(), scope, func(ctx context.Context, conn *pgx.Conn) error {
		r := &logScan{store: s, conn: conn, scope: scope, query: q, in: segment.Range{Since: q.Since, Until: q.Until}, top: newTopLines(q), loadLines: q.Offset + q.Limit}
		return r.run(ctx, &page)
	})
	if err != nil {
		return telemetry.LogPage{}, err
	}
	return page, nil
}

// checkQuery refuses what the caller should have: the sizes bound our memory.
func checkQuery(q *telemetry.LogQuery) error {
	if q.Limit < 1 || q.Limit > telemetry.MaxLimit || q.Offset < 0 || q.Offset > telemetry.MaxOffset || len(q.Search) > telemetry.MaxSearch {
		return telemetry.Failf(telemetry.InvalidRequest, "The limit is 1 to %d, the offset 0 to %d, the search text up to %d bytes.",
			telemetry.MaxLimit, telemetry.MaxOffset, telemetry.MaxSearch)
	}
	return nil
}

// Sizes of a scan's steps.
const (
	metaBatch    = 512      // rows of metadata at a time
	maxLoadLines = 128_000  // lines whose small columns are asked for at a time
	maxLoadBytes = 16 << 20 // text asked for at a time
	maxPageBytes = 16 << 20 // text of one page
)

// rowMeta is what a scan knows of a row without its columns.
type rowMeta struct {
	pos    int64
	n      int
	recv   time.Time
	t0, t1 time.Time
	levels [telemetry.NumLevels]int
	raw    int64
}

// logScan is one QueryLogs on its way through the rows.
type logScan struct {
	store *Store
	conn  *pgx.Conn
	scope telemetry.Scope
	query *telemetry.LogQuery
	in    segment.Range
	top   *topLines
	total int64

	pending      []*rowMeta // rows whose columns are wanted
	pendingLines int
	pendingBytes int64
	loadLines    int   // how many pending lines are read together
	chosen       []int // scratch
}

func (r *logScan) run(ctx context.Context, page *telemetry.LogPage) error {
	head, ahead, err := readCounter(ctx, r.conn, r.scope)
	if err != nil {
		return fmt.Errorf("read the counter: %w", err)
	}
	if page.Gaps, err = r.gaps(ctx); err != nil {
		return fmt.Errorf("read gaps: %w", err)
	}
	bounds, none, err := r.narrow(ctx)
	if err != nil {
		return fmt.Errorf("read spans: %w", err)
	}
	if !none {
		if err := r.scan(ctx, bounds, ahead); err != nil {
			return err
		}
	}
	lines, more := r.top.page(r.query.Offset, r.query.Limit)
	entries, err := r.load(ctx, lines)
	if err != nil {
		return fmt.Errorf("load the page: %w", err)
	}
	page.Entries, page.More = entries, more || len(entries) < len(lines)
	page.Total, page.Stream = r.total, head
	return nil
}

// narrow intersects the query's time bounds with the spans of the agents and
// sessions that it names. none: they have no lines.
func (r *logScan) narrow(ctx context.Context) (in segment.Range, none bool, err error) {
	in = r.in
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for _, being := range []struct {
		sql string
		ids []string
	}{
		{"select min(first_line), max(last_line) from agent where org = $1 and env = $2 and id = any ($3)", texts(r.query.Agents)},
		{"select min(first_line), max(last_line) from session where org = $1 and env = $2 and id = any ($3)", texts(r.query.Sessions)},
	} {
		if len(being.ids) == 0 {
			continue
		}
		var first, last *time.Time
		if err := r.conn.QueryRow(ctx, being.sql, string(r.scope.Org), int16(r.scope.Env), being.ids).Scan(&first, &last); err != nil {
			return in, false, err
		}
		if first == nil || last == nil {
			return in, true, nil
		}
		if since := first.Add(-spanSlack); in.Since.Before(since) {
			in.Since = since
		}
		if until := last.Add(spanSlack + time.Microsecond); in.Until.IsZero() || in.Until.After(until) {
			in.Until = until
		}
	}
	return in, false, nil
}

const scanRows = `declare scan no scroll cursor for
select pos, n, recv_at, t0, t1, l0, l1, l2, l3, raw from log_hot
where org = $1 and env = $2 and recv_at >= $3 and t1 >= $4 and t0 <= $5
  and (cardinality($6::text[]) = 0 or agents is null or agents && $6) and (cardinality($7::text[]) = 0 or sessions is null or sessions && $7)
order by t1 `

// scan walks the metadata of all rows that can hold lines of the query.
func (r *logScan) scan(ctx context.Context, in segment.Range, ahead int64) error {
	since, until, arrived := minTime, maxTime, minTime
	if !in.Since.IsZero() {
		since = clampTime(in.Since)
		arrived = clampTime(time.UnixMicro(since.UnixMicro() - ahead))
	}
	if !in.Until.IsZero() {
		until = clampTime(in.Until)
	}
	order := "asc"
	if r.top.newest {
		order = "desc"
	}
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if _, err := r.conn.Exec(call, scanRows+order, string(r.scope.Org), int16(r.scope.Env), arrived, since, until,
		texts(r.query.Agents), texts(r.query.Sessions)); err != nil {
		return fmt.Errorf("open the scan: %w", err)
	}
	for {
		batch, err := r.fetch(ctx)
		if err != nil {
			return fmt.Errorf("scan rows: %w", err)
		}
		for _, m := range batch {
			if err := r.visit(ctx, m); err != nil {
				return err
			}
		}
		if err := r.flush(ctx); err != nil {
			return err
		}
		if len(batch) < metaBatch {
			return nil
		}
	}
}

func (r *logScan) fetch(ctx context.Context) ([]*rowMeta, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	rows, err := r.conn.Query(ctx, fmt.Sprintf("fetch %d from scan", metaBatch))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanMeta)
}

func scanMeta(row pgx.CollectableRow) (*rowMeta, error) {
	m := &rowMeta{}
	err := row.Scan(&m.pos, &m.n, &m.recv, &m.t0, &m.t1, &m.levels[0], &m.levels[1], &m.levels[2], &m.levels[3], &m.raw)
	return m, err
}

// countable reports whether a row's counters answer for it.
func (r *logScan) countable(m *rowMeta) bool {
	q := r.query
	if q.FiltersOrigins() || len(q.Traces)+len(q.Spans) > 0 || q.Search != "" {
		return false
	}
	// A bound at the edge of the calendar may have been moved there.
	return m.t0.After(minTime) && m.t1.Before(maxTime) && r.in.Covers(&segment.Stats{Min: m.t0, Max: m.t1}) ||
		r.in.Since.IsZero() && r.in.Until.IsZero()
}

// visit counts a row, or asks for its columns where that does not suffice or
// where its lines may be on the page.
func (r *logScan) visit(ctx context.Context, m *rowMeta) error {
	if r.matching(m) == 0 || r.counted(m) {
		return nil
	}
	r.pending = append(r.pending, m)
	r.pendingLines += m.n
	r.pendingBytes += m.raw
	if r.pendingLines >= r.loadLines || r.readsText() && r.pendingBytes >= maxLoadBytes {
		return r.flush(ctx)
	}
	return nil
}

// counted counts a row whose counters suffice and whose lines cannot be on the
// page.
func (r *logScan) counted(m *rowMeta) bool {
	if !r.countable(m) || r.wants(m) {
		return false
	}
	r.total += r.matching(m)
	return true
}

// matching is how many of the row's lines have a level asked for.
func (r *logScan) matching(m *rowMeta) (n int64) {
	for l, count := range m.levels {
		if r.query.MatchLevel(telemetry.Level(l)) {
			n += int64(count)
		}
	}
	return n
}

func (r *logScan) wants(m *rowMeta) bool {
	return !m.t0.After(minTime) || !m.t1.Before(maxTime) || r.top.wants(m.t0.UnixMicro(), m.t1.UnixMicro())
}

func (r *logScan) readsText() bool {
	return r.query.Search != "" || len(r.query.Traces)+len(r.query.Spans) > 0
}

const (
	smallColumns = "select pos, head, c_time, c_flags, c_origin, null::bytea, null::bytea, null::bytea from log_hot"
	textColumns  = "select pos, head, c_time, c_flags, c_origin, c_message, null::bytea, c_trace from log_hot"
	allColumns   = "select pos, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace from log_hot"
)

// flush reads the columns of the pending rows. The first reading is as small
// as the page, because it often fills it, and what follows is only counted;
// where it does not, each is twice as large as the one before.
func (r *logScan) flush(ctx context.Context) error {
	if len(r.pending) == 0 {
		return nil
	}
	// Rows before them may have pushed a row off the page while it waited.
	rows := slices.DeleteFunc(r.pending, r.counted)
	columns := smallColumns
	if r.readsText() {
		columns = textColumns
	}
	err := r.eachRow(ctx, columns, rows, r.match)
	r.store.metrics.rowsRead.Add(float64(len(rows)))
	r.pending, r.pendingLines, r.pendingBytes = r.pending[:0], 0, 0
	r.loadLines = min(2*r.loadLines, maxLoadLines)
	return err
}

// eachRow loads columns of rows, one row in memory at a time.
func (r *logScan) eachRow(ctx context.Context, columns string, metas []*rowMeta, do func(*rowMeta, []segment.Part) error) error {
	if len(metas) == 0 {
		return nil
	}
	byPos := make(map[int64]*rowMeta, len(metas))
	positions := make([]int64, len(metas))
	first, last := metas[0].recv, metas[0].recv
	for i, m := range metas {
		byPos[m.pos], positions[i] = m, m.pos
		if m.recv.Before(first) {
			first = m.recv
		}
		if m.recv.After(last) {
			last = m.recv
		}
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	rows, err := r.conn.Query(ctx, columns+" where org = $1 and env = $2 and pos = any ($3) and recv_at >= $4 and recv_at <= $5",
		string(r.scope.Org), int16(r.scope.Env), positions, first, last)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var pos int64
		var head []byte
		var c [segment.NumColumns][]byte
		if err := rows.Scan(&pos, &head, &c[0], &c[1], &c[2], &c[3], &c[4], &c[5]); err != nil {
			return err
		}
		parts, err := segment.Split(head, &c)
		if err != nil {
			return fmt.Errorf("row at position %d: %w", pos, err)
		}
		if err := do(byPos[pos], parts); err != nil {
			return fmt.Errorf("row at position %d: %w", pos, err)
		}
	}
	return rows.Err()
}

// match counts the matching lines of a row and offers them to the page.
func (r *logScan) match(m *rowMeta, parts []segment.Part) error {
	pos := m.pos
	for i := range parts {
		lines := parts[i].Read()
		chosen, err := lines.Select(r.chosen[:0], &r.query.LogFilter, parts[i].Node, r.in)
		if err != nil {
			return err
		}
		r.chosen = chosen
		r.total += int64(len(chosen))
		if len(chosen) > 0 && r.top.wants(parts[i].Min.UnixMicro(), parts[i].Max.UnixMicro()) {
			if err := lines.Decode(segment.Time); err != nil {
				return err
			}
			for _, line := range chosen {
				r.top.offer(lineRef{micros: lines.Micros(line), pos: pos + int64(line), row: m})
			}
		}
		pos += int64(parts[i].Lines)
	}
	return nil
}

// gaps reads the gaps observed in the query's time bounds, the newest if there
// are too many, in stream order.
func (r *logScan) gaps(ctx context.Context) ([]telemetry.Gap, error) {
	since, until := minTime, maxTime
	if !r.in.Since.IsZero() {
		since = clampTime(r.in.Since.Add(time.Microsecond - 1))
	}
	if !r.in.Until.IsZero() {
		until = clampTime(r.in.Until.Add(time.Microsecond - 1))
	}
	f := &r.query.LogFilter
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	rows, err := r.conn.Query(ctx, selectGaps+` where org = $1 and env = $2 and recv_at >= $3 and recv_at < $4
  and (agent = '' or cardinality($5::text[]) = 0 or agent = any ($5)) and (session = '' or cardinality($6::text[]) = 0 or session = any ($6))
  and (sandbox = '' or cardinality($7::text[]) = 0 or sandbox = any ($7)) and (node = '' or cardinality($8::text[]) = 0 or node = any ($8))
order by pos desc limit $9`,
		string(r.scope.Org), int16(r.scope.Env), since, until, texts(f.Agents), texts(f.Sessions), texts(f.Sandbox), texts(f.Nodes), telemetry.MaxLimit)
	if err != nil {
		return nil, err
	}
	gaps, err := pgx.CollectRows(rows, scanGap)
	slices.Reverse(gaps)
	return gaps, err
}

// texts converts ids for a parameter; never nil, which would be null.
func texts[T ~string](ids []T) []string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = string(id)
	}
	return list
}
