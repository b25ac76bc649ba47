package ingest

import (
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// streamKey is what acknowledgements count in. The organisation is spelled as
// in the node's headers, which BYOI nodes may leave empty.
type streamKey struct {
	org   telemetry.OrgID
	epoch uint64
	lane  telemetry.Lane
}

// maxReplies bounds what a node that does not read, or that invents epochs,
// makes an aggregator remember.
const maxReplies = 10_000

// askAgain is how long a hole may stay before the node is told of it again.
const askAgain = 5 * time.Second

// hole is where a frame was not taken. What comes behind it cannot be stored,
// and the node, which has been told, will send it again: it is skipped without a
// word. It is open until the frame comes and filling until that is committed: then
// frames from before may still turn out to lie behind it, which is no news.
type hole struct {
	next    uint64
	until   time.Time // then the node is told again
	filling bool
}

type throttle struct {
	wait   time.Duration
	reason string
}

// replies is what one stream has to tell its node, folded together until the
// stream can be written: the last acknowledgement says all those before it.
type replies struct {
	ready chan struct{} // something may be there for take, or nothing is in flight

	mu        sync.Mutex
	acks      map[streamKey]uint64
	rewinds   map[streamKey]uint64
	throttles map[telemetry.OrgID]throttle
	holes     map[streamKey]hole
	inFlight  int // frames that are neither committed nor refused
}

func newReplies() *replies {
	return &replies{
		ready: make(chan struct{}, 1), acks: map[streamKey]uint64{}, rewinds: map[streamKey]uint64{},
		throttles: map[telemetry.OrgID]throttle{}, holes: map[streamKey]hole{},
	}
}

func (r *replies) signal() {
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

// wanted reports whether a frame that starts at first can be taken: false
// where it lies behind an open hole. Taking the frame at the hole begins to fill it.
func (r *replies) wanted(k streamKey, first uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, open := r.holes[k]
	switch {
	case !open:
		return true
	case first <= h.next:
		r.holes[k] = hole{next: h.next, until: time.Now().Add(askAgain), filling: true}
		return true
	case h.filling:
		return true
	case time.Now().After(h.until):
		r.rewind(k, h.next)
	}
	return false
}

// rewind asks for everything from next on. r.mu is held.
func (r *replies) rewind(k streamKey, next uint64) {
	r.holes[k] = hole{next: next, until: time.Now().Add(askAgain)}
	r.rewinds[k] = next
	r.signal()
}

// refuse notes that the frame that starts at first was not taken, and that its
// organisation has to wait.
func (r *replies) refuse(k streamKey, first uint64, wait time.Duration, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h, open := r.holes[k]; !open || h.filling || first < h.next {
		r.holes[k] = hole{next: first, until: time.Now().Add(wait + askAgain)}
	}
	r.throttles[k.org] = throttle{wait: max(wait, r.throttles[k.org].wait), reason: reason}
	r.signal()
}

// taken counts a frame that was handed to the pipeline.
func (r *replies) taken() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight++
}

// settle notes the outcome of a taken frame that ends at last.
func (r *replies) settle(k streamKey, last uint64, o frame.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight--
	r.signal()
	if o.Verdict == frame.OutOfOrder {
		if h, known := r.holes[k]; !known || h.next != o.Next || h.filling && time.Now().After(h.until) {
			r.rewind(k, o.Next)
		}
		return
	}
	r.acks[k] = max(r.acks[k], last)
	if h, open := r.holes[k]; open && h.next <= last {
		delete(r.holes, k)
	}
	if next, asked := r.rewinds[k]; asked && next <= last {
		delete(r.rewinds, k)
	}
}

// dropped counts a taken frame that was refused later on.
func (r *replies) dropped() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight--
	r.signal()
}

// idle reports whether every taken frame is settled.
func (r *replies) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inFlight == 0
}

// full reports whether the node has gone beyond what is remembered for it.
func (r *replies) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.acks)+len(r.rewinds)+len(r.throttles)+len(r.holes) > maxReplies
}

// take returns and forgets what is to be sent, acknowledgements first: they
// spare the node sending again what it is asked for next.
func (r *replies) take() []*wire.StreamResponse {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*wire.StreamResponse, 0, len(r.acks)+len(r.rewinds)+len(r.throttles))
	for k, last := range r.acks {
		list = append(list, &wire.StreamResponse{Message: &wire.StreamResponse_Ack{Ack: &wire.Ack{
			Organisation: string(k.org), Epoch: k.epoch, Lane: wire.LaneToWire(k.lane), Last: last,
		}}})
	}
	for k, next := range r.rewinds {
		list = append(list, &wire.StreamResponse{Message: &wire.StreamResponse_Rewind{Rewind: &wire.Rewind{
			Organisation: string(k.org), Epoch: k.epoch, Lane: wire.LaneToWire(k.lane), Next: next,
		}}})
	}
	for org, t := range r.throttles {
		list = append(list, &wire.StreamResponse{Message: &wire.StreamResponse_Throttle{Throttle: &wire.Throttle{
			Organisation: string(org), RetryAfter: durationpb.New(t.wait), Reason: t.reason,
		}}})
	}
	clear(r.acks)
	clear(r.rewinds)
	clear(r.throttles)
	return list
}
