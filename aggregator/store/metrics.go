package store

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	lines      prometheus.Counter
	frames     *prometheus.CounterVec // by verdict
	gaps       *prometheus.CounterVec // by reason class
	commits    *prometheus.HistogramVec
	queries    prometheus.Histogram
	rowsRead   prometheus.Counter
	partitions *prometheus.CounterVec
}

// newMetrics registers the store's metrics, all of them or none.
func newMetrics(r prometheus.Registerer, s *Store) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "aggregator", Subsystem: "store", Name: name, Help: help}, labels)
	}
	seconds := prometheus.ExponentialBuckets(0.001, 2, 15)
	histogram := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: "aggregator", Subsystem: "store", Name: name, Help: help, Buckets: seconds}
	}
	m := &metrics{
		registerer: r,
		lines:      counter("lines_committed_total", "Log lines committed.").WithLabelValues(),
		frames:     counter("frames_total", "Frames judged, by verdict.", "verdict"),
		gaps:       counter("gaps_total", "Gap records committed: told by nodes, or made here of what could not be taken.", "made"),
		commits:    prometheus.NewHistogramVec(histogram("commit_seconds", "Time of one commit, its retries included."), []string{"result"}),
		queries:    prometheus.NewHistogram(histogram("query_seconds", "Time of one page of logs.")),
		rowsRead:   counter("rows_scanned_total", "Rows of lines whose columns a query decoded.").WithLabelValues(),
		partitions: counter("partitions_total", "Partitions made and dropped.", "change"),
	}
	scans := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "aggregator", Subsystem: "store", Name: "scans", Help: "Queries that read lines now.",
	}, func() float64 { return float64(len(s.scans)) })
	m.all = []prometheus.Collector{m.lines, m.frames, m.gaps, m.commits, m.queries, m.rowsRead, m.partitions, scans}
	if r == nil {
		return m, nil
	}
	for i, c := range m.all {
		if err := r.Register(c); err != nil {
			m.all = m.all[:i]
			m.unregister()
			return nil, fmt.Errorf("register the store's metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m == nil || m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}
