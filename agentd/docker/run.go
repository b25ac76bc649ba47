package docker

import "time"

// run is what control knows of one container's life.
type run struct {
	runPosition
	resumed time.Time // events until then were told by an earlier process
	ignored bool      // excluded by configuration
	oom     bool      // since Started
	killed  bool      // a signal was sent since Started
	listed  bool      // the list told of Started; its event may still come
	unasked bool      // identified while the engine did not answer
	born    time.Time // when inspect says that it was created; zero: nobody asked
	sandbox *sandbox
	driver  string
	digest  string // of its image
	probe   string // the command of its health check
	execs   map[string]command
	tty     bool
}

// notAfter returns at, or limit where at is not known or later.
func notAfter(at, limit time.Time) time.Time {
	if at.IsZero() || at.After(limit) {
		return limit
	}
	return at
}

// notBefore returns at, or limit where at is earlier.
func notBefore(at, limit time.Time) time.Time {
	if at.Before(limit) {
		return limit
	}
	return at
}

// sameStart is how much later than the time that inspect gives a start's event
// can come. Of a container that lives for a moment it comes after the time at
// which inspect says that it finished.
const sameStart = 10 * time.Second

// repeats reports whether the list has told us of e before. An event comes a
// little later than the time that inspect gives for the same thing. Events come
// in order, so of a run that the list told of, the first start is the one.
func (r *run) repeats(action string, e *engineEvent) bool {
	switch action {
	case "create":
		return r.Created
	case "start":
		if r.listed && !e.At.Before(r.Started) {
			r.listed = false
			return r.running() || e.At.Sub(r.Started) < sameStart
		}
		return r.running() || e.At.Before(r.Exited) || e.At.Before(r.Started)
	case "pause":
		return r.Paused
	case "unpause":
		return !r.Paused
	case "die":
		if !e.At.Before(r.Started) {
			r.listed = false
		}
		return !r.Started.IsZero() && (!r.running() || e.At.Before(r.Started))
	}
	return false
}

// begins notes a start, which the list or an event tells of.
func (r *run) begins(at time.Time, listed bool) {
	r.Earlier, r.execs = r.Exited, nil
	r.Started, r.Exited, r.Paused, r.oom, r.killed, r.listed = at, time.Time{}, false, false, false, listed
}

func (r *run) running() bool { return !r.Started.IsZero() && r.Exited.IsZero() }
