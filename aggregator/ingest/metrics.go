package ingest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	streams     prometheus.Gauge
	frames      *prometheus.CounterVec // by lane, verdict
	records     *prometheus.CounterVec // by lane
	bytes       prometheus.Counter
	throttled   *prometheus.CounterVec // by reason
	quarantined prometheus.Counter
	unknown     prometheus.Counter
	refused     *prometheus.CounterVec // by reason
	enrolments  *prometheus.CounterVec // by result
	renewals    *prometheus.CounterVec // by result
	queued      prometheus.Gauge
	commits     *prometheus.CounterVec // by result
	commitTime  prometheus.Histogram
	batch       prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "aggregator_ingest_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "aggregator_ingest_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "aggregator_ingest_" + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: "aggregator_ingest_" + name, Help: help, Buckets: buckets})
	}
	return &metrics{
		streams:     gauge("streams", "Streams of nodes that are open."),
		frames:      counters("frames_total", "Frames by what became of them.", "lane", "verdict"),
		records:     counters("records_total", "Records in committed frames.", "lane"),
		bytes:       counter("bytes_total", "Bytes of frames received, encoded."),
		throttled:   counters("throttled_total", "Frames not taken for now, by reason.", "reason"),
		quarantined: counter("quarantined_total", "Frames whose records cannot be stored."),
		unknown:     counter("unknown_records_total", "Records of a kind that this release does not know."),
		refused:     counters("refused_total", "Connections, streams and frames refused, by reason.", "reason"),
		enrolments:  counters("enrolments_total", "Attempts to enrol, by result.", "result"),
		renewals:    counters("renewals_total", "Certificates asked for by enrolled nodes, by result.", "result"),
		queued:      gauge("queued_bytes", "Memory held by frames that are not committed yet."),
		commits:     counters("commits_total", "Transactions, by result.", "result"),
		commitTime:  histogram("commit_seconds", "Time of a transaction.", prometheus.ExponentialBuckets(0.001, 2, 14)),
		batch:       histogram("commit_frames", "Frames in a transaction.", prometheus.ExponentialBuckets(1, 2, 10)),
	}
}
