package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/telemetry"
)

// rowTable is a table whose rows are records of one agent each.
type rowTable struct {
	name, at string // at: the record's own time
	user     bool   // rows know a user
	counter  string // of table erasure
}

// subject is the column that is the subject of a kind of erasure; "": none.
func (t *rowTable) subject(kind telemetry.ErasureKind) string {
	switch kind {
	case telemetry.EraseSession:
		return "session"
	case telemetry.EraseAgent:
		return "agent"
	case telemetry.EraseUser:
	}
	if t.user {
		return `"user"`
	}
	return ""
}

var rowTables = []rowTable{
	{"event", "at", true, "events"},
	{"span", "start_at", true, "spans"},
	{"model_call", "at", true, "model_calls"},
	{"metric_point", "at", true, "metric_points"},
	{"gap", "recv_at", false, "gaps"},
}

// deleteOpen deletes the rows of open erasures of one kind that arrived in a
// range of time. Rows and counts change together.
func (t *rowTable) deleteOpen(kind telemetry.ErasureKind) string {
	return fmt.Sprintf(`with gone as (
  delete from %[1]s t using erasure e
  where t.org = $1 and t.env = $2 and t.recv_at >= $3 and t.recv_at < $4 and e.org = $1 and e.env = $2 and e.status < 2 and e.kind = $5
    and e.subject = t.%[3]s and t.%[2]s <= e.until
  returning e.number
), counted as (select number, count(*) as n from gone group by number)
update erasure e set %[4]s = e.%[4]s + c.n from counted c where e.org = $1 and e.env = $2 and e.number = c.number returning c.n`, t.name, t.at, t.subject(kind), t.counter)
}

// arrivals cuts the time in which rows arrived into days, so that no
// transaction deletes more than those of one.
func (s *Store) arrivals(now time.Time) []time.Time {
	list := []time.Time{minTime}
	for at := now.Add(-s.retention - 24*time.Hour).UTC().Truncate(24 * time.Hour); at.Before(now); at = at.Add(24 * time.Hour) {
		list = append(list, at)
	}
	return append(list, maxTime)
}

// eraseOpenRows deletes the plain rows of a scope's open erasures. list tells
// of which kinds there are some.
func (s *Store) eraseOpenRows(ctx context.Context, scope telemetry.Scope, list []erasureWork, now time.Time) (removed int64, err error) {
	days := s.arrivals(now)
	for _, kind := range []telemetry.ErasureKind{telemetry.EraseUser, telemetry.EraseSession, telemetry.EraseAgent} {
		if !slices.ContainsFunc(list, func(w erasureWork) bool { return w.kind == kind }) {
			continue
		}
		for i := range rowTables {
			t := &rowTables[i]
			if t.subject(kind) == "" {
				continue
			}
			for d := range len(days) - 1 {
				n, err := s.deleteRows(ctx, t, t.deleteOpen(kind), string(scope.Org), int16(scope.Env), days[d], days[d+1], int16(kind))
				if err != nil {
					return removed, err
				}
				removed += n
			}
		}
	}
	return removed, nil
}

// deleteRows runs a statement that returns how many rows of a table are gone.
func (s *Store) deleteRows(ctx context.Context, t *rowTable, sql string, args ...any) (removed int64, err error) {
	call, cancel := context.WithTimeout(ctx, maintTimeout)
	defer cancel()
	rows, err := s.maint.Query(call, sql, args...)
	if err != nil {
		return 0, fmt.Errorf("delete rows of %s: %w", t.name, err)
	}
	counts, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, fmt.Errorf("delete rows of %s: %w", t.name, err)
	}
	for _, n := range counts {
		removed += n
	}
	s.metrics.erased.WithLabelValues(t.counter).Add(float64(removed))
	return removed, nil
}

// lateOwner is whose records came after their time was erased.
type lateOwner struct{ agent, session, user string }

func (l *lateOwner) origin() telemetry.Origin {
	return telemetry.Origin{User: telemetry.UserID(l.user), Session: telemetry.SessionID(l.session), Agent: telemetry.AgentID(l.agent)}
}

// eraseLateRows deletes plain rows of erasures that are done, of what arrived
// since they were last looked for. Their subjects are known by hashes alone, so
// who is there is asked first.
func (s *Store) eraseLateRows(ctx context.Context, e *eraser, since time.Time) error {
	for i := range rowTables {
		t := &rowTables[i]
		for after := (lateOwner{}); ; {
			list, err := s.lateOwners(ctx, t, e, since, after)
			if err != nil {
				return fmt.Errorf("look for late rows of %s: %w", t.name, err)
			}
			for j := range list {
				if err := s.eraseLateOwner(ctx, t, e, since, &list[j]); err != nil {
					return err
				}
				after = list[j]
			}
			if len(list) < lateAtOnce {
				break
			}
		}
	}
	return nil
}

// lateAtOnce is how many owners of late rows are asked for at a time.
const lateAtOnce = 10_000

func (t *rowTable) owner() string {
	if t.user {
		return `agent, session, "user"`
	}
	return `agent, session, ''::text`
}

func (s *Store) lateOwners(ctx context.Context, t *rowTable, e *eraser, since time.Time, after lateOwner) ([]lateOwner, error) {
	call, cancel := context.WithTimeout(ctx, maintTimeout)
	defer cancel()
	rows, err := s.maint.Query(call, fmt.Sprintf(`select distinct %[1]s from %[2]s
where org = $1 and env = $2 and recv_at >= $3 and %[3]s <= $4 and (%[1]s) > ($5, $6, $7) order by %[1]s limit %[4]d`, t.owner(), t.name, t.at, lateAtOnce),
		string(e.scope.Org), int16(e.scope.Env), since, clampTime(time.UnixMicro(e.latest)), after.agent, after.session, after.user)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (l lateOwner, err error) {
		err = row.Scan(&l.agent, &l.session, &l.user)
		return l, err
	})
}

func (s *Store) eraseLateOwner(ctx context.Context, t *rowTable, e *eraser, since time.Time, l *lateOwner) error {
	o := l.origin()
	for _, to := range e.of(&o) {
		n, err := s.deleteRows(ctx, t, fmt.Sprintf(`with gone as (
  delete from %[1]s where org = $1 and env = $2 and recv_at >= $3 and %[2]s <= $4 and (%[4]s) = ($5, $6, $7) returning 1
), counted as (select count(*) as n from gone)
update erasure e set %[3]s = e.%[3]s + c.n from counted c where e.org = $1 and e.env = $2 and e.number = $8 and c.n > 0 returning c.n`, t.name, t.at, t.counter, t.owner()),
			string(e.scope.Org), int16(e.scope.Env), since, clampTime(time.UnixMicro(to.until)), l.agent, l.session, l.user, to.number)
		if err != nil {
			return err
		}
		if n > 0 {
			e.note(&o)
		}
	}
	return nil
}

// beingTable is a table that lists agents or sessions.
type beingTable struct {
	name     string
	matches  [3]string // the column that is the subject, by kind; "": none
	statusAt string
	session  bool // rows know a session
	counter  string
}

var beingTables = []beingTable{
	{"agent", [3]string{`"user"`, "session", "id"}, "status_at", true, "agents"},
	{"session", [3]string{`"user"`, "id", ""}, "null::timestamptz", false, "sessions"},
}

// storedBeing is a row of an agent or session as it was read.
type storedBeing struct {
	id       string
	statusAt *time.Time
	lastLine *time.Time
}

// beingsAtOnce is how many rows are looked at together.
const beingsAtOnce = 200

// eraseBeings deletes the rows of agents and sessions of an erasure of which
// nothing is left. A row whose last sign of life is later stays: it tells of new
// data. So does one of which lines are left (an agent that also ran in another
// session), and then says whose those are.
func (s *Store) eraseBeings(ctx context.Context, scope telemetry.Scope, w *erasureWork) error {
	if w.subject == nil {
		return nil
	}
	for i := range beingTables {
		t := &beingTables[i]
		column := t.matches[w.kind]
		if column == "" {
			continue
		}
		for after := ""; ; {
			list, err := s.beings(ctx, t, scope, w.until, column+" = $4 and id > $5", *w.subject, after)
			if err != nil {
				return fmt.Errorf("list rows of %s to erase: %w", t.name, err)
			}
			for j := range list {
				if err := s.eraseBeing(ctx, t, scope, w.number, w.until, &list[j]); err != nil {
					return fmt.Errorf("erase a row of %s: %w", t.name, err)
				}
				after = list[j].id
			}
			if len(list) < beingsAtOnce {
				break
			}
		}
	}
	return nil
}

// eraseLateBeings deletes rows that came back with late records.
func (s *Store) eraseLateBeings(ctx context.Context, e *eraser) error {
	for i := range beingTables {
		t := &beingTables[i]
		var ids []string
		for id := range map[string]map[string]struct{}{"agent": e.agents, "session": e.sessions}[t.name] {
			ids = append(ids, id)
		}
		for part := range slices.Chunk(ids, beingsAtOnce) {
			list, err := s.beings(ctx, t, e.scope, time.UnixMicro(e.latest), "id = any ($4) and id > $5", part, "")
			if err != nil {
				return fmt.Errorf("list late rows of %s: %w", t.name, err)
			}
			for j := range list {
				if err := s.eraseLateBeing(ctx, t, e, &list[j]); err != nil {
					return fmt.Errorf("erase a late row of %s: %w", t.name, err)
				}
			}
		}
	}
	return nil
}

// eraseLateBeing erases a row if it is that of a subject.
func (s *Store) eraseLateBeing(ctx context.Context, t *beingTable, e *eraser, b *storedBeing) error {
	var o telemetry.Origin
	sql, to := `select "user", session, id from agent`, []any{&o.User, &o.Session, &o.Agent}
	if t.name == "session" {
		sql, to = `select "user", id from session`, []any{&o.User, &o.Session}
	}
	found, err := one(ctx, s.maint, "read a late row", to, sql+" where org = $1 and env = $2 and id = $3", string(e.scope.Org), int16(e.scope.Env), b.id)
	if err != nil || !found {
		return err
	}
	for _, late := range e.of(&o) {
		until := time.UnixMicro(late.until).UTC()
		if b.lastLine != nil && b.lastLine.After(until) || b.statusAt != nil && b.statusAt.After(until) {
			continue
		}
		return s.eraseBeing(ctx, t, e.scope, late.number, until, b)
	}
	return nil
}

// beings lists rows that show no sign of life after a time.
func (s *Store) beings(ctx context.Context, t *beingTable, scope telemetry.Scope, until time.Time, which string, args ...any) ([]storedBeing, error) {
	call, cancel := context.WithTimeout(ctx, maintTimeout)
	defer cancel()
	rows, err := s.maint.Query(call, fmt.Sprintf(`select id, %[2]s, last_line from %[1]s
where org = $1 and env = $2 and greatest(created_at, %[2]s, last_line) <= $3 and %[3]s order by id limit %[4]d`, t.name, t.statusAt, which, beingsAtOnce),
		append([]any{string(scope.Org), int16(scope.Env), until}, args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (b storedBeing, err error) {
		err = row.Scan(&b.id, &b.statusAt, &b.lastLine)
		return b, err
	})
}

// eraseBeing deletes a row, if nothing happened to it since it was read, or
// says in it whose lines are left. (A row knows its last line to spanSlack, so
// that also lines after the erasure's time may be.)
func (s *Store) eraseBeing(ctx context.Context, t *beingTable, scope telemetry.Scope, number int64, until time.Time, b *storedBeing) error {
	f := telemetry.LogFilter{Agents: []telemetry.AgentID{telemetry.AgentID(b.id)}}
	if t.name == "session" {
		f = telemetry.LogFilter{Sessions: []telemetry.SessionID{telemetry.SessionID(b.id)}}
	}
	page, err := s.QueryLogs(ctx, scope, &telemetry.LogQuery{LogFilter: f, Limit: 1, Count: telemetry.CountNone})
	if err != nil {
		return fmt.Errorf("look for lines that stay: %w", err)
	}
	args := []any{string(scope.Org), int16(scope.Env), b.id, b.lastLine, clampTime(until)}
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if len(page.Entries) > 0 {
		left := &page.Entries[0]
		set := `"user" = $6, last_line = greatest(last_line, $7)`
		args = append(args, string(left.User), clampTime(left.Timestamp))
		if t.session {
			set += ", session = $8"
			args = append(args, string(left.Session))
		}
		_, err := s.maint.Exec(call, fmt.Sprintf(`update %s set %s
where org = $1 and env = $2 and id = $3 and last_line is not distinct from $4 and greatest(created_at, %s) <= $5`, t.name, set, t.statusAt), args...)
		return err
	}
	_, err = s.deleteRows(ctx, &rowTable{name: t.name, counter: t.counter}, fmt.Sprintf(`with gone as (
  delete from %[1]s where org = $1 and env = $2 and id = $3 and last_line is not distinct from $4 and greatest(created_at, %[2]s) <= $5 returning 1
), counted as (select count(*) as n from gone)
update erasure e set %[3]s = e.%[3]s + c.n from counted c where e.org = $1 and e.env = $2 and e.number = $6 and c.n > 0 returning c.n`, t.name, t.statusAt, t.counter),
		append(args, number)...)
	return err
}
