package agentd

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd/source"
)

// waiting is a source that reads until its context ends.
type waiting struct{ started, ended chan struct{} }

func (w *waiting) Name() string { return "waiting" }

func (w *waiting) Run(ctx context.Context, _ source.Positions, _ source.Sink) error {
	close(w.started)
	<-ctx.Done()
	close(w.ended)
	return nil
}

func TestAChangedConfigurationIsAppliedWithoutARestart(t *testing.T) {
	var out strings.Builder
	var mu sync.Mutex
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: &lockedWriter{mu: &mu, b: &out}})
	reload := make(chan Config)
	a := &agent{Options: Options{Config: Default(), Log: log, Reload: reload}, offline: newToggle(false)}
	a.sources = &sources{durable: func() map[string][]byte { return nil }, log: log}
	w := &waiting{started: make(chan struct{}), ended: make(chan struct{})}
	a.sources.start = func(ctx context.Context, src source.Source) { _ = src.Run(ctx, nil, nil) }

	done := make(chan bool, 1)
	go func() { done <- a.runUntilChange(t.Context(), []source.Source{w}) }()
	<-w.started

	next := Default()
	next.Log.Level = "debug"
	reload <- next // sources go on
	next.Buffer.Budget *= 2
	reload <- next // cannot be applied: it is said
	next.Docker.Exclude = []string{"name=x"}
	reload <- next // sources start anew
	if !<-done {
		t.Fatal("sources were not to be started anew")
	}
	<-w.ended
	mu.Lock()
	defer mu.Unlock()
	if !log.IsDebug() || a.Config.Docker.Exclude == nil || a.Config.Buffer.Budget == next.Buffer.Budget || !strings.Contains(out.String(), "take effect at the next start only") {
		t.Fatalf("config %+v, log:\n%s", a.Config, out.String())
	}
}

// Offline, nothing connects and the buffer keeps what comes; that needs no
// restart, in both directions.
func TestOfflineIsASwitch(t *testing.T) {
	a := &agent{Options: Options{Config: Default(), Log: hclog.NewNullLogger()}, offline: newToggle(true)}
	ctx, cancel := context.WithCancel(t.Context())
	runs := make(chan bool, 8)
	done := make(chan error, 1)
	go func() {
		done <- a.whileOnline(ctx, func(ctx context.Context) error {
			runs <- true
			<-ctx.Done()
			runs <- false
			return nil
		})
	}()
	for i := range 4 {
		if len(runs) != 0 {
			t.Fatal("it connects while it is offline")
		}
		a.offline.set(i%2 == 1)
		if up := <-runs; up != (i%2 == 0) {
			t.Fatalf("step %d: connected %v", i, up)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *strings.Builder
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}
