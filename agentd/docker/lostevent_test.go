package docker

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
)

// A container is removed and the engine loses the event of it, while others keep it
// busy. Its directory is gone, and that is looked into, whatever else happens.
func TestARemovalThatTheEngineDidNotTell(t *testing.T) {
	at := time.Now().Add(-time.Hour).UTC()
	goes, busy := id64("a"), id64("b")
	root := t.TempDir()
	dir := filepath.Join(root, goes)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var gone atomic.Bool
	e := &scripted{events: make(chan engineEvent)}
	e.inspect = func(_ context.Context, id string) (*details, error) {
		if id == goes && gone.Load() {
			return nil, errGone
		}
		return &details{ID: id, Driver: jsonFile, Running: true, Created: at, Started: at}, nil
	}
	e.list = func() []listed { // so that no comparison finds it
		return []listed{{ID: goes, State: "running"}, {ID: busy, State: "running"}}
	}
	src, err := New(Config{LogRoot: root}, hclog.NewNullLogger(), prometheus.NewRegistry())
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
	await := func(want string) {
		t.Helper()
		if !sink.Await(patience, func(r []sourcetest.Record) bool { return toldOf(r, goes) == want }) {
			t.Fatalf("told %s, want %s", toldOf(sink.Records(), goes), want)
		}
	}
	await("~created ~started")
	flood := make(chan struct{})
	go func() {
		defer close(flood)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := time.Duration(0); ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			select {
			case e.events <- engineEvent{ID: busy, Action: "top", At: at.Add(i)}:
			case <-ctx.Done():
				return
			}
		}
	}()
	writeFile(t, filepath.Join(dir, goes+"-json.log"), appendRecord(nil, "the last line\n", "stdout", at))
	say := engineEvent{ID: goes, Action: "die", At: at.Add(time.Minute), Attributes: map[string]string{"exitCode": "0"}}
	select {
	case e.events <- say:
	case <-patience.Done():
		t.Fatal("an event is not taken")
	}
	await("~created ~started exited")
	gone.Store(true)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	await("~created ~started exited ~destroyed")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-flood
	lines := sourcetest.LinesOf(sink.Records())[sourcetest.Stream{Sandbox: telemetry.SandboxID(goes), Stream: telemetry.Stdout}]
	if len(lines) != 1 || string(lines[0].Text) != "the last line" {
		t.Errorf("lines %v", lines)
	}
}
