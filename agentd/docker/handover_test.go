package docker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/health"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

// Containers that end and are removed while agentd is restarted lose nothing: the
// next agentd gets their open logs. So do those that have rotated meanwhile.
func TestContainersRemovedDuringARestart(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	keeper := new(health.Descriptors)
	keeps := func(c *Config) { c.Keeper = keeper }
	l := start(t, e.Host(), nil, keeps)
	const lines = 400
	ids := map[string]string{}
	for _, driver := range []string{jsonFile, localDriver} {
		ids[driver] = e.Run(t, dockertest.RunOptions{
			Image: image, Cmd: []string{"-n", strconv.Itoa(lines), "-rate", "200"}, Labels: labels(t), LogDriver: driver, AutoRemove: true,
		})
	}
	l.await(t, "the first lines", func(r []sourcetest.Record) bool {
		return len(numbers(t, r, ids[jsonFile], telemetry.Stdout)) > 10 && len(numbers(t, r, ids[localDriver], telemetry.Stdout)) > 10
	})
	records := l.stop()
	for _, id := range ids {
		if n := len(numbers(t, records, id, telemetry.Stdout)); n == lines {
			t.Error("all was read before the restart: this test tests nothing")
		}
		e.AwaitExit(t, id)
		dir := filepath.Join(e.Root(), "containers", id)
		eventually(t, "the container is gone", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
	}
	l = start(t, e.Host(), records, keeps)
	l.awaitEvent(t, telemetry.SandboxDestroyed, ids[jsonFile], ids[localDriver])
	records = l.stop()
	for _, id := range ids {
		checkNumbers(t, records, id, lines)
	}
	noGaps(t, records)
	if left := keeper.Take(""); len(left) != 0 {
		t.Errorf("%d files are kept for ever", len(left))
	}
}

// rotatedAway writes a log of which all but the newest files are deleted, while a
// source that holds them is blocked after the first line.
func rotatedAway(t *testing.T, keeper Keeper, stop func(cancel, release func())) (l *engineLog, records []sourcetest.Record) {
	t.Helper()
	dir := t.TempDir()
	l = newEngineLog(t, filepath.Join(dir, "box-json.log"), 4<<10, 1)
	if err := l.line(telemetry.Stdout, "first"); err != nil {
		t.Fatal(err)
	}
	src, err := New(Config{Files: []string{filepath.Join(dir, "*-json.log")}, Keeper: keeper}, hclog.NewNullLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sink := sourcetest.NewSink()
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, nil, sink) }()
	patience, end := context.WithTimeout(t.Context(), sourcetest.Patience)
	defer end()
	if !sink.Await(patience, lines(1)) {
		t.Fatal("the first line did not come")
	}
	release := sink.Block()
	for i := range 400 {
		if err := l.line(telemetry.Stdout, fmt.Sprintf("line %d of those that wait", i)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the file is held", func() bool { return opened(t, l.path) >= 2 }) // by us, and by the source
	}
	stop(cancel, release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return l, sink.Records()
}

// opened is how often this process has a file open that has that name now.
func opened(t *testing.T, path string) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to == path { // some are closed since
			n++
		}
	}
	return n
}

// A source that is stopped reads to its end what is deleted, before it returns.
func TestDeletedFilesAreReadBeforeTheEnd(t *testing.T) {
	l, records := rotatedAway(t, nil, func(cancel, release func()) { cancel(); release() })
	got := texts(records)
	newest := len(l.want[telemetry.Stdout]) - len(got) // with a name, for the next source
	if newest < 0 || newest > 80 || !slices.Equal(got, l.want[telemetry.Stdout][:len(got)]) {
		t.Errorf("%d lines of %d", len(got), len(l.want[telemetry.Stdout]))
	}
	records = read(t, l.path, records, lines(len(l.want[telemetry.Stdout])))
	if got := texts(records); !slices.Equal(got, l.want[telemetry.Stdout]) {
		t.Errorf("%d lines of %d after the restart", len(got), len(l.want[telemetry.Stdout]))
	}
	noGaps(t, records)
}

// With a sink that takes nothing more the files go to the next source.
func TestDeletedFilesAreKeptForTheNextSource(t *testing.T) {
	keeper := new(health.Descriptors)
	began := time.Now()
	l, records := rotatedAway(t, keeper, func(cancel, _ func()) { cancel() })
	t.Logf("stopped after %s", time.Since(began))
	if n := len(texts(records)); n != 1 {
		t.Errorf("%d lines through a blocked sink", n)
	}
	src, err := New(Config{Files: []string{l.path}, Keeper: keeper}, hclog.NewNullLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), sourcetest.Patience)
	defer cancel()
	sink := sourcetest.NewSink(records...)
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, sourcetest.PositionsOf(records), sink) }()
	if !sink.Await(ctx, lines(len(l.want[telemetry.Stdout]))) {
		t.Error("not all came")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := texts(sink.Records()); !slices.Equal(got, l.want[telemetry.Stdout]) {
		t.Errorf("%d lines of %d", len(got), len(l.want[telemetry.Stdout]))
	}
	noGaps(t, sink.Records())
	for _, f := range keeper.Take("") {
		f.Close()
	}
}

// Without anybody to keep them the next source tells what is lost.
func TestDeletedFilesThatNobodyKept(t *testing.T) {
	l, records := rotatedAway(t, nil, func(cancel, _ func()) { cancel() })
	records = read(t, l.path, records, func(r []sourcetest.Record) bool {
		got := texts(r)
		return got[len(got)-1] == "line 399 of those that wait"
	})
	gaps := sourcetest.GapsOf(records)
	if len(gaps) != 1 || gaps[0].Reason != telemetry.GapRotated || gaps[0].Count != telemetry.GapUnknownCount {
		t.Errorf("gaps %+v", gaps)
	}
}

// An engine that does not answer at the start keeps nobody from reading the logs
// that were known before; what happened meanwhile is told when it is back.
func TestLogsAreReadWithoutTheEngine(t *testing.T) {
	e := dockertest.NewPrivate(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	id := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "50"}, Labels: labels(t, "theazo.agent_id", "agt_known"), TTY: true})
	l.awaitRead(t, id)
	l.await(t, "the lines and the root", func(r []sourcetest.Record) bool {
		return len(numbers(t, r, id, telemetry.Stdout)) == 50 && sourcetest.PositionsOf(r)[rootKey] != nil
	})
	records := l.stop()
	e.StartContainer(t, id)
	e.AwaitExit(t, id)
	e.Stop(t)
	l = start(t, e.Host(), records)
	l.await(t, "the second run's lines", func(r []sourcetest.Record) bool { return len(numbers(t, r, id, telemetry.Stdout)) == 100 })
	for _, line := range sourcetest.LinesOf(l.sink.Records())[sourcetest.Stream{Sandbox: telemetry.SandboxID(id), Stream: telemetry.Stdout}] {
		if line.Text[len(line.Text)-1] == '\r' {
			t.Fatalf("a terminal's line is %q", line.Text)
		}
	}
	e.Start(t)
	fresh := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "20"}, Labels: labels(t)})
	l.awaitRead(t, fresh)
	l.await(t, "the second run's exit", func(r []sourcetest.Record) bool {
		n := 0
		for _, ev := range sourcetest.EventsOf(r, telemetry.SandboxID(id)) {
			if ev.Type == telemetry.SandboxExited {
				n++
			}
		}
		return n == 2
	})
	records = l.stop()
	checkNumbers(t, records, fresh, 20)
	if got := numbers(t, records, id, telemetry.Stdout); len(got) != 100 {
		t.Errorf("%d lines of 100", len(got))
	}
	noGaps(t, records)
}
