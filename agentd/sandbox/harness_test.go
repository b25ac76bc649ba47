package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

const patience = time.Minute

// keeper is a sink that keeps what it took; while gate is closed it takes
// nothing.
type keeper struct {
	mu        sync.Mutex
	batches   []source.Batch
	positions source.Positions
	changed   chan struct{}
	gate      chan struct{} // nil: open

	// With commits, only what was committed is durable.
	commits   bool
	committed int
	safe      source.Positions
}

func newKeeper() *keeper {
	return &keeper{positions: source.Positions{}, changed: make(chan struct{})}
}

func (k *keeper) Emit(ctx context.Context, b *source.Batch) error {
	k.mu.Lock()
	gate := k.gate
	k.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	own := *b
	own.Lines = nil
	for _, l := range b.Lines {
		l.Text = bytes.Clone(l.Text)
		own.Lines = append(own.Lines, l)
	}
	k.batches = append(k.batches, own)
	k.positions.Apply(b.Positions)
	close(k.changed)
	k.changed = make(chan struct{})
	return nil
}

// all is everything that was taken, as one batch.
func (k *keeper) all() source.Batch {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all source.Batch
	for _, b := range k.batches {
		all.Lines = append(all.Lines, b.Lines...)
		all.Entries = append(all.Entries, b.Entries...)
		all.Events = append(all.Events, b.Events...)
		all.Spans = append(all.Spans, b.Spans...)
		all.ModelCalls = append(all.ModelCalls, b.ModelCalls...)
		all.Gaps = append(all.Gaps, b.Gaps...)
	}
	return all
}

func (k *keeper) durable(key string) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.commits {
		return bytes.Clone(k.safe[key])
	}
	return bytes.Clone(k.positions[key])
}

func (k *keeper) commit() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.committed, k.safe = len(k.batches), maps.Clone(k.positions)
}

// rollback is what a kill does.
func (k *keeper) rollback() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.batches, k.positions = k.batches[:k.committed], source.Positions{}
	maps.Copy(k.positions, k.safe)
}

func (k *keeper) resume() source.Positions {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.positions)
}

func (k *keeper) await(t *testing.T, what string, done func(all source.Batch) bool) source.Batch {
	t.Helper()
	limit := time.After(patience)
	for {
		k.mu.Lock()
		changed := k.changed
		k.mu.Unlock()
		all := k.all()
		if done(all) {
			return all
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s did not come", what)
		}
	}
}

// directory is a Resolver by list. A pid of 0 stands for any process.
type directory struct {
	mu        sync.Mutex
	addresses map[netip.Addr]source.Target
	pids      map[int]source.Target
}

func (d *directory) ByAddress(a netip.Addr) (source.Target, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.addresses[a]
	return t, ok
}

func (d *directory) ByPID(pid int) (source.Target, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.pids[pid]
	return t, ok
}

func target(agent, session string) source.Target {
	return source.Target{Org: "org_1", Origin: telemetry.Origin{
		Agent: telemetry.AgentID(agent), Session: telemetry.SessionID(session), Provider: telemetry.Docker, Sandbox: telemetry.SandboxID("box-" + agent),
	}}
}

// endpoint is a running Source.
type endpoint struct {
	*Source
	url    string
	socket string
	sink   *keeper
	stop   func() error
}

func start(t *testing.T, cfg Config, sink *keeper) *endpoint {
	t.Helper()
	return startAt(t, cfg, sink, filepath.Join(t.TempDir(), "sandbox", "agentd.sock"))
}

func startAt(t *testing.T, cfg Config, sink *keeper, socket string) *endpoint {
	t.Helper()
	e := &endpoint{sink: sink, socket: socket}
	cfg.Listen = []string{"127.0.0.1:0", e.socket}
	var err error
	if e.Source, err = New(cfg, hclog.NewNullLogger(), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, sink.resume(), sink) }()
	e.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	})
	address, err := e.Address(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.url = "http://" + address
	return e
}

// bound is an endpoint whose every local TCP sender is the target.
func bound(t *testing.T, to source.Target) *endpoint {
	t.Helper()
	return start(t, Config{Resolver: &directory{addresses: map[netip.Addr]source.Target{netip.MustParseAddr("127.0.0.1"): to}}}, newKeeper())
}

type reply struct {
	status int
	header http.Header
	Error  struct {
		Code, Message string
		Details       map[string]string
	}
}

func (e *endpoint) post(t *testing.T, path, body string, header ...string) reply {
	t.Helper()
	return send(t, http.DefaultClient, e.url+path, body, header...)
}

func send(t *testing.T, c *http.Client, url, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header}
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatalf("the answer is %q: %v", b, err)
	}
	if r.status/100 == 2 && strings.TrimSpace(string(b)) != "{}" {
		t.Fatalf("the answer is %q", b)
	}
	return r
}

// unixClient speaks over a unix socket.
func unixClient(t *testing.T, socket string) *http.Client {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		deadline := time.Now().Add(patience)
		for {
			c, err := d.DialContext(ctx, "unix", socket)
			if err == nil || time.Now().After(deadline) {
				return c, err
			}
			timer := time.NewTimer(10 * time.Millisecond)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil, errors.Join(ctx.Err(), err)
			}
		}
	}}
	return &http.Client{Transport: tr}
}
