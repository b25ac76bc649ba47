package live

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

// Log is the stored stream of each scope, as the store keeps it.
type Log interface {
	// StreamEpoch is the number of the database's history.
	StreamEpoch(ctx context.Context) (int64, error)
	// StreamHead is the last position used, 0 where there is none.
	StreamHead(ctx context.Context, scope telemetry.Scope) (int64, error)
	// StreamHeads is StreamHead of several scopes at once.
	StreamHeads(ctx context.Context, scopes []telemetry.Scope) ([]int64, error)
	// ReadStream returns records after a position, contiguous and in order: at
	// least one part if there is any, then whole parts until they hold limit
	// records. The first part may begin before after+1.
	ReadStream(ctx context.Context, scope telemetry.Scope, after int64, limit int) ([]*frame.Published, error)
}

// Options of a Hub; zero fields get defaults.
type Options struct {
	Log        hclog.Logger
	Registerer prometheus.Registerer

	Queue    int           // encoded bytes that wait for one reader (1 MiB)
	Patience time.Duration // how long a reader whose queue overflowed may catch up from the log (30 s); negative: not at all
	Poll     time.Duration // how often other replicas' commits are looked for (250 ms)
}

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	if o.Queue == 0 {
		o.Queue = 1 << 20
	}
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	if o.Poll == 0 {
		o.Poll = 250 * time.Millisecond
	}
}

// maxReads bounds how many readers read the log at once, and with that what
// catching up costs the database and in memory.
const maxReads = 8

// Hub hands committed records to readers.
type Hub struct {
	log     Log
	options Options
	metrics *metrics

	// ctx ends with Run and carries the tailers, whose life is no caller's.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	reads  chan struct{} // a token for each reader that reads the log

	mu      sync.Mutex
	tailers map[telemetry.Scope]*tailer
	closed  bool
}

// New makes a hub. Its goroutines, one per watched scope, end with Run.
func New(log Log, options Options) (*Hub, error) {
	options.setDefaults()
	m, err := newMetrics(options.Registerer)
	if err != nil {
		return nil, err
	}
	h := &Hub{log: log, options: options, metrics: m, tailers: make(map[telemetry.Scope]*tailer), reads: make(chan struct{}, maxReads)}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h, nil
}

// Run looks for what other replicas commit until ctx ends; then it closes
// every reader and waits for the tailers.
func (h *Hub) Run(ctx context.Context) error {
	h.poll(ctx)
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	h.wg.Wait()
	return nil
}

// Publish tells the hub what this replica has committed, per scope in
// position order. It never blocks.
func (h *Hub) Publish(list []*frame.Published) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range list {
		if t := h.tailers[p.Scope]; t != nil {
			t.offer(p)
		}
	}
	for _, p := range list { // once all is there, so that readers get it at once
		if t := h.tailers[p.Scope]; t != nil {
			signal(t.wake)
		}
	}
}

// Subscribe opens a view of a scope's stream: after a cursor, or from now
// where it is nil.
func (h *Hub) Subscribe(ctx context.Context, scope telemetry.Scope, filter telemetry.LogFilter, after *stream.Cursor) (stream.Reader, error) {
	key, err := json.Marshal(filter)
	if err != nil {
		return nil, fmt.Errorf("live: filter of a reader of %s: %w", scope, err)
	}
	t, err := h.acquire(scope)
	if err != nil {
		return nil, err
	}
	r, err := t.join(ctx, filter, string(key), after)
	if err != nil {
		h.release(t)
		return nil, err
	}
	h.metrics.readers.Inc()
	return r, nil
}

// acquire returns the scope's tailer, started if nobody watched it yet.
func (h *Hub) acquire(scope telemetry.Scope) (*tailer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, stream.ErrClosed
	}
	t := h.tailers[scope]
	if t == nil {
		t = newTailer(h, scope)
		h.tailers[scope] = t
		h.metrics.tailers.Inc()
		h.wg.Go(t.run)
	}
	t.refs++
	return t, nil
}

// release gives a tailer back; the last one ends it.
func (h *Hub) release(t *tailer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.refs--; t.refs == 0 {
		h.forgetLocked(t)
		t.cancel()
	}
}

// forget makes the next Subscribe start a new tailer.
func (h *Hub) forget(t *tailer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forgetLocked(t)
}

func (h *Hub) forgetLocked(t *tailer) {
	if h.tailers[t.scope] == t {
		delete(h.tailers, t.scope)
		h.metrics.tailers.Dec()
	}
}
