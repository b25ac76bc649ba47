package uplink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// answerWindow is how many bytes of answers may be on their way to us.
const answerWindow = 64 << 10

// Bounds of what an aggregator may tell us to wait.
const (
	shortestThrottle = 10 * time.Millisecond
	longestThrottle  = 5 * time.Minute
)

var (
	errRenewed = errors.New("the certificate was renewed")
	errSilent  = fmt.Errorf("nothing was acknowledged for %s", ackTimeout)
)

// ending is how a connection ended.
type ending struct {
	err    error
	steady bool // it was good for a while: the next pause may be short
}

// session is one stream to one aggregator.
type session struct {
	*Uplink
	platform bool            // what the certificate says
	own      telemetry.OrgID // what the certificate says
	foreign  sync.Once
	stream   grpc.BidiStreamingClient[wire.StreamRequest, wire.StreamResponse]
	sending  sync.Mutex    // held around stream.Send
	every    time.Duration // between reports; 0: none are wanted
	reported chan struct{} // closed when none is sent any more

	mu     sync.Mutex
	timers []*time.Timer // end of throttles
	acked  bool
}

// connect keeps one connection for as long as it lasts.
func (u *Uplink) connect(ctx context.Context, address string) ending {
	id, renewAt := u.currentIdentity()
	u.update(func(s *Status) { s.Aggregator = address })
	conn, err := dial(address, &id)
	if err != nil {
		return ending{err: fmt.Errorf("address of the aggregator %q: %w", address, err)}
	}
	defer func() { _ = conn.Close() }()
	client := wire.NewIngestServiceClient(conn)
	// The stream outlives ctx for a moment, to hear what is committed.
	streamCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	s := &session{Uplink: u, platform: id.Platform, own: id.Org}
	window, err := s.open(ctx, streamCtx, cancel, client)
	if err != nil {
		return ending{err: explain(&id, err)}
	}
	start := time.Now()
	u.metrics.connects.Inc()
	u.update(func(st *Status) { st.Connected, st.ConnectedSince = true, start.UTC() })
	u.log.Info("connected", "aggregator", address, "node_id", id.Node, "window_bytes", window)
	defer u.update(func(st *Status) { st.Connected, st.ConnectedSince = false, time.Time{} })
	err = s.run(ctx, cancel, client, renewAt)
	return ending{err: explain(&id, err), steady: s.wasAcked() || time.Since(start) > steadyAfter}
}

func dial(address string, id *Identity) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(id.tlsConfig())),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDisableServiceConfig(), grpc.WithWriteBufferSize(64<<10), grpc.WithIdleTimeout(0),
		// Fixed windows: measuring the way for larger ones would cost a ping for each
		// acknowledgement, and those are small.
		grpc.WithStaticStreamWindowSize(answerWindow), grpc.WithStaticConnWindowSize(answerWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<20)))
}

// open says Hello and waits for Welcome.
func (s *session) open(ctx, streamCtx context.Context, cancel context.CancelCauseFunc, client wire.IngestServiceClient) (int64, error) {
	timer := time.AfterFunc(welcomeTimeout, func() { cancel(fmt.Errorf("no answer in %s", welcomeTimeout)) })
	defer timer.Stop()
	defer context.AfterFunc(ctx, func() { cancel(ctx.Err()) })()
	var err error
	if s.stream, err = client.Stream(streamCtx); err != nil {
		return 0, causeOf(streamCtx, err)
	}
	before := time.Now()
	hello := &wire.Hello{
		Version: s.config.Version, MachineId: machineID(), BootId: bootID(), Now: timestamppb.New(before), NodeName: s.config.NodeName,
	}
	// A failed Send says only that the stream has ended; Recv says why.
	_ = s.stream.Send(&wire.StreamRequest{Message: &wire.StreamRequest_Hello{Hello: hello}})
	response, err := s.stream.Recv()
	if err != nil {
		return 0, causeOf(streamCtx, err)
	}
	welcome := response.GetWelcome()
	if welcome == nil {
		return 0, errors.New("the aggregator's first message is no Welcome")
	}
	after := time.Now()
	if welcome.GetNow().IsValid() {
		skew := welcome.GetNow().AsTime().Sub(before.Add(after.Sub(before) / 2))
		s.metrics.skew.Set(skew.Seconds())
		s.update(func(st *Status) { st.ClockSkew = -skew.Round(time.Millisecond) })
	}
	if n := welcome.GetReportSeconds(); n > 0 && s.config.Report != nil {
		s.every = time.Duration(min(max(n, 1), 3600)) * time.Second
	}
	window := s.config.Window
	if n := int64(welcome.GetWindowBytes()); n > 0 {
		window = min(window, n)
	}
	s.window.reset(window)
	s.queue.Reset()
	return window, nil
}

// run sends and receives until the stream ends:
//
//	queue ──► send ──► stream ──► receive ──► window, queue
//	            ▲ window              │
//	            └─────────────────────┘
func (s *session) run(ctx context.Context, cancel context.CancelCauseFunc, client wire.IngestServiceClient, renewAt time.Time) error {
	sendCtx, stopSending := context.WithCancel(ctx)
	defer stopSending()
	sent, received, renewed := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	var group sync.WaitGroup
	group.Go(func() { sent <- s.send(sendCtx) })
	group.Go(func() { received <- s.receive() })
	s.reported = make(chan struct{})
	group.Go(func() {
		defer close(s.reported)
		if s.every > 0 {
			s.report(sendCtx)
		}
	})
	defer func() {
		stopSending()
		cancel(nil)
		s.stopTimers()
		group.Wait()
	}()
	watch := time.NewTicker(ackTimeout / 8)
	defer watch.Stop()
	renewal := time.NewTimer(time.Until(renewAt))
	defer renewal.Stop()
	pause := retry.Backoff{Min: time.Second, Max: 5 * time.Minute}
	for {
		select {
		case err := <-received:
			return err
		case err := <-sent:
			sent = nil
			// Where the stream or ctx has ended, the other cases say so.
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			s.finish(stopSending, sent, received)
			return ctx.Err()
		case <-renewal.C:
			group.Go(func() { renewed <- s.renew(sendCtx, client) })
		case err := <-renewed:
			if err == nil {
				s.finish(stopSending, sent, received)
				return errRenewed
			}
			s.log.Warn("the certificate could not be renewed, trying again", "error", err)
			s.failed(err)
			renewal.Reset(pause.Next())
		case <-watch.C:
			if s.window.silent() > ackTimeout {
				return errSilent
			}
		}
	}
}

// finish stops sending and waits a moment for the last acknowledgements.
func (s *session) finish(stopSending context.CancelFunc, sent, received <-chan error) {
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	stopSending()
	if sent != nil {
		select {
		case err := <-sent:
			s.log.Debug("sending has ended", "reason", err)
		case <-timer.C:
			return
		}
	}
	select { // a report behind CloseSend would end the stream before its last words
	case <-s.reported:
	case <-timer.C:
		return
	}
	_ = s.stream.CloseSend() // never fails (grpc)
	select {
	case err := <-received:
		s.log.Debug("receiving has ended", "reason", err)
	case <-timer.C:
	}
}

// send sends what the window has room for, until ctx or the stream ends. The
// error is io.EOF where the receiver knows why.
func (s *session) send(ctx context.Context) error {
	for {
		if err := s.window.wait(ctx); err != nil {
			return err
		}
		f, err := s.queue.Next(ctx, s.skip)
		if err != nil {
			return fmt.Errorf("read the next frame to send: %w", err)
		}
		s.window.add(&f)
		if err := s.say(&wire.StreamRequest{Message: &wire.StreamRequest_Frame{Frame: wire.FrameToWire(&f)}}); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		s.metrics.sent.WithLabelValues(f.Lane.String()).Inc()
		s.metrics.bytes.Add(float64(len(f.Body)))
	}
}

// say sends one message; frames and reports take turns.
func (s *session) say(r *wire.StreamRequest) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.stream.Send(r)
}

// report tells the aggregator how the node is doing, now and as often as it
// asked for, until ctx or the stream ends.
func (s *session) report(ctx context.Context) {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		r := s.config.Report()
		r.Skew = s.Status().ClockSkew
		if b, err := wire.EncodeReport(&r); err != nil {
			s.log.Warn("the aggregator is not told how this node is doing", "error", err)
		} else if s.say(&wire.StreamRequest{Message: &wire.StreamRequest_Report{Report: b}}) != nil {
			return // receive knows why
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// skip holds back organisations that have to wait. A node of one organisation
// that used to be another's, or a platform node, may still hold frames of others:
// to send them would end the stream, so they stay where they are.
func (s *session) skip(org telemetry.OrgID) bool {
	if !s.platform && org != "" && org != s.own {
		s.foreign.Do(func() {
			s.log.Error("records of another organisation stay on this machine: the node's certificate does not name it",
				"organisation", org, "certificate", s.own)
		})
		return true
	}
	return s.window.skip(org)
}

// receive does what the aggregator says, until the stream ends.
func (s *session) receive() error {
	for {
		response, err := s.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the aggregator ended the stream")
		case err != nil:
			return err
		}
		switch m := response.GetMessage().(type) {
		case *wire.StreamResponse_Ack:
			err = s.ack(m.Ack)
		case *wire.StreamResponse_Throttle:
			s.throttle(m.Throttle)
		case *wire.StreamResponse_Rewind:
			err = s.rewind(m.Rewind)
		default: // of a newer aggregator
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) ack(a *wire.Ack) error {
	lane, err := wire.LaneFromWire(a.GetLane())
	if err != nil {
		return fmt.Errorf("acknowledgement: %w", err)
	}
	k := streamKey{org: telemetry.OrgID(a.GetOrganisation()), epoch: a.GetEpoch(), lane: lane}
	if err := s.queue.Ack(k.org, k.epoch, k.lane, a.GetLast()); err != nil {
		// It stays on its way; the next connection sends it again.
		return fmt.Errorf("note what is acknowledged: %w", err)
	}
	if s.window.ack(k, a.GetLast()) {
		s.queue.Wake()
	}
	s.metrics.acks.Inc()
	s.mu.Lock()
	s.acked = true
	s.mu.Unlock()
	s.update(func(st *Status) { st.LastAckAt = time.Now().UTC() })
	return nil
}

func (s *session) wasAcked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked
}

func (s *session) throttle(t *wire.Throttle) {
	org := telemetry.OrgID(t.GetOrganisation())
	wait := min(max(t.GetRetryAfter().AsDuration(), shortestThrottle), longestThrottle)
	s.metrics.throttles.Inc()
	s.log.Debug("an organisation's records have to wait", "organisation", org, "wait", wait, "reason", t.GetReason())
	for k, first := range s.window.throttle(org, wait, t.GetReason()) {
		s.queue.Rewind(k.org, k.epoch, k.lane, first)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timers = append(s.timers, time.AfterFunc(wait, s.queue.Wake))
	if len(s.timers) > 64 { // the oldest have fired, or fire for nothing
		s.timers = append(s.timers[:0], s.timers[32:]...)
	}
}

func (s *session) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.timers {
		t.Stop()
	}
	s.timers = nil
}

// rewind sends again what the aggregator misses. Where the queue no longer has
// it, because an aggregator has acknowledged it and then lost it, the queue puts a
// tombstone in its place.
func (s *session) rewind(r *wire.Rewind) error {
	lane, err := wire.LaneFromWire(r.GetLane())
	if err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	k := streamKey{org: telemetry.OrgID(r.GetOrganisation()), epoch: r.GetEpoch(), lane: lane}
	s.metrics.rewinds.Inc()
	s.log.Debug("the aggregator asks for earlier records", "organisation", k.org, "lane", k.lane, "next", r.GetNext())
	s.window.rewind(k, r.GetNext())
	s.queue.Rewind(k.org, k.epoch, k.lane, r.GetNext())
	s.queue.Wake()
	return nil
}

// renew gets the next certificate, for a new key. Until it is on disk the old
// one stays good.
func (s *session) renew(ctx context.Context, client wire.IngestServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	old, _ := s.currentIdentity()
	key, csr, err := newRequest()
	if err != nil {
		return err
	}
	response, err := client.Renew(ctx, &wire.RenewRequest{Csr: csr, Generation: old.Generation})
	if err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	id, err := newIdentity(key, response.GetCertificates(), response.GetAuthorities())
	if err != nil {
		return fmt.Errorf("the aggregator answered with a certificate that cannot be used: %w", err)
	}
	if id.Node != old.Node || id.Org != old.Org {
		return fmt.Errorf("the aggregator answered with a certificate of node %s, this is %s", id.Node, old.Node)
	}
	if err := id.save(s.config.StateDir); err != nil {
		return err
	}
	s.setIdentity(id)
	s.metrics.renewals.Inc()
	s.log.Info("certificate renewed", "generation", id.Generation, "until", id.NotAfter)
	return nil
}

// causeOf prefers our own reason to cancel over what gRPC makes of it.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// explain adds what an operator can do.
func explain(id *Identity, err error) error {
	code := status.Code(err)
	switch {
	case time.Now().After(id.NotAfter):
		return fmt.Errorf("%w (this node's certificate expired at %s: enrol again with a new join token)", err, id.NotAfter.Format(time.RFC3339))
	case code == codes.PermissionDenied || code == codes.Unauthenticated:
		return fmt.Errorf("%w (the aggregator does not accept this node: if that lasts, enrol again with a new join token)", err)
	}
	return err
}
