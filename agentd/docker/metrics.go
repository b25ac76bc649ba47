package docker

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one source. No label takes a value from a container.
type metrics struct {
	lines     *prometheus.CounterVec // by stream
	bytes     prometheus.Counter
	truncated prometheus.Counter
	cached    prometheus.Counter
	events    prometheus.Counter
	dropped   prometheus.Counter
	gaps      *prometheus.CounterVec // by reason
	badLabels *prometheus.CounterVec // by label, of five
	resyncs   prometheus.Counter
	missed    prometheus.Counter
	samples   prometheus.Counter
	unsampled prometheus.Counter
	probes    prometheus.Counter
	files     prometheus.Gauge
	sandboxes prometheus.Gauge
	connected prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	name := func(n, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "agentd", Subsystem: "docker", Name: n, Help: help}
	}
	counter := func(n, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(name(n, help)))
	}
	gauge := func(n, help string) prometheus.Gauge { return prometheus.NewGauge(prometheus.GaugeOpts(name(n, help))) }
	vec := func(n, label, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(name(n, help)), []string{label})
	}
	m := &metrics{
		lines:     vec("lines_total", "stream", "Lines read from containers."),
		bytes:     counter("log_bytes_total", "Bytes of the engine's log files that were read."),
		truncated: counter("truncated_lines_total", "Lines longer than the largest message, which were cut."),
		cached:    counter("cached_logs_total", "Logs read from the engine's cache of another driver, which may lack lines."),
		events:    counter("events_total", "Lifecycle events told."),
		dropped:   counter("dropped_events_total", "Exec and health events dropped because the sink was blocked for long."),
		gaps:      vec("gaps_total", "reason", "Gaps told, by reason."),
		badLabels: vec("bad_labels_total", "label", "Containers whose identity label holds no valid id."),
		resyncs:   counter("resyncs_total", "Comparisons with the engine's list of containers."),
		missed:    counter("missed_events_total", "Events of the engine that came faster than they could be looked at. What they changed is found by comparing."),
		samples:   counter("stats_total", "Samples of what a container uses."),
		unsampled: counter("stats_failed_total", "Samples that neither the kernel's files nor the engine gave."),
		probes:    counter("health_checks_total", "Health checks run in containers, which are not told as commands."),
		files:     gauge("open_files", "Log files held open."),
		sandboxes: gauge("sandboxes", "Containers known."),
		connected: gauge("engine_connected", "1 while the engine's events are being read."),
	}
	err := errors.Join(
		register(registerer, &m.lines), register(registerer, &m.bytes), register(registerer, &m.truncated),
		register(registerer, &m.events), register(registerer, &m.cached), register(registerer, &m.dropped), register(registerer, &m.gaps),
		register(registerer, &m.badLabels), register(registerer, &m.resyncs), register(registerer, &m.missed), register(registerer, &m.samples),
		register(registerer, &m.unsampled), register(registerer, &m.probes), register(registerer, &m.files),
		register(registerer, &m.sandboxes), register(registerer, &m.connected),
	)
	if err != nil {
		return nil, fmt.Errorf("docker metrics: %w", err)
	}
	return m, nil
}

// register registers a collector, or takes the one that an earlier source
// registered: a reload makes a new source, and its counters go on.
func register[C prometheus.Collector](registerer prometheus.Registerer, c *C) error {
	err := registerer.Register(*c)
	if before, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := before.ExistingCollector.(C); ok {
			*c = same
			return nil
		}
	}
	return err
}
