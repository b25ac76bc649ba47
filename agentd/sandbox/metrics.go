package sandbox

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the endpoint. No label takes a value from a sandbox.
type metrics struct {
	requests    *prometheus.CounterVec // by path, of those we have
	refused     *prometheus.CounterVec // by reason
	records     prometheus.Counter
	lost        prometheus.Counter
	queued      prometheus.Gauge
	connections prometheus.Gauge
	sandboxes   prometheus.Gauge
	execs       prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	name := func(n, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "agentd", Subsystem: "sandbox", Name: n, Help: help}
	}
	gauge := func(n, help string) prometheus.Gauge { return prometheus.NewGauge(prometheus.GaugeOpts(name(n, help))) }
	vec := func(n, label, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(name(n, help)), []string{label})
	}
	m := &metrics{
		requests:    vec("requests_total", "kind", "Requests that were taken, by kind."),
		refused:     vec("refused_total", "reason", "Requests and connections that were refused, by reason."),
		records:     prometheus.NewCounter(prometheus.CounterOpts(name("records_total", "Records taken from sandboxes."))),
		lost:        prometheus.NewCounter(prometheus.CounterOpts(name("lost_records_total", "Records refused to clients that do not try again; they are told as gaps."))),
		queued:      gauge("queued_bytes", "Bytes taken and not yet handed on."),
		connections: gauge("connections", "Open connections."),
		sandboxes:   gauge("sandboxes", "Sandboxes that spoke within the last minutes."),
		execs:       gauge("exec_sessions", "Exec sessions that are being read."),
	}
	err := errors.Join(
		register(registerer, &m.requests), register(registerer, &m.refused), register(registerer, &m.records), register(registerer, &m.lost),
		register(registerer, &m.queued), register(registerer, &m.connections), register(registerer, &m.sandboxes), register(registerer, &m.execs),
	)
	if err != nil {
		return nil, fmt.Errorf("sandbox metrics: %w", err)
	}
	return m, nil
}

// register registers *c, or puts what is registered already in its place.
func register[T prometheus.Collector](r prometheus.Registerer, c *T) error {
	err := r.Register(*c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, ok := already.ExistingCollector.(T); ok {
			*c = old
			return nil
		}
	}
	return err
}
