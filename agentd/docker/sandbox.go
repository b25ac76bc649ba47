package docker

import (
	"encoding/json"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// maxPending is how many events of one sandbox wait while the sink blocks,
// before exec and health events are dropped.
const maxPending = 1024

// sandbox is one container, or one file, that records come from. Control finds
// out about it, the watcher pins its files, the reader reads.
type sandbox struct {
	id   string
	born atomic.Bool // its directory was seen to appear, or its container listed
	tail *tail       // its files; without any when the log is not there to read

	mu      sync.Mutex
	target  *source.Target // nil: nobody knows yet, and nothing is read
	start   *beginning     // where to begin, until the reader has begun
	pending []pending
	dropped int64
	config  *os.File // its config.v2.json, held until it is identified

	queued bool // in the reader's queue; guarded by the reader

	armed *logFile // which wakes it at the next line; guarded by the watcher

	// The reader's own.
	busy   bool // looked at again after a pause
	broken bool // the last read failed, and the log says so
}

// beginning says where reading begins.
type beginning struct {
	position *logPosition // of an earlier process
	now      bool         // pass over what is there
}

// pending is something to tell after what was read before it.
type pending struct {
	event *telemetry.Event
	gap   *telemetry.Gap
	run   json.RawMessage // the run's position after it
	since ticket
	after *mark     // told when the log has been read up to here
	ended *follower // told when this follower has ended
	last  bool      // the container is destroyed: nothing comes after it
}

// tell queues p. Exec and health events are dropped when too many wait.
func (s *sandbox) tell(p pending) (dropped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) >= maxPending && p.event != nil && dispensable(p.event.Type) {
		s.dropped++
		return true
	}
	s.pending = append(s.pending, p)
	return false
}

func dispensable(t telemetry.EventType) bool {
	return t == telemetry.SandboxHealth || t == telemetry.ExecStarted || t == telemetry.ExecExited
}

// identified lets the reader begin.
func (s *sandbox) identified(target *source.Target, start *beginning) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.target == nil {
		s.target, s.start = target, start
	}
	if s.config != nil {
		s.config.Close()
		s.config = nil
	}
}

// configured reads the engine's own note of the container, if it is held.
func (s *sandbox) configured() *details {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config == nil {
		return nil
	}
	d, err := readConfigFile(s.config)
	if err != nil || d.ID != s.id {
		return nil // half written, or not the engine's: events tell as well
	}
	return d
}

func (s *sandbox) known() bool { return s.whom() != nil }

// whom returns whom the records are for; nil while nobody knows.
func (s *sandbox) whom() *source.Target {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.target
}

// begin returns whom the records are for, and where to begin the first time.
func (s *sandbox) begin() (*source.Target, *beginning) {
	s.mu.Lock()
	defer s.mu.Unlock()
	start := s.start
	s.start = nil
	return s.target, start
}

// limit returns the first mark that an event waits for.
func (s *sandbox) limit() *mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.pending {
		if m := s.pending[i].after; m != nil {
			return m
		}
	}
	return nil
}

// take removes what can be told now. reached is asked about each mark in turn.
func (s *sandbox) take(reached func(*mark) bool) (ready []pending, dropped int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.pending) {
		p := &s.pending[n]
		if p.after != nil && !reached(p.after) || p.ended != nil && !p.ended.finished() {
			break
		}
		n++
	}
	if n == 0 {
		return nil, 0
	}
	ready = append(ready, s.pending[:n]...)
	s.pending = append(s.pending[:0], s.pending[n:]...)
	dropped, s.dropped = s.dropped, 0
	return ready, dropped
}

// close lets go of all that it holds.
func (s *sandbox) close() {
	s.tail.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config != nil {
		s.config.Close()
		s.config = nil
	}
}

// registry is all sandboxes by id.
type registry struct {
	senders *senders

	mu     sync.Mutex
	m      map[string]*sandbox
	barred map[string]bool // ids whose directories may linger, and mean nothing
}

func newRegistry() *registry {
	return &registry{senders: newSenders(), m: map[string]*sandbox{}, barred: map[string]bool{}}
}

func (r *registry) get(id string) *sandbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.m[id]
}

// add returns the sandbox of that id, made when there is none; nil when the id
// is barred.
func (r *registry) add(id string, create func() *tail) (s *sandbox, created bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s = r.m[id]; s != nil || r.barred[id] {
		return s, false
	}
	s = &sandbox{id: id, tail: create()}
	r.m[id] = s
	return s, true
}

// remove ends a sandbox. No other is made of its id before unbar.
func (r *registry) remove(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, id)
	r.barred[id] = true
}

// unbar allows the ids again that are gone.
func (r *registry) unbar(gone func(id string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.barred {
		if gone(id) {
			delete(r.barred, id)
		}
	}
}

func (r *registry) all() []*sandbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*sandbox, 0, len(r.m))
	for _, s := range r.m {
		all = append(all, s)
	}
	return all
}

// ticket is an event's place in a told.
type ticket uint64

// told knows which of the engine's events were told: those before since.
type told struct {
	start time.Time // of this process

	mu     sync.Mutex
	next   ticket
	open   map[ticket]time.Time
	latest time.Time
}

func (t *told) begin(at time.Time) ticket {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at.After(t.latest) {
		t.latest = at
	}
	t.next++
	if t.open == nil {
		t.open = map[ticket]time.Time{}
	}
	t.open[t.next] = at
	return t.next
}

// finish marks an event as told and returns the time before which all are.
func (t *told) finish(done ticket) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, done)
	since := t.latest
	for _, at := range t.open {
		if at.Before(since) {
			since = at
		}
	}
	return since
}

// started is when this process began.
func (t *told) started() time.Time { return t.start }

// since is the time before which all events were told.
func (t *told) since() time.Time { return t.finish(0) }
