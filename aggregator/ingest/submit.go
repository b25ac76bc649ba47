package ingest

import (
	"context"
	"sync"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// submitAttempts bounds how often frames are numbered anew.
const submitAttempts = 3

var errNotStored = &telemetry.Failure{
	Code: telemetry.Unavailable, RetryAfter: waitForStore,
	Message: "The records cannot be stored now. Send them again later, with the same Idempotency-Key if there was one: then none is stored twice.",
}

// Admit takes one request of an organisation, which leaves a mark and perhaps a
// key however small it is, or says how long it has to wait.
func (s *Server) Admit(org telemetry.OrgID) error {
	wait := s.requests.take(org, 1)
	if wait == 0 {
		return nil
	}
	s.metrics.throttled.WithLabelValues("requests").Inc()
	return &telemetry.Failure{
		Code: telemetry.RateLimited, RetryAfter: wait, Message: "The organisation pushes too many requests: put more records into each, or come later.",
	}
}

// Submit commits frames that came by no stream of a node, all of one
// organisation, lane and epoch, in order. It returns once they are committed,
// and says which of them had been before. They take the same way as those of
// nodes: quota, memory, check, queue, commit, publish.
//
// Frames of epoch 0 are numbered here, in an epoch that this process has for
// their organisation: nobody can send one of them again. After an error
// nothing is known of what was committed.
func (s *Server) Submit(ctx context.Context, frames []*frame.Received) ([]frame.Outcome, error) {
	if len(frames) == 0 {
		return nil, nil
	}
	org, bytes, records := frames[0].Org, 0, 0
	for _, f := range frames {
		bytes, records = bytes+len(f.Body), records+int(f.Count)
	}
	if wait := s.quota.take(org, float64(bytes), float64(records), 0); wait > 0 {
		s.metrics.throttled.WithLabelValues("quota").Inc()
		return nil, &telemetry.Failure{
			Code: telemetry.RateLimited, RetryAfter: min(wait, longestWait), Message: "The organisation sends more than its quota: send less, or later.",
		}
	}
	s.metrics.bytes.Add(float64(bytes))
	for _, f := range frames {
		if err := s.checkSubmitted(ctx, f); err != nil {
			return nil, err
		}
	}
	numbered := frames[0].Epoch == 0
	for range submitAttempts {
		outcomes, err := s.commitSubmitted(ctx, frames, numbered)
		if err != nil {
			return nil, err
		}
		switch outOfOrder(outcomes) {
		case 0:
			return outcomes, nil
		case len(frames):
			// Those before them were refused: a new epoch waits for none.
			s.submitted.renew(frames[0])
		default:
			return nil, errNotStored
		}
		if !numbered {
			break
		}
	}
	return nil, errNotStored
}

// outOfOrder counts the frames that are.
func outOfOrder(outcomes []frame.Outcome) (n int) {
	for _, o := range outcomes {
		if o.Verdict == frame.OutOfOrder {
			n++
		}
	}
	return n
}

// checkSubmitted checks a frame as those of nodes are. What fails is not
// quarantined: its sender is still here to be told.
func (s *Server) checkSubmitted(ctx context.Context, f *frame.Received) error {
	select {
	case s.decoding <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	unknown := check(f)
	<-s.decoding
	s.quota.spend(f.Org, decodedRate, decodingCost(f))
	if f.Quarantine != "" || unknown > 0 {
		return telemetry.Failf(telemetry.Unprocessable, "The records cannot be stored: %s.", f.Quarantine)
	}
	return nil
}

// commitSubmitted queues checked frames and waits for what becomes of them.
func (s *Server) commitSubmitted(ctx context.Context, frames []*frame.Received, number bool) ([]frame.Outcome, error) {
	items := make([]*item, 0, len(frames))
	settled := make(chan settlement, len(frames))
	for i, f := range frames {
		size := int64(len(f.Body)) + frameOverhead + decodedSize(f)
		if refused := s.pipeline.reserve(f.Org, size); refused != "" {
			for _, held := range items {
				s.pipeline.forget(held)
			}
			s.metrics.throttled.WithLabelValues("memory").Inc()
			return nil, &telemetry.Failure{Code: telemetry.Unavailable, RetryAfter: waitForMemory, Message: "Nothing more can be taken now: " + refused + ". Send it again."}
		}
		items = append(items, &item{received: f, size: size, settle: func(o frame.Outcome, refused string) {
			settled <- settlement{frame: i, Outcome: o, refused: refused != ""}
		}})
	}
	s.submitted.enqueue(s.pipeline, items, number)
	outcomes := make([]frame.Outcome, len(frames))
	var err error
	for range items {
		select {
		case x := <-settled:
			if outcomes[x.frame] = x.Outcome; x.refused {
				s.submitted.renew(frames[0])
				err = errNotStored
			}
		case <-ctx.Done():
			return nil, errNotStored // what is queued may still be committed
		case <-s.done:
			return nil, errNotStored
		}
	}
	for _, f := range frames {
		if err == nil && f.Quarantine != "" {
			err = telemetry.Failf(telemetry.Unprocessable, "The database refused the records; they are kept apart and shown as a gap. Do not send them again.")
		}
	}
	return outcomes, err
}

// settlement is what became of one submitted frame.
type settlement struct {
	frame.Outcome
	frame   int
	refused bool
}

// sequences numbers the frames of this process's own epochs.
type sequences struct {
	mu sync.Mutex
	of map[sequenceKey]*sequence
}

type sequenceKey struct {
	org  telemetry.OrgID
	node telemetry.NodeID
	lane telemetry.Lane
}

type sequence struct {
	epoch, next uint64
}

func sequenceOf(f *frame.Received) sequenceKey {
	return sequenceKey{org: f.Org, node: f.Node, lane: f.Lane}
}

// enqueue queues frames, numbered first where that is asked for: in the order
// of their numbers, whoever else does the same.
func (q *sequences) enqueue(p *pipeline, items []*item, number bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now().UTC().Truncate(time.Microsecond)
	for _, i := range items {
		i.received.ReceivedAt = now
		if number {
			q.number(i.received)
		}
		p.enqueue(i)
	}
}

func (q *sequences) number(f *frame.Received) {
	k := sequenceOf(f)
	own := q.of[k]
	if own == nil {
		own = &sequence{epoch: ids.Epoch(), next: 1}
		if q.of == nil {
			q.of = map[sequenceKey]*sequence{}
		}
		q.of[k] = own
	}
	f.Epoch, f.First = own.epoch, own.next
	own.next += uint64(f.Count)
}

// renew ends the epoch that a frame was numbered in, unless that has been done.
func (q *sequences) renew(f *frame.Received) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if own := q.of[sequenceOf(f)]; own != nil && own.epoch == f.Epoch {
		delete(q.of, sequenceOf(f))
	}
}
