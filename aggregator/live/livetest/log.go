// Package livetest holds an in-memory stream log for tests: the plain
// definition of what live.Log promises.
package livetest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Log keeps committed parts in memory. Its zero value is empty and has epoch 0.
type Log struct {
	// ObservedAt is given to what is committed; zero: now. Set it first.
	ObservedAt time.Time

	mu     sync.Mutex
	epoch  int64
	parts  map[telemetry.Scope][]*frame.Published
	heads  map[telemetry.Scope]int64
	seq    map[telemetry.NodeID]uint64
	broken error
	reads  int
	single int // calls of StreamHead
	looks  int // calls of StreamHeads
}

// Commit stores lines and then gaps as one part, and returns what a store
// would publish. It panics where the segment codec refuses its own bytes.
func (l *Log) Commit(scope telemetry.Scope, node telemetry.NodeID, lines []telemetry.LogEntry, gaps []telemetry.Gap) *frame.Published {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parts == nil {
		l.parts, l.heads, l.seq = make(map[telemetry.Scope][]*frame.Published), make(map[telemetry.Scope]int64), make(map[telemetry.NodeID]uint64)
	}
	now := l.ObservedAt
	if now.IsZero() {
		now = time.Now().UTC().Truncate(time.Microsecond)
	}
	p := &frame.Published{Scope: scope, Position: l.heads[scope] + 1, Node: node, ObservedAt: now}
	if len(lines) > 0 {
		p = frame.NewPublished(scope, p.Position, now, &segment.Part{Segment: encode(lines), Node: node, Epoch: 7, FirstSeq: l.seq[node] + 1}, nil)
		p.Lines = encode(lines).Read()
		must(p.Lines.DecodeAll())
		l.seq[node] += uint64(len(lines))
	}
	at := p.Position + int64(len(lines))
	for i := range gaps {
		g := gaps[i]
		g.Node, g.Position, g.ObservedAt = node, at+int64(i), now
		p.Gaps = append(p.Gaps, g)
	}
	l.parts[scope] = append(l.parts[scope], p)
	l.heads[scope] = p.Next() - 1
	return p
}

func encode(lines []telemetry.LogEntry) *segment.Segment {
	var w segment.Writer
	for i := range lines {
		w.Append(&lines[i])
	}
	s, err := segment.Parse(w.Encode(nil))
	must(err)
	return s
}

func must(err error) {
	if err != nil {
		panic("livetest: " + err.Error())
	}
}

// Break makes every read fail with err until it is called with nil.
func (l *Log) Break(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = err
}

// Restore takes every scope back to a position, in a new epoch.
func (l *Log) Restore(epoch, position int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch = epoch
	for scope := range l.parts {
		l.parts[scope] = slices.DeleteFunc(l.parts[scope], func(p *frame.Published) bool { return p.Next()-1 > position })
		l.heads[scope] = min(l.heads[scope], position)
	}
}

// Expire forgets the parts that end at or before a position.
func (l *Log) Expire(scope telemetry.Scope, position int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts[scope] = slices.DeleteFunc(l.parts[scope], func(p *frame.Published) bool { return p.Next()-1 <= position })
}

// Reads is how often ReadStream was called.
func (l *Log) Reads() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

// Entries returns every line of a scope in position order.
func (l *Log) Entries(scope telemetry.Scope) []telemetry.LogEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []telemetry.LogEntry
	for _, p := range l.parts[scope] {
		for i := range p.Count() {
			var e telemetry.LogEntry
			p.Entry(i, &e)
			all = append(all, e)
		}
	}
	return all
}

// Gaps returns every gap of a scope in position order.
func (l *Log) Gaps(scope telemetry.Scope) []telemetry.Gap {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []telemetry.Gap
	for _, p := range l.parts[scope] {
		all = append(all, p.Gaps...)
	}
	return all
}

// StreamEpoch is the number given to Restore.
func (l *Log) StreamEpoch(context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch, l.broken
}

// Heads is how often StreamHead and StreamHeads were called.
func (l *Log) Heads() (single, together int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.single, l.looks
}

// StreamHead is the last position used.
func (l *Log) StreamHead(_ context.Context, scope telemetry.Scope) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.single++
	return l.heads[scope], l.broken
}

// StreamHeads is StreamHead of several scopes.
func (l *Log) StreamHeads(_ context.Context, scopes []telemetry.Scope) ([]int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	heads := make([]int64, len(scopes))
	for i := range scopes {
		heads[i] = l.heads[scopes[i]]
	}
	return heads, l.broken
}

// ReadStream returns whole parts after a position until they hold limit records.
func (l *Log) ReadStream(ctx context.Context, scope telemetry.Scope, after int64, limit int) ([]*frame.Published, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if l.broken != nil {
		return nil, l.broken
	}
	var found []*frame.Published
	n := 0
	for _, p := range l.parts[scope] {
		if p.Next()-1 <= after {
			continue
		}
		if n >= limit {
			break
		}
		found = append(found, p)
		n += int(p.Next() - max(p.Position, after+1))
	}
	return found, ctx.Err()
}
