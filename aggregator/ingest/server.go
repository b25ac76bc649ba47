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

// decodedPerSecond is what one organisation may have us decode: frames that
// inflate a thousandfold must not take the processor from others.
const decodedPerSecond = 256 << 20

// decodedRate is its place among the rates of Server.quota.
const decodedRate = 2

// What one organisation may push in requests: each leaves a mark, and a key where
// it has one, however small it is.
const (
	requestsPerSecond = 200
	requestsAtOnce    = 1000
)

// What is remembered about organisations and addresses, at most.
const (
	maxOrganisations = 100_000
	maxAddresses     = 10_000
)

var errStopping = status.Error(codes.Unavailable, "the aggregator is stopping")

// Server takes nodes in and takes their frames.
type Server struct {
	config        Config
	metrics       *metrics
	certificates  *serverCertificates
	pipeline      *pipeline
	connected     *connections
	organisations *organisationCache
	quota         *limiter[telemetry.OrgID]
	requests      *limiter[telemetry.OrgID]
	enrolments    *limiter[netip.Prefix]
	decoding      chan struct{}
	submitted     sequences

	enrolment, ingest   net.Listener
	stopAsked, stopNow  chan struct{} // closed by Stop
	stopOnce, forceOnce sync.Once
	stopping            chan struct{}  // closed when no more frames are taken
	done                chan struct{}  // closed when Run returns
	receivers           sync.WaitGroup // the receiving sides of streams
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

// New makes a server and opens its two listeners, so that an address in use is
// said before anything runs. It serves when it is run.
func New(config Config) (*Server, error) {
	c, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		config: c, metrics: newMetrics(c.Registerer), certificates: &serverCertificates{authority: c.Authority, hosts: c.Hosts},
		organisations: newOrganisationCache(c.Organisations), decoding: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
		stopAsked: make(chan struct{}), stopNow: make(chan struct{}), stopping: make(chan struct{}), done: make(chan struct{}),
	}
	common := ratesOf(c.Quota, c.Quota)
	s.quota = newLimiter[telemetry.OrgID](maxOrganisations, common, common)
	s.requests = newLimiter[telemetry.OrgID](maxOrganisations, []float64{requestsPerSecond}, []float64{requestsAtOnce})
	s.enrolments = newLimiter[netip.Prefix](maxAddresses, []float64{float64(c.EnrolPerHour) / 3600}, []float64{max(1, float64(c.EnrolPerHour)/6)})
	s.connected = &connections{metrics: s.metrics, byNode: map[telemetry.NodeID]map[*session]struct{}{}}
	s.pipeline = newPipeline(&s.config, s.metrics)
	if s.enrolment, err = listen(c.EnrolmentAddress); err != nil {
		return nil, fmt.Errorf("enrolment: %w", err)
	}
	if s.ingest, err = listen(c.IngestAddress); err != nil {
		return nil, errors.Join(fmt.Errorf("ingest: %w", err), s.enrolment.Close())
	}
	return s, nil
}

func listen(address string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(context.Background(), "tcp", address)
}

// EnrolmentAddr is where nodes enrol.
func (s *Server) EnrolmentAddr() net.Addr { return s.enrolment.Addr() }

// IngestAddr is where nodes send records.
func (s *Server) IngestAddr() net.Addr { return s.ingest.Addr() }

// Run serves until ctx ends or Stop is called, commits and acknowledges what
// it has taken, and returns: within StopTimeout, with an error that says what
// was cut short. It is called once.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.done)
	enrolments, streams := s.grpcServers()
	serving, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	var servers, background sync.WaitGroup
	serve := func(g *grpc.Server, l net.Listener, name string) {
		servers.Go(func() {
			if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				failed(fmt.Errorf("serve %s on %s: %w", name, l.Addr(), err))
			}
		})
	}
	serve(enrolments, s.enrolment, "enrolment")
	serve(streams, s.ingest, "ingest")
	// The pipeline outlives ctx: streams wait for its commits.
	committing, stopCommitting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopCommitting()
	background.Go(func() { s.pipeline.run(committing) })
	background.Go(func() { s.watchRevoked(serving) })
	background.Go(func() { s.watchQuotas(serving) })
	background.Go(func() { s.organisations.refresh(serving) })

	select {
	case <-serving.Done():
	case <-s.stopAsked:
	}
	err := context.Cause(serving)
	if err != nil && ctx.Err() != nil {
		err = nil // it was to end
	}
	close(s.stopping)
	err = errors.Join(err, s.end(enrolments, streams))
	failed(nil)
	stopCommitting()
	servers.Wait()
	background.Wait()
	s.receivers.Wait()
	return err
}

// Stop ends Run: gracefully until ctx ends, then by force. It returns when Run does.
func (s *Server) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stopAsked) })
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	s.forceOnce.Do(func() { close(s.stopNow) })
	<-s.done
	return fmt.Errorf("stop taking records: %w", ctx.Err())
}

// end ends the servers gracefully, and those streams by force that take too long.
func (s *Server) end(servers ...*grpc.Server) error {
	var group sync.WaitGroup
	for _, g := range servers {
		group.Go(g.GracefulStop)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		group.Wait()
	}()
	timer := time.NewTimer(s.config.StopTimeout)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-timer.C:
	case <-s.stopNow:
	}
	for _, g := range servers {
		g.Stop()
	}
	<-ended
	return errors.New("frames were still not committed when the time to stop was over: their nodes will send them again")
}

// grpcServers makes the two servers. They share nothing but this process: no
// rule that tells their methods apart can be wrong. Compression is not
// registered: bodies are compressed already, and a bomb finds no decoder.
func (s *Server) grpcServers() (enrolments, streams *grpc.Server) {
	common := []grpc.ServerOption{
		grpc.MaxHeaderListSize(maxHeaderList), grpc.ConnectionTimeout(handshakeTimeout), grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
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
		if errors.Is(err, context.Canceled) { // the node left before its answer
			return status.FromContextError(err).Err()
		}
		s.config.Log.Error("request of a node failed", "error", err)
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

// organisationCache remembers for a while which organisations there are. One
// that is known is looked up again beside its frames, so that those of thousands
// of organisations, which all came at once, do not wait for thousands of answers.
type organisationCache struct {
	source Organisations
	again  chan telemetry.OrgID // to be looked up by refresh
	mu     sync.Mutex
	until  map[telemetry.OrgID]cachedAnswer
}

type cachedAnswer struct {
	known bool
	asked bool // refresh has been asked to look again
	until time.Time
}

// How long answers are good: a new organisation should not wait long. A known
// one is taken at its word for as long again while it is looked up.
const (
	knownFor   = time.Minute
	unknownFor = 5 * time.Second
	maxCached  = 10_000
)

func newOrganisationCache(source Organisations) *organisationCache {
	return &organisationCache{source: source, again: make(chan telemetry.OrgID, maxCached), until: map[telemetry.OrgID]cachedAnswer{}}
}

func (c *organisationCache) known(ctx context.Context, org telemetry.OrgID) (bool, error) {
	answer, good := c.remembered(org)
	if good {
		return answer.known, nil
	}
	known, err := c.lookUp(ctx, org)
	if err != nil && answer.known {
		return true, nil // it was there minutes ago; the commit will tell
	}
	return known, err
}

// remembered returns the last answer and whether it can be relied on. One that
// is getting old it lets refresh look up.
func (c *organisationCache) remembered(org telemetry.OrgID) (answer cachedAnswer, good bool) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	answer = c.until[org]
	if now.Before(answer.until) {
		return answer, true
	}
	if !answer.known || !now.Before(answer.until.Add(knownFor)) {
		return answer, false
	}
	if !answer.asked {
		select {
		case c.again <- org:
			answer.asked = true
			c.until[org] = answer
		default:
		}
	}
	return answer, true
}

func (c *organisationCache) lookUp(ctx context.Context, org telemetry.OrgID) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, lookUpLimit)
	defer cancel()
	now := time.Now()
	known, err := c.source.KnownOrganisation(ctx, org)
	if err != nil {
		return false, fmt.Errorf("look up organisation %s: %w", org, err)
	}
	answer := cachedAnswer{known: known, until: now.Add(unknownFor)}
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

// refresh looks up what remembered asks for, until ctx ends. A failure needs no
// word: the next frame after the answer has grown too old asks itself.
func (c *organisationCache) refresh(ctx context.Context) {
	for {
		select {
		case org := <-c.again:
			_, _ = c.lookUp(ctx, org)
		case <-ctx.Done():
			return
		}
	}
}
