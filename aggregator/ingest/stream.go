package ingest

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// helloTimeout is how long a node may keep a stream open without a word, and
// how long it may take to look the node up.
const helloTimeout = 10 * time.Second

// Waits that nodes are told. The size of the queue changes with every commit;
// organisations are made by people.
const (
	waitForMemory       = time.Second
	waitForStore        = 5 * time.Second
	waitForOrganisation = 30 * time.Second
	longestWait         = 30 * time.Second
)

// skewToLog is the difference between a node's clock and ours that is worth a line.
const skewToLog = 5 * time.Second

// reportEvery is how often a node is asked to say how it is doing.
const reportEvery = 10 * time.Second

// What a frame costs beside its bytes while it is held, and what each part of
// it costs that is held decoded: a few bytes of a body make one.
const (
	frameOverhead  = 1 << 10
	originOverhead = 128
	recordOverhead = 1 << 10
	partOverhead   = 128 // of a span's event or link
	bucketOverhead = 8   // of a histogram
)

type bidi = grpc.BidiStreamingServer[wire.StreamRequest, wire.StreamResponse]

// session is one open stream of one node.
type session struct {
	*Server
	peer    peerNode
	stream  bidi
	log     hclog.Logger
	replies *replies

	hello   chan *wire.Hello // the first message
	opened  chan struct{}    // closed when Welcome is on its way: frames are taken from now on
	ended   chan error       // the receiving side's last word
	cut     chan string      // why the node is turned out
	closing atomic.Bool      // no more frames are taken

	reported time.Time // the last report that was taken; of the receiving side
}

// Stream implements wire.IngestServiceServer. Receiving has a goroutine of its
// own, so that the stream can be ended from this side at any time:
//
//	receive ──► pipeline ──► replies ──► reply (this goroutine) ──► node
func (s *ingestService) Stream(stream bidi) error {
	peer, err := peerOf(stream.Context())
	if err != nil {
		s.metrics.refused.WithLabelValues("certificate").Inc()
		return status.Error(codes.Unauthenticated, err.Error())
	}
	x := &session{
		Server: s.Server, peer: peer, stream: stream, replies: newReplies(), log: s.config.Log.With("node_id", peer.ID),
		hello: make(chan *wire.Hello, 1), opened: make(chan struct{}), ended: make(chan error, 1), cut: make(chan string, 1),
	}
	s.receivers.Go(func() { x.ended <- x.receive() })
	leave, err := x.open(stream.Context())
	if err != nil {
		return err
	}
	defer leave()
	err = x.reply()
	x.log.Info("node disconnected", "reason", status.Convert(err).Message())
	return err
}

// open answers Hello with Welcome.
func (x *session) open(ctx context.Context) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	var hello *wire.Hello
	select {
	case hello = <-x.hello:
	case err := <-x.ended:
		if err == nil {
			err = status.Error(codes.InvalidArgument, "the stream ended without a Hello")
		}
		return nil, err
	case <-x.stopping:
		return nil, errStopping
	case <-ctx.Done():
		return nil, status.Error(codes.DeadlineExceeded, "no Hello came")
	}
	node, err := x.admit(ctx, x.peer)
	if err != nil {
		return nil, x.statusOf(err)
	}
	now := time.Now()
	if err := x.config.Nodes.Seen(ctx, node.ID, clip(hello.GetVersion()), now.UTC()); err != nil {
		return nil, x.statusOf(err)
	}
	leave, ok := x.connected.join(x)
	if !ok {
		x.metrics.refused.WithLabelValues("streams").Inc()
		return nil, status.Errorf(codes.ResourceExhausted, "the node has %d streams open already", maxStreamsPerNode)
	}
	if err := x.stream.Send(&wire.StreamResponse{Message: &wire.StreamResponse_Welcome{Welcome: &wire.Welcome{
		Now: timestamppb.New(now), WindowBytes: x.config.Window, ReportSeconds: uint32(reportEvery / time.Second),
	}}}); err != nil {
		leave()
		return nil, err
	}
	x.log.Info("node connected", "version", clip(hello.GetVersion()), "organisation", x.peer.Org, "generation", x.peer.generation)
	if skew := hello.GetNow().AsTime().Sub(now); hello.GetNow() != nil && skew.Abs() > skewToLog {
		x.log.Warn("the node's clock differs", "skew", skew.Round(time.Millisecond))
	}
	close(x.opened)
	return leave, nil
}

// reply sends what there is to tell the node, until the stream is to end.
func (x *session) reply() error {
	expiry := time.NewTimer(time.Until(x.peer.notAfter))
	defer expiry.Stop()
	for {
		if err := x.flush(); err != nil {
			return err
		}
		if x.replies.full() {
			return status.Error(codes.ResourceExhausted, "too many streams of records at a time")
		}
		select {
		case <-x.replies.ready:
		case err := <-x.ended:
			return x.drain(err)
		case why := <-x.cut:
			x.metrics.refused.WithLabelValues("revoked").Inc()
			return status.Error(codes.PermissionDenied, why)
		case <-expiry.C:
			return x.drain(status.Error(codes.Unauthenticated, "the node's certificate has expired"))
		case <-x.stopping:
			return x.drain(errStopping)
		case <-x.stream.Context().Done():
			return status.FromContextError(x.stream.Context().Err()).Err()
		}
	}
}

// drain waits until every frame that was taken is settled, says so, and ends
// the stream: the next one need not send it again.
func (x *session) drain(end error) error {
	x.closing.Store(true)
	for !x.replies.idle() {
		select {
		case <-x.replies.ready:
		case <-x.stream.Context().Done():
			return status.FromContextError(x.stream.Context().Err()).Err()
		}
		if err := x.flush(); err != nil {
			return err
		}
	}
	if err := x.flush(); err != nil {
		return err
	}
	return end
}

func (x *session) flush() error {
	for _, r := range x.replies.take() {
		if err := x.stream.Send(r); err != nil {
			return err
		}
	}
	return nil
}

// receive takes what the node sends. Its result ends the stream; nil: the node
// has said all.
func (x *session) receive() error {
	request, err := x.stream.Recv()
	if err != nil {
		return endOf(err)
	}
	if request.GetHello() == nil {
		return status.Error(codes.InvalidArgument, "the first message is no Hello")
	}
	x.hello <- request.GetHello()
	select {
	case <-x.opened:
	case <-x.stream.Context().Done():
		return x.stream.Context().Err()
	}
	for {
		request, err := x.stream.Recv()
		if err != nil {
			return endOf(err)
		}
		if m, ok := request.GetMessage().(*wire.StreamRequest_Report); ok {
			x.report(m.Report)
			continue
		}
		p := request.GetFrame()
		if p == nil {
			return status.Error(codes.InvalidArgument, "a message is neither Hello nor Frame, or not in its place")
		}
		if x.closing.Load() {
			continue // the next stream brings it again
		}
		if err := x.frame(p); err != nil {
			return err
		}
	}
}

// report takes what the node says about itself, of its own organisation only.
// One that cannot be read is counted and left out: records do not depend on it.
func (x *session) report(b []byte) {
	now := time.Now().UTC()
	if now.Sub(x.reported) < reportEvery/2 {
		return // more often than it was asked
	}
	x.reported = now
	x.decoding <- struct{}{}
	r, err := wire.DecodeReport(b)
	<-x.decoding
	if err != nil {
		x.metrics.refused.WithLabelValues("report").Inc()
		x.log.Warn("what a node says about itself cannot be read", "error", err)
		return
	}
	if !x.peer.Platform() {
		for i := range r.Sequences {
			r.Sequences[i].Org = x.peer.Org
		}
	}
	x.config.Nodes.Reported(x.peer.ID, now, &r)
}

func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// frame checks one frame and hands it on, or tells the node why not. An error
// ends the stream: the node breaks the contract.
func (x *session) frame(p *wire.Frame) error {
	f, err := wire.FrameFromWire(p)
	if err != nil {
		x.metrics.refused.WithLabelValues("header").Inc()
		return status.Error(codes.InvalidArgument, err.Error())
	}
	x.metrics.bytes.Add(float64(len(f.Body)))
	k := streamKey{org: f.Org, epoch: f.Epoch, lane: f.Lane}
	if f.Org, err = x.organisation(f.Org); err != nil {
		return err
	}
	if !x.replies.wanted(k, f.First) {
		x.metrics.throttled.WithLabelValues("hole").Inc()
		return nil
	}
	if wait, metric, reason := x.refusal(&f); reason != "" {
		x.metrics.throttled.WithLabelValues(metric).Inc()
		x.replies.refuse(k, f.First, min(wait, longestWait), reason)
		return nil
	}
	x.take(k, f)
	return nil
}

// organisation says whose a frame is: the certificate's word, and only where
// that names none, the header's.
func (x *session) organisation(header telemetry.OrgID) (telemetry.OrgID, error) {
	if x.peer.Platform() || header == "" || header == x.peer.Org {
		if x.peer.Platform() {
			return header, nil
		}
		return x.peer.Org, nil
	}
	x.metrics.refused.WithLabelValues("foreign_organisation").Inc()
	x.log.Error("node sent a frame of another organisation", "certificate", x.peer.Org, "frame", header)
	return "", status.Errorf(codes.PermissionDenied, "this node belongs to %s and cannot send frames of %s", x.peer.Org, header)
}

// refusal says why a frame is not taken now, if so, and holds memory for it if not.
func (x *session) refusal(f *frame.Frame) (wait time.Duration, metric, reason string) {
	if x.peer.Platform() {
		if f.Org == "" {
			return waitForOrganisation, "unknown_organisation", "a frame of a platform node names no organisation"
		}
		known, err := x.organisations.known(x.stream.Context(), f.Org)
		if err != nil {
			return waitForStore, "store", "the organisation cannot be looked up now"
		}
		if !known {
			return waitForOrganisation, "unknown_organisation", "no organisation has this id"
		}
	}
	size := int64(len(f.Body)) + frameOverhead
	if refused := x.pipeline.reserve(f.Org, size); refused != "" {
		return waitForMemory, "memory", refused
	}
	records := float64(f.Count)
	if f.Tombstone {
		records = 1
	}
	if wait := x.quota.take(f.Org, float64(len(f.Body)), records, 0); wait > 0 {
		x.pipeline.release(f.Org, size)
		return wait, "quota", "the organisation sends more than its quota"
	}
	return 0, "", ""
}

// take decodes a frame and queues it for its commit.
func (x *session) take(k streamKey, f frame.Frame) {
	r := &frame.Received{Frame: f, Node: x.peer.ID, ReceivedAt: time.Now().UTC().Truncate(time.Microsecond)}
	// Whatever a body claims, decoding is bounded; this bounds how many at once.
	x.decoding <- struct{}{}
	r.Unknown = check(r)
	<-x.decoding
	x.quota.spend(f.Org, decodedRate, decodingCost(r))
	if r.Unknown > 0 {
		x.metrics.unknown.Add(float64(r.Unknown))
	}
	if r.Quarantine != "" {
		x.metrics.quarantined.Inc()
		x.log.Error("frame cannot be read, it goes to quarantine", "frame", r.String(), "bytes", len(r.Body), "error", r.Quarantine)
	}
	size, more := int64(len(f.Body))+frameOverhead, decodedSize(r)
	if refused := x.pipeline.reserve(f.Org, more); refused != "" {
		x.pipeline.release(f.Org, size)
		x.metrics.throttled.WithLabelValues("memory").Inc()
		x.replies.refuse(k, f.First, waitForMemory, refused)
		return
	}
	x.replies.taken()
	x.pipeline.enqueue(&item{received: r, size: size + more, settle: func(o frame.Outcome, refused string) {
		if refused != "" {
			x.replies.refuse(k, r.First, waitForStore, refused)
			x.replies.dropped()
			return
		}
		x.replies.settle(k, r.Last(), o)
	}})
}

// decodingCost is about how many bytes check has looked at. What it refused
// may have been anything.
func decodingCost(r *frame.Received) float64 {
	switch {
	case r.Quarantine != "":
		return float64(segment.MaxAllocation)
	case r.Segment != nil:
		return float64(r.Segment.DecodedBytes())
	}
	return float64(len(r.Body))
}

// decodedSize is about what a checked frame holds beside its bytes.
func decodedSize(r *frame.Received) int64 {
	n := int64(r.Len()) * recordOverhead
	for i := range r.Spans {
		n += int64(len(r.Spans[i].Events)+len(r.Spans[i].Links)) * partOverhead
	}
	for i := range r.Metrics {
		if h := r.Metrics[i].Histogram; h != nil {
			n += int64(len(h.Bounds)+len(h.Counts)) * bucketOverhead
			if e := h.Exponential; e != nil {
				n += int64(len(e.Positive)+len(e.Negative)) * bucketOverhead
			}
		}
	}
	if r.Segment != nil {
		n += int64(len(r.Segment.Origins)) * originOverhead
	}
	return n
}

// clip bounds a text that a node says about itself.
func clip(s string) string {
	const most = 128
	out := make([]byte, 0, min(len(s), most))
	for i := 0; i < len(s) && len(out) < most; i++ {
		if c := s[i]; c > ' ' && c < 0x7f {
			out = append(out, c)
		}
	}
	return string(out)
}
