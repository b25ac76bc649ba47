package ingest

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// enrolmentTLS asks for no client certificate: callers have none yet.
func (s *Server) enrolmentTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.certificates.get, SessionTicketsDisabled: true}
}

// Enroll implements wire.EnrolmentServiceServer.
func (s *enrolmentService) Enroll(ctx context.Context, request *wire.EnrollRequest) (*wire.EnrollResponse, error) {
	from := addressOf(ctx)
	if wait := s.enrolments.take(limitKey(from), 1); wait > 0 {
		s.metrics.enrolments.WithLabelValues("rate_limited").Inc()
		return nil, status.Errorf(codes.ResourceExhausted, "too many attempts to enrol from %s: try again in %s", from, wait.Round(time.Second))
	}
	response, err := s.enroll(ctx, from, request)
	s.metrics.enrolments.WithLabelValues(resultName(err)).Inc()
	if err != nil {
		s.config.Log.Warn("enrolment refused", "from", from, "name", clip(request.GetNodeName()), "error", err)
		return nil, s.statusOf(err)
	}
	s.config.Log.Info("node enrolled", "node_id", response.GetNodeId(), "name", clip(request.GetNodeName()), "from", from)
	return response, nil
}

func (s *enrolmentService) enroll(ctx context.Context, from netip.Addr, request *wire.EnrollRequest) (*wire.EnrollResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	authority := s.config.Authority
	fingerprint, err := ids.ParseJoinToken(request.GetToken())
	if err != nil {
		return nil, telemetry.Failf(telemetry.Unauthorized, "The token %v.", err)
	}
	if fingerprint != authority.Fingerprint() {
		return nil, telemetry.Failf(telemetry.Unauthorized, "The join token was made for another authority than this aggregator's.")
	}
	// A request that cannot be answered must not use up the token.
	until := time.Now().Add(s.config.NodeLife)
	if _, err := authority.nodeCertificate(request.GetCsr(), telemetry.NodeIdentity{ID: "nod_check"}, 1, until); err != nil {
		return nil, err
	}
	node, err := s.config.Nodes.Join(ctx, ids.HashOf(request.GetToken()), from, telemetry.Node{
		Name: clip(request.GetNodeName()), Machine: clip(request.GetMachineId()),
		Version: clip(request.GetVersion()), Generation: 1, CertificateTo: until.UTC(),
	})
	if err != nil {
		return nil, err
	}
	identity := telemetry.NodeIdentity{ID: node.ID, Org: node.Org}
	der, err := authority.nodeCertificate(request.GetCsr(), identity, node.Generation, until)
	if err != nil {
		return nil, err
	}
	return &wire.EnrollResponse{
		Certificates: [][]byte{der}, Authorities: [][]byte{authority.certificate.Raw},
		NodeId: string(node.ID), Platform: identity.Platform(), Generation: node.Generation,
	}, nil
}

func addressOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	tcp, ok := p.Addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

// limitKey is what attempts are counted by: an address, or the network that
// one customer of an IPv6 provider has.
func limitKey(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
