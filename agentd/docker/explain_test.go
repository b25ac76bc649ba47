package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source/sourcetest"
)

// explain logs why something may not have come: of each container what was told
// and is noted, what waits for whom, what the engine says of it now, and which of
// the engine's events it remembers. An event that the engine remembers and that
// was neither told nor missed was not delivered.
func (l *life) explain(t *testing.T) {
	t.Helper()
	records := l.sink.Records()
	sandboxes := map[string]*sandbox{}
	for i := range records {
		if id := string(records[i].Origin.Sandbox); id != "" {
			sandboxes[id] = nil
		}
	}
	if all := l.src.known.Load(); all != nil {
		for _, s := range all.all() {
			sandboxes[s.id] = s
		}
	}
	for _, name := range []string{"resyncs_total", "missed_events_total", "dropped_events_total", "engine_connected", "sandboxes"} {
		t.Logf("%s: %v", name, metricOf(t, l.registry, "agentd_docker_"+name))
	}
	positions := sourcetest.PositionsOf(records)
	t.Logf("events told until: %s", positions[eventsKey])
	says := l.engineSays(t)
	for _, id := range slices.Sorted(maps.Keys(sandboxes)) {
		t.Logf("%.12s told: %s", id, toldOf(records, id))
		t.Logf("%.12s noted: run %s, log %s", id, positions[runKey+id], positions[logKey+id])
		t.Logf("%.12s waits: %s", id, waits(sandboxes[id]))
		t.Logf("%.12s engine: %s", id, says(id))
	}
	var stacks strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 1); err != nil {
		t.Log(err)
	}
	for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
		if strings.Contains(stack, "agentd/docker.(*") && !strings.Contains(stack, "explain_test.go") {
			t.Log(stack)
		}
	}
	told := len(records)
	records = l.stop() // now the reader's own may be looked at
	for _, id := range slices.Sorted(maps.Keys(sandboxes)) {
		if s := sandboxes[id]; s != nil {
			t.Logf("%.12s at the end: queued for the reader %v, for the teller %v; read to %d of %d; in rounds %v, broken %v, torn %v; told since: %s",
				id, s.queued, s.told, s.tail.off, s.tail.size, s.busy, s.broken, s.torn, toldOf(records[told:], id))
		}
	}
}

// waits says what a sandbox is waiting with.
func waits(s *sandbox) string {
	if s == nil {
		return "nothing, it is forgotten"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var said []string
	say := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	say("identified %v, begun %v", s.target != nil, s.target != nil && s.start == nil)
	say("the teller is at it %v, %d dropped", s.telling, s.dropped)
	for i := range s.pending {
		say("to tell: %s", s.pending[i].word())
	}
	for i := range s.ends {
		e := &s.ends[i]
		if e.after != nil && e.after.file != nil {
			say("an end at byte %d of file %d", e.after.size, e.after.file.seq)
		} else {
			say("an end anywhere (no file)")
		}
		if e.ended != nil {
			say("  once its follower has ended: %v", e.ended.finished())
		}
		if e.last != nil {
			say("  then %s", e.last.word())
		}
	}
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	for _, f := range s.tail.files {
		size, deleted, err := f.stat()
		say("file %d (%s): %d bytes, deleted %v, %v", f.seq, filepath.Base(f.f.Name()), size, deleted, err)
	}
	return strings.Join(said, "; ")
}

func (p *pending) word() string {
	what := "a gap or a note"
	if p.event != nil {
		what = string(p.event.Type) + " of " + p.event.Timestamp.Format(time.StampMicro)
	}
	return fmt.Sprintf("%s, run %s", what, p.run)
}

// engineSays asks the engine which events it remembers, and returns what it says
// of a container.
func (l *life) engineSays(t *testing.T) func(id string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), askTimeout)
	t.Cleanup(cancel)
	e, err := newMobyEngine(l.host)
	if err != nil {
		return func(string) string { return err.Error() }
	}
	t.Cleanup(func() { e.Close() })
	if err := e.Ping(ctx); err != nil {
		return func(string) string { return err.Error() }
	}
	remembered := map[string][]string{}
	replay, stop := context.WithTimeout(ctx, 3*time.Second) // it does not say where the replay ends
	defer stop()
	events, _ := e.Events(replay, l.began)
	for event := range events {
		remembered[event.ID] = append(remembered[event.ID], event.Action+" "+event.At.Format(time.StampMicro))
	}
	return func(id string) string {
		var state string
		switch d, err := e.Inspect(ctx, id); {
		case errors.Is(err, errGone):
			state = "gone"
		case err != nil:
			state = err.Error()
		default:
			state = fmt.Sprintf("known, running %v, since %s, until %s", d.Running, d.Started.Format(time.StampMicro), d.Finished.Format(time.StampMicro))
		}
		return state + "; events: " + strings.Join(remembered[id], ", ")
	}
}

// metricOf is a metric's value, whatever its kind.
func metricOf(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Log(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return -1
}
