package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
)

// OTLP is how OpenTelemetry's data are taken: on every address of
// Config.Listen, by HTTP and by gRPC.
type OTLP struct {
	// Content keeps the content of model messages: what people and models said,
	// what tools were given and gave back. It is off, so that it is dropped here.
	Content bool
	// ContentNames are further attributes to drop as such content; a name that
	// ends with * stands for all that begin so.
	ContentNames []string
}

// maxDecoding is how many requests of OTLP are decoded at the same time: each
// may take as much memory as otlp.MaxBytes.
const maxDecoding = 2

// collector takes OTLP requests, however they came.
//
//	HTTP  POST /v1/traces ────────┐  hold: memory    decoding: 2    offer: quota
//	gRPC  POST /opentelemetry.… ──┴▶ read, inflate ──▶ decode ──▶ queue of the sandbox
//	                                                              │
//	       partial success ◀──────────────────────────────────────┘
type collector struct {
	source   *Source
	config   OTLP
	flight   flight
	decoding chan struct{}
	metrics  *otlpMetrics
}

type otlpMetrics struct {
	refused *prometheus.CounterVec // records, by reason
	dropped *prometheus.CounterVec // parts of records, by reason
}

func newCollector(s *Source, config OTLP, registerer prometheus.Registerer) (*collector, error) {
	vec := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "agentd", Subsystem: "sandbox", Name: name, Help: help}, []string{"reason"})
	}
	m := &otlpMetrics{
		refused: vec("otlp_refused_records_total", "Records of OTLP requests that were refused, by reason; their senders were told."),
		dropped: vec("otlp_dropped_parts_total", "Attributes, events, links and other parts of OTLP records that were dropped or cut, by reason."),
	}
	if err := errors.Join(register(registerer, &m.refused), register(registerer, &m.dropped)); err != nil {
		return nil, fmt.Errorf("sandbox metrics: %w", err)
	}
	return &collector{source: s, config: config, decoding: make(chan struct{}, maxDecoding), metrics: m}, nil
}

// addOTLP adds OTLP's paths to those that the endpoint answers.
func (s *Source) addOTLP(registerer prometheus.Registerer) error {
	c, err := newCollector(s, s.cfg.OTLP, registerer)
	if err != nil {
		return err
	}
	s.collector = c
	s.routes["/v1/logs"], s.routes[grpcLogs] = c.http(otlp.Logs), c.grpc(otlp.Logs)
	s.routes["/v1/traces"], s.routes[grpcTraces] = c.http(otlp.Traces), c.grpc(otlp.Traces)
	s.routes["/v1/metrics"], s.routes[grpcMetrics] = c.http(otlp.Metrics), c.grpc(otlp.Metrics)
	return nil
}

// take decodes a request's body and queues what it holds.
func (c *collector) take(ctx context.Context, t source.Target, signal otlp.Signal, format otlp.Format, body []byte) (*otlp.Result, error) {
	result, err := c.decode(ctx, t, signal, format, body)
	if err != nil {
		return nil, err
	}
	for why, n := range result.Refused {
		c.metrics.refused.WithLabelValues(string(why)).Add(float64(n))
	}
	for why, n := range result.Dropped {
		c.metrics.dropped.WithLabelValues(string(why)).Add(float64(n))
	}
	if result.Records() > 0 {
		b := &source.Batch{Entries: result.Entries}
		b.Spans, b.Metrics = result.Spans, result.Metrics
		if err := c.source.offer(ctx, t, b); err != nil {
			return nil, err
		}
	}
	// The sender does not send these again, though nothing is wrong with them.
	if n := result.Refused[otlp.TooMany]; n > 0 {
		c.source.lost(t, n, 0)
	}
	c.source.metrics.requests.WithLabelValues("otlp_" + signal.String()).Inc()
	return result, nil
}

func (c *collector) decode(ctx context.Context, t source.Target, signal otlp.Signal, format otlp.Format, body []byte) (*otlp.Result, error) {
	select {
	case c.decoding <- struct{}{}:
		defer func() { <-c.decoding }()
	case <-ctx.Done():
		return nil, telemetry.Failf(telemetry.Unavailable, "The request was given up before it was read.")
	}
	result, err := otlp.Decode(signal, format, body, otlp.Options{
		Bind:    func(claim otlp.Claim) (telemetry.Origin, error) { return c.bind(&t, claim) },
		Content: c.config.Content, ContentNames: c.config.ContentNames, Received: time.Now().UTC().Truncate(time.Microsecond),
	})
	if err != nil {
		return nil, &telemetry.Failure{Code: telemetry.InvalidRequest, Message: err.Error(), Cause: err}
	}
	return result, nil
}

// bind gives a resource's records to the sender, unless the resource claims to
// be of somebody else.
func (c *collector) bind(t *source.Target, claim otlp.Claim) (telemetry.Origin, error) {
	if err := c.source.claim(t, string(claim.Agent), string(claim.Session)); err != nil {
		if claim.Agent != "" && claim.Agent != t.Origin.Agent {
			return telemetry.Origin{}, fmt.Errorf("are of a resource whose theazo.agent.id is %.140q, which is not the sender's", string(claim.Agent))
		}
		return telemetry.Origin{}, fmt.Errorf("are of a resource whose theazo.session.id is %.140q, which is not the sender's", string(claim.Session))
	}
	return t.Origin, nil
}
