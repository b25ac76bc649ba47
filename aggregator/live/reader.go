package live

import (
	"context"
	"fmt"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

type state uint8

const (
	history state = iota // reads the log by itself
	live                 // the tailer fills the queue
	behind               // the queue was full: what follows it is missed so far
)

// Reader is one open view: a stream.Reader. The tailer's lock guards what
// Take and the tailer share.
type Reader struct {
	tailer *tailer
	view   *view
	key    string // of the view
	start  stream.Cursor
	ready  chan struct{}

	state  state
	woken  bool  // on the tailer's list
	pos    int64 // everything that matches up to here was queued or taken; see at
	taken  int64 // everything that matches up to here was taken
	queue  []chunk
	queued int            // bytes
	first  *stream.Missed // told before anything else

	// Since the queue was full: when, how many lines, and of what time. Zero
	// in a history that the client asked for.
	overflowed   time.Time
	missed       int64
	since, until time.Time
}

var _ stream.Reader = (*Reader)(nil)

// join opens a view behind a started tailer.
func (t *tailer) join(ctx context.Context, filter telemetry.LogFilter, key string, after *stream.Cursor) (*Reader, error) {
	select {
	case <-t.started:
	case <-ctx.Done():
		return nil, fmt.Errorf("live: open a view of %s: %w", t.scope, ctx.Err())
	}
	if t.startErr != nil {
		return nil, t.startErr
	}
	known, err := t.knows(ctx, after)
	if err != nil {
		return nil, err
	}
	r := &Reader{tailer: t, key: key, ready: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return nil, t.err
	}
	r.pos, r.state = t.pos, live
	switch {
	case after == nil:
	case !known:
		r.first = &stream.Missed{Reason: stream.Restored, From: *after, To: t.cursor(t.pos), Count: telemetry.GapUnknownCount}
		signal(r.ready)
	default:
		r.pos = after.Position
		if r.pos < t.pos {
			r.state = history
			signal(r.ready)
		}
	}
	r.taken, r.start = r.pos, t.cursor(r.pos)
	if r.view = t.index.views[key]; r.view == nil {
		r.view = newView(filter)
		t.index.add(key, r.view)
	}
	r.view.readers[r] = struct{}{}
	return r, nil
}

// knows reports whether a cursor is of this database and not beyond its head.
func (t *tailer) knows(ctx context.Context, after *stream.Cursor) (bool, error) {
	if after == nil || after.Epoch != t.epoch {
		return false, nil
	}
	t.mu.Lock()
	pos := t.pos
	t.mu.Unlock()
	if after.Position <= pos {
		return true, nil
	}
	// Another replica may be ahead of this tailer.
	head, err := t.hub.log.StreamHead(ctx, t.scope)
	if err != nil {
		return false, fmt.Errorf("live: head of the stream of %s: %w", t.scope, err)
	}
	return after.Position <= head, nil
}

// Start is where the view began.
func (r *Reader) Start() stream.Cursor { return r.start }

// Ready delivers when Take has something to return.
func (r *Reader) Ready() <-chan struct{} { return r.ready }

// Looked is how far the view has looked.
func (r *Reader) Looked() stream.Cursor {
	r.tailer.mu.Lock()
	defer r.tailer.mu.Unlock()
	if r.state == live && len(r.queue) == 0 && r.first == nil {
		return r.tailer.cursor(r.at())
	}
	return r.tailer.cursor(r.taken)
}

// Close ends the view.
func (r *Reader) Close() {
	t := r.tailer
	t.mu.Lock()
	delete(r.view.readers, r)
	if len(r.view.readers) == 0 {
		t.index.remove(r.key)
	}
	r.queue, r.queued = nil, 0
	t.mu.Unlock()
	t.hub.release(t)
	t.hub.metrics.readers.Dec()
}

// following reports whether what the tailer hands out concerns the reader.
func (r *Reader) following() bool { return r.state != history || !r.overflowed.IsZero() }

// at is how far the reader has got. Whatever the tailer handed out concerned
// a live one or did not, so that nobody need tell it.
func (r *Reader) at() int64 {
	if r.state == live {
		return max(r.pos, r.tailer.pos)
	}
	return r.pos
}

// push queues what the tailer cut of its next part, or counts it as missed.
func (r *Reader) push(c *cut) {
	if !r.following() {
		return
	}
	r.pos = r.at()
	for i := range c.chunks {
		ch := c.chunks[i]
		if ch.last() <= r.pos {
			continue
		}
		ch.records = ch.records[len(ch.records)-len(ch.after(r.pos)):]
		fits := len(r.queue) == 0 || r.queued+ch.bytes <= r.tailer.hub.options.Queue
		if r.state != live || !fits {
			r.miss(&ch, c.since, c.until)
			continue
		}
		r.queue, r.queued, r.pos = append(r.queue, ch), r.queued+ch.bytes, ch.last()
		if !r.woken {
			r.woken = true
			r.tailer.woken = append(r.tailer.woken, r)
		}
	}
}

func (r *Reader) miss(ch *chunk, since, until time.Time) {
	if r.state == live {
		r.state, r.overflowed, r.missed = behind, time.Now(), 0
		r.since, r.until = since, until
	}
	r.missed += int64(len(ch.records))
	if !since.IsZero() && (r.since.IsZero() || since.Before(r.since)) {
		r.since = since
	}
	if until.After(r.until) {
		r.until = until
	}
}

// skip follows the tailer over positions that the log does not have.
func (r *Reader) skip(to int64) {
	if r.pos = r.at(); r.state != live || r.pos >= to {
		return // a history finds out by itself
	}
	if len(r.queue) > 0 || r.first != nil {
		// What is queued comes first; reading on from there tells the rest.
		r.state = history
	} else {
		r.first = r.lost(stream.Expired, to, telemetry.GapUnknownCount)
		r.pos = to
	}
	signal(r.ready)
}

func (r *Reader) lost(reason telemetry.GapReason, to, count int64) *stream.Missed {
	return &stream.Missed{Reason: reason, From: r.tailer.cursor(r.pos), To: r.tailer.cursor(to), Count: count}
}

// Take returns what waits; in a history, what the log has next.
func (r *Reader) Take(ctx context.Context) (stream.Batch, error) {
	t := r.tailer
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return stream.Batch{}, t.err
	}
	b := stream.Batch{Missed: r.first}
	r.first = nil
	for _, ch := range r.queue {
		b.Records = append(b.Records, ch.records...)
	}
	r.queue, r.queued = nil, 0
	if len(b.Records) == 0 && b.Missed == nil {
		if err := r.catchUp(ctx, &b); err != nil {
			return stream.Batch{}, err
		}
	}
	r.pos = r.at()
	if r.state != live {
		signal(r.ready)
	}
	if b.Missed != nil {
		t.hub.metrics.missed.WithLabelValues(string(b.Missed.Reason)).Inc()
	}
	r.taken = r.pos
	b.Through = t.cursor(r.pos)
	return b, nil
}

// catchUp moves a reader that is not live one step nearer to it. The
// tailer's lock is held on entry and exit.
func (r *Reader) catchUp(ctx context.Context, b *stream.Batch) error {
	t := r.tailer
	late := !r.overflowed.IsZero() && time.Since(r.overflowed) >= t.hub.options.Patience
	switch {
	case r.state == live:
		return nil
	case r.pos >= t.pos:
		r.goLive(r.pos)
		return nil
	case late:
		b.Missed = r.lost(telemetry.GapSlowReader, t.pos, max(r.missed, 0))
		b.Missed.Since, b.Missed.Until = r.since, r.until
		r.goLive(t.pos)
		return nil
	}
	r.state = history
	return r.readOn(ctx, b)
}

func (r *Reader) goLive(pos int64) {
	r.state, r.pos = live, pos
	r.overflowed, r.missed, r.since, r.until = time.Time{}, 0, time.Time{}, time.Time{}
}

// readOn takes the next records of the log, no more than fit a queue.
func (r *Reader) readOn(ctx context.Context, b *stream.Batch) error {
	t := r.tailer
	from, known := r.pos, t.pos
	t.mu.Unlock()
	parts, err := t.hub.readLog(ctx, t.scope, from)
	through := t.fill(b, r.view, parts, from)
	t.mu.Lock()
	switch {
	case err != nil:
		return fmt.Errorf("live: read the stream of %s after %d: %w", t.scope, from, err)
	case len(parts) == 0:
		b.Missed = r.lost(stream.Expired, known, telemetry.GapUnknownCount)
		through = known
	case parts[0].Position > from+1:
		b.Missed = r.lost(stream.Expired, parts[0].Position-1, telemetry.GapUnknownCount)
	}
	for i := range b.Records {
		if b.Records[i].Position <= t.pos {
			r.missed-- // counted when the tailer handed it out
		}
	}
	r.pos = through
	return nil
}

// readLog reads for one reader.
func (h *Hub) readLog(ctx context.Context, scope telemetry.Scope, after int64) ([]*frame.Published, error) {
	select {
	case h.reads <- struct{}{}:
		defer func() { <-h.reads }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.metrics.reads.WithLabelValues("reader").Inc()
	return h.log.ReadStream(ctx, scope, after, readLimit)
}

// fill encodes what a view takes of parts that follow a position, until a
// queue's worth is there. It returns the position that the batch reaches.
func (t *tailer) fill(b *stream.Batch, v *view, parts []*frame.Published, from int64) (through int64) {
	through = from
	size := 0
	for _, published := range parts {
		p := newPart(published, t.epoch)
		for _, ch := range t.cut(&candidate{view: v, all: true}, p).chunks {
			records := ch.after(from)
			if len(records) == 0 {
				continue
			}
			if size > 0 && size+ch.bytes > t.hub.options.Queue {
				return through
			}
			b.Records, size, through = append(b.Records, records...), size+ch.bytes, records[len(records)-1].Position
		}
		through = max(through, p.Next()-1)
	}
	return through
}
