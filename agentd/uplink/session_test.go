package uplink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

const patience = time.Minute

type bidi = grpc.BidiStreamingServer[wire.StreamRequest, wire.StreamResponse]

// script is an aggregator that does what a test says, once per stream.
type script struct {
	wire.UnimplementedIngestServiceServer
	stream func(attempt int, s bidi) error

	mu       sync.Mutex
	attempts int
}

func (s *script) Stream(b bidi) error {
	s.mu.Lock()
	s.attempts++
	attempt := s.attempts
	s.mu.Unlock()
	return s.stream(attempt, b)
}

// play runs an uplink against a script.
func play(t *testing.T, q Queue, stream func(attempt int, s bidi) error) *Uplink {
	t.Helper()
	a, dir := newAuthority(t), t.TempDir()
	a.identity(dir, telemetry.NodeIdentity{ID: "nod_1"})
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{a.server()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})))
	wire.RegisterIngestServiceServer(g, &script{stream: stream})
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() { _ = g.Serve(l) })
	u, err := New(Config{Addresses: []string{l.Addr().String()}, StateDir: dir, Version: "9", NodeName: "n", Report: func() telemetry.NodeReport {
		return telemetry.NodeReport{BufferBytes: 42}
	}}, q, hclog.NewNullLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	group.Go(func() {
		if err := u.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		g.Stop()
		group.Wait()
	})
	return u
}

// welcome answers Hello.
func welcome(s bidi, window uint32) error {
	r, err := s.Recv()
	if err != nil {
		return err
	}
	if h := r.GetHello(); h.GetVersion() != "9" || h.GetNodeName() != "n" || h.GetNow() == nil {
		return status.Errorf(codes.InvalidArgument, "the Hello is %v", r)
	}
	return s.Send(&wire.StreamResponse{Message: &wire.StreamResponse_Welcome{Welcome: &wire.Welcome{Now: timestamppb.New(time.Now().Add(time.Hour)), WindowBytes: window}}})
}

// list is a queue of single-record frames of one organisation.
type list struct {
	mu      sync.Mutex
	frames  int
	next    int
	acked   uint64
	rewound []uint64
	resets  int
	failAck error
	changed chan struct{}
}

func newList(frames int) *list { return &list{frames: frames, changed: make(chan struct{}, 1)} }

func (l *list) Next(ctx context.Context, skip func(telemetry.OrgID) bool) (frame.Frame, error) {
	for {
		l.mu.Lock()
		if l.next < l.frames && !skip("org_a") {
			l.next++
			f := testFrame("org_a", uint64(l.next), 100)
			l.mu.Unlock()
			return *f, nil
		}
		l.mu.Unlock()
		select {
		case <-l.changed:
		case <-ctx.Done():
			return frame.Frame{}, ctx.Err()
		}
	}
}

func (l *list) Wake() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *list) Ack(_ telemetry.OrgID, _ uint64, _ telemetry.Lane, last uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failAck != nil {
		err := l.failAck
		l.failAck = nil
		return err
	}
	l.acked = max(l.acked, last)
	return nil
}

func (l *list) Rewind(_ telemetry.OrgID, _ uint64, _ telemetry.Lane, next uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = int(next) - 1
	l.rewound = append(l.rewound, next)
}

func (l *list) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = int(l.acked)
	l.resets++
}

func (l *list) done() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked == uint64(l.frames)
}

func ackTo(s bidi, last uint64) error {
	return s.Send(&wire.StreamResponse{Message: &wire.StreamResponse_Ack{Ack: &wire.Ack{Organisation: "org_a", Epoch: 1, Lane: wire.Lane_LANE_LOGS, Last: last}}})
}

// ackAll acknowledges every frame until the stream ends.
func ackAll(s bidi) error {
	for {
		r, err := s.Recv()
		if err == nil {
			err = ackTo(s, r.GetFrame().GetFirst())
		}
		if err != nil {
			return err
		}
	}
}

func (l *list) await(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !l.done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("not everything was acknowledged")
		}
	}
}

func receive[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v = <-from:
	case <-timer.C:
		t.Fatal("the script did not get so far")
	}
	return v
}

func TestAggregatorsThatMisbehaveAreTriedAgain(t *testing.T) {
	q := newList(20)
	u := play(t, q, func(attempt int, s bidi) error {
		switch attempt {
		case 1: // not even a Welcome
			return status.Error(codes.Unavailable, "not yet")
		case 2:
			return ackTo(s, 1)
		case 3:
			return nil
		}
		if err := welcome(s, 0); err != nil {
			return err
		}
		switch attempt {
		case 4: // a lane that there is not
			return s.Send(&wire.StreamResponse{Message: &wire.StreamResponse_Ack{Ack: &wire.Ack{Lane: 9}}})
		case 5:
			return s.Send(&wire.StreamResponse{Message: &wire.StreamResponse_Rewind{Rewind: &wire.Rewind{Lane: 9}}})
		case 6: // it dies with frames on their way
			_, err := s.Recv()
			return err
		}
		if err := s.Send(&wire.StreamResponse{}); err != nil { // a message of the future
			return err
		}
		return ackAll(s)
	})
	q.await(t)
	st := u.Status()
	if !st.Connected || st.LastError == "" || q.resets != 4 || st.ClockSkew > -59*time.Minute || st.ClockSkew < -61*time.Minute {
		t.Fatalf("%d resets, %+v", q.resets, st)
	}
}

func TestAnAckThatCannotBeNotedIsAskedForAgain(t *testing.T) {
	q := newList(5)
	q.failAck = errors.New("the disk is full")
	u := play(t, q, func(_ int, s bidi) error {
		if err := welcome(s, 0); err != nil {
			return err
		}
		return ackAll(s)
	})
	q.await(t)
	if !strings.Contains(u.Status().LastError, "the disk is full") {
		t.Fatalf("%+v", u.Status())
	}
}

func TestTheWindowIsTheAggregators(t *testing.T) {
	q := newList(100)
	got := make(chan int, 1)
	play(t, q, func(_ int, s bidi) error {
		if err := welcome(s, 1000); err != nil {
			return err
		}
		// Five frames of 100 bytes are what one organisation may have of 1,000 bytes.
		for range 5 {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
		more := make(chan struct{})
		go func() {
			defer close(more)
			_, _ = s.Recv()
		}()
		timer := time.NewTimer(100 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-more:
			got <- 6
		case <-timer.C:
			got <- 5
		}
		if err := ackTo(s, 5); err != nil {
			return err
		}
		<-more
		if err := ackTo(s, 6); err != nil {
			return err
		}
		return ackAll(s)
	})
	if n := receive(t, got); n != 5 {
		t.Fatalf("%d frames came before the first acknowledgement", n)
	}
	q.await(t)
}

func TestThrottleAndRewindAreObeyed(t *testing.T) {
	q := newList(10)
	pause := make(chan time.Duration, 1)
	play(t, q, func(_ int, s bidi) error {
		if err := welcome(s, 0); err != nil {
			return err
		}
		for range 10 {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
		if err := ackTo(s, 4); err != nil {
			return err
		}
		start := time.Now()
		if err := s.Send(&wire.StreamResponse{Message: &wire.StreamResponse_Throttle{Throttle: &wire.Throttle{
			Organisation: "org_a", RetryAfter: durationpb.New(200 * time.Millisecond), Reason: "quota",
		}}}); err != nil {
			return err
		}
		r, err := s.Recv()
		if err != nil {
			return err
		}
		if r.GetFrame().GetFirst() != 5 {
			return status.Errorf(codes.InvalidArgument, "after the pause came %d", r.GetFrame().GetFirst())
		}
		pause <- time.Since(start)
		for range 5 {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
		if err := s.Send(&wire.StreamResponse{Message: &wire.StreamResponse_Rewind{Rewind: &wire.Rewind{
			Organisation: "org_a", Epoch: 1, Lane: wire.Lane_LANE_LOGS, Next: 7,
		}}}); err != nil {
			return err
		}
		return ackAll(s)
	})
	if d := receive(t, pause); d < 190*time.Millisecond {
		t.Fatalf("it came again after %s, 200 ms were asked for", d)
	}
	q.await(t)
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.rewound) != 2 || q.rewound[0] != 5 || q.rewound[1] != 7 || q.resets != 1 {
		t.Fatalf("rewound to %v, %d resets", q.rewound, q.resets)
	}
}

func TestTheNodeReportsToWhoAsks(t *testing.T) {
	reports, plain := make(chan []byte, 16), make(chan bool, 1)
	u := play(t, newList(3), func(attempt int, s bidi) error {
		if attempt == 1 { // an aggregator of before reports
			if err := welcome(s, 1<<20); err != nil {
				return err
			}
			for range 3 {
				r, err := s.Recv()
				if err != nil {
					return err
				}
				if r.GetFrame() == nil {
					t.Errorf("%v came, which nobody asked for", r)
				}
			}
			plain <- true
			return status.Error(codes.Unavailable, "restarting")
		}
		if _, err := s.Recv(); err != nil {
			return err
		}
		answer := &wire.Welcome{Now: timestamppb.New(time.Now().Add(-time.Hour)), WindowBytes: 1 << 20, ReportSeconds: 1}
		if err := s.Send(&wire.StreamResponse{Message: &wire.StreamResponse_Welcome{Welcome: answer}}); err != nil {
			return err
		}
		for {
			r, err := s.Recv()
			if err != nil {
				return err
			}
			if p := r.GetReport(); len(p) > 0 {
				reports <- p
			}
		}
	})
	<-plain
	for range 2 {
		select {
		case p := <-reports:
			r, err := wire.DecodeReport(p)
			if err != nil || r.BufferBytes != 42 || r.Skew < 59*time.Minute || r.Skew > 61*time.Minute {
				t.Fatalf("%+v %v", r, err)
			}
		case <-time.After(patience):
			t.Fatal("no report came")
		}
	}
	if s := u.Status().ClockSkew; s < 59*time.Minute {
		t.Errorf("the node is an hour ahead and says %s", s)
	}
}

func TestAnExpiredCertificateSaysWhatToDo(t *testing.T) {
	id := Identity{NotAfter: time.Now().Add(-time.Hour)}
	if err := explain(&id, errors.New("tls")); !strings.Contains(err.Error(), "join token") {
		t.Fatal(err)
	}
	id.NotAfter = time.Now().Add(time.Hour)
	if err := explain(&id, status.Error(codes.PermissionDenied, "revoked")); !strings.Contains(err.Error(), "join token") || status.Code(err) != codes.PermissionDenied {
		t.Fatal(err)
	}
	if _, err := New(Config{}, newList(0), nil, nil); err == nil {
		t.Fatal("no address was taken")
	}
	if _, err := New(Config{Addresses: []string{"x"}, StateDir: t.TempDir()}, newList(0), nil, nil); err == nil {
		t.Fatal("no identity was taken")
	}
}
