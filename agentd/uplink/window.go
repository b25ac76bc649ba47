package uplink

import (
	"context"
	"sync"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// streamKey is what sequences and acknowledgements count in.
type streamKey struct {
	org   telemetry.OrgID
	epoch uint64
	lane  telemetry.Lane
}

func keyOf(h *frame.Header) streamKey { return streamKey{org: h.Org, epoch: h.Epoch, lane: h.Lane} }

type sentFrame struct {
	first, last uint64
	bytes       int64
}

// window counts what is on its way, and decides whose frame may be next.
//
// One organisation may fill half of what the others leave free. So a single
// one gets half of the window, n busy ones get an equal part each, and there is
// always room for the first frame of another.
type window struct {
	changed chan struct{} // room may be there

	mu        sync.Mutex
	size      int64
	bytes     int64
	count     int
	byOrg     map[telemetry.OrgID]int64
	frames    map[streamKey][]sentFrame // in the order sent
	acked     map[streamKey]uint64
	throttled map[telemetry.OrgID]throttle
	held      bool      // skip said so of an organisation for which there was no room
	answered  time.Time // when something was last heard of what is on its way
}

type throttle struct {
	until  time.Time
	reason string
}

func newWindow() *window {
	w := &window{changed: make(chan struct{}, 1)}
	w.reset(0)
	return w
}

// reset starts again with nothing on its way.
func (w *window) reset(size int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.size, w.bytes, w.count, w.answered = size, 0, 0, time.Now()
	w.byOrg, w.frames, w.throttled = map[telemetry.OrgID]int64{}, map[streamKey][]sentFrame{}, map[telemetry.OrgID]throttle{}
	w.acked = map[streamKey]uint64{}
	w.signal()
}

func (w *window) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// wait waits until another frame may be sent.
func (w *window) wait(ctx context.Context) error {
	for {
		w.mu.Lock()
		room := w.bytes < w.size
		w.mu.Unlock()
		if room {
			return ctx.Err()
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// skip reports whether an organisation's frames have to wait.
func (w *window) skip(org telemetry.OrgID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t, waits := w.throttled[org]; waits {
		if time.Now().Before(t.until) {
			return true
		}
		delete(w.throttled, org)
	}
	used := w.byOrg[org]
	full := used > 0 && used >= w.size-w.bytes
	w.held = w.held || full
	return full
}

// add counts a frame that is about to be sent.
func (w *window) add(f *frame.Frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, n := keyOf(&f.Header), int64(len(f.Body))
	if w.count == 0 {
		w.answered = time.Now() // silence before there was anything to answer does not count
	}
	w.frames[k] = append(w.frames[k], sentFrame{first: f.First, last: f.Last(), bytes: n})
	w.bytes += n
	w.byOrg[k.org] += n
	w.count++
}

// remove forgets those frames of a key that match. w.mu is held.
func (w *window) remove(k streamKey, match func(sentFrame) bool) {
	list := w.frames[k]
	kept := list[:0]
	for _, f := range list {
		if !match(f) {
			kept = append(kept, f)
			continue
		}
		w.bytes -= f.bytes
		w.count--
		if w.byOrg[k.org] -= f.bytes; w.byOrg[k.org] <= 0 {
			delete(w.byOrg, k.org)
		}
	}
	if len(kept) == 0 {
		delete(w.frames, k)
	} else {
		w.frames[k] = kept
	}
	w.signal()
}

// ack notes that everything up to last is committed, and reports whether somebody
// was held back who may have room now.
func (w *window) ack(k streamKey, last uint64) (held bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(k, func(f sentFrame) bool { return f.last <= last })
	w.acked[k] = max(w.acked[k], last)
	w.answered = time.Now()
	held, w.held = w.held, false
	return held
}

// throttle makes an organisation wait and returns from where its streams are
// to be sent again: never from what is acknowledged, which the queue would take
// for lost. (A frame that is sent a second time may be acknowledged, by its
// first copy, just before it is counted here.)
func (w *window) throttle(org telemetry.OrgID, wait time.Duration, reason string) map[streamKey]uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.throttled[org] = throttle{until: time.Now().Add(wait), reason: reason}
	w.answered = time.Now()
	from := map[streamKey]uint64{}
	for k, list := range w.frames {
		if k.org != org {
			continue
		}
		first := list[0].first
		for _, f := range list {
			first = min(first, f.first)
		}
		from[k] = max(first, w.acked[k]+1)
		w.remove(k, func(sentFrame) bool { return true })
	}
	return from
}

// rewind forgets what was sent of a key from next on.
func (w *window) rewind(k streamKey, next uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(k, func(f sentFrame) bool { return f.last >= next })
	if w.acked[k] >= next && next > 0 {
		w.acked[k] = next - 1 // the aggregator has lost it
	}
	w.answered = time.Now()
}

// silent is how long something has been on its way without any answer.
func (w *window) silent() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count == 0 {
		return 0
	}
	return time.Since(w.answered)
}

func (w *window) describe() (frames int, bytes int64, waiting []Throttled) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for org, t := range w.throttled {
		if now.Before(t.until) {
			waiting = append(waiting, Throttled{Organisation: org, Until: t.until.UTC(), Reason: t.reason})
		}
	}
	return w.count, w.bytes, waiting
}
