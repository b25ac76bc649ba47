package store

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// spanSlack is how far the first and last line of an agent or session may lie
// outside what its row says: within it, a commit leaves the row alone. Queries
// widen what they read by it.
const spanSlack = 10 * time.Second

// kind is all agents, or all sessions, of a scope.
type kind struct {
	scope   telemetry.Scope
	session bool
}

// being is what a commit learnt of an agent or session.
type being struct {
	origin *telemetry.Origin // its stream and source are those of one line
	node   telemetry.NodeID
	lines  frame.Times

	status    telemetry.AgentStatus
	statusAt  time.Time // of the event that says so; zero: none
	createdAt time.Time
}

// sighting is a being with its name.
type sighting struct {
	kind
	id string
	*being
}

// sightings collects agents and sessions during one commit.
type sightings struct {
	began   time.Time
	known   *spanCache
	beings  map[kind]map[string]*being
	free    []being // memory of the next ones
	written []sighting
}

func newSightings(known *spanCache) *sightings {
	return &sightings{began: time.Now(), known: known, beings: map[kind]map[string]*being{}}
}

// of returns all beings of a kind.
func (s *sightings) of(k kind) map[string]*being {
	m := s.beings[k]
	if m == nil {
		m = map[string]*being{}
		s.beings[k] = m
	}
	return m
}

// being returns one of beings, new if need be.
func (s *sightings) being(beings map[string]*being, id string, at func() time.Time, recv time.Time) *being {
	b := beings[id]
	if b == nil {
		if len(s.free) == 0 {
			s.free = make([]being, min(1+len(beings), 256))
		}
		b, s.free = &s.free[0], s.free[1:]
		*b = being{status: telemetry.AgentRunning, createdAt: creation(at(), recv), lines: frame.NoTimes}
		beings[id] = b
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

// lines notes the origins of a frame's lines, and when each wrote.
func (s *sightings) lines(f *frame.Received, times []frame.Times, recv time.Time) {
	agents, sessions := s.of(kind{scope: f.Scope()}), s.of(kind{scope: f.Scope(), session: true})
	for i := range times {
		t := times[i]
		if t.None() {
			continue // in the dictionary, in no line
		}
		o := &f.Segment.Origins[i]
		at := func() time.Time { return time.UnixMicro(t.First) }
		s.being(agents, string(o.Agent), at, recv).wrote(o, f.Node, t)
		if o.Session != "" {
			s.being(sessions, string(o.Session), at, recv).wrote(o, f.Node, t)
		}
	}
}

func (b *being) wrote(o *telemetry.Origin, node telemetry.NodeID, t frame.Times) {
	b.origin, b.node = o, node
	b.lines = b.lines.With(t)
}

// event notes what a lifecycle event says of its agent.
func (s *sightings) event(f *frame.Received, e *telemetry.Event, recv time.Time) {
	at := func() time.Time { return e.Timestamp }
	b := s.being(s.of(kind{scope: f.Scope()}), string(e.Agent), at, recv)
	b.origin, b.node = &e.Origin, f.Node
	if status, says := statusAfter(e); says && !e.Timestamp.Before(b.statusAt) {
		b.status, b.statusAt = status, clampTime(e.Timestamp)
	}
	if e.Session != "" {
		b := s.being(s.of(kind{scope: f.Scope(), session: true}), string(e.Session), at, recv)
		b.origin, b.node = &e.Origin, f.Node
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
func (s *sightings) unknown(session bool) []sighting {
	var list []sighting
	for k, beings := range s.beings {
		if k.session == session {
			list = s.known.uncovered(list, k, beings)
		}
	}
	slices.SortFunc(list, func(x, y sighting) int {
		return cmp.Or(cmp.Compare(x.scope.Org, y.scope.Org), cmp.Compare(x.scope.Env, y.scope.Env), cmp.Compare(x.id, y.id))
	})
	s.written = append(s.written, list...)
	return list
}

// microTime is the first or last of an agent's or session's lines as the database
// keeps it; null where it has none.
func microTime(t frame.Times, us int64) *time.Time {
	if t.None() {
		return nil
	}
	at := clampTime(time.UnixMicro(us))
	return &at
}

func (b *batch) queueAgents(q *pgx.Batch) {
	list := b.seen.unknown(false)
	if len(list) == 0 {
		return
	}
	var orgs, ids, sessions, users, sandboxes, nodes []string
	var envs, providers, statuses []int16
	var statusAts, firsts, lasts []*time.Time
	var created []time.Time
	for _, a := range list {
		orgs, envs, ids = append(orgs, string(a.scope.Org)), append(envs, int16(a.scope.Env)), append(ids, a.id)
		sessions, users, sandboxes = append(sessions, string(a.origin.Session)), append(users, string(a.origin.User)), append(sandboxes, string(a.origin.Sandbox))
		providers, nodes = append(providers, int16(a.origin.Provider)), append(nodes, string(a.node))
		statuses, statusAts = append(statuses, int16(a.status)), append(statusAts, nullTime(a.statusAt))
		created, firsts, lasts = append(created, a.createdAt), append(firsts, microTime(a.lines, a.lines.First)), append(lasts, microTime(a.lines, a.lines.Last))
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
	list := b.seen.unknown(true)
	if len(list) == 0 {
		return
	}
	var orgs, ids, users []string
	var envs []int16
	var created []time.Time
	var firsts, lasts []*time.Time
	for _, s := range list {
		orgs, envs, ids = append(orgs, string(s.scope.Org)), append(envs, int16(s.scope.Env)), append(ids, s.id)
		users, created = append(users, string(s.origin.User)), append(created, s.createdAt)
		firsts, lasts = append(firsts, microTime(s.lines, s.lines.First)), append(lasts, microTime(s.lines, s.lines.Last))
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
	young, old map[kind]map[string]*remembered
	size       int // of young
}

// remembered is what the database says of an agent or session.
type remembered struct {
	origin  telemetry.Origin
	node    telemetry.NodeID
	lines   frame.Times
	written time.Time // since when it says so

	// Those of thousands that began to write in the same moment end at different
	// times, or one commit would have to tell of all of them again.
	slack int64 // microseconds: spanSlack or less
	trust time.Duration
}

// spread is a random share, at least half, of a span of time.
func spread(d time.Duration) time.Duration { return d/2 + rand.N(d/2) } //nolint:gosec // no secret

const (
	spanGeneration = 50_000
	spanTrust      = time.Minute
)

// uncovered appends the beings that the database has to hear of.
func (c *spanCache) uncovered(list []sighting, k kind, beings map[string]*being) []sighting {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for id, b := range beings {
		if !c.covers(k, id, b, now) {
			list = append(list, sighting{kind: k, id: id, being: b})
		}
	}
	return list
}

// covers reports whether the database need not hear of b.
func (c *spanCache) covers(k kind, id string, b *being, now time.Time) bool {
	known := c.get(k, id)
	switch {
	case known == nil || !b.statusAt.IsZero() || now.Sub(known.written) > known.trust:
		return false
	case k.session && b.origin.User != "" && b.origin.User != known.origin.User:
		return false
	case !k.session && (!sameSender(b.origin, &known.origin) || b.node != known.node):
		return false
	case b.lines.None():
		return true
	}
	return !known.lines.None() && b.lines.First >= known.lines.First-known.slack && b.lines.Last <= known.lines.Last+known.slack
}

// sameSender compares origins but for stream and source, which are of one line.
func sameSender(x, y *telemetry.Origin) bool {
	return x.Agent == y.Agent && x.Session == y.Session && x.User == y.User && x.Sandbox == y.Sandbox && x.Provider == y.Provider
}

// remember notes what a commit that has returned wrote.
func (c *spanCache) remember(s *sightings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range s.written {
		known := c.get(b.kind, b.id)
		if known == nil {
			known = &remembered{lines: frame.NoTimes}
			c.put(b.kind, strings.Clone(b.id), known)
		}
		lines := b.lines
		if !known.lines.None() && s.began.Sub(known.written) <= known.trust {
			lines, known.slack = lines.With(known.lines), spanSlack.Microseconds()
		} else {
			known.written, known.trust, known.slack = s.began, spread(spanTrust), spread(spanSlack).Microseconds()
		}
		known.lines = lines
		known.node = b.node
		if !sameSender(b.origin, &known.origin) {
			known.origin = ownOrigin(b.origin)
		}
	}
}

// ownOrigin copies an origin, whose ids may be views of a whole frame.
func ownOrigin(o *telemetry.Origin) telemetry.Origin {
	c := *o
	c.Agent, c.Session = telemetry.AgentID(strings.Clone(string(o.Agent))), telemetry.SessionID(strings.Clone(string(o.Session)))
	c.User, c.Sandbox = telemetry.UserID(strings.Clone(string(o.User))), telemetry.SandboxID(strings.Clone(string(o.Sandbox)))
	return c
}

func (c *spanCache) get(k kind, id string) *remembered {
	if r := c.young[k][id]; r != nil {
		return r
	}
	r := c.old[k][id]
	if r != nil {
		c.put(k, strings.Clone(id), r)
	}
	return r
}

func (c *spanCache) put(k kind, id string, r *remembered) {
	if c.size >= spanGeneration || c.young == nil {
		c.old, c.young, c.size = c.young, map[kind]map[string]*remembered{}, 0
	}
	m := c.young[k]
	if m == nil {
		m = map[string]*remembered{}
		c.young[k] = m
	}
	m[id] = r
	c.size++
}
