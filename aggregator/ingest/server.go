package ingest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// Limits of what one connection may ask for.
const (
	maxStreams          = 4
	maxMessage          = frame.MaxBody + 1<<20 // 4 MiB
	maxEnrolmentMessage = 64 << 10
	maxHeaderList       = 8 << 10
	handshakeTimeout    = 10 * time.Second
)

// What is remembered about organisations and addresses, at most.
const (
	maxOrganisations = 100_000
	maxAddresses     = 10_000
)

var errStopping = status.Error(codes.Unavailable, "the aggregator is stopping")

// Server takes nodes in and takes their frames.
type Server struct {
	options       Options
	metrics       *metrics
	certificates  *serverCertificates
	pipeline      *pipeline
	connected     *connections
	organisations *organisationCache
	quota         *limiter[telemetry.OrgID]
	enrolments    *limiter[netip.Prefix]
	decoding      chan struct{}

	stopping  chan struct{}  // closed when no more frames are taken
	receivers sync.WaitGroup // the receiving sides of streams
}

type (
	ingestService struct {
		wire.UnimplementedIngestServiceServer
		*Server
	}
	enrolmentService struct {
		wire.UnimplementedEnrolmentServiceServer
		*Server
	}
)

// New makes a server.
func New(options Options) (*Server, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		options: o, metrics: newMetrics(o.Registerer), certificates: &serverCertificates{authority: o.Authority, hosts: o.Hosts},
		organisations: newOrganisationCache(o.Organisations), stopping: make(chan struct{}),
		decoding: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
	}
	perSecond := []float64{float64(o.Quota.BytesPerSecond), float64(o.Quota.RecordsPerSecond)}
	s.quota = newLimiter[telemetry.OrgID](maxOrganisations, perSecond, perSecond)
	s.enrolments = newLimiter[netip.Prefix](maxAddresses, []float64{float64(o.EnrolPerHour) / 3600}, []float64{enrolBurst})
	s.connected = &connections{metrics: s.metrics, byNode: map[telemetry.NodeID]map[*session]struct{}{}}
	s.pipeline = newPipeline(&s.options, s.metrics)
	return s, nil
}

// Serve serves both listeners until ctx ends, commits what it has taken, and
// returns: within StopTimeout, or with an error that says what was cut short.
// It is called once and closes the listeners.
func (s *Server) Serve(ctx context.Context, enrolment, ingest net.Listener) error {
	enrolments, streams := s.grpcServers()
	serving, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	var servers, background sync.WaitGroup
	serve := func(g *grpc.Server, l net.Listener, name string) {
		servers.Go(func() {
			if err := g.Serve(l); err != nil {
				failed(fmt.Errorf("serve %s on %s: %w", name, l.Addr(), err))
			}
		})
	}
	serve(enrolments, enrolment, "enrolment")
	serve(streams, ingest, "ingest")
	// The pipeline outlives ctx: streams wait for its commits.
	committing, stopCommitting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCommitting()
	background.Go(func() { s.pipeline.run(committing) })
	background.Go(func() { s.watchRevoked(serving) })

	<-serving.Done()
	close(s.stopping)
	late := s.stop(enrolments, streams)
	stopCommitting()
	servers.Wait()
	background.Wait()
	s.receivers.Wait()
	if err := context.Cause(serving); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return errors.Join(err, late)
	}
	return late
}

// stop ends the servers gracefully, and those streams by force that take too long.
func (s *Server) stop(servers ...*grpc.Server) error {
	var group sync.WaitGroup
	for _, g := range servers {
		group.Go(g.GracefulStop)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		group.Wait()
	}()
	timer := time.NewTimer(s.options.StopTimeout)
	defer timer.Stop()
	var late error
	select {
	case <-done:
	case <-timer.C:
		late = fmt.Errorf("frames were still not committed %s after the stop: their nodes will send them again", s.options.StopTimeout)
		for _, g := range servers {
			g.Stop()
		}
		<-done
	}
	return late
}

// grpcServers makes the two servers. They share nothing but this process: no
// rule that tells their methods apart can be wrong. Compression is not
// registered: bodies are compressed already, and a bomb finds no decoder.
func (s *Server) grpcServers() (enrolments, streams *grpc.Server) {
	common := []grpc.ServerOption{
		grpc.MaxHeaderListSize(maxHeaderList), grpc.ConnectionTimeout(handshakeTimeout), grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.SharedWriteBuffer(true), // a thousand idle nodes need no thousand buffers
	}
	enrolments = grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(s.enrolmentTLS())), grpc.MaxRecvMsgSize(maxEnrolmentMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Minute, MaxConnectionAge: 5 * time.Minute}),
	}, common...)...)
	wire.RegisterEnrolmentServiceServer(enrolments, &enrolmentService{Server: s})

	streams = grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(s.ingestTLS())), grpc.MaxRecvMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 5 * time.Minute, Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// Fixed windows: a burst after a pause needs no round trips to grow them.
		grpc.StaticStreamWindowSize(2 << 20), grpc.StaticConnWindowSize(4 << 20), grpc.ReadBufferSize(64 << 10),
	}, common...)...)
	wire.RegisterIngestServiceServer(streams, &ingestService{Server: s})
	return enrolments, streams
}

// statusOf turns an error into what a node may see of it.
func (s *Server) statusOf(err error) error {
	var f *telemetry.Failure
	if !errors.As(err, &f) {
		s.options.Log.Error("request of a node failed", "error", err)
		return status.Error(codes.Unavailable, "the aggregator cannot answer now")
	}
	code := codes.Unavailable
	switch f.Code {
	case telemetry.InvalidRequest, telemetry.Unprocessable:
		code = codes.InvalidArgument
	case telemetry.Unauthorized:
		code = codes.Unauthenticated
	case telemetry.Forbidden, telemetry.Conflict, telemetry.Gone:
		code = codes.PermissionDenied
	case telemetry.NotFound:
		code = codes.NotFound
	case telemetry.RateLimited:
		code = codes.ResourceExhausted
	case telemetry.Timeout:
		code = codes.DeadlineExceeded
	case telemetry.Unavailable, telemetry.Internal:
	}
	return status.Error(code, f.Message)
}

func resultName(err error) string {
	if err == nil {
		return "ok"
	}
	return string(telemetry.CodeOf(err))
}

// organisationCache remembers for a while which organisations there are.
type organisationCache struct {
	source Organisations
	mu     sync.Mutex
	until  map[telemetry.OrgID]cachedAnswer
}

type cachedAnswer struct {
	known bool
	until time.Time
}

// How long answers are good: a new organisation should not wait long.
const (
	knownFor   = time.Minute
	unknownFor = 5 * time.Second
	maxCached  = 10_000
)

func newOrganisationCache(source Organisations) *organisationCache {
	return &organisationCache{source: source, until: map[telemetry.OrgID]cachedAnswer{}}
}

func (c *organisationCache) known(ctx context.Context, org telemetry.OrgID) (bool, error) {
	now := time.Now()
	c.mu.Lock()
	answer, cached := c.until[org]
	c.mu.Unlock()
	if cached && now.Before(answer.until) {
		return answer.known, nil
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeCheck)
	defer cancel()
	known, err := c.source.Known(ctx, org)
	if err != nil {
		if cached && answer.known {
			return true, nil // it was there a minute ago; the commit will tell
		}
		return false, fmt.Errorf("look up organisation %s: %w", org, err)
	}
	answer = cachedAnswer{known: known, until: now.Add(unknownFor)}
	if known {
		answer.until = now.Add(knownFor)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.until) >= maxCached {
		clear(c.until)
	}
	c.until[org] = answer
	return known, nil
}
