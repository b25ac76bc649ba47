package store

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/telemetry"
)

// collectShown is collect, with what is erased in the same snapshot.
func collectShown[T any](ctx context.Context, s *Store, what string, scope telemetry.Scope, scan pgx.RowToFunc[T], sql string, args ...any) (list []T, x *exclusions, err error) {
	err = s.inScope(ctx, what, scope, func(ctx context.Context, conn *pgx.Conn) error {
		call, cancel := context.WithTimeout(ctx, shortTimeout)
		defer cancel()
		var version int64
		var q pgx.Batch
		q.Queue("select erasures from stream_counter where org = $1 and env = $2", string(scope.Org), int16(scope.Env)).QueryRow(func(row pgx.Row) error {
			if err := row.Scan(&version); !noRows(err) {
				return err
			}
			return nil
		})
		q.Queue(sql, append([]any{string(scope.Org), int16(scope.Env)}, args...)...).Query(func(rows pgx.Rows) (err error) {
			list, err = pgx.CollectRows(rows, scan)
			return err
		})
		if err := conn.SendBatch(call, &q).Close(); err != nil {
			return err
		}
		var err error
		x, err = s.exclusions(ctx, conn, scope, version)
		return err
	})
	return list, x, err
}

// shownAtOnce is how many rows are read at a time where all of a page are erased.
const shownAtOnce = 1000

// shown pages a listing and leaves out what is erased. A page may be shorter
// than its limit, but is not empty while more follow: its last entry is where
// the next one goes on.
func shown[T any](l telemetry.Listing, page func(telemetry.Listing) ([]T, bool, *exclusions, error), erased func(*exclusions, *T) bool, key func(*T) telemetry.ListingKey) ([]T, bool, error) {
	limit := l.Limit
	for {
		list, more, x, err := page(l)
		if err != nil || x.empty() || len(list) == 0 {
			list, cutOff := cut(list, limit)
			return list, more || cutOff, err
		}
		last := key(&list[len(list)-1])
		list = slices.DeleteFunc(list, func(v T) bool { return erased(x, &v) })
		if len(list) > 0 || !more {
			list, cutOff := cut(list, limit)
			return list, more || cutOff, nil
		}
		l.After, l.Limit = &last, max(limit, shownAtOnce)
	}
}

// erasedAgent reports whether an agent and every sign of its life is erased.
func (x *exclusions) erasedAgent(a *listedAgent) bool {
	return x.erased(&telemetry.Origin{User: a.User, Session: a.Session, Agent: a.ID}, latest(a.CreatedAt, a.LastLogAt, a.statusAt))
}

// erasedSession reports whether a session and every sign of its life is erased.
func (x *exclusions) erasedSession(s *telemetry.Session) bool {
	return x.erased(&telemetry.Origin{User: s.User, Session: s.ID}, latest(s.CreatedAt, s.LastLogAt))
}

// latest is the latest of some times; the zero time is none.
func latest(first time.Time, more ...time.Time) time.Time {
	for _, t := range more {
		if t.After(first) {
			first = t
		}
	}
	return first
}
