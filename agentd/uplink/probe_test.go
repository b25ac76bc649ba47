package uplink

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// probed runs a server of an authority's and probes it by an identity.
func probed(t *testing.T, server *authority, id *Identity, stream func(attempt int, s bidi) error) []Step {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(server.certificate)
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server.server()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})))
	wire.RegisterIngestServiceServer(g, &script{stream: stream})
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() { _ = g.Serve(l) })
	defer group.Wait()
	defer g.Stop()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return Probe(t.Context(), id, net.JoinHostPort("localhost", port))
}

// noHello is what an aggregator says to a stream that ends without a word.
func noHello(_ int, s bidi) error {
	if _, err := s.Recv(); err == nil {
		return status.Error(codes.OK, "a message came")
	}
	return status.Error(codes.InvalidArgument, "the stream ended without a Hello")
}

func identityOf(t *testing.T, a *authority) *Identity {
	t.Helper()
	dir := t.TempDir()
	a.identity(dir, telemetry.NodeIdentity{ID: "nod_1"})
	id, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &id
}

func TestTheWayToTheAggregatorIsTriedStepByStep(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	unauthenticated := func(int, bidi) error { return status.Error(codes.Unauthenticated, "not you") }
	for name, c := range map[string]struct {
		id     *Identity
		server *authority
		stream func(int, bidi) error
		steps  int
		fails  string // the last step's error; "" for none
	}{
		"all is well":         {identityOf(t, ours), ours, noHello, 4, ""},
		"not enrolled":        {nil, ours, noHello, 2, ""},
		"another aggregator":  {identityOf(t, other), ours, noHello, 3, "another aggregator"},
		"the node is refused": {identityOf(t, ours), ours, unauthenticated, 4, "enrol again"},
	} {
		steps := probed(t, c.server, c.id, c.stream)
		last := steps[len(steps)-1]
		switch {
		case len(steps) != c.steps:
			t.Errorf("%s: %+v", name, steps)
		case c.fails == "" && (last.Err != nil || last.Detail == ""):
			t.Errorf("%s: %+v", name, last)
		case c.fails != "" && (last.Err == nil || !strings.Contains(last.Err.Error(), c.fails)):
			t.Errorf("%s: %+v", name, last)
		}
	}
	for address, step := range map[string]string{"no.such.host.invalid:1": "name", "127.0.0.1:1": "connection", "nonsense": "name"} {
		steps := Probe(t.Context(), nil, address)
		if last := steps[len(steps)-1]; last.Name != step || last.Err == nil {
			t.Errorf("%s: %+v", address, steps)
		}
	}
}
