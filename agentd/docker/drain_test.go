package docker

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
)

// scripted is an engine that says what a test wants.
type scripted struct {
	events  chan engineEvent
	list    func() []listed
	inspect func(ctx context.Context, id string) (*details, error) // nil: all are gone
	info    engineInfo
}

func (s *scripted) Ping(context.Context) error { return nil }

func (s *scripted) Events(ctx context.Context, _ time.Time) (<-chan engineEvent, <-chan error) {
	errs := make(chan error, 1)
	to := make(chan engineEvent)
	go func() {
		defer close(to)
		for {
			select {
			case e := <-s.events:
				select {
				case to <- e:
				case <-ctx.Done():
				}
			case <-ctx.Done():
				errs <- ctx.Err()
				return
			}
		}
	}()
	return to, errs
}

func (s *scripted) List(context.Context) ([]listed, error)       { return s.list(), nil }
func (s *scripted) Close() error                                 { return nil }
func (s *scripted) Info(context.Context) (engineInfo, error)     { return s.info, nil }
func (s *scripted) Stats(context.Context, string) (usage, error) { return usage{}, errGone }

func (s *scripted) Inspect(ctx context.Context, id string) (*details, error) {
	if s.inspect == nil {
		return nil, errGone
	}
	return s.inspect(ctx, id)
}

func (s *scripted) Tail(context.Context, string, time.Time, time.Time, int) (io.ReadCloser, error) {
	return nil, errors.New("no logs here")
}

func (s *scripted) Logs(context.Context, string, time.Time, bool) (io.ReadCloser, error) {
	return nil, errors.New("no logs here")
}

// An engine's events are taken at once whatever becomes of them: of a flood that
// nobody can take, the rest is found by comparing.
func TestEventsAreAlwaysDrained(t *testing.T) {
	e := &scripted{events: make(chan engineEvent)}
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	d := &drain{engine: e, log: hclog.NewNullLogger(), metrics: m, wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.run(ctx, time.Time{})
	}()
	patience := time.After(sourcetest.Patience)
	for i := range 2 * maxQueued {
		if i == 1 {
			d.take() // the comparison after the connection
		}
		select {
		case e.events <- engineEvent{ID: strconv.Itoa(i), Action: "start"}:
		case <-patience:
			t.Fatalf("event %d is not taken", i)
		}
	}
	cancel()
	<-done
	if queue, resync, blind := d.take(); len(queue) != maxQueued || !resync || !blind {
		t.Errorf("%d events wait, to be compared: %v, %v", len(queue), resync, blind)
	}
}

// The same event from a replay and the stream is told once; hostile attributes
// are cut.
func TestEventsAreToldOnceAndBounded(t *testing.T) {
	id := strings.Repeat("b", 64)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	e := &scripted{events: make(chan engineEvent), list: func() []listed { return []listed{{ID: id, State: "running"}} }}
	src, err := New(Config{}, hclog.NewNullLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	src.connect = func(string) (engine, error) { return e, nil }
	ctx, cancel := context.WithCancel(t.Context())
	sink := sourcetest.NewSink()
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, nil, sink) }()
	say := func(action string, after time.Duration, attributes map[string]string) {
		select {
		case e.events <- engineEvent{ID: id, Action: action, At: at.Add(after), Attributes: attributes}:
		case <-time.After(sourcetest.Patience):
			t.Fatalf("%s is not taken", action)
		}
	}
	name := map[string]string{"name": strings.Repeat("é", 4000) + "\xff", "theazo.agent_id": "agt_b"}
	for range 2 {
		say("create", 0, name)
		say("start", 1, name)
		say("start", 2, name) // as if the list had told of it before
		say("exec_start: /bin/sh -c "+strings.Repeat("x", 5000), 3, name)
		say("die", 4, map[string]string{"exitCode": "137"})
		say("die", 5, map[string]string{"exitCode": "0"})
		say("top", 6, nil)
		say("destroy", 7, nil)
	}
	patience, stop := context.WithTimeout(t.Context(), sourcetest.Patience)
	defer stop()
	sink.Await(patience, func(r []sourcetest.Record) bool { return slices.Contains(typesOf(r, id), telemetry.SandboxDestroyed) })
	// Once no replay can tell of it again, a destroyed container is forgotten.
	other := strings.Repeat("c", 64)
	forgotten := func(r []sourcetest.Record) bool {
		p := sourcetest.PositionsOf(r)
		return p[runKey+id] == nil && p[runKey+other] != nil
	}
	for i := 0; !forgotten(sink.Records()); i++ {
		select {
		case e.events <- engineEvent{ID: other, Action: "kill", At: at.Add(time.Hour + time.Duration(i))}:
		case <-patience.Done():
			t.Fatalf("positions %v", sourcetest.PositionsOf(sink.Records()))
		}
		moment, stop := context.WithTimeout(patience, 20*time.Millisecond)
		sink.Await(moment, forgotten)
		stop()
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	events := sourcetest.EventsOf(sink.Records(), telemetry.SandboxID(id))
	want := []telemetry.EventType{telemetry.SandboxCreated, telemetry.SandboxStarted, telemetry.ExecStarted, telemetry.SandboxExited, telemetry.SandboxDestroyed}
	if got := typesOf(sink.Records(), id); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	for _, ev := range events {
		if ev.Agent != "agt_b" {
			t.Errorf("event of agent %q", ev.Agent)
		}
		if ev.Type == telemetry.SandboxExited && ev.Reason != "killed" {
			t.Errorf("the reason is %q", ev.Reason)
		}
		for k, v := range ev.Attributes {
			if len(v) > maxAttribute || strings.ContainsRune(v, '\uFFFD') {
				t.Errorf("attribute %s has %d bytes", k, len(v))
			}
		}
	}
}
