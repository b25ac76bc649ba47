package uplink

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	sent      *prometheus.CounterVec // by lane
	bytes     prometheus.Counter
	acks      prometheus.Counter
	throttles prometheus.Counter
	rewinds   prometheus.Counter
	connects  prometheus.Counter
	failures  prometheus.Counter
	renewals  prometheus.Counter
	skew      prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, u *Uplink) *metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "agentd_uplink_" + name, Help: help})
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "agentd_uplink_in_flight_bytes", Help: "Bytes of frames sent and not acknowledged."}, func() float64 {
		_, bytes, _ := u.window.describe()
		return float64(bytes)
	})
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "agentd_uplink_connected", Help: "1 while connected to an aggregator."}, func() float64 {
		if u.Status().Connected {
			return 1
		}
		return 0
	})
	return &metrics{
		sent:      f.NewCounterVec(prometheus.CounterOpts{Name: "agentd_uplink_frames_total", Help: "Frames sent, repeated ones too."}, []string{"lane"}),
		bytes:     counter("bytes_total", "Bytes of frames sent, repeated ones too."),
		acks:      counter("acks_total", "Acknowledgements received."),
		throttles: counter("throttles_total", "Requests to wait, for one organisation each."),
		rewinds:   counter("rewinds_total", "Requests to send from an earlier frame on."),
		connects:  counter("connects_total", "Streams opened."),
		failures:  counter("failures_total", "Attempts to connect and streams that failed."),
		renewals:  counter("renewals_total", "Certificates renewed."),
		skew:      f.NewGauge(prometheus.GaugeOpts{Name: "agentd_uplink_clock_skew_seconds", Help: "The aggregator's clock minus ours, at the last connect."}),
	}
}
