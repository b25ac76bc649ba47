package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/telemetry"
)

// Organisation returns the scope's organisation.
func (s *Store) Organisation(ctx context.Context, scope telemetry.Scope) (telemetry.Organisation, error) {
	var o telemetry.Organisation
	found, err := one(ctx, s.api, "look up organisation "+string(scope.Org), []any{&o.ID, &o.Name, &o.Mode, &o.BillingMode},
		"select id, name, mode, billing_mode from find_organisation($1)", string(scope.Org))
	if err == nil && !found {
		err = telemetry.Failf(telemetry.NotFound, "There is no organisation %s.", scope.Org)
	}
	return o, err
}

// Agent returns one agent.
func (s *Store) Agent(ctx context.Context, scope telemetry.Scope, id telemetry.AgentID) (telemetry.Agent, error) {
	list, x, err := collectShown(ctx, s, "look up agent "+string(id), scope, scanAgent, selectAgents+" and id = $3", string(id))
	if err == nil && (len(list) == 0 || x.erasedAgent(&list[0])) {
		err = telemetry.Failf(telemetry.NotFound, "There is no agent %s.", id)
	}
	if err != nil {
		return telemetry.Agent{}, err
	}
	return list[0].Agent, nil
}

// Agents lists agents, newest first, and says whether more follow.
func (s *Store) Agents(ctx context.Context, scope telemetry.Scope, l telemetry.Listing) ([]telemetry.Agent, bool, error) {
	found, more, err := shown(l, func(l telemetry.Listing) ([]listedAgent, bool, *exclusions, error) {
		w := listing{args: []any{string(scope.Org), int16(scope.Env)}}
		if l.Session != "" {
			w.add("session = $%d", string(l.Session))
		}
		list, x, err := collectShown(ctx, s, "list agents", scope, scanAgent, w.sql(selectAgents, &l), w.args[2:]...)
		list, more := cut(list, l.Limit)
		return list, more, x, err
	}, (*exclusions).erasedAgent, func(a *listedAgent) telemetry.ListingKey {
		return telemetry.ListingKey{CreatedAt: a.CreatedAt, ID: string(a.ID)}
	})
	list := make([]telemetry.Agent, len(found))
	for i := range found {
		list[i] = found[i].Agent
	}
	return list, more, err
}

// Session returns one session.
func (s *Store) Session(ctx context.Context, scope telemetry.Scope, id telemetry.SessionID) (telemetry.Session, error) {
	list, x, err := collectShown(ctx, s, "look up session "+string(id), scope, scanSession, selectSessions+" and id = $3", string(id))
	if err == nil && (len(list) == 0 || x.erasedSession(&list[0])) {
		err = telemetry.Failf(telemetry.NotFound, "There is no session %s.", id)
	}
	if err != nil {
		return telemetry.Session{}, err
	}
	return list[0], nil
}

// Sessions lists sessions, newest first, and says whether more follow.
func (s *Store) Sessions(ctx context.Context, scope telemetry.Scope, l telemetry.Listing) ([]telemetry.Session, bool, error) {
	return shown(l, func(l telemetry.Listing) ([]telemetry.Session, bool, *exclusions, error) {
		w := listing{args: []any{string(scope.Org), int16(scope.Env)}}
		list, x, err := collectShown(ctx, s, "list sessions", scope, scanSession, w.sql(selectSessions, &l), w.args[2:]...)
		list, more := cut(list, l.Limit)
		return list, more, x, err
	}, (*exclusions).erasedSession, func(found *telemetry.Session) telemetry.ListingKey {
		return telemetry.ListingKey{CreatedAt: found.CreatedAt, ID: string(found.ID)}
	})
}

const (
	selectAgents = `select id, session, "user", status, provider, sandbox, node, created_at, first_line, last_line, status_at from agent where org = $1 and env = $2`

	selectSessions = `select id, "user", status, env, metadata, created_at, first_line, last_line from session where org = $1 and env = $2`
)

// listing builds the rest of a select; $1 and $2 are the scope.
type listing struct {
	where string
	args  []any
}

func (w *listing) add(condition string, args ...any) {
	places := make([]any, len(args))
	for i := range args {
		places[i] = len(w.args) + 1 + i
	}
	w.where += " and " + fmt.Sprintf(condition, places...)
	w.args = append(w.args, args...)
}

func (w *listing) sql(from string, l *telemetry.Listing) string {
	if l.Status != nil {
		w.add("status = $%d", int16(*l.Status))
	}
	if l.After != nil {
		w.add("(created_at, id) < ($%d, $%d)", clampTime(l.After.CreatedAt), l.After.ID)
	}
	w.args = append(w.args, max(0, l.Limit)+1)
	return fmt.Sprintf("%s%s order by created_at desc, id desc limit $%d", from, w.where, len(w.args))
}

// cut takes off the row that was read to know whether more follow.
func cut[T any](list []T, limit int) ([]T, bool) {
	if len(list) > max(0, limit) {
		return list[:max(0, limit)], true
	}
	return list, false
}

// listedAgent is an agent and when an event last said how it stands.
type listedAgent struct {
	telemetry.Agent
	statusAt time.Time
}

func scanAgent(row pgx.CollectableRow) (listedAgent, error) {
	var a listedAgent
	var status, provider int16
	var first, last, statusAt *time.Time
	err := row.Scan(&a.ID, &a.Session, &a.User, &status, &provider, &a.Sandbox, &a.Node, &a.CreatedAt, &first, &last, &statusAt)
	a.statusAt = timeOrZero(statusAt)
	a.Status, a.Provider = telemetry.AgentStatus(status), telemetry.Provider(provider) //nolint:gosec // stored from the same types
	a.CreatedAt, a.FirstLogAt, a.LastLogAt = a.CreatedAt.UTC(), timeOrZero(first), timeOrZero(last)
	return a, err
}

func scanSession(row pgx.CollectableRow) (telemetry.Session, error) {
	var s telemetry.Session
	var status, env int16
	var metadata []byte
	var first, last *time.Time
	err := row.Scan(&s.ID, &s.User, &status, &env, &metadata, &s.CreatedAt, &first, &last)
	s.Status, s.Env, s.Metadata = telemetry.SessionStatus(status), telemetry.Environment(env), metadata //nolint:gosec // stored from the same types
	s.CreatedAt, s.FirstLogAt, s.LastLogAt = s.CreatedAt.UTC(), timeOrZero(first), timeOrZero(last)
	return s, err
}

// collect reads rows of one scope; $1 and $2 are the scope, args follow.
func collect[T any](ctx context.Context, s *Store, what string, scope telemetry.Scope, scan pgx.RowToFunc[T], sql string, args ...any) (list []T, err error) {
	err = s.inScope(ctx, what, scope, func(ctx context.Context, conn *pgx.Conn) error {
		call, cancel := context.WithTimeout(ctx, shortTimeout)
		defer cancel()
		rows, err := conn.Query(call, sql, append([]any{string(scope.Org), int16(scope.Env)}, args...)...)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, scan)
		return err
	})
	return list, err
}
