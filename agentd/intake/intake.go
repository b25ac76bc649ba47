package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// Limits of what is collected before it is cut.
const (
	frameBytes = 256 << 10 // of messages, metadata and origins
	frameLines = 4096
	// heldBytes is what one organisation and environment may have read but not
	// durable before Emit blocks; heldInAll is the same for the node.
	heldBytes = 256 << 10
	heldInAll = 32 << 20

	// A position that no line came with may wait: it only spares a source some
	// reading after a crash.
	positionsDelay = time.Second

	maxKey      = 1 << 10 // bytes of a position's key
	maxPosition = 64 << 10
)

// ErrClosed is what Emit returns after Run.
var ErrClosed = errors.New("intake has stopped")

// Queue is where frames go: the spool, wired by package agentd. Epoch and
// First of the frames are zero; bodies may be used again once Append returns.
type Queue interface {
	// Append makes frames and positions durable in one step, or returns an
	// error and has done nothing. A nil position forgets its key.
	Append(frames []frame.Frame, positions map[string][]byte) error
	// Room waits until an Append may succeed.
	Room(ctx context.Context) error
}

// Config of an Intake.
type Config struct {
	// RequireOrg is for platform nodes: records without an organisation are
	// dropped and counted. Otherwise the node's certificate says whose records
	// these are, and what sources say of it is left out.
	RequireOrg bool
	// MaxDelay is how long a cut waits while more lines arrive; 0: 25 ms.
	MaxDelay time.Duration
}

// Intake collects records and cuts frames. It is safe for concurrent use.
type Intake struct {
	cfg     Config
	queue   Queue
	log     hclog.Logger
	metrics *metrics

	mu         sync.Mutex
	closed     bool
	collecting *batch
	flushing   *batch // what Append has not returned for yet, or nil
	spare      *batch
	changed    chan struct{} // closed and replaced when Emit should look again
	arrived    chan struct{} // has room for one: something is to be cut
	parse      parser        // under mu
	warned     map[string]struct{}
	// latest holds what sources emitted last, durable or not yet; nil values
	// delete and go when that is durable.
	latest map[string][]byte
}

// New makes an Intake that appends to queue.
func New(cfg Config, queue Queue, log hclog.Logger, reg prometheus.Registerer) *Intake {
	if cfg.MaxDelay <= 0 {
		cfg.MaxDelay = 25 * time.Millisecond
	}
	return &Intake{
		cfg: cfg, queue: queue, log: log, metrics: newMetrics(reg),
		collecting: newBatch(), changed: make(chan struct{}), arrived: make(chan struct{}, 1), warned: map[string]struct{}{}, latest: map[string][]byte{},
	}
}

// Sink is where the named source emits to.
func (in *Intake) Sink(sourceName string) source.Sink {
	return sink{in: in, prefix: sourceName + "/"}
}

// Resume picks the named source's positions out of all durable ones. For a
// source that starts again while agentd runs, those that it emitted before count
// although they may not be durable yet: their lines are on their way.
func (in *Intake) Resume(sourceName string, all map[string][]byte) source.Positions {
	p := source.Positions{}
	for k, v := range all {
		if key, ok := strings.CutPrefix(k, sourceName+"/"); ok {
			p[key] = slices.Clone(v)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for k, v := range in.latest {
		key, ok := strings.CutPrefix(k, sourceName+"/")
		switch {
		case !ok:
		case v == nil:
			delete(p, key)
		default:
			p[key] = slices.Clone(v)
		}
	}
	return p
}

type sink struct {
	in     *Intake
	prefix string
}

func (s sink) Emit(ctx context.Context, b *source.Batch) error { return s.in.emit(ctx, s.prefix, b) }

func (in *Intake) emit(ctx context.Context, prefix string, b *source.Batch) error {
	scope := telemetry.Scope{Org: b.Org, Env: b.Env}
	if !in.cfg.RequireOrg {
		scope.Org = ""
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.waitForRoom(ctx, scope); err != nil {
		return err
	}
	if in.welcome(scope, b) {
		in.take(scope, b)
	}
	for k, v := range b.Positions {
		in.takePosition(prefix+k, v)
	}
	in.notify()
	return nil
}

// waitForRoom waits, under mu, until the scope's records are durable but for
// heldBytes.
func (in *Intake) waitForRoom(ctx context.Context, scope telemetry.Scope) error {
	for {
		if in.closed {
			return ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("emit: %w", err)
		}
		if in.held(scope) < heldBytes && in.collecting.bytes+in.flushing.size() < heldInAll {
			return nil
		}
		in.notify()
		changed := in.changed
		in.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		in.mu.Lock()
	}
}

func (in *Intake) held(scope telemetry.Scope) int {
	return in.collecting.of(scope) + in.flushing.of(scope)
}

// welcome reports whether the batch's records can be taken at all.
func (in *Intake) welcome(scope telemetry.Scope, b *source.Batch) bool {
	records := len(b.Lines) + len(b.Events) + len(b.Gaps)
	if !in.cfg.RequireOrg || records == 0 {
		return records > 0
	}
	reason := "no_organisation"
	if scope.Org != "" {
		if telemetry.CheckID(string(scope.Org)) == nil {
			return true
		}
		reason = "bad_organisation"
	}
	in.metrics.dropped.WithLabelValues(reason).Add(float64(records))
	if in.firstWarning("org " + string(b.Origin.Sandbox)) {
		in.log.Warn("records of a sandbox are dropped: this node serves several organisations, and the sandbox has no valid label theazo.org_id",
			"sandbox", b.Origin.Sandbox, "organisation", string(scope.Org), "reason", reason)
	}
	return false
}

// maxWarned bounds the memory of what was warned of.
const maxWarned = 4096

func (in *Intake) firstWarning(of string) bool {
	if _, known := in.warned[of]; known {
		return false
	}
	if len(in.warned) >= maxWarned {
		clear(in.warned)
	}
	in.warned[of] = struct{}{}
	return true
}

func (in *Intake) takePosition(key string, value []byte) {
	if len(key) > maxKey || len(value) > maxPosition {
		in.metrics.dropped.WithLabelValues("position_too_large").Inc()
		in.log.Error("a source's position is too large to keep; after a restart it repeats what it read", "key", fmt.Sprintf("%.80s", key), "bytes", len(value))
		return
	}
	if string(value) == "null" {
		value = nil
	}
	value = slices.Clone(value)
	in.collecting.positions[key], in.latest[key] = value, value
}

// notify wakes Run. Called under mu.
func (in *Intake) notify() {
	select {
	case in.arrived <- struct{}{}:
	default: // it knows
	}
}

// broadcast lets blocked Emits look again. Called under mu.
func (in *Intake) broadcast() {
	close(in.changed)
	in.changed = make(chan struct{})
}

// batch is what one Append will make durable.
type batch struct {
	scopes    map[telemetry.Scope]*scoped
	order     []*scoped // in order of arrival
	positions map[string][]byte
	bytes     int
	full      bool // a frame's worth of some scope is here
	frames    []frame.Frame
	encoded   bool // frames is made
	spare     []*scoped
}

func newBatch() *batch {
	return &batch{scopes: map[telemetry.Scope]*scoped{}, positions: map[string][]byte{}}
}

func (b *batch) size() int {
	if b == nil {
		return 0
	}
	return b.bytes
}

func (b *batch) of(scope telemetry.Scope) int {
	if b == nil || b.scopes[scope] == nil {
		return 0
	}
	return b.scopes[scope].bytes
}

func (b *batch) empty() bool { return len(b.order) == 0 && len(b.positions) == 0 }

// scope returns the place of a scope's records in this batch.
func (b *batch) scope(key telemetry.Scope) *scoped {
	if s := b.scopes[key]; s != nil {
		return s
	}
	var s *scoped
	if n := len(b.spare); n > 0 {
		s, b.spare = b.spare[n-1], b.spare[:n-1]
	} else {
		s = &scoped{}
	}
	s.Scope = key
	b.scopes[key] = s
	b.order = append(b.order, s)
	return s
}

// maxSpare is how many scopes' buffers a batch keeps for the next.
const maxSpare = 8

// reset forgets the records and keeps some buffers.
func (b *batch) reset() {
	for _, s := range b.order {
		if len(b.spare) < maxSpare {
			s.reset()
			b.spare = append(b.spare, s)
		}
	}
	clear(b.scopes)
	b.order = slices.Delete(b.order, 0, len(b.order))
	clear(b.positions)
	b.frames = slices.Delete(b.frames, 0, len(b.frames))
	b.bytes, b.full, b.encoded = 0, false, false
}
