package docker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// Bounds of one round of samples.
const (
	// roundPart is how many containers are sampled in one go; then others may run.
	roundPart  = 256
	roundPause = 100 * time.Millisecond
)

// meter measures what running containers use. It reads the kernel's own files,
// which costs some 100 µs for each container; the engine is asked only where
// those cannot be read. What a container used until its end is read in the
// moment its first process ends, before the engine removes its control group.
type meter struct {
	every   time.Duration // between two samples; 0: only ends are measured
	sink    source.Sink
	engine  engine
	log     hclog.Logger
	metrics *metrics
	mounts  mounts
	watch   *exits

	mu      sync.Mutex
	live    map[string]*metered
	reading kernelFiles // under mu
}

// metered is one running container.
type metered struct {
	s      *sandbox
	init   process
	start  time.Time
	group  group
	direct bool // group can be read; otherwise the engine is asked
	limit  int64
	last   usage
	final  bool // last is what it used until its end
}

func newMeter(every time.Duration, to source.Sink, e engine, log hclog.Logger, m *metrics) *meter {
	t := &meter{every: every, sink: to, engine: e, log: log, metrics: m, live: map[string]*metered{}}
	mounts, err := readMounts()
	if err != nil {
		log.Debug("cannot find this host's control groups; the engine is asked instead", "error", err)
	}
	t.mounts = mounts
	t.watch = newExits(log, t.exited)
	return t
}

// begin measures a run of a container from now on. A second call for the same
// run changes nothing.
func (t *meter) begin(s *sandbox, d *details, init process) {
	m := &metered{s: s, init: init, start: d.Started, limit: d.MemoryLimit, last: noUsage(time.Time{})}
	t.mu.Lock()
	before := t.live[s.id]
	t.mu.Unlock()
	if before != nil && before.start.Equal(m.start) {
		return
	}
	if init.pid != 0 {
		m.group, m.direct = groupOf(&t.mounts, init.pid, s.id)
		if d.ForeignNetwork {
			m.group.net = ""
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if before != nil {
		t.watch.remove(before.init)
	}
	t.live[s.id] = m
	if m.direct {
		t.watch.add(init, s.id) // first, so that the end is not missed
		m.last = t.reading.usageOf(&m.group, time.Now().UTC())
	}
}

// exited takes the last measure of a container whose first process has just
// ended.
func (t *meter) exited(id string, init process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.live[id]; m != nil && m.init == init && !m.final {
		m.last.add(t.reading.usageOf(&m.group, time.Now().UTC()))
		m.final = true
	}
}

// end forgets a run and returns what it used, as far as was measured.
func (t *meter) end(id string) (usage, *metered) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.live[id]
	if m == nil {
		return noUsage(time.Time{}), nil
	}
	delete(t.live, id)
	t.watch.remove(m.init)
	if m.direct && !m.final {
		m.last.add(t.reading.usageOf(&m.group, time.Now().UTC())) // if it is still there
	}
	return m.last, m
}

// add takes a newer sample. What it could not read is kept, and so is the peak:
// on kernels that do not tell it, it is the highest sample.
func (u *usage) add(n usage) {
	if n.cpu < 0 && n.memory < 0 {
		return // it was gone
	}
	n.peak = max(n.peak, u.peak, n.memory, u.memory)
	n.cpu, n.throttled = max(n.cpu, u.cpu), max(n.throttled, u.throttled)
	n.read, n.written = max(n.read, u.read), max(n.written, u.written)
	n.rx, n.tx = max(n.rx, u.rx), max(n.tx, u.tx)
	n.killed = max(n.killed, u.killed)
	for _, gauge := range []struct{ newer, older *int64 }{{&n.memory, &u.memory}, {&n.limit, &u.limit}, {&n.pids, &u.pids}} {
		if *gauge.newer < 0 {
			*gauge.newer = *gauge.older
		}
	}
	*u = n
}

// run samples until ctx ends or the sink refuses.
func (t *meter) run(ctx context.Context) error {
	if t.every <= 0 {
		return nil
	}
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := t.round(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// round samples every running container once.
func (t *meter) round(ctx context.Context) error {
	pause := time.NewTimer(roundPause)
	defer pause.Stop()
	for i, m := range t.running() {
		if i > 0 && i%roundPart == 0 {
			pause.Reset(roundPause)
			select {
			case <-ctx.Done():
				return nil
			case <-pause.C:
			}
		}
		target := m.s.whom()
		u, ok := t.sample(ctx, m)
		if ctx.Err() != nil {
			return nil
		}
		if target == nil || !ok {
			continue
		}
		batch := source.Batch{Target: *target}
		batch.Metrics = u.points(m.start, m.limit)
		if err := t.sink.Emit(ctx, &batch); err != nil {
			return fmt.Errorf("hand over what sandbox %.12s uses: %w", m.s.id, err)
		}
		t.metrics.samples.Inc()
	}
	return nil
}

func (t *meter) running() []*metered {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*metered, 0, len(t.live))
	for _, m := range t.live {
		if !m.final {
			all = append(all, m)
		}
	}
	// Neighbours of one organisation go in one frame.
	slices.SortFunc(all, func(a, b *metered) int { return a.start.Compare(b.start) })
	return all
}

// sample measures a container now.
func (t *meter) sample(ctx context.Context, m *metered) (usage, bool) {
	if m.direct {
		t.mu.Lock()
		defer t.mu.Unlock()
		if m.final {
			return m.last, false // its exit tells
		}
		u := t.reading.usageOf(&m.group, time.Now().UTC())
		m.last.add(u)
		return m.last, u.cpu >= 0 || u.memory >= 0
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	u, err := t.engine.Stats(asking, m.s.id)
	if err != nil {
		t.metrics.unsampled.Inc()
		return u, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m.last.add(u)
	return m.last, true
}

// points makes metric points of a sample. Counters begin with the container's
// start, for its control group does.
func (u *usage) points(start time.Time, limit int64) []telemetry.MetricPoint {
	points := make([]telemetry.MetricPoint, 0, 11)
	add := func(name, unit string, kind telemetry.MetricKind, known bool, value float64) {
		if !known {
			return
		}
		p := telemetry.MetricPoint{Name: name, Unit: unit, Kind: kind, Timestamp: u.at, Value: value}
		if kind == telemetry.Cumulative {
			p.Start = start
		}
		points = append(points, p)
	}
	count := func(name string, n int64) {
		add(name, "By", telemetry.Cumulative, n >= 0, float64(n))
	}
	if u.limit >= 0 {
		limit = u.limit
	}
	add(telemetry.MetricCPUTime, "s", telemetry.Cumulative, u.cpu >= 0, u.cpu.Seconds())
	add(telemetry.MetricCPUThrottled, "s", telemetry.Cumulative, u.throttled >= 0, u.throttled.Seconds())
	add(telemetry.MetricMemoryUsage, "By", telemetry.Gauge, u.memory >= 0, float64(u.memory))
	add(telemetry.MetricMemoryLimit, "By", telemetry.Gauge, limit > 0, float64(limit))
	add(telemetry.MetricMemoryPeak, "By", telemetry.Gauge, u.peak >= 0, float64(u.peak))
	count(telemetry.MetricNetworkRx, u.rx)
	count(telemetry.MetricNetworkTx, u.tx)
	count(telemetry.MetricDiskRead, u.read)
	count(telemetry.MetricDiskWrite, u.written)
	add(telemetry.MetricPIDs, "1", telemetry.Gauge, u.pids >= 0, float64(u.pids))
	return points
}
