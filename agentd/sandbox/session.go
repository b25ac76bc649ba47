package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// Most exec sessions that are read at a time, and that are remembered.
const (
	maxExecsOfSandbox = 16
	maxExecs          = 128
	maxSessions       = 4096
	maxSessionsOfBox  = 512

	// finishedFor is how long an ended session is known, so that one whose sender
	// did not hear of its end is not told twice; abandonedAfter is how long one
	// is that was cut off.
	finishedFor    = time.Minute
	abandonedAfter = 5 * time.Minute
)

const execPrefix = "exec/"

// execNote is the value of a session's position: whose it is, and how far it
// is durable.
type execNote struct {
	claims
	execProgress
	ID string `json:"id"`
}

type execProgress struct {
	Stdout  int64 `json:"out,omitempty"`
	Stderr  int64 `json:"err,omitempty"`
	Started bool  `json:"on,omitempty"`  // its start was told
	Done    bool  `json:"end,omitempty"` // its end was told
}

// session is one exec session. Its turn is held by the connection that reads
// it; that one alone touches the fields below.
type session struct {
	key    string
	id     string // as its sender names it
	box    source.Target
	turn   chan struct{}
	hangUp context.CancelFunc // of the connection that has the turn; guarded by sessions.mu
	last   time.Time          // guarded by sessions.mu

	streams       [2]joiner // stdout, stderr
	started, done bool
	heard         bool // its sender was told that it is durable
}

func newSession(n *execNote) *session {
	box := n.target()
	return &session{
		key: execKey(box, n.ID), id: n.ID, box: box, turn: make(chan struct{}, 1), last: time.Now(), started: n.Started, done: n.Done,
		streams: [2]joiner{{stream: telemetry.Stdout, told: n.Stdout}, {stream: telemetry.Stderr, told: n.Stderr}},
	}
}

func (x *session) progress() execProgress {
	return execProgress{x.streams[0].told, x.streams[1].told, x.started, x.done}
}

func (x *session) note() json.RawMessage {
	b, _ := json.Marshal(execNote{claimsOf(x.box), x.progress(), x.id}) // plain texts and numbers
	return b
}

// abandoned tells of a session whose sender never said how it ended.
func (x *session) abandoned(now time.Time) *source.Batch {
	b := &source.Batch{Target: x.box, Positions: source.Positions{x.key: forgotten}}
	b.Gaps = []telemetry.Gap{{
		Reason: telemetry.GapUncleanStop, Count: telemetry.GapUnknownCount, Since: x.last.UTC(), Until: now.UTC(),
		Agent: x.box.Origin.Agent, Session: x.box.Origin.Session, Sandbox: x.box.Origin.Sandbox,
		Detail: "An exec session was cut off and did not come back: agentd-exec was killed, or ended before it had sent everything.",
	}}
	b.Events = []telemetry.Event{{
		Type: telemetry.ExecExited, Timestamp: x.last.UTC(), Origin: x.box.Origin, Reason: "lost", Inferred: true,
		Attributes: map[string]string{"execId": x.id},
	}}
	return b
}

// sessions are all exec sessions of one run of the source.
type sessions struct {
	metrics *metrics

	mu     sync.Mutex
	of     map[string]*session
	inAll  int                   // connections
	byBox  map[source.Target]int // connections
	known  map[source.Target]int // sessions
	closed bool
	wg     sync.WaitGroup // connections
}

// newSessions knows the sessions whose positions are durable.
func newSessions(resume source.Positions, m *metrics) *sessions {
	all := &sessions{metrics: m, of: map[string]*session{}, byBox: map[source.Target]int{}, known: map[source.Target]int{}}
	for key, value := range resume {
		var n execNote
		if strings.HasPrefix(key, execPrefix) && json.Unmarshal(value, &n) == nil && n.Stdout >= 0 && n.Stderr >= 0 {
			x := newSession(&n)
			all.of[x.key] = x
			all.known[x.box]++
		}
	}
	return all
}

func execKey(t source.Target, id string) string {
	b, _ := json.Marshal(claimsOf(t)) // plain texts and numbers
	h := sha256.Sum256([]byte(string(b) + "\x00" + id))
	return execPrefix + hex.EncodeToString(h[:12])
}

// enter lets a connection in. Call leave when it ends.
func (all *sessions) enter(t source.Target) (leave func(), err error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.closed || all.inAll >= maxExecs || all.byBox[t] >= maxExecsOfSandbox {
		all.metrics.refused.WithLabelValues("execs").Inc()
		return nil, &telemetry.Failure{Code: telemetry.RateLimited, Message: "Too many exec sessions of this sandbox or node run at the same time.", RetryAfter: retryAfter}
	}
	all.inAll++
	all.byBox[t]++
	all.wg.Add(1)
	all.metrics.execs.Set(float64(all.inAll))
	return func() {
		defer all.wg.Done()
		all.mu.Lock()
		defer all.mu.Unlock()
		all.inAll--
		if all.byBox[t]--; all.byBox[t] == 0 {
			delete(all.byBox, t)
		}
		all.metrics.execs.Set(float64(all.inAll))
	}, nil
}

// take gives a connection its session, once an earlier one of the same session
// has hung up, which it is told to.
func (all *sessions) take(ctx context.Context, t source.Target, id string, hangUp context.CancelFunc) (*session, error) {
	key := execKey(t, id)
	all.mu.Lock()
	x := all.of[key]
	if x == nil {
		if len(all.of) >= maxSessions || all.known[t] >= maxSessionsOfBox {
			all.mu.Unlock()
			return nil, &telemetry.Failure{Code: telemetry.RateLimited, Message: "The node knows too many exec sessions.", RetryAfter: retryAfter}
		}
		x = newSession(&execNote{claims: claimsOf(t), ID: id})
		all.of[key] = x
		all.known[t]++
	}
	x.last = time.Now()
	if x.hangUp != nil {
		x.hangUp()
	}
	all.mu.Unlock()
	select {
	case x.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, &telemetry.Failure{Code: telemetry.Unavailable, Message: "An earlier connection of this session is still being read.", RetryAfter: retryAfter}
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	x.hangUp = hangUp
	return x, nil
}

func (all *sessions) giveBack(x *session) {
	all.mu.Lock()
	defer all.mu.Unlock()
	x.hangUp, x.last = nil, time.Now()
	<-x.turn
}

// forget forgets the sessions that nobody will come back to. It returns what is
// to be told of those that were abandoned; the positions of the others are put
// into gone.
func (all *sessions) forget(now time.Time, gone source.Positions) (abandoned []*source.Batch) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for key, x := range all.of {
		select {
		case x.turn <- struct{}{}:
		default:
			continue // it is being read
		}
		after := abandonedAfter
		switch {
		case x.heard:
			after = 0
		case x.done:
			after = finishedFor
		}
		if now.Sub(x.last) >= after {
			delete(all.of, key)
			if all.known[x.box]--; all.known[x.box] <= 0 {
				delete(all.known, x.box)
			}
			if x.done || !x.started {
				gone[key] = forgotten
			} else {
				abandoned = append(abandoned, x.abandoned(now))
			}
		}
		<-x.turn
	}
	return abandoned
}

// close lets nobody in any more and waits for those who are.
func (all *sessions) close() {
	all.mu.Lock()
	all.closed = true
	all.mu.Unlock()
	all.wg.Wait()
}
