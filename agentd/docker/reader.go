package docker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// How often logs are looked at.
const (
	// busyPause is between two looks at a log that is being written: a line
	// waits for it only when another came just before.
	busyPause = 80 * time.Millisecond
	// oftenPauses is within how many pauses a log must go on to be looked at again
	// without being told.
	oftenPauses = 3
	// busyShare is added for each such log.
	busyShare = 50 * time.Microsecond
	// pollEvery is between two looks at logs that cannot wake us.
	pollEvery = 250 * time.Millisecond
	// sweepEvery is between two looks at all logs, in case a wake-up was lost.
	sweepEvery = 10 * time.Second
)

// reader reads all sandboxes, each for one block in turn, and is the one
// goroutine that hands over what came from files.
type reader struct {
	sink    source.Sink
	rounds  source.Sink // the same, for batches of rounds
	over    func()      // says that a round is over
	log     hclog.Logger
	metrics *metrics
	watch   *watcher
	all     *registry
	told    *told
	gone    func(id string) // called after a sandbox's last batch
	limits  limits
	budget  *budget
	kept    *kept

	mu     sync.Mutex
	ready  []*sandbox
	urgent []*sandbox // whose logs hold too much: every other turn is theirs
	turned bool       // the last turn was one of theirs
	loose  []source.Positions
	wake   chan struct{} // one slot

	block    block
	busy     []*sandbox
	round    time.Time // when the last round of turns began
	progress bool      // whether anything was read in it
	emitted  bool      // whether anything was handed over in it
	// A compressed file is read to its end before another one is begun, because
	// each that is open takes some 50 KiB.
	inflating *sandbox
	waiting   []*sandbox // for inflating
}

// push has s looked at soon.
func (r *reader) push(s *sandbox) {
	r.mu.Lock()
	if !s.queued {
		s.queued = true
		if s.tail.crowded.Load() {
			r.urgent = append(r.urgent, s)
		} else {
			r.ready = append(r.ready, s)
		}
	}
	r.mu.Unlock()
	r.nudge()
}

// note has positions made durable that belong to no batch.
func (r *reader) note(p source.Positions) {
	r.mu.Lock()
	r.loose = append(r.loose, p)
	r.mu.Unlock()
	r.nudge()
}

func (r *reader) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reader) pop() *sandbox {
	r.mu.Lock()
	defer r.mu.Unlock()
	queue := &r.ready
	if r.turned = len(r.urgent) > 0 && (!r.turned || len(r.ready) == 0); r.turned {
		queue = &r.urgent
	}
	if len(*queue) == 0 {
		return nil
	}
	s := (*queue)[0]
	(*queue)[0] = nil
	*queue = (*queue)[1:]
	s.queued = false
	return s
}

// run reads until ctx ends or the sink refuses. A batch that is being handed over
// when ctx ends gets a little more time, for what was read of a deleted file
// cannot be read again.
func (r *reader) run(ctx context.Context) error {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(finishWithin, cancel) })()
	err := r.read(ctx, out)
	if ctx.Err() == nil {
		return err
	}
	r.finish(out)
	r.over()
	return nil
}

// read reads until ctx ends or the sink refuses. What it hands over may take
// until out ends.
func (r *reader) read(ctx, out context.Context) error {
	again, sweep := time.NewTimer(time.Hour), time.NewTicker(sweepEvery)
	defer again.Stop()
	defer sweep.Stop()
	var poll <-chan time.Time // only where the kernel does not tell
	pausing := false
	for {
		r.round, r.progress, r.emitted = time.Now(), false, false
		if err := r.drain(ctx, out); err != nil {
			return err
		}
		if r.emitted {
			r.over()
		}
		if r.progress && !pausing {
			pausing = true
			again.Reset(busyPause + busyShare*time.Duration(len(r.busy)))
		}
		if poll == nil && r.watch.refusedAny() {
			ticker := time.NewTicker(pollEvery)
			defer ticker.Stop()
			poll = ticker.C
		}
		wake := r.wake
		if pausing {
			wake = nil // whoever it is for waits for the next round
		} else {
			r.watch.asleep()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-again.C:
			pausing = false
			r.watch.awake()
			for _, s := range r.busy {
				s.busy = false
				r.push(s)
			}
			clear(r.busy)
			r.busy = r.busy[:0]
		case <-poll:
			r.watch.poll()
		case <-sweep.C:
			r.sweep()
		}
	}
}

// sweep looks whether anything was written that nobody told of, and counts.
func (r *reader) sweep() {
	files, all := 0, r.all.all()
	for _, s := range all {
		if s.broken || s.tail.grew() {
			r.push(s)
		}
		files += s.tail.held()
	}
	r.metrics.files.Set(float64(files))
	r.metrics.sandboxes.Set(float64(len(all)))
}

// drain gives every ready sandbox its turns.
func (r *reader) drain(ctx, out context.Context) error {
	for ctx.Err() == nil {
		if err := r.emitLoose(out); err != nil {
			return err
		}
		s := r.pop()
		if s == nil {
			return nil
		}
		if err := r.turn(out, s); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (r *reader) emitLoose(ctx context.Context) error {
	r.mu.Lock()
	loose := r.loose
	r.loose = nil
	r.mu.Unlock()
	for _, p := range loose {
		if err := r.sink.Emit(ctx, &source.Batch{Positions: p}); err != nil {
			return err
		}
	}
	return nil
}

// turn reads one block of s and decides when to look again: at once when there
// is more, in the next round when lines come often, and otherwise when the kernel
// tells of the next line. After asking the kernel it looks once more: what was
// written before it was asked is not told.
func (r *reader) turn(ctx context.Context, s *sandbox) error {
	r.inflated(r.inflating)
	if !r.mayInflate(s) {
		return nil
	}
	defer r.inflated(s)
	for looks := range 2 {
		if looks > 0 && !s.tail.grew() {
			return nil
		}
		progress, more, err := r.step(ctx, s)
		if err != nil {
			return err
		}
		r.progress = r.progress || progress
		if more {
			r.push(s)
			return nil
		}
		if progress {
			often := r.round.Sub(s.read) < oftenPauses*busyPause
			s.read = r.round
			if often || looks > 0 {
				if !s.busy {
					s.busy = true
					r.busy = append(r.busy, s)
				}
				return nil
			}
		}
		if !r.watch.arm(s) {
			return nil
		}
	}
	return nil
}

// mayInflate has all but one of the sandboxes wait whose logs go on with a
// compressed file.
func (r *reader) mayInflate(s *sandbox) bool {
	switch {
	case !s.known() || !s.tail.zipped():
	case r.inflating == nil:
		r.inflating = s
	case r.inflating != s:
		r.waiting = append(r.waiting, s)
		return false
	}
	return true
}

// inflated lets the next one begin when s, which may be closed by now, has no more
// compressed files.
func (r *reader) inflated(s *sandbox) {
	if s == nil || r.inflating != s || s.tail.zipped() {
		return
	}
	r.inflating = nil
	for _, w := range r.waiting {
		r.push(w)
	}
	r.waiting = nil
}

// step reads up to one block of s and hands it over with everything that was
// waiting for it.
func (r *reader) step(ctx context.Context, s *sandbox) (progress, more bool, err error) {
	target, start := s.begin()
	if target == nil {
		return false, false, nil
	}
	b := &r.block
	b.reset()
	b.out.tty = s.tail.tty.Load()
	if start != nil {
		r.checkRead(s, s.tail.begin(start, b))
	}
	limit := s.limit()
	more, err = s.tail.next(b, limit)
	r.checkRead(s, err)

	stuck := !more && b.read == 0
	ends, last := s.reached(func(m *mark) bool {
		if !s.tail.reached(m) && (m != limit || !stuck) {
			return false
		}
		s.tail.flush(b)
		return true
	})
	batch := source.Batch{Target: *target, Lines: b.out.lines, Positions: source.Positions{}}
	batch.Gaps = b.gaps
	passed := start != nil && start.now // which must not be forgotten
	if len(batch.Lines)+len(batch.Gaps) == 0 && last == nil && b.read == 0 && !passed {
		return false, more || ends > 0, nil
	}
	if p := s.tail.position(); p != nil {
		batch.Positions[s.key] = p.note()
	}
	if last != nil {
		last.addTo(&batch, s)
		batch.Positions[logKey+s.id] = forget
		r.told.note(&batch, []ticket{last.since})
	}
	if err := r.emit(ctx, &batch, b); err != nil {
		s.torn = true
		return false, false, err
	}
	if last != nil {
		r.told.finish(last.since)
		r.watch.disarm(s)
		s.close()
		r.gone(s.id)
		return false, false, nil
	}
	return b.read > 0, more || ends > 0, nil
}

func (r *reader) emit(ctx context.Context, batch *source.Batch, b *block) error {
	r.metrics.aboutGaps(batch)
	r.emitted = true
	if err := r.rounds.Emit(ctx, batch); err != nil {
		return fmt.Errorf("hand over what sandbox %.12s said: %w", batch.Origin.Sandbox, err)
	}
	r.metrics.count(batch)
	r.metrics.bytes.Add(float64(b.read))
	r.metrics.truncated.Add(float64(b.out.cut))
	if b.cached {
		r.metrics.cached.Inc()
	}
	return nil
}

// aboutGaps says whom a batch's gaps are about, and counts them.
func (m *metrics) aboutGaps(batch *source.Batch) {
	for i := range batch.Gaps {
		g := &batch.Gaps[i]
		g.Agent, g.Session, g.Sandbox = batch.Origin.Agent, batch.Origin.Session, batch.Origin.Sandbox
		m.gaps.WithLabelValues(string(g.Reason)).Inc()
	}
}

func (m *metrics) count(batch *source.Batch) {
	var n [telemetry.Stderr + 1]int
	for i := range batch.Lines {
		n[batch.Lines[i].Stream]++
	}
	for stream := telemetry.Stdout; stream <= telemetry.Stderr; stream++ {
		if n[stream] > 0 {
			m.lines.WithLabelValues(stream.String()).Add(float64(n[stream]))
		}
	}
	m.events.Add(float64(len(batch.Events)))
}

// checkRead says once that a log cannot be read. The sweep tries again.
func (r *reader) checkRead(s *sandbox, err error) {
	switch {
	case err != nil && !s.broken:
		s.broken = true
		r.log.Warn("a container's log cannot be read; it is tried again every few seconds", "container", s.id, "error", err)
	case err == nil && s.broken:
		s.broken = false
		r.log.Info("a container's log can be read again", "container", s.id)
	}
}
