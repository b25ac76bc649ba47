package sink

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/aggregator/ingest"
	"github.com/theazo/observability/aggregator/ingest/ingesttest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/stack"
)

// Org is the organisation of every node here.
const Org = telemetry.OrgID("org_sink")

// Sink is an ingest server in front of a Counter.
type Sink struct {
	*Counter
	Log       hclog.Logger // of the server; nil: none
	nodes     *ingesttest.Store
	authority *ingest.Authority
	enrolment string
	ingest    string

	mu     sync.Mutex
	server *ingest.Server
	ran    chan error
}

// New makes a sink that is away until Up. dir is for its authority's key.
func New(dir string) (*Sink, error) {
	authority, err := ingest.OpenAuthority(dir)
	if err != nil {
		return nil, err
	}
	return &Sink{
		Counter: NewCounter(), nodes: ingesttest.NewStore(Org), authority: authority, enrolment: "127.0.0.1:0", ingest: "127.0.0.1:0",
	}, nil
}

// Up lets nodes connect, at the same addresses each time.
func (s *Sink) Up(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return nil
	}
	const plenty = 1 << 40
	config := ingest.Config{
		Authority: s.authority, Committer: s.Counter, Nodes: s.nodes, Organisations: s.nodes, Publish: func([]*frame.Published) {},
		Registerer: prometheus.NewRegistry(), EnrolmentAddress: s.enrolment, IngestAddress: s.ingest, Log: s.Log,
		Quota: telemetry.Quota{BytesPerSecond: plenty, RecordsPerSecond: plenty},
	}
	// While it was away its port was anybody's, for the moment of a connection.
	var server *ingest.Server
	for pause := (retry.Backoff{Min: 10 * time.Millisecond, Max: time.Second}); ; {
		var err error
		if server, err = ingest.New(config); err == nil {
			break
		}
		if pause.Attempts() > 30 {
			return err
		}
		if err := retry.Sleep(ctx, pause.Next()); err != nil {
			return err
		}
	}
	s.enrolment, s.ingest = server.EnrolmentAddr().String(), server.IngestAddr().String()
	s.server, s.ran = server, make(chan error, 1)
	go func(ran chan<- error) { ran <- server.Run(context.WithoutCancel(ctx)) }(s.ran)
	return nil
}

// Down breaks every connection and refuses new ones.
func (s *Sink) Down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	// That it did not end gracefully is what was asked for.
	_ = errors.Join(s.server.Stop(now), <-s.ran)
	s.server = nil
}

// Aggregator is the sink as a stack.Agent knows it. It must have been up once.
func (s *Sink) Aggregator() *stack.Aggregator {
	return &stack.Aggregator{Enrolment: s.enrolment, Ingest: s.ingest}
}

// Token lets one more node enrol.
func (s *Sink) Token() string { return s.nodes.Token(s.authority.Fingerprint(), Org) }
