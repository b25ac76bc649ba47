package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// trouble remembers the streams whose compaction failed, so that others get
// their turns. Safe for concurrent use.
type trouble struct {
	mu      sync.Mutex
	streams map[telemetry.Scope]troubled
}

type troubled struct {
	times int
	until time.Time
}

// A stream is left alone for longer after each failure. Of so many at once,
// those that were first; more is a database that is away.
const (
	troubleShortest = 5 * time.Second
	troubleLongest  = 5 * time.Minute
	troubleStreams  = 10_000
)

func (t *trouble) met(s telemetry.Scope, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams == nil {
		t.streams = map[telemetry.Scope]troubled{}
	}
	x, known := t.streams[s]
	if !known && len(t.streams) >= troubleStreams {
		return
	}
	wait := min(troubleShortest<<min(x.times, 10), troubleLongest)
	t.streams[s] = troubled{times: x.times + 1, until: now.Add(wait)}
}

func (t *trouble) over(s telemetry.Scope) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.streams, s)
}

// avoided names the streams that are left alone now, as selectDue does.
func (t *trouble) avoided(now time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := []string{}
	for s, x := range t.streams {
		if now.Before(x.until) {
			names = append(names, string(s.Org)+"/"+strconv.Itoa(int(s.Env)))
		}
	}
	return names
}

// poison reports whether the data is the reason of a failure, and not the
// database: it cannot be decoded, the database refuses it or cannot read it.
func poison(err error) bool {
	if errors.Is(err, segment.ErrCorrupt) {
		return true
	}
	var pg *pgconn.PgError
	if errors.Is(err, errOvertaken) || !errors.As(err, &pg) {
		return false
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case "22", "23", "54":
		return true
	}
	return pg.Code == dataCorrupted || pg.Code == indexCorrupted // the rest of class XX may pass
}

const (
	selectFirst = "select pos, n, raw, recv_at from log_hot where org = $1 and env = $2 and pos >= $3 order by pos limit 1"

	insertDamaged = `insert into log_damaged (org, env, pos, n, recv_at, reason, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace)
select org, env, pos, n, recv_at, $4, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace from log_hot where org = $1 and env = $2 and pos = $3`

	insertUnreadable = `insert into log_damaged (org, env, pos, n, recv_at, reason)
select org, env, pos, n, recv_at, $4 from log_hot where org = $1 and env = $2 and pos = $3`

	insertDamageGap = `insert into gap (org, env, pos, recv_at, node, lane, epoch, reason, count, bytes, first_seq, last_seq, agent, session, sandbox, detail)
values ($1, $2, $3, $4, '', $5, 0, $6, $7, $8, 0, 0, '', '', '', $9)`
)

// setAside moves the first row of a stream that is not compacted out of the
// way: its bytes to log_damaged, as far as the database can read them, and a gap
// to where its lines were.
func (s *Store) setAside(ctx context.Context, w *waiting, reason error) (*unit, error) {
	u := &unit{scope: w.scope, from: w.compacted, rows: 1}
	var pos int64
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	err := s.maint.QueryRow(call, selectFirst, string(w.scope.Org), int16(w.scope.Env), w.compacted).Scan(&pos, &u.lines, &u.raw, &u.last)
	if err != nil {
		return nil, fmt.Errorf("find the row to set aside: %w", err)
	}
	u.to = pos + int64(u.lines)
	for _, insert := range []string{insertDamaged, insertUnreadable} {
		err = s.inMaint(ctx, func(tx pgx.Tx) error {
			org, env := string(w.scope.Org), int16(w.scope.Env)
			if _, err := tx.Exec(ctx, insert, org, env, pos, cleanText(reason.Error())); err != nil {
				return fmt.Errorf("set a row aside: %w", err)
			}
			if _, err := tx.Exec(ctx, insertDamageGap, org, env, pos, u.last, int16(telemetry.LaneLogs), string(telemetry.GapQuarantined), u.lines, u.raw,
				"these lines were committed and cannot be read any more; an operator finds what is left of them in log_damaged"); err != nil {
				return fmt.Errorf("record the gap: %w", err)
			}
			return u.advance(ctx, tx)
		})
		if !poison(err) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	s.metrics.damaged.Add(float64(u.lines))
	s.log.Error("lines cannot be read and were set aside in log_damaged; look for a fault of the database's disk", "scope", w.scope.String(),
		"position", pos, "lines", u.lines, "error", reason)
	return u, nil
}
