package push

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
)

type metrics struct {
	requests *prometheus.CounterVec // by signal, result
	records  *prometheus.CounterVec // by signal
	rejected *prometheus.CounterVec // by signal
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aggregator_push_requests_total", Help: "Requests that pushed records without agentd, by what became of them.",
		}, []string{"signal", "result"}),
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aggregator_push_records_total", Help: "Records pushed without agentd that were committed.",
		}, []string{"signal"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aggregator_push_rejected_records_total", Help: "Records pushed without agentd that were refused one by one, which their senders were told.",
		}, []string{"signal"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.records, m.rejected} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("push: register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) done(s otlp.Signal, err error) {
	result := "ok"
	if err != nil {
		result = string(telemetry.CodeOf(err))
	}
	m.requests.WithLabelValues(s.String(), result).Inc()
}
