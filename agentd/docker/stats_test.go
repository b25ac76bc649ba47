package docker

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

// pointsOf are the values of one metric of a container, in order.
func pointsOf(records []sourcetest.Record, id, name string) []telemetry.MetricPoint {
	var points []telemetry.MetricPoint
	for i := range records {
		if records[i].Origin.Sandbox != telemetry.SandboxID(id) {
			continue
		}
		for _, p := range records[i].Metrics {
			if p.Name == name {
				points = append(points, p)
			}
		}
	}
	return points
}

// counted is the value of a counter without labels.
func counted(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// A container is measured while it runs and when it ends, and counters begin
// again with each start.
func TestStats(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil, func(c *Config) { c.StatsInterval = time.Second })
	network, err := e.Client().NetworkCreate(t.Context(), "theazo-test-stats", client.NetworkCreateOptions{})
	networked := err == nil
	mode := container.NetworkMode("none")
	if networked {
		mode = "theazo-test-stats"
		t.Cleanup(func() {
			_, _ = e.Client().NetworkRemove(context.WithoutCancel(t.Context()), network.ID, client.NetworkRemoveOptions{})
		})
	} else {
		t.Logf("NOT CHECKED, the engine can make no network here: %v", err)
	}
	created, err := e.Client().ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config:     &container.Config{Image: image, Cmd: []string{"-n", "20000", "-sleep-after", "1h"}, Labels: labels(t)},
		HostConfig: &container.HostConfig{NetworkMode: mode, Resources: container.Resources{Memory: 64 << 20}},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := created.ID
	t.Cleanup(func() {
		_, _ = e.Client().ContainerRemove(context.WithoutCancel(t.Context()), id, client.ContainerRemoveOptions{Force: true})
	})
	e.StartContainer(t, id)
	l.await(t, "three samples", func(r []sourcetest.Record) bool { return len(pointsOf(r, id, telemetry.MetricCPUTime)) >= 3 })
	if _, err := e.Client().ContainerKill(t.Context(), id, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	l.awaitRead(t, id)
	first := l.sink.Records()
	e.StartContainer(t, id)
	l.await(t, "a sample of the second run", func(r []sourcetest.Record) bool {
		points := pointsOf(r, id, telemetry.MetricCPUTime)
		return points[len(points)-1].Start.After(points[0].Start)
	})
	l.stop()

	names := []string{
		telemetry.MetricCPUTime, telemetry.MetricMemoryUsage, telemetry.MetricMemoryLimit, telemetry.MetricMemoryPeak,
		telemetry.MetricDiskRead, telemetry.MetricDiskWrite, telemetry.MetricPIDs, telemetry.MetricCPUThrottled,
	}
	if networked {
		names = append(names, telemetry.MetricNetworkRx, telemetry.MetricNetworkTx)
	}
	for _, name := range names {
		points := pointsOf(first, id, name)
		if len(points) < 3 {
			t.Errorf("%s: %d values", name, len(points))
			continue
		}
		for i, p := range points {
			if i > 0 && (p.Timestamp.Before(points[i-1].Timestamp) || p.Kind == telemetry.Cumulative && p.Value < points[i-1].Value) {
				t.Errorf("%s: %v after %v", name, p, points[i-1])
			}
			if (p.Kind == telemetry.Cumulative) == p.Start.IsZero() {
				t.Errorf("%s: kind %s, start %s", name, p.Kind, p.Start)
			}
		}
	}
	exit := exitsOf(first, id)[0].LastWords
	cpu, peak := pointsOf(first, id, telemetry.MetricCPUTime), pointsOf(first, id, telemetry.MetricMemoryPeak)
	if got := cpu[len(cpu)-1]; got.Value <= 0 || exit.CPUTime.Seconds() != got.Value {
		t.Errorf("CPU time %v, last words say %s", got.Value, exit.CPUTime)
	}
	if got := peak[len(peak)-1]; got.Value <= 0 || got.Value > 64<<20 || float64(exit.MemoryPeak) != got.Value {
		t.Errorf("memory peak %v, last words say %d", got.Value, exit.MemoryPeak)
	}
	if got := pointsOf(first, id, telemetry.MetricMemoryLimit)[0]; got.Value != 64<<20 {
		t.Errorf("memory limit %v", got.Value)
	}
}

// Where the kernel's files cannot be read, the engine tells much the same.
func TestStatsOfTheEngine(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	id := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "5000", "-sleep-after", "1h"}, Memory: 32 << 20})
	moby, err := newMobyEngine(e.Host())
	if err != nil {
		t.Fatal(err)
	}
	defer moby.Close()
	if err := moby.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, err := moby.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	sink := sourcetest.NewSink()
	meter := newMeter(time.Second, sink, moby, hclog.NewNullLogger(), m)
	defer meter.watch.close()
	s := &sandbox{id: id, tail: newTail(t.TempDir(), "x")}
	s.identified(new(identify(&Config{}, d, nil)), nil)
	meter.begin(s, d, process{}) // as of a process that cannot be seen
	if err := meter.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	records := sink.Records()
	for _, name := range []string{telemetry.MetricCPUTime, telemetry.MetricMemoryUsage, telemetry.MetricMemoryLimit, telemetry.MetricPIDs} {
		if points := pointsOf(records, id, name); len(points) != 1 || points[0].Value <= 0 || points[0].Timestamp.IsZero() {
			t.Errorf("%s: %+v", name, points)
		}
	}
	e.Remove(t, id)
	if err := meter.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if failed := counted(t, registry, "agentd_docker_stats_failed_total"); len(sink.Records()) != len(records) || failed != 1 {
		t.Errorf("a container that is gone: %d samples, %v failed", len(sink.Records()), failed)
	}
	u, of := meter.end(id)
	if of == nil || u.cpu <= 0 {
		t.Errorf("at its end: %+v", u)
	}
}

// Version 2 of control groups, as its files look.
func TestUnifiedUsage(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"cpu.stat":       "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 3\nnr_throttled 1\nthrottled_usec 250000\n",
		"memory.current": "10485760\n",
		"memory.stat":    "anon 1\nfile 4194304\ninactive_anon 5\ninactive_file 2097152\n",
		"memory.max":     "max\n",
		"memory.peak":    "20971520\n",
		"memory.events":  "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\n",
		"pids.current":   "12\n",
		"io.stat":        "8:0 rbytes=100 wbytes=200 rios=1 wios=2 dbytes=0 dios=0\n253:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n",
	} {
		writeFile(t, filepath.Join(dir, name), []byte(text))
	}
	net := filepath.Join(dir, "net")
	writeFile(t, net, []byte("Inter-|   Receive                                                |  Transmit\n"+
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"+
		"    lo:    9999       1    0    0    0     0          0         0     9999       1    0    0    0     0       0          0\n"+
		"  eth0: 1000       10    0    0    0     0          0         0      2000      20    0    0    0     0       0          0\n"+
		"  eth1:500 1 0 0 0 0 0 0 600 1 0 0 0 0 0 0\n"))
	at := time.Now().UTC()
	var k kernelFiles
	got := k.usageOf(&group{unified: dir, net: net}, at)
	want := usage{
		at: at, cpu: 1500 * time.Millisecond, throttled: 250 * time.Millisecond, memory: 8 << 20, limit: unknown, peak: 20 << 20,
		read: 110, written: 220, rx: 1500, tx: 2600, pids: 12, killed: 2,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// A kernel that tells no peak: the highest sample counts.
	if err := os.Remove(filepath.Join(dir, "memory.peak")); err != nil {
		t.Fatal(err)
	}
	got.peak = unknown
	later := k.usageOf(&group{unified: dir}, at)
	later.memory = 1 << 20
	got.add(later)
	if got.peak != 8<<20 || got.rx != 1500 || got.memory != 1<<20 {
		t.Errorf("after a later sample: %+v", got)
	}
	// It has gone.
	before := got
	got.add(k.usageOf(&group{unified: filepath.Join(dir, "gone")}, at))
	if got != before {
		t.Errorf("after its end: %+v, before %+v", got, before)
	}
	// Hostile or broken texts are no numbers.
	for _, text := range []string{"", "-5\n", "x", "99999999999999999999999\n", "1 2 3"} {
		writeFile(t, filepath.Join(dir, "pids.current"), []byte(text))
		if n := k.usageOf(&group{unified: dir}, at).pids; n != unknown {
			t.Errorf("%q is read as %d", text, n)
		}
	}
}

func TestEndsOfProcessesAreSeen(t *testing.T) {
	ended := make(chan string, 10)
	e := newExits(hclog.NewNullLogger(), func(id string, _ process) { ended <- id })
	if e.f == nil {
		t.Fatal("the kernel gives no epoll")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.run(ctx) }()
	var running []io.Closer
	for i := range 5 {
		p, in := sleeper(t)
		e.add(p, strconv.Itoa(i))
		e.add(p, "twice")
		if i == 4 {
			e.remove(p)
		}
		running = append(running, in)
	}
	e.add(process{pid: os.Getpid(), began: 1}, "another of my number")
	for i, in := range running {
		in.Close()
		if i == 4 {
			break
		}
		select {
		case id := <-ended:
			if id != strconv.Itoa(i) {
				t.Errorf("%s ended, not %d", id, i)
			}
		case <-time.After(sourcetest.Patience):
			t.Fatalf("nobody says that process %d ended", i)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(ended) != 0 || len(e.byFD) != 0 || len(e.fds) != 0 {
		t.Errorf("%d more ended, %d and %d are held", len(ended), len(e.byFD), len(e.fds))
	}
	e.add(process{pid: os.Getpid()}, "too late")
}

// BenchmarkSample is what one container costs every 15 seconds, without handing
// it over.
func BenchmarkSample(b *testing.B) {
	e := dockertest.NewEngine(b)
	image := e.Image(b, linegen)
	id := e.Run(b, dockertest.RunOptions{Image: image, Cmd: []string{"-sleep-after", "1h"}})
	r, err := e.Client().ContainerInspect(b.Context(), id, client.ContainerInspectOptions{})
	if err != nil {
		b.Fatal(err)
	}
	mounts, err := readMounts()
	if err != nil {
		b.Fatal(err)
	}
	g, ok := groupOf(&mounts, r.Container.State.Pid, id)
	if !ok {
		b.Fatal("its control group cannot be read")
	}
	var k kernelFiles
	b.ReportAllocs()
	for b.Loop() {
		u := k.usageOf(&g, time.Now())
		if len(u.points(u.at, 0)) == 0 {
			b.Fatal("nothing is known")
		}
	}
}
