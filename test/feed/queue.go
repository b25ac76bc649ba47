package feed

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// key is what a sequence is counted in.
type key struct {
	org   telemetry.OrgID
	epoch uint64
	lane  telemetry.Lane
}

// line is one sequence.
type line struct {
	key
	frames []frame.Frame // not acknowledged
	sent   int           // of frames, given to Next
	acked  uint64        // sequence
	next   uint64
	ready  bool // in Queue.ready
}

// Queue is a spool in memory: the promises of uplink.Queue in plain code.
type Queue struct {
	mu      sync.Mutex
	changed chan struct{} // closed at every change
	lines   map[key]*line
	ready   []*line // those with frames for Next, in turn
	bytes   int64   // not acknowledged
	frames  int     // the same in frames
	rewinds int     // for what was acknowledged: the aggregator has forgotten something
}

// NewQueue makes an empty queue.
func NewQueue() *Queue { return &Queue{changed: make(chan struct{}), lines: map[key]*line{}} }

// broadcast wakes whoever waits. q.mu is held.
func (q *Queue) broadcast() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// Put appends a frame. Its sequence is the next of its organisation, epoch and lane.
func (q *Queue) Put(h frame.Header, body []byte) frame.Header {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := key{org: h.Org, epoch: h.Epoch, lane: h.Lane}
	l := q.lines[k]
	if l == nil {
		l = &line{key: k, next: 1}
		q.lines[k] = l
	}
	h.First = l.next
	l.next += uint64(h.Count)
	l.frames = append(l.frames, frame.Frame{Header: h, Body: body})
	q.bytes += int64(len(body))
	q.frames++
	q.offer(l)
	q.broadcast()
	return h
}

// offer makes a sequence one of those that Next looks at. q.mu is held.
func (q *Queue) offer(l *line) {
	if !l.ready && l.sent < len(l.frames) {
		l.ready = true
		q.ready = append(q.ready, l)
	}
}

// Next is uplink.Queue's.
func (q *Queue) Next(ctx context.Context, skip func(telemetry.OrgID) bool) (frame.Frame, error) {
	for {
		q.mu.Lock()
		if f, ok := q.take(skip); ok {
			q.mu.Unlock()
			return f, nil
		}
		changed := q.changed
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return frame.Frame{}, ctx.Err()
		}
	}
}

// take returns a frame of the first sequence whose turn it is. q.mu is held.
func (q *Queue) take(skip func(telemetry.OrgID) bool) (frame.Frame, bool) {
	for i := 0; i < len(q.ready); {
		l := q.ready[i]
		if l.sent >= len(l.frames) { // acknowledged or rewound meanwhile
			l.ready = false
			q.ready = slices.Delete(q.ready, i, i+1)
			continue
		}
		if skip(l.org) {
			i++
			continue
		}
		f := l.frames[l.sent]
		l.sent++
		q.ready = slices.Delete(q.ready, i, i+1)
		l.ready = false
		q.offer(l)
		return f, true
	}
	return frame.Frame{}, false
}

// Wake is uplink.Queue's.
func (q *Queue) Wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broadcast()
}

// Ack is uplink.Queue's.
func (q *Queue) Ack(org telemetry.OrgID, epoch uint64, lane telemetry.Lane, last uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[key{org: org, epoch: epoch, lane: lane}]
	if l == nil || last >= l.next {
		return fmt.Errorf("acknowledged %d of %s, which was never sent", last, org)
	}
	for len(l.frames) > 0 && l.frames[0].Last() <= last {
		q.bytes -= int64(len(l.frames[0].Body))
		q.frames--
		l.frames = l.frames[1:]
		l.sent = max(0, l.sent-1)
	}
	l.acked = max(l.acked, last)
	q.broadcast()
	return nil
}

// Rewind is uplink.Queue's. A tombstone stands for what is gone, as in a spool.
func (q *Queue) Rewind(org telemetry.OrgID, epoch uint64, lane telemetry.Lane, next uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[key{org: org, epoch: epoch, lane: lane}]
	if l == nil {
		return
	}
	if next <= l.acked {
		stone := tombstone(l.key, next, l.acked)
		l.frames = slices.Insert(l.frames, 0, stone)
		q.bytes += int64(len(stone.Body))
		q.frames++
		q.rewinds++
		l.acked = next - 1
	}
	l.sent = 0
	for l.sent < len(l.frames) && l.frames[l.sent].Last() < next {
		l.sent++
	}
	q.offer(l)
	q.broadcast()
}

func tombstone(k key, first, last uint64) frame.Frame {
	count := last - first + 1
	body, err := wire.EncodeRecords(&telemetry.Records{Gaps: []telemetry.Gap{{Reason: telemetry.GapCorrupt, Count: int64(count)}}}) //nolint:gosec // counts records
	if err != nil {
		panic("feed: a constant record: " + err.Error())
	}
	return frame.Frame{Body: body, Header: frame.Header{
		Org: k.org, Epoch: k.epoch, Lane: k.lane, Class: telemetry.Important, Tombstone: true, First: first, Count: uint32(count), //nolint:gosec // counts records
	}}
}

// Reset is uplink.Queue's.
func (q *Queue) Reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.lines {
		l.sent = 0
		q.offer(l)
	}
	q.broadcast()
}

// Left is what is not acknowledged of an organisation, "*" for all, in frames.
func (q *Queue) Left(org telemetry.OrgID) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if org == "*" {
		return q.frames
	}
	n := 0
	for k, l := range q.lines {
		if k.org == org {
			n += len(l.frames)
		}
	}
	return n
}

// Acked is the last sequence acknowledged of an organisation, epoch and lane.
func (q *Queue) Acked(org telemetry.OrgID, epoch uint64, lane telemetry.Lane) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.lines[key{org: org, epoch: epoch, lane: lane}]; l != nil {
		return l.acked
	}
	return 0
}

// Rewinds counts how often the aggregator asked for what it had acknowledged:
// never, unless its database was restored.
func (q *Queue) Rewinds() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.rewinds
}

// Room waits until no more than so many bytes are not acknowledged: what a
// sender with bounded memory waits for. 0 waits until all is.
func (q *Queue) Room(ctx context.Context, bytes int64) error {
	for {
		q.mu.Lock()
		done, changed := q.bytes <= bytes, q.changed
		q.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d frames are not acknowledged: %w", q.Left("*"), ctx.Err())
		}
	}
}

// Acknowledged waits until everything up to the end of a frame is acknowledged.
func (q *Queue) Acknowledged(ctx context.Context, h frame.Header) error {
	for {
		q.mu.Lock()
		l, changed := q.lines[key{org: h.Org, epoch: h.Epoch, lane: h.Lane}], q.changed
		done := l != nil && l.acked >= h.Last()
		q.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s is not acknowledged: %w", &h, ctx.Err())
		}
	}
}
