package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// maxStreamsPerNode leaves room for streams that have not noticed their end yet.
const maxStreamsPerNode = 8

// lookUpLimit bounds the look-ups of nodes and organisations.
const lookUpLimit = 3 * time.Second

// peerNode is what a verified certificate says of the caller.
type peerNode struct {
	telemetry.NodeIdentity
	generation int64
	notAfter   time.Time
}

func peerOf(ctx context.Context) (peerNode, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return peerNode{}, errors.New("the caller is not known")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return peerNode{}, errors.New("the caller did not come by TLS")
	}
	return peerOfState(&info.State)
}

func peerOfState(state *tls.ConnectionState) (peerNode, error) {
	if len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return peerNode{}, errors.New("the caller showed no certificate that this authority has issued")
	}
	c := state.PeerCertificates[0]
	identity, generation, err := wire.NodeOf(c)
	if err != nil {
		return peerNode{}, fmt.Errorf("the caller's certificate cannot be used: %w", err)
	}
	return peerNode{NodeIdentity: identity, generation: generation, notAfter: c.NotAfter}, nil
}

// ingestTLS asks every caller for a certificate of the authority's own. Whether
// that one may still send is for admit: a failed handshake cannot tell a node
// that it is revoked, nor that only the database does not answer.
func (s *Server) ingestTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: s.certificates.get,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.config.Authority.pool(),
		// A handshake per connection costs little, since connections last for
		// hours; a resumed one would leave out part of the checks.
		SessionTicketsDisabled: true,
		// Unlike VerifyPeerCertificate this is called on resumed sessions too.
		VerifyConnection: func(state tls.ConnectionState) error {
			if _, err := peerOfState(&state); err != nil {
				s.metrics.refused.WithLabelValues("certificate").Inc()
				s.config.Log.Warn("connection refused", "error", err)
				return err
			}
			return nil
		},
	}
}

// maxForgotten is how many generations a restored database may lie behind: two
// years of certificates that live for a day.
const maxForgotten = 1000

// admit decides whether a node may send, and notes the first use of a new
// certificate.
//
// A renewal issues generation n+1 and changes nothing else; the store moves to
// n+1 when that certificate is first used. So a node that dies before it has
// its new certificate goes on with the old one, while a copy of a node's disk
// is found when it uses generation n after the original has gone on to n+1.
func (s *Server) admit(ctx context.Context, p peerNode) (telemetry.Node, error) {
	n, err := s.config.Nodes.Node(ctx, p.ID)
	switch {
	case telemetry.CodeOf(err) == telemetry.NotFound:
		return n, telemetry.Failf(telemetry.Forbidden, "Node %s is not known here: enrol it again.", p.ID)
	case err != nil:
		return n, err
	case !n.RevokedAt.IsZero():
		s.metrics.refused.WithLabelValues("revoked").Inc()
		return n, telemetry.Failf(telemetry.Forbidden, "Node %s is revoked: enrol it again with a new join token.", p.ID)
	case n.Org != p.Org:
		return n, telemetry.Failf(telemetry.Forbidden, "Node %s belongs to another organisation than its certificate says: enrol it again.", p.ID)
	case p.generation == n.Generation:
		return n, nil
	case p.generation > n.Generation+maxForgotten:
		return n, telemetry.Failf(telemetry.Forbidden, "The certificate of node %s is much newer than this aggregator knows: enrol it again.", p.ID)
	}
	// Either the first use of the next generation, or an old one: then this
	// locks the node. A generation further on is one that a database forgot which
	// was restored from a backup: nobody but us issues any.
	for first := true; err == nil && (first || n.Generation < p.generation); first = false {
		n.Generation, err = s.config.Nodes.Renew(ctx, p.ID, min(p.generation, n.Generation), p.notAfter)
	}
	if telemetry.CodeOf(err) == telemetry.Conflict {
		s.metrics.refused.WithLabelValues("generation").Inc()
		s.config.Log.Error("an old certificate was used: the node's disk was copied, or its key stolen; the node is locked, enrol it again",
			"node_id", p.ID, "generation", p.generation)
		return n, telemetry.Failf(telemetry.Forbidden, "An old certificate of node %s was used, the node is locked: enrol it again.", p.ID)
	}
	return n, err
}

// Renew implements wire.IngestServiceServer.
func (s *ingestService) Renew(ctx context.Context, request *wire.RenewRequest) (*wire.RenewResponse, error) {
	p, err := peerOf(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if request.GetGeneration() != p.generation {
		return nil, status.Errorf(codes.InvalidArgument, "the request says generation %d, the certificate %d", request.GetGeneration(), p.generation)
	}
	response, err := s.renew(ctx, p, request)
	s.metrics.renewals.WithLabelValues(resultName(err)).Inc()
	if err != nil {
		return nil, s.statusOf(err)
	}
	return response, nil
}

func (s *ingestService) renew(ctx context.Context, p peerNode, request *wire.RenewRequest) (*wire.RenewResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	if _, err := s.admit(ctx, p); err != nil {
		return nil, err
	}
	next := p.generation + 1
	der, err := s.config.Authority.nodeCertificate(request.GetCsr(), p.NodeIdentity, next, time.Now().Add(s.config.NodeLife))
	if err != nil {
		return nil, err
	}
	return &wire.RenewResponse{Certificates: [][]byte{der}, Authorities: [][]byte{s.config.Authority.certificate.Raw}, Generation: next}, nil
}

// connections are the open streams, by node.
type connections struct {
	metrics *metrics
	mu      sync.Mutex
	byNode  map[telemetry.NodeID]map[*session]struct{}
}

func (c *connections) join(x *session) (leave func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	streams := c.byNode[x.peer.ID]
	if len(streams) >= maxStreamsPerNode {
		return nil, false
	}
	if streams == nil {
		streams = map[*session]struct{}{}
		c.byNode[x.peer.ID] = streams
	}
	streams[x] = struct{}{}
	c.metrics.streams.Inc()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.metrics.streams.Dec()
		if delete(streams, x); len(streams) == 0 {
			delete(c.byNode, x.peer.ID)
		}
	}, true
}

func (c *connections) nodes() []telemetry.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]telemetry.NodeID, 0, len(c.byNode))
	for id := range c.byNode {
		list = append(list, id)
	}
	return list
}

func (c *connections) cut(id telemetry.NodeID, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := range c.byNode[id] {
		select {
		case x.cut <- why:
		default: // it knows already
		}
	}
}

// watchRevoked ends the streams of nodes that are revoked while connected.
func (s *Server) watchRevoked(ctx context.Context) {
	ticker := time.NewTicker(s.config.RevokedEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		nodes := s.connected.nodes()
		if len(nodes) == 0 {
			continue
		}
		timed, cancel := context.WithTimeout(ctx, lookUpLimit)
		revoked, err := s.config.Nodes.Revoked(timed, nodes)
		cancel()
		if err != nil {
			// Nothing can be stored either while the store is away.
			s.config.Log.Debug("revoked nodes cannot be looked up", "error", err)
			continue
		}
		for _, id := range revoked {
			s.config.Log.Warn("connected node is revoked or locked, its streams end", "node_id", id)
			s.connected.cut(id, "the node is revoked or locked: enrol it again with a new join token")
		}
	}
}
