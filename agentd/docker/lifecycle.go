package docker

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// Largest attributes of an event.
const (
	maxAttribute  = 1 << 10
	maxAttributes = 32
)

// interesting are the engine's actions that become events.
var interesting = map[string]bool{
	"create": true, "start": true, "die": true, "oom": true, "kill": true, "pause": true, "unpause": true,
	"destroy": true, "health_status": true, "exec_start": true, "exec_die": true,
}

var eventTypes = map[string]telemetry.EventType{
	"create": telemetry.SandboxCreated, "start": telemetry.SandboxStarted, "die": telemetry.SandboxExited,
	"oom": telemetry.SandboxOOM, "kill": telemetry.SandboxKilled, "pause": telemetry.SandboxPaused,
	"unpause": telemetry.SandboxResumed, "destroy": telemetry.SandboxDestroyed,
	"health_status": telemetry.SandboxHealth, "exec_start": telemetry.ExecStarted, "exec_die": telemetry.ExecExited,
}

// toEvent turns an event of the engine into ours. Whom it is about is filled in
// when it is told.
func toEvent(action, argument string, e *engineEvent, r *run) *telemetry.Event {
	event := &telemetry.Event{Type: eventTypes[action], Timestamp: e.At, Attributes: map[string]string{}}
	attribute := func(name, value string) {
		if value != "" && len(event.Attributes) < maxAttributes {
			event.Attributes[name] = clip(value, maxAttribute)
		}
	}
	attribute("name", e.Attributes["name"])
	attribute("image", e.Attributes["image"])
	switch action {
	case "die":
		event.ExitCode = number(e.Attributes["exitCode"])
		event.Reason = reason(event.ExitCode, r.oom, r.killed)
		attribute("durationSeconds", e.Attributes["execDuration"])
	case "kill":
		attribute("signal", e.Attributes["signal"])
	case "health_status":
		attribute("status", argument)
	case "exec_start":
		id := e.Attributes["execID"]
		started := command{text: clip(strings.TrimSpace(argument), maxAttribute), at: e.At}
		r.remember(id, started)
		attribute("command", started.text)
		attribute("execId", id)
	case "exec_die":
		event.ExitCode = number(e.Attributes["exitCode"])
		id := e.Attributes["execID"]
		attribute("execId", id)
		if started, ok := r.execs[id]; ok {
			delete(r.execs, id)
			attribute("command", started.text)
			attribute("durationMs", strconv.FormatInt(e.At.Sub(started.at).Milliseconds(), 10))
		}
	}
	return event
}

// command is one that was started in a container and has not ended.
type command struct {
	text  string
	at    time.Time
	probe bool // it is the container's health check
}

// maxCommands is how many of a container's commands are known at once.
const maxCommands = 1024

// remember notes a command until its end. Of too many the oldest is forgotten:
// its end was missed.
func (r *run) remember(id string, c command) {
	if id == "" {
		return
	}
	if r.execs == nil {
		r.execs = map[string]command{}
	}
	if len(r.execs) >= maxCommands {
		oldest := ""
		for other := range r.execs {
			if oldest == "" || r.execs[other].at.Before(r.execs[oldest].at) {
				oldest = other
			}
		}
		delete(r.execs, oldest)
	}
	r.execs[id] = c
}

// isProbe reports whether an event is of a health check, of which the engine
// tells three for each: nobody's work in the container. A person who runs the
// very same command is taken for one.
func (r *run) isProbe(action, argument string, e *engineEvent) bool {
	id := e.Attributes["execID"]
	switch action {
	case "exec_start":
		if r.probe == "" || strings.TrimSpace(argument) != r.probe {
			return false
		}
		r.remember(id, command{at: e.At, probe: true})
		return true
	case "exec_die":
		if !r.execs[id].probe {
			return false
		}
		delete(r.execs, id)
		return true
	}
	return false
}

// Exit codes of a process that a signal ended, as the engine gives them.
const (
	exitSignal     = 128
	exitKilled     = exitSignal + 9
	exitTerminated = exitSignal + 15
)

// reasonOOM says that a container ended because memory ran out.
const reasonOOM = "oom"

// reason says why a container ended. An out-of-memory kill of some process in
// it is no reason when the container itself ended well.
func reason(code *int, oom, killed bool) string {
	switch {
	case code == nil || *code == 0:
		return ""
	case oom:
		return reasonOOM
	case killed || *code == exitKilled || *code == exitTerminated:
		return "killed"
	}
	return "error"
}

func number(s string) *int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil
	}
	return &n
}

// clip shortens s to n bytes of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// inferred makes an event that the engine's list told, not its events.
func inferred(t telemetry.EventType, at time.Time, d *details) *telemetry.Event {
	e := &telemetry.Event{Type: t, Timestamp: at, Inferred: true}
	if d != nil {
		e.Attributes = map[string]string{"name": clip(d.Name, maxAttribute), "image": clip(d.Image, maxAttribute)}
	}
	return e
}

// maxRecent is how many events are remembered. A replay repeats at most the 256
// that the engine keeps.
const maxRecent = 1024

// recent remembers the last events, because a replay tells some twice.
type recent struct {
	keys map[eventKey]struct{}
	ring []eventKey
	next int
}

type eventKey struct {
	at         int64
	id, action string
}

// seen reports whether e came before, and remembers it.
func (r *recent) seen(e *engineEvent) bool {
	k := eventKey{at: e.At.UnixNano(), id: e.ID, action: e.Action}
	if _, ok := r.keys[k]; ok {
		return true
	}
	if r.keys == nil {
		r.keys = map[eventKey]struct{}{}
	}
	if len(r.ring) < maxRecent {
		r.ring = append(r.ring, k)
	} else {
		delete(r.keys, r.ring[r.next])
		r.ring[r.next] = k
		r.next = (r.next + 1) % maxRecent
	}
	r.keys[k] = struct{}{}
	return false
}
