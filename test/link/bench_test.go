package link_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/theazo/observability/agentd/uplink"
	"github.com/theazo/observability/aggregator/ingest"
	"github.com/theazo/observability/aggregator/ingest/ingesttest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take on a loaded machine.
const patience = time.Minute

// bench is aggregators on one store, each behind a relay that can be cut.
type bench struct {
	store     *ingesttest.Store
	authority *ingest.Authority
	servers   []*ingest.Server
	relays    []*relay
}

func start(t testing.TB, aggregators int, change func(*ingest.Config), orgs ...telemetry.OrgID) *bench {
	t.Helper()
	authority, err := ingest.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{store: ingesttest.NewStore(orgs...), authority: authority}
	for range aggregators {
		c := ingest.Config{
			Authority: authority, Committer: b.store, Nodes: b.store, Organisations: b.store, Publish: func([]*frame.Published) {},
			Registerer: prometheus.NewRegistry(), EnrolmentAddress: "127.0.0.1:0", IngestAddress: "127.0.0.1:0",
			CommitEvery: 2 * time.Millisecond, RevokedEvery: 50 * time.Millisecond,
		}
		if change != nil {
			change(&c)
		}
		s, err := ingest.New(c)
		if err != nil {
			t.Fatal(err)
		}
		ran := make(chan error, 1)
		go func() { ran <- s.Run(context.Background()) }()
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := errors.Join(s.Stop(ctx), <-ran); err != nil {
				t.Errorf("stop the aggregator: %v", err)
			}
		})
		b.servers = append(b.servers, s)
		b.relays = append(b.relays, newRelay(t, s.IngestAddr().String()))
	}
	return b
}

// enrol makes a node and returns its state directory.
func (b *bench) enrol(t testing.TB, org telemetry.OrgID) string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := uplink.Enroll(ctx, uplink.EnrollConfig{
		Address: b.servers[0].EnrolmentAddr().String(), Token: b.store.Token(b.authority.Fingerprint(), org), StateDir: dir, NodeName: "test", Version: "1",
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// connect runs an uplink of the node until the test ends or stop is called.
func (b *bench) connect(t testing.TB, dir string, q uplink.Queue) (u *uplink.Uplink, stop func()) {
	t.Helper()
	var addresses []string
	for _, r := range b.relays {
		addresses = append(addresses, r.listener.Addr().String())
	}
	return run(t, uplink.Config{Addresses: addresses, StateDir: dir, NodeName: "test", Version: "1"}, q)
}

func run(t testing.TB, c uplink.Config, q uplink.Queue) (u *uplink.Uplink, stop func()) {
	t.Helper()
	u, err := uplink.New(c, q, hclog.NewNullLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- u.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return u, stop
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

// relay passes TCP connections on until it is cut.
type relay struct {
	listener net.Listener
	down     atomic.Bool
	group    sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool
}

func newRelay(t testing.TB, to string) *relay {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, open: map[net.Conn]bool{}}
	r.group.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			var d net.Dialer
			out, err := d.DialContext(context.Background(), "tcp", to)
			if err != nil || r.down.Load() {
				_ = in.Close()
				if out != nil {
					_ = out.Close()
				}
				continue
			}
			r.keep(in, out)
			r.group.Go(func() { r.pass(in, out) })
			r.group.Go(func() { r.pass(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.cut()
		r.group.Wait()
	})
	return r
}

func (r *relay) keep(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.open[c] = true
	}
}

func (r *relay) pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, to)
	delete(r.open, from)
}

// cut breaks every connection: what is on its way, either way, is lost.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}
