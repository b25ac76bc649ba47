package ingest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/theazo/observability/aggregator/ingest"
	"github.com/theazo/observability/aggregator/ingest/ingesttest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// patience is how long anything may take on a loaded machine.
const patience = time.Minute

// bench is a running server with a store in memory.
type bench struct {
	store     *ingesttest.Store
	authority *ingest.Authority
	server    *ingest.Server
	registry  *prometheus.Registry
	stop      func() error // graceful, once
}

func start(t *testing.T, change func(*ingest.Config), orgs ...telemetry.OrgID) *bench {
	t.Helper()
	authority, err := ingest.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{store: ingesttest.NewStore(orgs...), authority: authority, registry: prometheus.NewRegistry()}
	config := ingest.Config{
		Authority: authority, Committer: b.store, Nodes: b.store, Organisations: b.store, Publish: func([]*frame.Published) {},
		Registerer: b.registry, EnrolmentAddress: "127.0.0.1:0", IngestAddress: "127.0.0.1:0",
		RevokedEvery: 50 * time.Millisecond, CommitEvery: time.Millisecond,
	}
	if change != nil {
		change(&config)
	}
	if b.server, err = ingest.New(config); err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- b.server.Run(context.WithoutCancel(t.Context())) }()
	stopped := false
	b.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return errors.Join(b.server.Stop(ctx), <-ran)
	}
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return b
}

// node is an enrolled node, seen as its key and certificate.
type node struct {
	id          telemetry.NodeID
	generation  int64
	certificate tls.Certificate
	trusted     *x509.CertPool
}

func newCSR(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

func dial(t *testing.T, address string, config *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (b *bench) trusted(t *testing.T) *x509.CertPool {
	t.Helper()
	server, err := b.authority.ServerCertificate()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(server.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return pool
}

func (b *bench) enrolmentClient(t *testing.T) wire.EnrolmentServiceClient {
	t.Helper()
	return wire.NewEnrolmentServiceClient(dial(t, b.server.EnrolmentAddr().String(), &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: b.trusted(t), ServerName: wire.ServerName,
	}))
}

// enrol makes a node of an organisation; "" for a platform node.
func (b *bench) enrol(t *testing.T, org telemetry.OrgID) *node {
	t.Helper()
	key, csr := newCSR(t)
	response, err := b.enrolmentClient(t).Enroll(deadline(t), &wire.EnrollRequest{
		Token: b.store.Token(b.authority.Fingerprint(), org), Csr: csr, NodeName: "test", MachineId: "m",
	})
	if err != nil {
		t.Fatalf("enrol: %v", err)
	}
	return &node{
		id: telemetry.NodeID(response.GetNodeId()), generation: response.GetGeneration(), trusted: b.trusted(t),
		certificate: tls.Certificate{Certificate: response.GetCertificates(), PrivateKey: key},
	}
}

func (n *node) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: n.trusted, ServerName: wire.ServerName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &n.certificate, nil },
	}
}

func (b *bench) client(t *testing.T, config *tls.Config) wire.IngestServiceClient {
	t.Helper()
	return wire.NewIngestServiceClient(dial(t, b.server.IngestAddr().String(), config))
}

// stream is the far end of one open stream.
type stream struct {
	t *testing.T
	grpc.BidiStreamingClient[wire.StreamRequest, wire.StreamResponse]
}

// open opens a stream up to its Welcome.
func (b *bench) open(t *testing.T, n *node) *stream {
	t.Helper()
	s, err := b.tryOpen(t, n.tls())
	if err != nil {
		t.Fatalf("open a stream: %v", err)
	}
	return s
}

func (b *bench) tryOpen(t *testing.T, config *tls.Config) (*stream, error) {
	t.Helper()
	s, err := b.client(t, config).Stream(deadline(t))
	if err != nil {
		return nil, err
	}
	_ = s.Send(&wire.StreamRequest{Message: &wire.StreamRequest_Hello{Hello: &wire.Hello{Version: "1", Now: timestamppb.Now()}}})
	response, err := s.Recv()
	if err != nil {
		return nil, err
	}
	if response.GetWelcome().GetWindowBytes() == 0 {
		t.Fatalf("the first message is %v", response)
	}
	return &stream{t: t, BidiStreamingClient: s}, nil
}

func (s *stream) send(f *wire.Frame) {
	s.t.Helper()
	if err := s.Send(&wire.StreamRequest{Message: &wire.StreamRequest_Frame{Frame: f}}); err != nil && !errors.Is(err, io.EOF) {
		s.t.Fatalf("send: %v", err)
	}
}

// report sends an encoded Report.
func (s *stream) report(b []byte) {
	s.t.Helper()
	if err := s.Send(&wire.StreamRequest{Message: &wire.StreamRequest_Report{Report: b}}); err != nil {
		s.t.Fatalf("send: %v", err)
	}
}

// next returns the next message.
func (s *stream) next() *wire.StreamResponse {
	s.t.Helper()
	r, err := s.Recv()
	if err != nil {
		s.t.Fatalf("receive: %v", err)
	}
	return r
}

// acked reads until everything up to last is acknowledged.
func (s *stream) acked(org string, epoch, last uint64) {
	s.t.Helper()
	for {
		r := s.next()
		if a := r.GetAck(); a != nil && a.GetOrganisation() == org && a.GetEpoch() == epoch && a.GetLast() >= last {
			return
		}
	}
}

// end reads until the stream ends and returns why.
func (s *stream) end() error {
	for {
		if _, err := s.Recv(); err != nil {
			return err
		}
	}
}

func logs(org string, epoch, first uint64, messages ...string) *wire.Frame {
	return &wire.Frame{
		Organisation: org, Lane: wire.Lane_LANE_LOGS, Class: wire.Class_CLASS_NORMAL, Epoch: epoch, First: first,
		Count: uint32(len(messages)), Body: ingesttest.Segment(messages...),
	}
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx := deadline(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

// metric returns the sum of a counter or gauge over its labels that contain part.
func (b *bench) metric(t *testing.T, name, part string) float64 {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "aggregator_ingest_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if part == "" || l.GetValue() == part {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
					break
				}
			}
			if len(m.GetLabel()) == 0 {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
