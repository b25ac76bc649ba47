package agentd

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/shared/telemetry"
)

// bufferMetrics shows the spool's statistics at each scrape; the spool itself
// imports no metrics.
type bufferMetrics struct {
	stats func() spool.Stats

	disk, budget, frames, unsent, bytes, corrupt, lost *prometheus.Desc
}

func newBufferMetrics(stats func() spool.Stats) *bufferMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("agentd_buffer_"+name, help, labels, nil)
	}
	return &bufferMetrics{
		stats:   stats,
		disk:    desc("disk_bytes", "Bytes that the buffer's files take."),
		budget:  desc("budget_bytes", "Bytes that they may take."),
		frames:  desc("frames", "Frames that are not acknowledged.", "lane"),
		unsent:  desc("unsent_frames", "Frames that are not sent since the last connection.", "lane"),
		bytes:   desc("bytes", "Bytes of the frames that are not acknowledged.", "lane"),
		corrupt: desc("corrupt_total", "Damaged places found in the buffer's files since the start."),
		lost:    desc("lost_records_total", "Records lost to damage since the start; gap records say which."),
	}
}

func (m *bufferMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.disk, m.budget, m.frames, m.unsent, m.bytes, m.corrupt, m.lost} {
		out <- d
	}
}

func (m *bufferMetrics) Collect(out chan<- prometheus.Metric) {
	s := m.stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.disk, float64(s.Disk))
	gauge(m.budget, float64(s.Budget))
	for i, lane := range s.Lane {
		name := telemetry.Lane(i).String()
		gauge(m.frames, float64(lane.Frames), name)
		gauge(m.unsent, float64(lane.Unsent), name)
		gauge(m.bytes, float64(lane.Bytes), name)
	}
	out <- prometheus.MustNewConstMetric(m.corrupt, prometheus.CounterValue, float64(s.Corrupt))
	out <- prometheus.MustNewConstMetric(m.lost, prometheus.CounterValue, float64(s.Lost))
}
