package docker

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// When control compares its view with the engine's. An engine that has too little
// CPU now and then loses an event for a listener who does listen (it gives up
// after 100 ms, also when it was itself that had no time): what such an event
// would have told must not wait for long.
const (
	resyncEvery  = time.Minute
	confirmAfter = time.Second
	askTimeout   = 20 * time.Second // of one question to the engine
)

// control decides what is known: it identifies sandboxes, turns the engine's
// events into ours, and compares with the engine's list after every connection
// and every minute. It alone owns runs. It never waits for the sink.
type control struct {
	cfg     *Config
	choose  selection
	engine  engine
	log     hclog.Logger
	metrics *metrics
	root    string // of the containers' directories; empty: not readable here
	local   bool   // its processes and networks are this host's
	all     *registry
	watch   *watcher
	reader  *reader
	teller  *teller
	meter   *meter
	drain   *drain
	told    *told
	first   bool // no earlier start is known
	noted   bool // that there was one now
	resume  source.Positions
	follows *follows

	runs     map[string]*run
	recent   recent
	suspects map[string]time.Time // may differ from what was told, and when each is looked at

	mu    sync.Mutex
	names []string // found by the watcher
	left  []string // whose directories went
	wake  chan struct{}
}

// found takes a name that appeared in the containers' directory.
func (c *control) found(dir, name string) {
	if dir != c.root || !isContainerID(name) {
		return
	}
	c.foundAs(name, true)
}

// foundAs takes on a container's directory. born says that it was seen to
// appear; otherwise it was there before us.
func (c *control) foundAs(name string, born bool) {
	s, created := c.all.add(name, func() *tail { return c.newTail(name) })
	if !created {
		return
	}
	s.born.Store(born)
	// Pinned here, by the watcher, before anybody is asked: a container that
	// lives 50 ms is gone when the engine answers.
	if err := c.watch.follow(s); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Warn("a container's directory cannot be watched", "container", name, "error", err)
	}
	c.mu.Lock()
	c.names = append(c.names, name)
	c.mu.Unlock()
	c.nudge()
}

// directoryGone takes a name that went from the containers' directory: its event
// is on its way, or lost.
func (c *control) directoryGone(dir, name string) {
	if dir != c.root || !isContainerID(name) {
		return
	}
	c.mu.Lock()
	c.left = append(c.left, name)
	c.mu.Unlock()
	c.nudge()
}

func (c *control) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *control) newTail(id string) *tail {
	return c.reader.kept.restore(id, newContainerTail(filepath.Join(c.root, id), id, c.reader.limits, c.reader.budget))
}

// run works until ctx ends.
func (c *control) run(ctx context.Context) error {
	resync, confirm := time.NewTicker(resyncEvery), time.NewTimer(time.Hour)
	defer resync.Stop()
	defer confirm.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-c.drain.wake:
		case <-resync.C:
			c.drain.compare(false)
		case <-confirm.C:
			c.confirm(ctx)
		}
		c.mu.Lock()
		names, left := c.names, c.left
		c.names, c.left = nil, nil
		c.mu.Unlock()
		for _, id := range names {
			c.known(ctx, id, nil)
		}
		queue, compare, blind := c.drain.take()
		for i := range queue {
			c.event(ctx, &queue[i])
		}
		for _, id := range left {
			if r := c.runs[id]; r != nil && r.Destroyed.IsZero() {
				c.suspect(id)
			}
		}
		if compare && ctx.Err() == nil {
			if err := c.compare(ctx, blind); err != nil && ctx.Err() == nil {
				c.log.Debug("cannot compare with the engine's list; the next connection does", "error", err)
			}
		}
		if at, ok := c.nextSuspect(); ok {
			confirm.Reset(time.Until(at))
		}
		c.prune()
	}
}

// known returns the run of a container, identified as well as can be now.
func (c *control) known(ctx context.Context, id string, e *engineEvent) *run {
	r := c.runs[id]
	if r == nil {
		r = &run{}
		c.runs[id] = r
	}
	if r.ignored || r.sandbox != nil && r.sandbox.known() || !r.Destroyed.IsZero() {
		return r
	}
	if r.sandbox == nil {
		if r.sandbox = c.open(id); r.sandbox == nil {
			r.ignored = true
			return r
		}
	}
	d, err := c.details(ctx, r.sandbox, e)
	if d == nil {
		if err != nil && ctx.Err() == nil {
			c.log.Debug("a container cannot be identified yet", "container", id, "error", err)
		}
		return r
	}
	c.identify(r, d)
	return r
}

// open makes a container's sandbox and pins its log, where there is one. It
// returns nil for a container that has ended for us.
func (c *control) open(id string) *sandbox {
	if c.root != "" {
		c.foundAs(id, true)
	}
	s, _ := c.all.add(id, func() *tail { return c.newTail(id) })
	return s
}

// details asks the engine about a container. Of one that the engine had an event
// of and does not know any more, its own file tells, or else the event. (Of one
// that has just got its directory the engine does not know yet.)
func (c *control) details(ctx context.Context, s *sandbox, e *engineEvent) (*details, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	d, err := c.engine.Inspect(ctx, s.id)
	if err == nil {
		return d, nil
	}
	if e == nil || !errors.Is(err, errGone) {
		return nil, err // the next comparison asks again
	}
	if d := s.configured(); d != nil {
		return d, nil
	}
	return detailsOfEvent(e), nil
}

// identify settles whose a container is and how its log is read.
func (c *control) identify(r *run, d *details) {
	s := r.sandbox
	if !c.choose.wants(d) {
		r.ignored = true
		c.release(s)
		return
	}
	target := identify(c.cfg, d, func(label, value string, err error) {
		c.metrics.badLabels.WithLabelValues(label).Inc()
		c.log.Warn("a container's label holds no valid id and is ignored", "container", s.id, "label", label, "value", clip(value, 80), "error", err)
	})
	r.Who = &whoNote{
		Org: target.Org, Env: target.Env, Agent: target.Origin.Agent,
		Session: target.Origin.Session, User: target.Origin.User,
	}
	r.driver, r.digest, r.probe, r.tty, r.born = d.Driver, d.Digest, d.Probe, d.TTY, d.Created
	s.tail.tty.Store(d.TTY)
	start := &beginning{now: c.first && c.cfg.From == FromNow && d.Created.Before(c.told.started())}
	if raw, ok := c.resume[logKey+s.id]; ok {
		p := new(logPosition)
		if err := json.Unmarshal(raw, p); err != nil {
			c.log.Warn("a container's position cannot be read; its log is read from the beginning", "container", s.id, "error", err)
		} else {
			start = &beginning{position: p}
		}
	}
	s.identified(&target, start)
	c.readLog(r, d, start)
	if !r.Exited.IsZero() && !d.Running {
		s.endsAt(end{after: c.endOfLog(s)}) // which an earlier process may not have reached
	}
	c.reader.push(s)
	c.teller.push(s)
}

// readLog chooses how a container's log is read: from its files when there are
// any to read, else through the engine.
func (c *control) readLog(r *run, d *details, start *beginning) {
	s := r.sandbox
	switch {
	case d.Driver == "none":
		if !r.Silent {
			r.Silent = true
			c.tell(r, pending{gap: &telemetry.Gap{
				Reason: telemetry.GapUnreadable, Count: telemetry.GapUnknownCount,
				Detail: "The container's log driver is \"none\": what it prints is kept nowhere.",
			}})
		}
	case d.Driver == "" || c.readable(s, d):
		// The watcher has pinned it, or will when it is created.
	default:
		c.follows.add(s, d, start)
	}
}

// readable reports whether the files of a container's log are ours to read. Of
// most drivers the engine keeps a copy in a file, which is there before the
// container starts.
func (c *control) readable(s *sandbox, d *details) bool {
	if c.root == "" {
		return false
	}
	if s.tail.where() != nil {
		return true
	}
	switch d.Driver {
	case jsonFile:
		return d.LogPath == "" || filepath.Dir(d.LogPath) == s.tail.home || d.Started.IsZero()
	case localDriver:
		return d.Started.IsZero()
	}
	return false
}

// release lets go of a container that is not to be read.
func (c *control) release(s *sandbox) {
	c.watch.disarm(s)
	s.close()
	c.all.remove(s.id)
}

// tell queues something to be told of a run.
func (c *control) tell(r *run, p pending) {
	if r.sandbox == nil || r.ignored {
		return
	}
	p.run = encode(r.runPosition)
	if dropped := r.sandbox.tell(p); dropped != nil {
		c.metrics.dropped.Inc()
		c.told.finish(dropped.since)
	}
	c.teller.push(r.sandbox)
}

// destroyed queues the last that is told of a run, after its last line.
func (c *control) destroyed(r *run, p pending) {
	p.run = encode(r.runPosition)
	if f := c.follows.of(r.sandbox); f != nil {
		f.stop(r.Destroyed) // its exit was never told
	}
	log := c.endOfLog(r.sandbox)
	if c.unseen(r) {
		c.tell(r, pending{gap: &telemetry.Gap{
			Reason: telemetry.GapUnreadable, Count: telemetry.GapUnknownCount, Since: r.Started,
			Detail: "The container was removed before its log could be opened: it came and went while agentd was not watching.",
		}})
	}
	r.sandbox.endsAt(end{after: log, ended: c.follows.last(r.sandbox), last: &p})
	c.reader.push(r.sandbox)
}

// unseen reports whether a container has run of whose log nothing was ever held.
// Every driver but none makes the engine keep a file, also of one that prints
// nothing. What an earlier process told the exit of, it has read.
func (c *control) unseen(r *run) bool {
	_, read := c.resume[logKey+r.sandbox.id]
	return !read && !r.Started.IsZero() && r.driver != "none" && c.follows.last(r.sandbox) == nil &&
		r.sandbox.tail.where() == nil && (r.Exited.IsZero() || r.Exited.After(r.resumed))
}

// event takes one event of the engine.
func (c *control) event(ctx context.Context, e *engineEvent) {
	if !isContainerID(e.ID) || c.recent.seen(e) {
		return
	}
	action, argument, _ := strings.Cut(e.Action, ": ")
	if action == actionConnect || action == actionDisconnect {
		c.networksChanged(ctx, e.ID)
		return
	}
	if !interesting[action] {
		return
	}
	r := c.known(ctx, e.ID, e)
	if r.ignored {
		if action == "destroy" {
			c.forget(e.ID)
		}
		return
	}
	if !r.Destroyed.IsZero() || !r.resumed.IsZero() && !e.At.After(r.resumed) || r.repeats(action, e) {
		return
	}
	if action == "start" && !r.Created {
		// The events began between the two.
		r.Created = true
		c.tell(r, pending{event: inferred(telemetry.SandboxCreated, notAfter(r.born, e.At), nil)})
	}
	if r.isProbe(action, argument, e) {
		if action == "exec_start" {
			c.metrics.probes.Inc()
		}
		return
	}
	event := toEvent(action, argument, e, r)
	p := pending{event: event, since: c.told.begin(e.At)}
	r.Told = e.At
	switch action {
	case "create":
		r.Created = true
	case "start":
		r.begins(e.At, false)
		c.follows.again(r.sandbox)
		c.look(ctx, r)
	case "pause", "unpause":
		r.Paused = action == "pause"
	case "oom":
		r.oom = true
	case "kill":
		r.killed = true
	case "die":
		r.Exited = e.At
		c.ended(r, &p)
	case "destroy":
		if r.running() {
			c.exited(r, e.At, nil, nil) // which was missed
		}
		r.Destroyed = e.At
		c.destroyed(r, p)
		return
	}
	c.tell(r, p)
}

// look asks what only a running container has.
func (c *control) look(ctx context.Context, r *run) {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if d, err := c.engine.Inspect(asking, r.sandbox.id); err == nil {
		c.alive(r, d)
	} // else it is over, and its events say so, or the next comparison asks
}

// alive notes what only a running container has.
func (c *control) alive(r *run, d *details) {
	if !d.Running || r.ignored || r.sandbox == nil {
		return
	}
	var init process
	if c.local {
		init = initOf(d.PID, d.ID)
		c.all.senders.set(d.ID, d.Addresses, init)
	}
	c.meter.begin(r.sandbox, d, init)
}

// ended notes the end of a run in what is told of it, and has its log read to
// that end. The engine has written all of the log when it says die.
func (c *control) ended(r *run, p *pending) {
	s := r.sandbox
	c.all.senders.drop(s.id)
	used, of := c.meter.end(s.id)
	if used.killed > 0 {
		r.oom = true
		p.event.Reason = reason(p.event.ExitCode, r.oom, r.killed)
	}
	p.ending = r.ending(p.event)
	p.ending.facts.CPUTime, p.ending.facts.MemoryPeak = max(used.cpu, 0), max(used.peak, 0)
	if of != nil && c.cfg.StatsInterval > 0 {
		p.metrics = used.points(of.start, of.limit)
	}
	if f := c.follows.of(s); f != nil {
		f.stop(r.Exited)
		return
	}
	p.ending.log = c.endOfLog(s)
	s.endsAt(end{after: p.ending.log})
	c.reader.push(s)
}

// endOfLog pins what is new of a log and returns its end.
func (c *control) endOfLog(s *sandbox) *mark {
	if _, err := s.tail.pin(); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Warn("a container's log cannot be opened", "container", s.id, "error", err)
	}
	return s.tail.end()
}

// networksChanged looks at a container's addresses again. Those of its start are
// found by its start event: until then the engine answers no question about it.
func (c *control) networksChanged(ctx context.Context, id string) {
	if r := c.runs[id]; r != nil && r.sandbox != nil && r.running() {
		c.look(ctx, r)
	}
}

// prune forgets destroyed containers when no replay can tell of them again.
func (c *control) prune() {
	since := c.told.since().Add(-2 * overlap)
	for id, r := range c.runs {
		if !r.Destroyed.IsZero() && r.Destroyed.Before(since) && c.all.get(id) == nil {
			delete(c.follows.m, r.sandbox)
			c.forget(id)
		}
	}
}

// forget gives up all that is known of a container.
func (c *control) forget(id string) {
	_, run := c.resume[runKey+id]
	_, log := c.resume[logKey+id]
	if r := c.runs[id]; run || log || r != nil && !r.ignored {
		c.reader.note(source.Positions{runKey + id: forget, logKey + id: forget})
	}
	delete(c.runs, id)
	delete(c.resume, runKey+id)
	delete(c.resume, logKey+id)
}

// gone is called by the reader after a container's last batch.
func (c *control) gone(id string) {
	c.all.remove(id)
	c.nudge()
}
