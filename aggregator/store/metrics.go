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
	eraseMetrics

	units          *prometheus.HistogramVec // by result
	compactedLines prometheus.Counter
	compactedBytes *prometheus.CounterVec // in, out
	damaged        prometheus.Counter
	merges         prometheus.Histogram
	merged         prometheus.Counter
	backlog        *prometheus.GaugeVec // streams, rows, lines, bytes
	backlogAge     prometheus.Gauge
	olderReleases  prometheus.Gauge
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
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: "aggregator", Subsystem: "store", Name: name, Help: help}
	}
	m.units = prometheus.NewHistogramVec(histogram("compaction_seconds", "Time of one unit of compaction, by result."), []string{"result"})
	m.compactedLines = counter("compacted_lines_total", "Lines that were moved from hot rows into chunks here.").WithLabelValues()
	m.compactedBytes = counter("compacted_bytes_total", "Bytes of the columns of hot rows that were read, and of the chunks that were made of them.", "side")
	m.damaged = counter("damaged_lines_total", "Committed lines that could not be read back and were set aside in log_damaged.").WithLabelValues()
	m.merges = prometheus.NewHistogram(histogram("merge_seconds", "Time of one merge of small chunks."))
	m.merged = counter("merged_chunks_total", "Small chunks that were merged into larger ones.").WithLabelValues()
	m.backlog = prometheus.NewGaugeVec(gauge("backlog", "What waits for the compactor, of all organisations: streams, rows, lines, bytes of text."), []string{"of"})
	m.backlogAge = prometheus.NewGauge(gauge("backlog_oldest_seconds", "For how long the oldest line that is not compacted has waited, of all organisations."))
	m.olderReleases = prometheus.NewGauge(gauge("older_releases", "Connections of aggregators of an older release, which keep hot partitions from being dropped."))
	scans := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "aggregator", Subsystem: "store", Name: "scans", Help: "Queries that read lines now.",
	}, func() float64 { return float64(len(s.scans)) })
	m.all = []prometheus.Collector{
		m.lines, m.frames, m.gaps, m.commits, m.queries, m.rowsRead, m.partitions, scans,
		m.units, m.compactedLines, m.compactedBytes, m.damaged, m.merges, m.merged, m.backlog, m.backlogAge, m.olderReleases,
	}
	m.eraseMetrics = newEraseMetrics()
	m.all = append(m.all, m.eraseMetrics.all()...)
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

// compacted counts what a unit did.
func (m *metrics) compacted(u *unit) {
	m.compactedLines.Add(float64(u.lines))
	m.compactedBytes.WithLabelValues("in").Add(float64(u.stored))
	for _, k := range u.chunks {
		m.compactedBytes.WithLabelValues("out").Add(float64(k.size()))
	}
}

func (m *metrics) unregister() {
	if m == nil || m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}
