package link_test

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

type key struct {
	org   telemetry.OrgID
	epoch uint64
	lane  telemetry.Lane
}

type line struct {
	frames []frame.Frame
	sent   int    // frames given to Next
	acked  uint64 // sequence
	next   uint64
}

// queue is a spool in memory: the promises of uplink.Queue in plain code.
type queue struct {
	mu      sync.Mutex
	changed chan struct{} // closed at every change
	lines   map[key]*line
	order   []key
	turn    int
}

func newQueue() *queue { return &queue{changed: make(chan struct{}), lines: map[key]*line{}} }

func (q *queue) broadcast() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// put appends a frame of count records.
func (q *queue) put(org telemetry.OrgID, epoch uint64, lane telemetry.Lane, count int, body []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := key{org: org, epoch: epoch, lane: lane}
	l := q.lines[k]
	if l == nil {
		l = &line{next: 1}
		q.lines[k] = l
		q.order = append(q.order, k)
	}
	l.frames = append(l.frames, frame.Frame{Body: body, Header: frame.Header{Org: org, Epoch: epoch, Lane: lane, First: l.next, Count: uint32(count), Class: telemetry.Normal}})
	l.next += uint64(count)
	q.broadcast()
}

func (q *queue) Next(ctx context.Context, skip func(telemetry.OrgID) bool) (frame.Frame, error) {
	for {
		q.mu.Lock()
		for i := range q.order {
			k := q.order[(q.turn+i)%len(q.order)]
			l := q.lines[k]
			if l.sent < len(l.frames) && !skip(k.org) {
				q.turn += i + 1
				l.sent++
				f := l.frames[l.sent-1]
				q.mu.Unlock()
				return f, nil
			}
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

func (q *queue) Wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broadcast()
}

func (q *queue) Ack(org telemetry.OrgID, epoch uint64, lane telemetry.Lane, last uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[key{org: org, epoch: epoch, lane: lane}]
	if l == nil || last >= l.next {
		return fmt.Errorf("acknowledged %d of %s, which was never sent", last, org)
	}
	for len(l.frames) > 0 && l.frames[0].Last() <= last {
		l.frames = l.frames[1:]
		l.sent = max(0, l.sent-1)
	}
	l.acked = max(l.acked, last)
	q.broadcast()
	return nil
}

func (q *queue) Rewind(org telemetry.OrgID, epoch uint64, lane telemetry.Lane, next uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[key{org: org, epoch: epoch, lane: lane}]
	if next <= l.acked {
		lost := l.acked - next + 1
		body, err := wire.EncodeRecords(&telemetry.Records{Gaps: []telemetry.Gap{{Reason: telemetry.GapCorrupt, Count: int64(lost)}}})
		if err != nil {
			panic(err) // a constant record
		}
		stone := frame.Frame{Body: body, Header: frame.Header{
			Org: org, Epoch: epoch, Lane: lane, Class: telemetry.Important, Tombstone: true, First: next, Count: uint32(lost),
		}}
		l.frames = slices.Insert(l.frames, 0, stone)
		l.acked = next - 1
	}
	l.sent = 0
	for l.sent < len(l.frames) && l.frames[l.sent].Last() < next {
		l.sent++
	}
	q.broadcast()
}

func (q *queue) Reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.lines {
		l.sent = 0
	}
	q.broadcast()
}

// left is the number of frames that are not acknowledged.
func (q *queue) left(org telemetry.OrgID) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for k, l := range q.lines {
		if k.org == org || org == "*" {
			n += len(l.frames)
		}
	}
	return n
}
