package live

import (
	"context"
	"fmt"
	"sync"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

const (
	// readLimit is how many records one read of the log asks for.
	readLimit = 2000

	// What waits for a tailer: beyond it the log is read instead.
	maxInboxParts = 4096
	maxInboxBytes = 32 << 20

	// maxCutBytes is what one part's cuts may take, encoded, before they are
	// handed out; many views of their own filters would multiply it.
	maxCutBytes = 16 << 20

	// maxHeldParts is how many parts are handed out before their readers are
	// woken: one write takes what came together.
	maxHeldParts = 16
)

// tailer hands out the records of one scope, once each and in order.
type tailer struct {
	hub    *Hub
	scope  telemetry.Scope
	ctx    context.Context
	cancel context.CancelFunc
	refs   int // guarded by hub.mu

	started  chan struct{} // closed when epoch and pos are known, or startErr is
	startErr error
	epoch    int64

	wake     chan struct{}
	inboxMu  sync.Mutex
	inbox    []*frame.Published
	inboxLen int   // bytes
	overflow bool  // the inbox was full: what it held and more is in the log
	head     int64 // the poll found the log as long as this
	restored bool  // the poll found another log than before

	mu    sync.Mutex
	pos   int64 // everything up to here was handed out; only run moves it
	index index
	woken []*Reader // to be woken when what came together is handed out
	err   error     // why it ended

	held   int  // parts handed out since readers were woken
	failed bool // the last read failed, and that was logged
}

func newTailer(h *Hub, scope telemetry.Scope) *tailer {
	t := &tailer{
		hub: h, scope: scope, started: make(chan struct{}), wake: make(chan struct{}, 1), index: newIndex(),
	}
	t.ctx, t.cancel = context.WithCancel(h.ctx)
	return t
}

// offer takes a hint, and never blocks; the caller wakes the tailer.
func (t *tailer) offer(p *frame.Published) {
	t.inboxMu.Lock()
	defer t.inboxMu.Unlock()
	size := 0
	if p.Lines != nil {
		size = p.Lines.DecodedBytes()
	}
	switch {
	case t.overflow:
	case len(t.inbox) >= maxInboxParts || t.inboxLen+size > maxInboxBytes:
		t.inbox, t.inboxLen, t.overflow = nil, 0, true
	default:
		t.inbox, t.inboxLen = append(t.inbox, p), t.inboxLen+size
	}
}

// tell takes what the poll found: how long the log is, or that it is another
// one than before.
func (t *tailer) tell(head int64, restored bool) {
	t.inboxMu.Lock()
	t.head = max(t.head, head)
	t.restored = t.restored || restored
	t.inboxMu.Unlock()
	signal(t.wake)
}

func (t *tailer) position() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pos
}

// signal leaves a token in a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (t *tailer) run() {
	defer t.cancel()
	if t.startErr = t.start(); t.startErr != nil {
		t.hub.forget(t)
		close(t.started)
		t.end(t.startErr)
		return
	}
	close(t.started)
	for t.ctx.Err() == nil {
		select {
		case <-t.ctx.Done():
		case <-t.wake:
			if err := t.drain(); err != nil {
				t.hub.forget(t)
				t.end(err)
				return
			}
		}
	}
	t.end(stream.ErrClosed)
}

func (t *tailer) start() error {
	epoch, err := t.hub.log.StreamEpoch(t.ctx)
	if err != nil {
		return fmt.Errorf("live: epoch of the streams: %w", err)
	}
	head, err := t.hub.log.StreamHead(t.ctx, t.scope)
	if err != nil {
		return fmt.Errorf("live: head of the stream of %s: %w", t.scope, err)
	}
	t.epoch, t.pos = epoch, head
	return nil
}

// end tells every reader why nothing more comes.
func (t *tailer) end(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	for _, v := range t.index.views {
		for r := range v.readers {
			signal(r.ready)
		}
	}
}

// drain hands out what was published here, and what the poll found. An error
// ends the tailer: the database is not the one that the positions were counted in.
func (t *tailer) drain() error {
	t.inboxMu.Lock()
	inbox, overflow, head, restored := t.inbox, t.overflow, t.head, t.restored
	t.inbox, t.inboxLen, t.overflow, t.head = nil, 0, false, 0
	t.inboxMu.Unlock()
	if restored {
		t.hub.options.Log.Warn("the stored stream is shorter or another one than before: its readers start anew", "scope", t.scope.String(), "epoch", t.epoch, "position", t.pos)
		return stream.ErrClosed
	}
	defer t.wakeReaders()
	for _, p := range inbox {
		if p.Next()-1 <= t.pos {
			continue // the log was faster
		}
		if p.Position > t.pos+1 && !t.read(p.Position-1) {
			return nil // the next poll goes on
		}
		if p.Lines != nil && p.Lines.DecodeAll() != nil {
			t.read(p.Next() - 1) // which says what is wrong
			continue
		}
		t.deliver(p)
	}
	if overflow {
		known, err := t.hub.log.StreamHead(t.ctx, t.scope)
		if !t.ok(err) {
			return nil
		}
		head = max(head, known)
	}
	t.read(head)
	return nil
}

// ok reports whether a read of the log succeeded, and logs the first failure
// and the recovery.
func (t *tailer) ok(err error) bool {
	switch {
	case t.ctx.Err() != nil:
	case err != nil && !t.failed:
		t.hub.options.Log.Warn("the stored stream cannot be read; live views wait for it", "scope", t.scope.String(), "error", err)
	case err == nil && t.failed:
		t.hub.options.Log.Info("the stored stream can be read again", "scope", t.scope.String())
	}
	t.failed = err != nil
	return err == nil
}

// read hands out what the log holds after pos until it reaches a position
// that is known to be committed. It reports whether it did.
func (t *tailer) read(to int64) bool {
	for t.pos < to {
		t.hub.metrics.reads.WithLabelValues("tailer").Inc()
		parts, err := t.hub.log.ReadStream(t.ctx, t.scope, t.pos, readLimit)
		if !t.ok(err) {
			return false
		}
		if len(parts) == 0 {
			t.skip(to)
			return true
		}
		for _, p := range parts {
			if p.Position > t.pos+1 {
				t.skip(p.Position - 1)
			}
			if p.Next()-1 > t.pos {
				t.deliver(p)
			}
		}
	}
	return true
}

// deliver hands a part to every view that it concerns. What is costly happens
// without the lock; a view that came meanwhile is served under it.
func (t *tailer) deliver(published *frame.Published) {
	p := newPart(published, t.epoch)
	t.mu.Lock()
	found := t.index.candidates(p)
	t.mu.Unlock()
	cuts := t.cutAll(found, p)
	t.mu.Lock()
	found = t.index.candidates(p)
	for i := range found {
		v := found[i].view
		c := cuts[v]
		if c == nil {
			c = t.cut(&found[i], p)
		}
		if len(c.chunks) == 0 {
			continue
		}
		for r := range v.readers {
			r.push(c)
		}
	}
	t.pos = p.Next() - 1
	t.mu.Unlock()
	if t.held++; t.held >= maxHeldParts {
		t.wakeReaders()
	}
}

// cutAll cuts a part for views, as long as not too much of it is held at once:
// the rest is cut when it is handed out.
func (t *tailer) cutAll(list []candidate, p *part) map[*view]*cut {
	cuts := make(map[*view]*cut, len(list))
	held := 0
	for i := range list {
		if held+p.bytes > maxCutBytes {
			break
		}
		c := t.cut(&list[i], p)
		held += c.overhead()
		cuts[list[i].view] = c
	}
	return cuts
}

// wakeReaders tells the readers that got something.
func (t *tailer) wakeReaders() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.woken {
		r.woken = false
		signal(r.ready)
	}
	clear(t.woken)
	t.woken, t.held = t.woken[:0], 0
}

// skip moves on over positions that the log no longer holds.
func (t *tailer) skip(to int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hub.options.Log.Warn("the stored stream has no records where some were committed", "scope", t.scope.String(), "from", t.pos+1, "to", to)
	for _, v := range t.index.views {
		for r := range v.readers {
			r.skip(to)
		}
	}
	t.pos = to
}

func (t *tailer) cursor(position int64) stream.Cursor {
	return stream.Cursor{Epoch: t.epoch, Position: position}
}
