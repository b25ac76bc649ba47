package store

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// spanSlack is how far the first and last line of an agent or session may lie
// outside what its row says: within it, a commit leaves the row alone. Queries
// widen what they read by it.
const spanSlack = 10 * time.Second

// beingKey names an agent or a session.
type beingKey struct {
	scope   telemetry.Scope
	session bool
	id      string
}

// being is what a commit learnt of an agent or session.
type being struct {
	origin telemetry.Origin // without stream and source
	node   telemetry.NodeID

	first, last time.Time // of lines; zero: none

	status    telemetry.AgentStatus
	statusAt  time.Time // of the event that says so; zero: none
	createdAt time.Time

	written time.Time // what is remembered of it: since when the database says so
}

// sightings collects agents and sessions during one commit.
type sightings struct {
	began   time.Time
	known   *spanCache
	beings  map[beingKey]*being
	written []beingKey
}

func newSightings(known *spanCache) *sightings {
	return &sightings{began: time.Now(), known: known, beings: map[beingKey]*being{}}
}

func (s *sightings) of(k beingKey, at, recv time.Time) *being {
	b := s.beings[k]
	if b == nil {
		b = &being{status: telemetry.AgentRunning, createdAt: creation(at, recv)}
		s.beings[k] = b
	}
	return b
}

// creation is the time from which an agent or session is listed. It never
// changes, so a page of a listing never moves; a clock that is far off must
// not decide it.
func creation(at, recv time.Time) time.Time {
	const past, future = 30 * 24 * time.Hour, 10 * time.Minute
	if at.Before(recv.Add(-past)) || at.After(recv.Add(future)) {
		return clampTime(recv)
	}
	return clampTime(at)
}

// lines notes the origins of a frame's lines.
func (s *sightings) lines(f *frame.Received, lines *segment.Lines, recv time.Time) {
	spans := originSpans(lines)
	for i := range spans {
		if spans[i].first > spans[i].last {
			continue // in the dictionary, in no line
		}
		o := &lines.Origins[i]
		first, last := clampTime(time.UnixMicro(spans[i].first)), clampTime(time.UnixMicro(spans[i].last))
		s.of(beingKey{scope: f.Scope(), id: string(o.Agent)}, first, recv).wrote(o, f.Node, first, last)
		if o.Session != "" {
			s.of(beingKey{scope: f.Scope(), session: true, id: string(o.Session)}, first, recv).wrote(o, f.Node, first, last)
		}
	}
}

type microSpan struct{ first, last int64 }

// originSpans finds the first and last timestamp of each origin.
func originSpans(l *segment.Lines) []microSpan {
	const most = 1<<63 - 1
	spans := make([]microSpan, len(l.Origins))
	for i := range spans {
		spans[i] = microSpan{first: most, last: -most}
	}
	for i := range l.Segment.Lines {
		s, t := &spans[l.OriginIndex(i)], l.Micros(i)
		s.first, s.last = min(s.first, t), max(s.last, t)
	}
	return spans
}

func (b *being) wrote(o *telemetry.Origin, node telemetry.NodeID, first, last time.Time) {
	b.is(o, node)
	if b.first.IsZero() || first.Before(b.first) {
		b.first = first
	}
	if b.last.IsZero() || last.After(b.last) {
		b.last = last
	}
}

func (b *being) is(o *telemetry.Origin, node telemetry.NodeID) {
	b.origin, b.node = *o, node
	b.origin.Stream, b.origin.Source = telemetry.NoStream, telemetry.SourceAgent
}

// event notes what a lifecycle event says of its agent.
func (s *sightings) event(f *frame.Received, e *telemetry.Event, recv time.Time) {
	b := s.of(beingKey{scope: f.Scope(), id: string(e.Agent)}, e.Timestamp, recv)
	b.is(&e.Origin, f.Node)
	if status, says := statusAfter(e); says && !e.Timestamp.Before(b.statusAt) {
		b.status, b.statusAt = status, clampTime(e.Timestamp)
	}
	if e.Session != "" {
		s.of(beingKey{scope: f.Scope(), session: true, id: string(e.Session)}, e.Timestamp, recv).is(&e.Origin, f.Node)
	}
}

// statusAfter is the status of an agent after an event of its sandbox.
func statusAfter(e *telemetry.Event) (status telemetry.AgentStatus, says bool) {
	switch e.Type {
	case telemetry.SandboxCreated:
		return telemetry.AgentBooting, true
	case telemetry.SandboxStarted, telemetry.SandboxResumed:
		return telemetry.AgentRunning, true
	case telemetry.SandboxPaused:
		return telemetry.AgentPaused, true
	case telemetry.SandboxExited:
		if e.ExitCode != nil && *e.ExitCode == 0 {
			return telemetry.AgentCompleted, true
		}
		return telemetry.AgentFailed, true
	default: // the end itself is told by exited
		return 0, false
	}
}

// unknown lists, sorted, what the database does not know yet and will be told.
func (s *sightings) unknown(session bool) []beingKey {
	var keys []beingKey
	for k, b := range s.beings {
		if k.session == session && !s.known.covers(k, b) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(x, y beingKey) int {
		return cmp.Or(cmp.Compare(x.scope.Org, y.scope.Org), cmp.Compare(x.scope.Env, y.scope.Env), cmp.Compare(x.id, y.id))
	})
	s.written = append(s.written, keys...)
	return keys
}

func (b *batch) queueAgents(q *pgx.Batch) {
	keys := b.seen.unknown(false)
	if len(keys) == 0 {
		return
	}
	var orgs, ids, sessions, users, sandboxes, nodes []string
	var envs, providers, statuses []int16
	var statusAts, firsts, lasts []*time.Time
	var created []time.Time
	for _, k := range keys {
		a := b.seen.beings[k]
		orgs, envs, ids = append(orgs, string(k.scope.Org)), append(envs, int16(k.scope.Env)), append(ids, k.id)
		sessions, users, sandboxes = append(sessions, string(a.origin.Session)), append(users, string(a.origin.User)), append(sandboxes, string(a.origin.Sandbox))
		providers, nodes = append(providers, int16(a.origin.Provider)), append(nodes, string(a.node))
		statuses, statusAts = append(statuses, int16(a.status)), append(statusAts, nullTime(a.statusAt))
		created, firsts, lasts = append(created, a.createdAt), append(firsts, nullTime(a.first)), append(lasts, nullTime(a.last))
	}
	q.Queue(upsertAgents, orgs, envs, ids, sessions, users, providers, sandboxes, nodes, statuses, statusAts, created, firsts, lasts)
}

const upsertAgents = `insert into agent as a (org, env, id, session, "user", provider, sandbox, node, status, status_at, created_at, first_line, last_line)
select org, env, id, session, "user", provider, sandbox, node, status, status_at, created_at, first_line, last_line
from unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::text[], $8::text[], $9::smallint[],
    $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[])
  as u (org, env, id, session, "user", provider, sandbox, node, status, status_at, created_at, first_line, last_line)
order by org, env, id
on conflict (org, env, id) do update set
  session = coalesce(nullif(excluded.session, ''), a.session), "user" = coalesce(nullif(excluded."user", ''), a."user"),
  provider = excluded.provider, sandbox = excluded.sandbox, node = excluded.node,
  status = case when excluded.status_at >= coalesce(a.status_at, excluded.status_at) then excluded.status else a.status end,
  status_at = greatest(a.status_at, excluded.status_at),
  first_line = least(a.first_line, excluded.first_line), last_line = greatest(a.last_line, excluded.last_line)`

func (b *batch) queueSessions(q *pgx.Batch) {
	keys := b.seen.unknown(true)
	if len(keys) == 0 {
		return
	}
	var orgs, ids, users []string
	var envs []int16
	var created []time.Time
	var firsts, lasts []*time.Time
	for _, k := range keys {
		s := b.seen.beings[k]
		orgs, envs, ids = append(orgs, string(k.scope.Org)), append(envs, int16(k.scope.Env)), append(ids, k.id)
		users, created = append(users, string(s.origin.User)), append(created, s.createdAt)
		firsts, lasts = append(firsts, nullTime(s.first)), append(lasts, nullTime(s.last))
	}
	q.Queue(upsertSessions, orgs, envs, ids, users, int16(telemetry.SessionActive), created, firsts, lasts)
}

const upsertSessions = `insert into session as s (org, env, id, "user", status, created_at, first_line, last_line)
select org, env, id, "user", $5, created_at, first_line, last_line
from unnest($1::text[], $2::smallint[], $3::text[], $4::text[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[])
  as u (org, env, id, "user", created_at, first_line, last_line)
order by org, env, id
on conflict (org, env, id) do update set "user" = coalesce(nullif(excluded."user", ''), s."user"),
  first_line = least(s.first_line, excluded.first_line), last_line = greatest(s.last_line, excluded.last_line)`

// spanCache remembers what the database is known to say of recent agents and
// sessions. Rows only ever widen, unless they are erased: what is remembered is
// true for spanTrust, and erasure leaves rows alone for longer. Two generations
// bound it: the older is forgotten when the newer is full.
type spanCache struct {
	mu         sync.Mutex
	young, old map[beingKey]being
}

const (
	spanGeneration = 50_000
	spanTrust      = time.Minute
)

// covers reports whether the database need not hear of b.
func (c *spanCache) covers(k beingKey, b *being) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.get(k)
	switch {
	case !ok || !b.statusAt.IsZero() || time.Since(known.written) > spanTrust:
		return false
	case k.session && b.origin.User != "" && b.origin.User != known.origin.User:
		return false
	case !k.session && (b.origin != known.origin || b.node != known.node):
		return false
	case b.first.IsZero():
		return true
	}
	return !known.first.IsZero() && !b.first.Before(known.first.Add(-spanSlack)) && !b.last.After(known.last.Add(spanSlack))
}

// remember notes what a commit that has returned wrote.
func (c *spanCache) remember(s *sightings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range s.written {
		b := *s.beings[k]
		b.written = s.began
		if known, ok := c.get(k); ok && !known.first.IsZero() && s.began.Sub(known.written) <= spanTrust {
			b.written = known.written
			if b.first.IsZero() || known.first.Before(b.first) {
				b.first = known.first
			}
			if b.last.IsZero() || known.last.After(b.last) {
				b.last = known.last
			}
		}
		c.put(k, b)
	}
}

func (c *spanCache) get(k beingKey) (being, bool) {
	if b, ok := c.young[k]; ok {
		return b, true
	}
	b, ok := c.old[k]
	if ok {
		c.put(k, b)
	}
	return b, ok
}

func (c *spanCache) put(k beingKey, b being) {
	if len(c.young) >= spanGeneration || c.young == nil {
		c.old, c.young = c.young, make(map[beingKey]being)
	}
	c.young[k] = b
}
