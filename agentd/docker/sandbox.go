package docker

import (
	"encoding/json"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// How many events of one sandbox wait while the sink blocks: until maxPending
// all, until maxDire those that its state follows from.
const (
	maxPending = 1024
	maxDire    = 8 * maxPending
)

// sandbox is one container, or one file, that records come from. Control finds
// out about it, the watcher pins its files, the reader reads.
type sandbox struct {
	id   string
	key  string      // of its log's position
	born atomic.Bool // its directory was seen to appear, or its container listed
	tail *tail       // its files; without any when the log is not there to read

	mu      sync.Mutex
	target  *source.Target // nil: nobody knows yet, and nothing is read
	start   *beginning     // where to begin, until the reader has begun
	pending []pending      // for the teller
	telling bool           // the teller has some that are not handed over yet
	dropped int64
	ends    []end    // for the reader
	config  *os.File // its config.v2.json, held until it is identified

	queued bool // in the reader's queue; guarded by the reader
	told   bool // in the teller's queue; guarded by the teller

	armed *logFile // which wakes it at the next line; guarded by the watcher

	// The reader's own.
	busy   bool      // looked at again in the next round
	read   time.Time // when something was last read
	broken bool      // the last read failed, and the log says so
	torn   bool      // what was read last was not handed over
}

// beginning says where reading begins.
type beginning struct {
	position *logPosition // of an earlier process
	now      bool         // pass over what is there
}

// pending is something to tell.
type pending struct {
	event   *telemetry.Event
	ending  *ending // of an exit: what its last words are made of
	metrics []telemetry.MetricPoint
	gap     *telemetry.Gap
	run     json.RawMessage // the run's position after it
	since   ticket
}

// end is a place in a log at which a run of the container ended: lines that are
// open there are closed.
type end struct {
	after *mark     // reached when the log has been read up to here
	ended *follower // or when this follower has ended
	last  *pending  // the container is destroyed: told here, and nothing comes after it
}

// tell queues p. When too many wait it drops one and returns it: an event that
// nothing follows from, or else the oldest.
func (s *sandbox) tell(p pending) (dropped *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) >= maxPending && p.event != nil && dispensable(p.event.Type) {
		s.dropped++
		return &p
	}
	if len(s.pending) >= maxDire {
		s.dropped++
		dropped = new(pending)
		*dropped = s.pending[0]
		s.pending = slices.Delete(s.pending, 0, 1)
	}
	s.pending = append(s.pending, p)
	return dropped
}

func dispensable(t telemetry.EventType) bool {
	switch t {
	case telemetry.SandboxHealth, telemetry.SandboxKilled, telemetry.ExecStarted, telemetry.ExecExited:
		return true
	default:
		return false
	}
}

// endsAt has the reader do something where a run's log ends.
func (s *sandbox) endsAt(e end) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, e)
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

// limit returns the first place that reading must stop at.
func (s *sandbox) limit() *mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.ends {
		if m := s.ends[i].after; m != nil {
			return m
		}
	}
	return nil
}

// reached removes the ends that have been read up to, of which it asks about
// each mark in turn. The last one waits until all else has been told, and is
// returned.
func (s *sandbox) reached(read func(*mark) bool) (ends int, last *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; ends < len(s.ends) && last == nil; ends++ {
		e := &s.ends[ends]
		if e.last != nil && (len(s.pending) > 0 || s.telling) ||
			e.ended != nil && !e.ended.finished() || e.after != nil && !read(e.after) {
			break
		}
		last = e.last
	}
	s.ends = slices.Delete(s.ends, 0, ends)
	return ends, last
}

// take removes what can be told now. An exit ends it, for its last words are
// large.
func (s *sandbox) take(most int) (ready []pending, dropped int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(most, len(s.pending))
	if exit := slices.IndexFunc(s.pending[:n], func(p pending) bool { return p.ending != nil }); exit >= 0 {
		n = exit + 1
	}
	ready = slices.Clone(s.pending[:n])
	s.pending = slices.Delete(s.pending, 0, len(ready))
	if len(ready) > 0 {
		dropped, s.dropped, s.telling = s.dropped, 0, true
	}
	return ready, dropped
}

// taken says that what take gave was handed over. It reports whether the reader
// may have waited for that.
func (s *sandbox) taken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.telling = false
	return len(s.ends) > 0
}

// settled reports whether everything about it that was known has been told, and
// its log read to the end of its last run.
func (s *sandbox) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)+len(s.ends) == 0 && !s.telling
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
	s = &sandbox{id: id, key: logKey + id, tail: create()}
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

// note puts into a batch the time before which all is told when the batch is.
func (t *told) note(batch *source.Batch, with []ticket) {
	if !slices.ContainsFunc(with, func(k ticket) bool { return k != 0 }) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	batch.Positions[eventsKey] = encode(eventsPosition{Since: t.before(with)})
}

// before returns the time before which all is told but for some. The caller
// holds mu.
func (t *told) before(but []ticket) time.Time {
	since := t.latest
	for k, at := range t.open {
		if at.Before(since) && !slices.Contains(but, k) {
			since = at
		}
	}
	return since
}

// finish says that events were handed over, or that nobody will tell them.
func (t *told) finish(done ...ticket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range done {
		delete(t.open, k)
	}
}

// started is when this process began.
func (t *told) started() time.Time { return t.start }

// since is the time before which all events were told.
func (t *told) since() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.before(nil)
}
