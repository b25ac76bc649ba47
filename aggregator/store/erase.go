package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// An erasure, and who sees what of it:
//
//	          Erase                     eraseOnce (erase_job.go)                  sweep, every hour
//	            │                              │                                        │
//	            v                              v        everything below the            v
//	        requested ──────────────────▶  erasing ──── fence is in chunks, ────▶     done
//	            │                              │        was rewritten, was              │
//	  excluded by every reader          excluded still  read again: none left    late records are excluded
//	  from this transaction on                                                   and taken out
//
// The transaction that asks locks the stream's counter as commits do: what was
// committed before has positions below the fence, what comes later finds the
// erasure. Whose timestamp is later than the erasure's is not touched, whenever
// it comes.

const (
	// maxOpenErasures bounds what every reader of a scope has to compare with.
	maxOpenErasures = 1000
	// eraseAttempts bounds the races for the next audit entry.
	eraseAttempts = 10
)

// Erase excludes, from now on and for every reader, the records of one user,
// session or agent with timestamps up to req.Until, and has them taken out of
// the database. It cannot be undone.
func (s *Store) Erase(ctx context.Context, scope telemetry.Scope, req telemetry.ErasureRequest) (telemetry.Erasure, error) {
	what := "erase in " + scope.String()
	e, err := newErasure(scope, req, time.Now())
	if err != nil {
		return telemetry.Erasure{}, err
	}
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := pgx.BeginFunc(call, s.ingest, func(tx pgx.Tx) error { return requestErasure(call, tx, scope, &e) })
		if err == nil {
			return e, nil
		}
		if !lostAudit(err) || attempt == eraseAttempts {
			return telemetry.Erasure{}, failure(ctx, what, err)
		}
	}
}

// Erase is Store.Erase for an operator, in one or both environments.
func (a *Admin) Erase(ctx context.Context, org telemetry.OrgID, envs []telemetry.Environment, req telemetry.ErasureRequest) ([]telemetry.Erasure, error) {
	if err := a.organisationExists(ctx, org); err != nil {
		return nil, err
	}
	now := time.Now()
	for attempt := 1; ; attempt++ {
		var list []telemetry.Erasure
		err := a.asRole(ctx, roleIngest, func(tx pgx.Tx) error {
			for _, env := range envs {
				scope := telemetry.Scope{Org: org, Env: env}
				e, err := newErasure(scope, req, now)
				if err != nil {
					return err
				}
				if err := requestErasure(ctx, tx, scope, &e); err != nil {
					return err
				}
				list = append(list, e)
			}
			return nil
		})
		if err == nil || !lostAudit(err) || attempt == eraseAttempts {
			return list, failure(ctx, "erase in "+string(org), err)
		}
	}
}

// newErasure checks a request.
func newErasure(scope telemetry.Scope, req telemetry.ErasureRequest, now time.Time) (telemetry.Erasure, error) {
	bad := func(format string, args ...any) (telemetry.Erasure, error) {
		return telemetry.Erasure{}, telemetry.Failf(telemetry.InvalidRequest, format, args...)
	}
	check := telemetry.CheckID
	switch req.Kind {
	case telemetry.EraseUser:
		check = telemetry.CheckUser
	case telemetry.EraseSession, telemetry.EraseAgent:
	default:
		return bad("There is no kind of erasure %d.", req.Kind)
	}
	if err := check(req.Subject); err != nil {
		return bad("The id of the %s %v.", req.Kind, err)
	}
	now = storedTime(now)
	until := now
	if !req.Until.IsZero() {
		until = clampTime(req.Until)
	}
	if until.After(now) {
		return bad("until lies in the future: what has not happened yet cannot be erased.")
	}
	if len(req.Reason) > telemetry.MaxReason || cleanText(req.Reason) != req.Reason {
		return bad("The reason is text of at most %d bytes.", telemetry.MaxReason)
	}
	return telemetry.Erasure{
		ID: ids.New("era"), Env: scope.Env, Kind: req.Kind, Subject: req.Subject, Until: until,
		Reason: req.Reason, RequestedBy: cleanText(req.By), RequestedAt: now,
	}, nil
}

// requestErasure records the request in a transaction of agg_ingest. The
// counter's row is locked last of all that others lock, too.
func requestErasure(ctx context.Context, tx querier, scope telemetry.Scope, e *telemetry.Erasure) error {
	org, env := string(scope.Org), int16(scope.Env)
	if _, err := tx.Exec(ctx, "select set_config('app.orgs', jsonb_build_object($1::text, 1)::text, true)", org); err != nil {
		return err
	}
	var open int
	if err := tx.QueryRow(ctx, "select count(*)::int from erasure where org = $1 and env = $2 and status < 2", org, env).Scan(&open); err != nil {
		return fmt.Errorf("count open erasures: %w", err)
	}
	if open >= maxOpenErasures {
		return &telemetry.Failure{
			Code: telemetry.RateLimited, RetryAfter: time.Minute,
			Message: fmt.Sprintf("%d erasures are open here, which is the limit: wait until some are done.", open),
		}
	}
	var number, next int64
	if err := tx.QueryRow(ctx, `insert into stream_counter as s (org, env, next, ahead, erasures) values ($1, $2, 1, 0, 1)
on conflict (org, env) do update set erasures = s.erasures + 1 returning erasures, next`, org, env).Scan(&number, &next); err != nil {
		return fmt.Errorf("lock the counter: %w", err)
	}
	_, err := tx.Exec(ctx, `insert into erasure (org, env, number, id, kind, subject, until, reason, requested_by, requested_at, fence)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		org, env, number, e.ID, int16(e.Kind), e.Subject, e.Until, e.Reason, e.RequestedBy, e.RequestedAt, next)
	if err != nil {
		return fmt.Errorf("record the erasure: %w", err)
	}
	// The log is kept for ever: the subject is not in it.
	_, err = appendAudit(ctx, tx, auditEntry{
		org: scope.Org, at: e.RequestedAt, actor: e.RequestedBy, action: "erasure.requested", target: e.ID,
		detail: fmt.Sprintf(`{"environment":%q,"kind":%q,"until":%q}`, e.Env, e.Kind, e.Until.Format(time.RFC3339Nano)),
	})
	return err
}

const selectErasures = `select id, env, kind, coalesce(subject, ''), hash, until, reason, requested_by, requested_at, started_at, done_at, status,
  lines, chunks, events, spans, model_calls, metric_points, gaps, agents, sessions, looked_at, digest, coalesce(audit_seq, 0) from erasure where org = $1 and env = $2`

// MaxErasures bounds one page of erasures.
const MaxErasures = 1000

// Erasures lists a scope's erasures, newest first, from before one on where
// that is not empty, and says whether more follow.
func (s *Store) Erasures(ctx context.Context, scope telemetry.Scope, before string, limit int) ([]telemetry.Erasure, bool, error) {
	limit = min(max(1, limit), MaxErasures)
	list, err := collect(ctx, s, "list erasures", scope, scanErasure, selectErasures+` and
  ($3 = '' or number < (select number from erasure where org = $1 and env = $2 and id = $3)) order by number desc limit $4`, before, limit+1)
	list, more := cut(list, limit)
	return list, more, err
}

// Erasure returns one erasure.
func (s *Store) Erasure(ctx context.Context, scope telemetry.Scope, id string) (telemetry.Erasure, error) {
	list, err := collect(ctx, s, "look up an erasure", scope, scanErasure, selectErasures+" and id = $3", id)
	if err == nil && len(list) == 0 {
		err = errNoErasure
	}
	if err != nil {
		return telemetry.Erasure{}, err
	}
	return list[0], nil
}

var errNoErasure = telemetry.Failf(telemetry.NotFound, "There is no erasure of this id here.")

// Erasures lists an organisation's erasures in one environment, newest first.
func (a *Admin) Erasures(ctx context.Context, scope telemetry.Scope) (list []telemetry.Erasure, err error) {
	err = a.asRole(ctx, roleMaint, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, selectErasures+" order by number desc limit $3", string(scope.Org), int16(scope.Env), MaxErasures)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, scanErasure)
		return err
	})
	return list, failure(ctx, "list erasures of "+scope.String(), err)
}

func scanErasure(row pgx.CollectableRow) (telemetry.Erasure, error) {
	var e telemetry.Erasure
	var env, kind, status int16
	var hash, digest []byte
	var started, done *time.Time
	var looked, seq int64
	c := &e.Counts
	err := row.Scan(&e.ID, &env, &kind, &e.Subject, &hash, &e.Until, &e.Reason, &e.RequestedBy, &e.RequestedAt, &started, &done, &status,
		&c.Lines, &c.Chunks, &c.Events, &c.Spans, &c.ModelCalls, &c.MetricPoints, &c.Gaps, &c.Agents, &c.Sessions, &looked, &digest, &seq)
	if err != nil {
		return e, err
	}
	e.Env, e.Kind, e.Status = telemetry.Environment(env), telemetry.ErasureKind(kind), telemetry.ErasureStatus(status) //nolint:gosec // checked by the table
	e.SubjectHash = hex.EncodeToString(hash)
	e.Until, e.RequestedAt, e.StartedAt = e.Until.UTC(), e.RequestedAt.UTC(), timeOrZero(started)
	if e.Status == telemetry.ErasureDone {
		e.Proof = &telemetry.ErasureProof{DoneAt: timeOrZero(done), Lines: looked, Digest: hex.EncodeToString(digest), AuditSeq: seq}
	}
	return e, nil
}

var (
	// errNoKey is why an erasure cannot be done.
	errNoKey = errors.New("no erasure key is set (Options.ErasureKey): subjects cannot be forgotten")
	// errOtherKey is why nothing of a scope can be shown: nobody could tell what was erased.
	errOtherKey = errors.New("subjects were erased here with another erasure key: copy it from the aggregator that was here first, or from its backup")
)
