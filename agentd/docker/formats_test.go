package docker

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

// A log that goes to another driver is read from the engine's cache of it, which
// is said to lack lines, once.
func TestTheCacheOfAnotherDriver(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	address := syslogServer(t)
	run := func(o dockertest.RunOptions, cmd ...string) string {
		o.Image, o.Cmd, o.Labels = image, cmd, labels(t)
		o.LogDriver, o.LogOpts = "syslog", map[string]string{"syslog-address": "unixgram://" + address}
		return e.Run(t, o)
	}
	l := start(t, e.Host(), nil)
	id := run(dockertest.RunOptions{}, "-n", "300", "-rate", "1000", "-stderr-every", "3")
	long := run(dockertest.RunOptions{}, "-size", "50000", "-sleep-after", "1h")
	l.awaitRead(t, id)
	l.await(t, "the long line", func(r []sourcetest.Record) bool { return len(numbers(t, r, long, telemetry.Stdout)) == 1 })
	records := l.stop()
	e.StartContainer(t, id)
	e.AwaitExit(t, id)
	l = start(t, e.Host(), records)
	l.await(t, "the second run", func(r []sourcetest.Record) bool {
		return len(numbers(t, r, id, telemetry.Stdout)) >= 400 && len(numbers(t, r, id, telemetry.Stderr)) >= 200
	})
	records = l.stop()
	if got := len(numbers(t, records, id, telemetry.Stdout)) + len(numbers(t, records, id, telemetry.Stderr)); got != 600 {
		t.Errorf("%d lines of 600", got)
	}
	var about []telemetry.SandboxID
	for _, g := range sourcetest.GapsOf(records) {
		if g.Reason != telemetry.GapUnreadable || !strings.Contains(g.Detail, "cache") {
			t.Errorf("gap %+v", g)
		}
		about = append(about, g.Sandbox)
	}
	slices.Sort(about)
	want := []telemetry.SandboxID{telemetry.SandboxID(id), telemetry.SandboxID(long)}
	slices.Sort(want)
	if !slices.Equal(about, want) {
		t.Errorf("gaps about %v, want %v", about, want)
	}
}

// syslogServer takes messages and forgets them.
func syslogServer(t *testing.T) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "syslog") //nolint:usetesting // a short name, for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, l) // until it is closed
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return path
}

// What was written, rotated and compressed while agentd was away is read from
// where it stopped, of both drivers that keep files.
func TestRotatedAndCompressedWhileAway(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	const lines = 8000
	var all []string
	for _, driver := range []string{jsonFile, localDriver} {
		all = append(all, e.Create(t, dockertest.RunOptions{
			Image: image, Cmd: []string{"-n", "8000", "-size", "100"}, Labels: labels(t), LogDriver: driver,
			LogOpts: map[string]string{"max-size": "200k", "max-file": "20", "compress": "true"},
		}))
	}
	l := start(t, e.Host(), nil)
	for _, id := range all {
		e.StartContainer(t, id)
	}
	l.awaitRead(t, all...)
	records := l.stop()
	for _, id := range all {
		checkNumbers(t, records, id, lines)
		e.StartContainer(t, id)
	}
	for _, id := range all {
		e.AwaitExit(t, id)
	}
	for i, dir := range []string{"", localDir} {
		found, err := filepath.Glob(filepath.Join(e.Root(), "containers", all[i], dir, "*.gz"))
		if err != nil || len(found) < 3 {
			t.Errorf("%d compressed files (%v): this test tests nothing", len(found), err)
		}
	}
	l = start(t, e.Host(), records)
	l.await(t, "the second runs", func(r []sourcetest.Record) bool {
		return len(numbers(t, r, all[0], telemetry.Stdout)) >= 2*lines && len(numbers(t, r, all[1], telemetry.Stdout)) >= 2*lines
	})
	records = l.stop()
	for _, id := range all {
		got := numbers(t, records, id, telemetry.Stdout)
		for i, n := range got {
			if n != i%lines+1 {
				t.Errorf("line %d is number %d", i, n)
				break
			}
		}
		if len(got) != 2*lines {
			t.Errorf("%d lines of %d", len(got), 2*lines)
		}
	}
	noGaps(t, records)
}

// An agentd that read a log through the engine before, as earlier ones did, goes
// on in its files.
func TestFromTheAPIToFiles(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	id := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "100", "-stderr-every", "3"}, Labels: labels(t), LogDriver: localDriver})
	e.AwaitExit(t, id)
	l := start(t, e.Host(), nil, func(c *Config) { c.LogRoot = t.TempDir() }) // where its files are not
	l.awaitRead(t, id)
	l.await(t, "the lines", func(r []sourcetest.Record) bool { return len(texts(r)) >= 100 })
	records := l.stop()
	e.StartContainer(t, id)
	e.AwaitExit(t, id)
	l = start(t, e.Host(), records)
	l.await(t, "the second run", func(r []sourcetest.Record) bool { return len(texts(r)) >= 200 })
	records = l.stop()
	if n := len(texts(records)); n != 200 {
		t.Errorf("%d lines of 200", n)
	}
	noGaps(t, records)
}

// The metric counts each such log once.
func TestCachedLogsAreCounted(t *testing.T) {
	dir := t.TempDir()
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	sink := sourcetest.NewSink()
	r := &reader{sink: sink, rounds: sink, over: func() {}, log: hclog.NewNullLogger(), metrics: m, all: newRegistry(), wake: make(chan struct{}, 1)}
	r.watch = newWatcher(hclog.NewNullLogger(), func(string, string) {}, r.push)
	t.Cleanup(r.watch.close)
	writeFile(t, filepath.Join(dir, cacheBase), appendFrame(nil, "stdout", "one", someTime, nil))
	s, _ := r.all.add("x", func() *tail { return newContainerTail(dir, "x", limits{}, nil) })
	t.Cleanup(s.close)
	if err := r.watch.follow(s); err != nil {
		t.Fatal(err)
	}
	target := identify(&Config{}, &details{ID: "x"}, nil)
	s.identified(&target, &beginning{})
	for _, text := range []string{"two", "three"} {
		f, err := os.OpenFile(filepath.Join(dir, cacheBase), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(appendFrame(nil, "stdout", text, someTime, nil)); err != nil {
			t.Fatal(err)
		}
		f.Close()
		r.push(s)
		if err := r.drain(t.Context(), t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := gathered(t, registry, "agentd_docker_cached_logs_total"); n != 1 || len(texts(sink.Records())) != 3 || len(sourcetest.GapsOf(sink.Records())) != 1 {
		t.Errorf("counted %v times, %q", n, texts(sink.Records()))
	}
}

// gathered is the sum of a counter's values.
func gathered(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
