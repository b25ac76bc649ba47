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

	ceiling, low, evictedRecords, evictedBytes, rewritten *prometheus.Desc
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
		lost:    desc("lost_records_total", "Records that are lost since the start, to damage or because they gave way; gap records say which."),

		ceiling:        desc("ceiling_bytes", "Bytes of the budget that may be used now: less where the file system is nearly full."),
		low:            desc("low_space", "1 while the file system has less free space than is to be left."),
		evictedRecords: desc("evicted_records_total", "Records that gave way in a full buffer; gap records say which.", "lane", "class"),
		evictedBytes:   desc("evicted_bytes_total", "Bytes of the frames that gave way in a full buffer.", "lane", "class"),
		rewritten:      desc("rewritten_bytes_total", "Bytes that were copied to free the room beside them."),
	}
}

func (m *bufferMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.disk, m.budget, m.frames, m.unsent, m.bytes, m.corrupt, m.lost, m.ceiling, m.low, m.evictedRecords, m.evictedBytes, m.rewritten,
	} {
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
	gauge(m.ceiling, float64(s.Ceiling))
	low := 0.0
	if s.Low {
		low = 1
	}
	gauge(m.low, low)
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	count(m.corrupt, float64(s.Corrupt))
	count(m.lost, float64(s.Lost))
	count(m.rewritten, float64(s.Rewrote))
	for lane := range s.Evicted {
		for class, loss := range s.Evicted[lane] {
			labels := []string{telemetry.Lane(lane).String(), telemetry.Class(class).String()}
			count(m.evictedRecords, float64(loss.Records), labels...)
			count(m.evictedBytes, float64(loss.Bytes), labels...)
		}
	}
}
