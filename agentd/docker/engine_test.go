package docker

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

const linegen = "github.com/theazo/observability/test/cmd/linegen"

// life is a source that reads an engine, in a test.
type life struct {
	src      *Source
	host     string
	began    time.Time
	registry *prometheus.Registry
	sink     *sourcetest.Sink
	stop     func() []sourcetest.Record
}

// start reads the engine from where records left off, only this test's
// containers.
func start(t *testing.T, host string, from []sourcetest.Record, change ...func(*Config)) *life {
	t.Helper()
	return startVia(t, host, from, nil, change...)
}

// startVia is start, with something between the source and its sink.
func startVia(t *testing.T, host string, from []sourcetest.Record, via func(source.Sink) source.Sink, change ...func(*Config)) *life {
	t.Helper()
	cfg := Config{Endpoint: host, Include: []string{"label=test=" + t.Name()}}
	for _, f := range change {
		f(&cfg)
	}
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: testWriter{t}})
	registry := prometheus.NewRegistry()
	src, err := New(cfg, log, registry)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := &life{src: src, host: host, began: time.Now(), registry: registry, sink: sourcetest.NewSink(from...)}
	var to source.Sink = l.sink
	if via != nil {
		to = via(l.sink)
	}
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, sourcetest.PositionsOf(from), to) }()
	stopped := false
	l.stop = func() []sourcetest.Record {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the source failed: %v", err)
			}
		}
		return l.sink.Records()
	}
	t.Cleanup(func() { l.stop() })
	return l
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	if os.Getenv("DOCKER_TEST_LOG") != "" {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func (l *life) await(t *testing.T, what string, done func([]sourcetest.Record) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sourcetest.Patience)
	defer cancel()
	if !l.sink.Await(ctx, done) {
		records := l.sink.Records()
		for stream, lines := range sourcetest.LinesOf(records) {
			t.Logf("%.12s %s: %d lines", stream.Sandbox, stream.Stream, len(lines))
		}
		for i := range records {
			for _, e := range records[i].Events {
				t.Logf("%.12s %s %s %v inferred %v", e.Sandbox, e.Timestamp.Format(time.StampMicro), e.Type, e.Attributes, e.Inferred)
			}
		}
		l.explain(t)
		t.Fatalf("%s did not come", what)
	}
}

// awaitWatch waits until the source sees new containers appear.
func (l *life) awaitWatch(t *testing.T) {
	t.Helper()
	eventually(t, "the containers' directory is watched", func() bool { return l.src.known.Load() != nil })
}

// awaitRead waits until the exits of containers were told, and their logs read to
// the end.
func (l *life) awaitRead(t *testing.T, containers ...string) {
	t.Helper()
	l.awaitEvent(t, telemetry.SandboxExited, containers...)
	eventually(t, "the logs were read to their end", func() bool {
		for _, id := range containers {
			if s := l.src.known.Load().get(id); s != nil && !s.settled() {
				return false
			}
		}
		return true
	})
}

// awaitEvent waits for an event of each container.
func (l *life) awaitEvent(t *testing.T, event telemetry.EventType, containers ...string) {
	t.Helper()
	l.await(t, string(event), func(records []sourcetest.Record) bool {
		have := map[telemetry.SandboxID]bool{}
		for i := range records {
			for _, e := range records[i].Events {
				if e.Type == event {
					have[e.Sandbox] = true
				}
			}
		}
		for _, id := range containers {
			if !have[telemetry.SandboxID(id)] {
				return false
			}
		}
		return true
	})
}

func labels(t *testing.T, more ...string) map[string]string {
	t.Helper()
	m := map[string]string{"test": t.Name()}
	for i := 0; i+1 < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

// numbers are the numbers of linegen's lines of a container, by stream.
func numbers(t *testing.T, records []sourcetest.Record, container string, stream telemetry.Stream) []int {
	t.Helper()
	var all []int
	for _, l := range sourcetest.LinesOf(records)[sourcetest.Stream{Sandbox: telemetry.SandboxID(container), Stream: stream}] {
		_, text, _ := strings.Cut(string(l.Text), "n=")
		digits, _, _ := strings.Cut(text, " ")
		n, err := strconv.Atoi(digits)
		if err != nil {
			t.Fatalf("line %.80q has no number", l.Text)
		}
		all = append(all, n)
	}
	return all
}

// checkNumbers checks that a container's lines are 1 to n, in order.
func checkNumbers(t *testing.T, records []sourcetest.Record, container string, n int) {
	t.Helper()
	got := numbers(t, records, container, telemetry.Stdout)
	for i, number := range got {
		if number != i+1 {
			t.Errorf("container %.12s: line %d is number %d (of %d lines)", container, i+1, number, len(got))
			return
		}
	}
	if len(got) != n {
		t.Errorf("container %.12s: %d lines of %d came", container, len(got), n)
	}
}

func noGaps(t *testing.T, records []sourcetest.Record) {
	t.Helper()
	for _, g := range sourcetest.GapsOf(records) {
		t.Errorf("gap %+v", g)
	}
}

// Containers that are gone before anybody could ask the engine about them.
func TestContainersThatLiveForAMoment(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	const containers = 30
	var all []string
	for i := range containers {
		all = append(all, e.Run(t, dockertest.RunOptions{
			Image: image, Cmd: []string{"-n", "3"}, AutoRemove: true,
			Labels: labels(t, "theazo.agent_id", fmt.Sprintf("agt_%d", i), "theazo.session_id", "ses_short"),
		}))
	}
	l.awaitEvent(t, telemetry.SandboxDestroyed, all...)
	records := l.stop()
	for i, id := range all {
		checkNumbers(t, records, id, 3)
		var types []telemetry.EventType
		for _, ev := range sourcetest.EventsOf(records, telemetry.SandboxID(id)) {
			types = append(types, ev.Type)
			if ev.Agent != telemetry.AgentID(fmt.Sprintf("agt_%d", i)) || ev.Session != "ses_short" {
				t.Errorf("container %d: event of agent %s, session %s", i, ev.Agent, ev.Session)
			}
		}
		want := "[sandbox.created sandbox.started sandbox.exited sandbox.destroyed]"
		if got := fmt.Sprint(types); got != want {
			t.Errorf("container %d: events %s, want %s", i, got, want)
		}
	}
	noGaps(t, records)
	for key, value := range sourcetest.PositionsOf(records) {
		if strings.HasPrefix(key, logKey) {
			t.Errorf("the position %s of a destroyed container is kept: %s", key, value)
		}
	}
}

// What containers print arrives as they printed it.
func TestOddOutput(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	run := func(o dockertest.RunOptions, cmd ...string) string {
		o.Image, o.Cmd, o.Labels = image, cmd, labels(t)
		return e.Run(t, o)
	}
	end := run(dockertest.RunOptions{}, "-n", "2", "-no-newline")
	long := run(dockertest.RunOptions{}, "-one-mib-line")
	nul := run(dockertest.RunOptions{}, "-nul")
	bad := run(dockertest.RunOptions{}, "-invalid-utf8")
	tty := run(dockertest.RunOptions{TTY: true}, "-n", "3")
	attrs := run(dockertest.RunOptions{LogOpts: map[string]string{"labels": "test", "tag": "{{.Name}}"}}, "-n", "3")
	both := run(dockertest.RunOptions{}, "-n", "1000", "-stderr-every", "3")
	code := run(dockertest.RunOptions{}, "-exit-code", "7")
	l.awaitRead(t, end, long, nul, bad, tty, attrs, both, code)
	records := l.stop()
	noGaps(t, records)

	one := func(id string) source.Line {
		lines := sourcetest.LinesOf(records)[sourcetest.Stream{Sandbox: telemetry.SandboxID(id), Stream: telemetry.Stdout}]
		if len(lines) != 1 {
			t.Fatalf("%d lines, want one", len(lines))
		}
		return lines[0]
	}
	checkNumbers(t, records, end, 2)
	if lines := sourcetest.LinesOf(records)[sourcetest.Stream{Sandbox: telemetry.SandboxID(end), Stream: telemetry.Stdout}]; lines[0].Partial || !lines[1].Partial {
		t.Errorf("a last line without its newline: partial %v, %v", lines[0].Partial, lines[1].Partial)
	}
	if line := one(long); !line.Truncated || len(line.Text) != telemetry.MaxMessage {
		t.Errorf("1 MiB in one line came as %d bytes, truncated %v", len(line.Text), line.Truncated)
	}
	if line := one(nul); !strings.Contains(string(line.Text), "nul=\x00.") {
		t.Errorf("a line with NUL came as %q", line.Text)
	}
	if line := one(bad); !strings.Contains(string(line.Text), "bytes=\uFFFD") {
		t.Errorf("a line that is not UTF-8 came as %q", line.Text)
	}
	checkNumbers(t, records, tty, 3)
	for _, line := range sourcetest.LinesOf(records)[sourcetest.Stream{Sandbox: telemetry.SandboxID(tty), Stream: telemetry.Stdout}] {
		if strings.ContainsAny(string(line.Text), "\r\n") {
			t.Errorf("a terminal's line came as %q", line.Text)
		}
	}
	checkNumbers(t, records, attrs, 3)
	if out, err := numbers(t, records, both, telemetry.Stdout), numbers(t, records, both, telemetry.Stderr); len(out) != 667 || len(err) != 333 || err[0] != 3 || err[332] != 999 || out[666] != 1000 {
		t.Errorf("%d lines of stdout and %d of stderr", len(out), len(err))
	}
	exit := sourcetest.EventsOf(records, telemetry.SandboxID(code))
	if last := exit[len(exit)-1]; last.ExitCode == nil || *last.ExitCode != 7 || last.Reason != "error" {
		t.Errorf("the exit is %+v", last)
	}
}

// Logs that rotate while they are written: ten megabytes a file as fast as can be,
// and a file every quarter of a second where five are kept. (As fast as can be, five
// files of a megabyte are gone before a machine that is busy with other things
// looks: that is a gap, and no promise.)
func TestRotationUnderLoad(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	run := func(lines int, size, files string, more ...string) string {
		return e.Run(t, dockertest.RunOptions{
			Image: image, Cmd: append([]string{"-n", strconv.Itoa(lines), "-size", "100"}, more...), Labels: labels(t),
			LogOpts: map[string]string{"max-size": size, "max-file": files},
		})
	}
	const many, some = 150_000, 60_000
	ten := run(many, "10m", "3")
	l.awaitRead(t, ten)
	one := run(some, "1m", "5", "-rate", "20000")
	l.awaitRead(t, one)
	records := l.stop()
	checkNumbers(t, records, ten, many)
	checkNumbers(t, records, one, some)
	noGaps(t, records)
}

// agentd dies anywhere while containers print, and a new one goes on.
func TestCrashesWhileContainersPrint(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	const lines, containers = 20_000, 3
	var ids []string
	for range containers {
		ids = append(ids, e.Create(t, dockertest.RunOptions{
			Image: image, Cmd: []string{"-n", strconv.Itoa(lines), "-rate", "6000", "-size", "80"}, Labels: labels(t),
		}))
	}
	want := map[sourcetest.Stream][]string{}
	for _, id := range ids {
		key := sourcetest.Stream{Sandbox: telemetry.SandboxID(id), Stream: telemetry.Stdout}
		for i := 1; i <= lines; i++ {
			want[key] = append(want[key], linegenLine(i, 80))
		}
	}
	sourcetest.Exercise(t, sourcetest.Subject{
		New: func(t *testing.T) source.Source {
			t.Helper()
			s, err := New(Config{Endpoint: e.Host(), Include: []string{"label=test=" + t.Name()}}, hclog.NewNullLogger(), prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Write: func(context.Context) error {
			for _, id := range ids {
				e.StartContainer(t, id)
			}
			for _, id := range ids {
				e.AwaitExit(t, id)
			}
			return nil
		},
		Want: func() map[sourcetest.Stream][]string { return want },
	})
}

// linegenLine is linegen's i-th line of a size.
func linegenLine(i, size int) string {
	number := strconv.Itoa(i)
	line := fmt.Sprintf("n=%s c=%08x ", number, crc32.ChecksumIEEE([]byte(number)))
	return line + strings.Repeat("x", size-len(line))
}
