package live

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	tailers prometheus.Gauge
	readers prometheus.Gauge
	polls   prometheus.Counter
	reads   *prometheus.CounterVec
	missed  *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		tailers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "aggregator_live_scopes", Help: "Organisations and environments that somebody watches.",
		}),
		readers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "aggregator_live_readers", Help: "Open views of live streams.",
		}),
		polls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "aggregator_live_polls_total", Help: "Times that the heads of all watched streams were asked for at once.",
		}),
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aggregator_live_log_reads_total", Help: "Reads of the stored stream: by the tailer (another replica committed) or by a reader (resume, catching up).",
		}, []string{"by"}),
		missed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aggregator_live_missed_total", Help: "Times that a reader was told that it missed records.",
		}, []string{"reason"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.tailers, m.readers, m.polls, m.reads, m.missed} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("live: register metrics: %w", err)
		}
	}
	return m, nil
}
