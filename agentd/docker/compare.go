package docker

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// compare holds what is known against the engine's list. Containers that are
// new to us are taken on at once. Where the list differs from what events told,
// the event may still be on its way, so it is looked at again a second later. A
// container that was started again meanwhile looks the same in the list: when
// events may be missing, all are looked at.
func (c *control) compare(ctx context.Context, blind bool) error {
	c.metrics.resyncs.Inc()
	if c.first && !c.noted {
		// Or a second start would take itself for the first.
		c.noted = true
		c.reader.note(source.Positions{eventsKey: encode(eventsPosition{Since: c.told.since()})})
	}
	directories := c.lookAtDirectories()
	before := make([]string, 0, len(c.runs))
	for id := range c.runs {
		before = append(before, id)
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	list, err := c.engine.List(asking)
	cancel()
	if err != nil {
		return err
	}
	present := make(map[string]bool, len(list))
	for _, l := range list {
		present[l.ID] = true
		switch r := c.runs[l.ID]; {
		case !isContainerID(l.ID) || r != nil && (r.ignored || !r.Destroyed.IsZero()):
		case r == nil || r.sandbox == nil || !r.sandbox.known():
			c.adopt(ctx, l.ID)
		case r.differs(l.State) || blind || r.unasked:
			r.unasked = false
			c.suspect(l.ID)
		}
	}
	for _, id := range before {
		if r := c.runs[id]; r != nil && !present[id] && r.Destroyed.IsZero() {
			c.suspect(id)
		}
	}
	c.all.unbar(func(id string) bool { return !present[id] && !directories[id] })
	return nil
}

// lookAtDirectories finds the directories that were there before the watch, and
// returns all names.
func (c *control) lookAtDirectories() map[string]bool {
	names := map[string]bool{}
	if c.root == "" {
		return names
	}
	entries, err := os.ReadDir(c.root)
	if err != nil {
		c.log.Warn("the engine's containers directory cannot be read", "directory", c.root, "error", err)
	}
	for _, e := range entries {
		if name := e.Name(); isContainerID(name) {
			names[name] = true
			c.foundAs(name, false)
		}
	}
	return names
}

// differs reports whether the state in the list does not fit what was told.
func (r *run) differs(state string) bool {
	switch state {
	case "running", "paused":
		return !r.running() || r.Paused != (state == "paused")
	case "exited", "dead":
		return r.running() || r.Started.IsZero()
	}
	return false
}

// adopt takes on a container that was there before us.
func (c *control) adopt(ctx context.Context, id string) {
	r := c.known(ctx, id, nil)
	if r.ignored || r.sandbox == nil || !r.sandbox.known() {
		return
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	d, err := c.engine.Inspect(asking, id)
	if err != nil {
		return // gone again: its events say so, or the next comparison
	}
	if c.first && c.cfg.From == FromNow && !d.Running {
		// Long over, and nobody asked for it.
		r.Created, r.Started, r.Exited = true, d.Started, d.Finished
		c.tell(r, pending{})
		return
	}
	c.catchUp(r, d)
}

// suspect has a container looked at when its event has had time to come.
func (c *control) suspect(id string) {
	if _, ok := c.suspects[id]; !ok {
		c.suspects[id] = time.Now().Add(confirmAfter)
	}
}

// nextSuspect returns when the next suspect is looked at, whatever else comes
// until then.
func (c *control) nextSuspect() (at time.Time, ok bool) {
	for _, due := range c.suspects {
		if !ok || due.Before(at) {
			at, ok = due, true
		}
	}
	return at, ok
}

// confirm looks again at what may differ.
func (c *control) confirm(ctx context.Context) {
	for id, due := range c.suspects {
		if time.Until(due) > 0 {
			continue
		}
		delete(c.suspects, id)
		r := c.runs[id]
		if r == nil || !r.Destroyed.IsZero() || ctx.Err() != nil {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		d, err := c.engine.Inspect(asking, id)
		cancel()
		switch {
		case errors.Is(err, errGone):
			c.vanished(r, id)
		case err == nil:
			c.known(ctx, id, nil)
			c.catchUp(r, d)
		}
	}
}

// catchUp tells what inspect knows and events have not told.
func (c *control) catchUp(r *run, d *details) {
	if r.sandbox == nil || r.ignored {
		return
	}
	if !r.Created {
		r.Created = true
		c.tell(r, pending{event: inferred(telemetry.SandboxCreated, d.Created, d)})
	}
	if d.Started.After(r.Started) && (r.running() || d.Started.After(r.Exited)) {
		if r.running() {
			c.exited(r, d.Started, nil, d)
		}
		r.begins(d.Started, true)
		c.tell(r, pending{event: inferred(telemetry.SandboxStarted, d.Started, d)})
		c.follows.again(r.sandbox)
	}
	if d.Running && r.running() {
		c.alive(r, d)
		c.catchUpPause(r, d)
	}
	if !d.Running && r.running() && !d.Finished.IsZero() {
		r.oom = r.oom || d.OOMKilled
		// Of one that lived for a moment the engine may say that it began later.
		c.exited(r, notBefore(d.Finished, r.Started.Add(time.Microsecond)), &d.ExitCode, d)
	}
}

// catchUpPause tells of a pause, or its end, that no event told of. When it was is
// not known.
func (c *control) catchUpPause(r *run, d *details) {
	if d.Paused == r.Paused {
		return
	}
	r.Paused = d.Paused
	what := telemetry.SandboxResumed
	if d.Paused {
		what = telemetry.SandboxPaused
	}
	c.tell(r, pending{event: inferred(what, time.Now().UTC(), d)})
}

// exited tells of an exit that no event told of.
func (c *control) exited(r *run, at time.Time, code *int, d *details) {
	e := inferred(telemetry.SandboxExited, at, d)
	e.ExitCode, e.Reason = code, reason(code, r.oom, r.killed)
	p := pending{event: e}
	r.Exited = at
	c.ended(r, &p)
	c.tell(r, p)
}

// vanished tells of a container that the engine does not know any more. When it
// went is not known: between the last event and now.
func (c *control) vanished(r *run, id string) {
	if r.ignored {
		c.forget(id)
		return
	}
	if r.sandbox == nil {
		if r.sandbox = c.open(id); r.sandbox == nil {
			delete(c.runs, id)
			return
		}
	}
	if !r.sandbox.known() && !c.identifyVanished(r) {
		c.release(r.sandbox)
		delete(c.runs, id)
		return
	}
	now := time.Now().UTC()
	if r.running() {
		c.exited(r, now, nil, nil)
	}
	r.Destroyed = now
	c.destroyed(r, pending{event: inferred(telemetry.SandboxDestroyed, now, nil)})
}
