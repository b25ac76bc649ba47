package docker

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/moby/moby/client"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

// told are the events of a container as short words: a ~ before what was inferred.
func toldOf(records []sourcetest.Record, id string) string {
	var words []string
	for _, e := range sourcetest.EventsOf(records, telemetry.SandboxID(id)) {
		word := strings.TrimPrefix(string(e.Type), "sandbox.")
		if e.Inferred {
			word = "~" + word
		}
		if e.Type != telemetry.SandboxKilled {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

func (l *life) awaitTold(t *testing.T, id, want string) {
	t.Helper()
	l.await(t, want, func(r []sourcetest.Record) bool { return toldOf(r, id) == want })
}

// Pauses and restarts that nobody saw.
func TestPausedAndRestartedWhileAway(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	c := e.Client()
	l := start(t, e.Host(), nil)
	id := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "3", "-sleep-after", "1h"}, Labels: labels(t)})
	var want string // the first two may be found by the first comparison
	l.await(t, "the start", func(r []sourcetest.Record) bool {
		want = toldOf(r, id)
		return strings.ReplaceAll(want, "~", "") == "created started"
	})
	steps := []struct {
		away func() error
		want string
	}{
		{func() error {
			_, err := c.ContainerPause(t.Context(), id, client.ContainerPauseOptions{})
			return err
		}, " paused"},
		{func() error {
			_, err := c.ContainerUnpause(t.Context(), id, client.ContainerUnpauseOptions{})
			return err
		}, " resumed"},
		{func() error {
			none := 0
			_, err := c.ContainerRestart(t.Context(), id, client.ContainerRestartOptions{Timeout: &none})
			return err
		}, " exited started"},
	}
	records := l.stop()
	for _, step := range steps {
		if err := step.away(); err != nil {
			t.Fatal(err)
		}
		flood(t, e) // the engine forgets its older events
		want += strings.ReplaceAll(step.want, " ", " ~")
		l = start(t, e.Host(), records)
		l.awaitTold(t, id, want)
		records = l.stop()
	}
	// The same while it is looking. A comparison may be faster than an event, and a
	// busy engine tells of a short pause twice.
	plain := strings.NewReplacer("~", "", " paused resumed paused resumed", " paused resumed")
	l = start(t, e.Host(), records)
	eventually(t, "the comparison", func() bool { _, ok := l.src.ByID(id); return ok })
	for _, step := range steps {
		if err := step.away(); err != nil {
			t.Fatal(err)
		}
		want += step.want
		l.await(t, step.want, func(r []sourcetest.Record) bool {
			return plain.Replace(plain.Replace(toldOf(r, id))) == plain.Replace(plain.Replace(want))
		})
	}
	l.await(t, "the lines of three runs", func(r []sourcetest.Record) bool { return len(numbers(t, r, id, telemetry.Stdout)) == 9 })
	noGaps(t, l.stop())
}

// flood makes more events than the engine remembers.
func flood(t *testing.T, e *dockertest.Engine) {
	t.Helper()
	other := e.Create(t, dockertest.RunOptions{Image: e.Image(t, linegen)})
	for i := range 300 {
		if _, err := e.Client().ContainerRename(t.Context(), other, client.ContainerRenameOptions{NewName: "theazo-flood-" + strconv.Itoa(i) + other[:8]}); err != nil {
			t.Fatal(err)
		}
	}
}

// A sink that takes nothing slows the engine for nobody: with a listener that does
// not listen, each call after the first thousand takes 100 ms more.
func TestAStalledSinkDoesNotSlowTheEngine(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	release := l.sink.Block()
	id := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-sleep-after", "1h"}, Labels: labels(t)})
	const calls = 3000
	took := make([]time.Duration, calls)
	for i := range took {
		began := time.Now()
		if _, err := e.Client().ExecCreate(t.Context(), id, client.ExecCreateOptions{Cmd: []string{"/linegen"}}); err != nil {
			t.Fatal(err)
		}
		took[i] = time.Since(began)
	}
	median := func(d []time.Duration) time.Duration {
		d = slices.Clone(d)
		slices.Sort(d)
		return d[len(d)/2]
	}
	first, later := median(took[:500]), median(took[calls-500:])
	t.Logf("median of the first calls %s, of the last %s", first, later)
	if later > first+50*time.Millisecond {
		t.Errorf("a call takes %s after %d events that nobody took, and %s before", later, calls, first)
	}
	e.Remove(t, id)
	release()
	l.awaitEvent(t, telemetry.SandboxDestroyed, id)
	if got := strings.ReplaceAll(toldOf(l.stop(), id), "~", ""); got != "created started exited destroyed" {
		t.Errorf("told: %s", got)
	}
}

// Of events that came faster than they could be looked at, comparing finds what
// they changed.
func TestWhatAFloodOfEventsHid(t *testing.T) {
	at := time.Now().Add(-time.Hour).UTC()
	stays, dies, restarts, goes, slow := id64("a"), id64("b"), id64("c"), id64("d"), id64("e")
	held, asked := make(chan struct{}), make(chan struct{}, 1)
	flooded := false // written before held is closed
	e := &scripted{events: make(chan engineEvent)}
	e.inspect = func(ctx context.Context, id string) (*details, error) {
		d := &details{ID: id, Driver: "none", Running: true, Created: at, Started: at}
		if id == slow {
			select {
			case asked <- struct{}{}:
			default:
			}
			select {
			case <-held:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			return d, nil
		}
		select {
		case <-held:
		default:
			return d, nil
		}
		switch {
		case flooded && id == dies:
			d.Running, d.Finished, d.ExitCode = false, at.Add(time.Minute), 9
		case flooded && id == restarts:
			d.Started = at.Add(2 * time.Minute)
		case flooded && id == goes:
			return nil, errGone
		}
		return d, nil
	}
	e.list = func() []listed {
		all := []listed{{ID: stays, State: "running"}, {ID: restarts, State: "running"}}
		select {
		case <-held:
			return append(all, listed{ID: dies, State: "exited"}, listed{ID: slow, State: "running"})
		default:
			return append(all, listed{ID: dies, State: "running"}, listed{ID: goes, State: "running"})
		}
	}
	registry := prometheus.NewRegistry()
	src, err := New(Config{}, hclog.NewNullLogger(), registry)
	if err != nil {
		t.Fatal(err)
	}
	src.connect = func(string) (engine, error) { return e, nil }
	ctx, cancel := context.WithCancel(t.Context())
	sink := sourcetest.NewSink()
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, nil, sink) }()
	patience, stop := context.WithTimeout(t.Context(), sourcetest.Patience)
	defer stop()
	if !sink.Await(patience, func(r []sourcetest.Record) bool {
		return toldOf(r, stays) != "" && toldOf(r, dies) != "" && toldOf(r, restarts) != "" && toldOf(r, goes) != ""
	}) {
		t.Fatal("the containers that run were not told")
	}
	say := func(id, action string, after time.Duration) {
		select {
		case e.events <- engineEvent{ID: id, Action: action, At: at.Add(after)}:
		case <-patience.Done():
			t.Fatal("an event is not taken")
		}
	}
	say(slow, "start", time.Second)
	select {
	case <-asked: // and nobody answers
	case <-patience.Done():
		t.Fatal("nobody asked about a new container")
	}
	const ways = 4 // on which an event may still be when the next is taken
	for i := range maxQueued + ways {
		say(stays, "top", time.Duration(i))
	}
	say(dies, "die", time.Minute)
	say(restarts, "die", time.Minute)
	say(restarts, "start", 2*time.Minute)
	say(goes, "destroy", time.Minute)
	for i := range ways {
		say(stays, "top", time.Hour+time.Duration(i))
	}
	flooded = true
	close(held)
	for id, want := range map[string]string{
		stays: "~created ~started", dies: "~created ~started ~exited", restarts: "~created ~started ~exited ~started",
		goes: "~created ~started ~exited ~destroyed",
	} {
		if !sink.Await(patience, func(r []sourcetest.Record) bool { return toldOf(r, id) == want }) {
			t.Errorf("%.4s: told %s, want %s", id, toldOf(sink.Records(), id), want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if missed := counted(t, registry, "agentd_docker_missed_events_total"); missed < 4 {
		t.Errorf("%v events were missed", missed)
	}
}

func id64(digit string) string { return strings.Repeat(digit, 64) }

// What is read is changed by starting the source again with other settings.
func TestAnotherSelection(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	run := func(tier string) string {
		return e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "5", "-sleep-after", "1h"}, Labels: labels(t, "tier", tier)})
	}
	without := func(tiers ...string) func(*Config) {
		return func(c *Config) {
			for _, tier := range tiers {
				c.Exclude = append(c.Exclude, "label=tier="+tier)
			}
		}
	}
	red, blue := run("red"), run("blue")
	lines := func(id string, n int) func([]sourcetest.Record) bool {
		return func(r []sourcetest.Record) bool { return len(numbers(t, r, id, telemetry.Stdout)) == n }
	}
	l := start(t, e.Host(), nil, without("blue"))
	l.await(t, "lines of red", lines(red, 5))
	l.awaitTold(t, red, "~created ~started")
	if _, ok := l.src.ByID(blue); ok {
		t.Error("blue is known although it is excluded")
	}
	records := l.stop()
	if toldOf(records, blue) != "" || !lines(blue, 0)(records) {
		t.Errorf("told of blue, which was excluded: %s", toldOf(records, blue))
	}

	l = start(t, e.Host(), records, without("red"))
	l.await(t, "lines of blue", lines(blue, 5))
	l.awaitTold(t, blue, "~created ~started")
	if _, ok := l.src.ByID(red); ok {
		t.Error("red is known although it is excluded by now")
	}
	none := 0
	if _, err := e.Client().ContainerRestart(t.Context(), red, client.ContainerRestartOptions{Timeout: &none}); err != nil {
		t.Fatal(err)
	}
	records = l.stop()
	if got := toldOf(records, red); got != "~created ~started" || !lines(red, 5)(records) {
		t.Errorf("told of red, which is excluded: %s", got)
	}

	l = start(t, e.Host(), records) // both, and red goes on where it was left
	l.await(t, "lines of red's second run", lines(red, 10))
	l.awaitTold(t, red, "~created ~started ~exited ~started")
	records = l.stop()
	if !lines(blue, 5)(records) || toldOf(records, blue) != "~created ~started" {
		t.Errorf("blue: told %s", toldOf(records, blue))
	}

	// What is removed while it is excluded is not remembered for ever.
	l = start(t, e.Host(), records, without("red", "blue"))
	e.Remove(t, red)
	e.Remove(t, blue)
	l.await(t, "forgetting", func(r []sourcetest.Record) bool {
		p := sourcetest.PositionsOf(r)
		return p[runKey+red] == nil && p[logKey+red] == nil && p[runKey+blue] == nil
	})
	records = l.stop()
	if got := toldOf(records, red); got != "~created ~started ~exited ~started" {
		t.Errorf("told of red: %s", got)
	}
}
