package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

// Store answers what is stored. Its errors are *telemetry.Failure where the
// caller may see them.
type Store interface {
	Authenticate(ctx context.Context, keyID string, h ids.Hash) (telemetry.Principal, error)
	CreateWebSession(ctx context.Context, who telemetry.Principal, h ids.Hash, idle time.Duration) error
	WebSession(ctx context.Context, h ids.Hash) (telemetry.Principal, error)
	DeleteWebSession(ctx context.Context, h ids.Hash) error
	CreateStreamToken(ctx context.Context, who telemetry.Principal, h ids.Hash, idle, most time.Duration) (expires time.Time, err error)
	StreamToken(ctx context.Context, h ids.Hash) (telemetry.Principal, error)

	StreamEpoch(ctx context.Context) (int64, error)
	Organisation(ctx context.Context, scope telemetry.Scope) (telemetry.Organisation, error)

	QueryLogs(ctx context.Context, scope telemetry.Scope, q *telemetry.LogQuery) (telemetry.LogPage, error)
	// CountLogs counts what matches, and goes on where an earlier count ended.
	CountLogs(ctx context.Context, scope telemetry.Scope, q *telemetry.LogQuery, after *telemetry.CountKey) (telemetry.LogCount, error)
	// LogEntry and LogContext fail with not_found where there is no such line.
	LogEntry(ctx context.Context, scope telemetry.Scope, id ids.LogKey) (telemetry.LogEntry, error)
	LogContext(ctx context.Context, scope telemetry.Scope, id ids.LogKey, before, after int) (telemetry.LogContext, error)
	LogHistogram(ctx context.Context, scope telemetry.Scope, q *telemetry.LogHistogramQuery) (telemetry.LogHistogram, error)
	LogFacets(ctx context.Context, scope telemetry.Scope, q *telemetry.LogFacetsQuery) (telemetry.LogFacets, error)
	// ExportLogs calls each with all that matches, in order, and ends with its error.
	ExportLogs(ctx context.Context, scope telemetry.Scope, q *telemetry.LogQuery, each func([]telemetry.LogEntry) error) error

	Agent(ctx context.Context, scope telemetry.Scope, id telemetry.AgentID) (telemetry.Agent, error)
	Agents(ctx context.Context, scope telemetry.Scope, l telemetry.Listing) (page []telemetry.Agent, more bool, err error)
	Events(ctx context.Context, scope telemetry.Scope, agent telemetry.AgentID, l telemetry.Listing) (page []telemetry.StoredEvent, more bool, err error)
	Session(ctx context.Context, scope telemetry.Scope, id telemetry.SessionID) (telemetry.Session, error)
	Sessions(ctx context.Context, scope telemetry.Scope, l telemetry.Listing) (page []telemetry.Session, more bool, err error)
	Erasures
	Nodes(ctx context.Context, scope telemetry.Scope) ([]telemetry.Node, error)
	Ledger(ctx context.Context, scope telemetry.Scope, id telemetry.NodeID) (telemetry.Ledger, error)
}

// Hub opens live views of a scope's stream: after a cursor, or from now.
type Hub interface {
	Subscribe(ctx context.Context, scope telemetry.Scope, filter telemetry.LogFilter, after *stream.Cursor) (stream.Reader, error)
}

// Config of the API. Store and Hub are needed; other zero fields get defaults.
type Config struct {
	Store      Store
	Intake     Intake // of pushed records; nil: none are taken
	Hub        Hub
	Dashboard  http.Handler                    // what is not under /v1; nil: 404
	Ready      func(ctx context.Context) error // what /readyz asks; nil: always ready
	Log        hclog.Logger
	Registerer prometheus.Registerer

	// AllowedOrigins are the web origins ("https://app.example.com") beside our
	// own whose pages may read answers and open streams with a token.
	AllowedOrigins []string
	// TLSProxy says that a proxy in front ends TLS and sets X-Forwarded-Proto.
	TLSProxy bool

	StreamsPerOrganisation int           // 1000
	Heartbeat              time.Duration // between signs of life on a stream: 15 s
	WriteTimeout           time.Duration // a client that takes nothing for so long is dropped: 30 s
	Recheck                time.Duration // between checks that a stream's credential still holds: 60 s
	StreamLife             time.Duration // after which a stream is closed so that its client resumes, ±10 %: 1 h
	EndAfter               time.Duration // silence after which the stream of a finished agent ends: 60 s
	AuthTimeout            time.Duration // for the first message of a WebSocket without credential: 5 s
}

func (c *Config) setDefaults() {
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.StreamsPerOrganisation == 0 {
		c.StreamsPerOrganisation = 1000
	}
	for _, d := range []struct {
		to      *time.Duration
		byPlace time.Duration
	}{
		{&c.Heartbeat, 15 * time.Second},
		{&c.WriteTimeout, 30 * time.Second},
		{&c.Recheck, time.Minute},
		{&c.StreamLife, time.Hour},
		{&c.EndAfter, time.Minute},
		{&c.AuthTimeout, 5 * time.Second},
	} {
		if *d.to == 0 {
			*d.to = d.byPlace
		}
	}
}

// API serves the public listener.
type API struct {
	Config
	mux     *http.ServeMux
	cross   *http.CrossOriginProtection
	metrics *metrics

	draining chan struct{} // closed by Drain
	drain    sync.Once
	streams  sync.WaitGroup

	mu      sync.Mutex
	open    map[telemetry.OrgID]int // streams and exports
	exports map[telemetry.OrgID]int
}

// New makes the handler of the public listener. The server around it must
// have no WriteTimeout: streams set their own deadline at each write.
func New(c Config) (*API, error) {
	if c.Store == nil || c.Hub == nil {
		return nil, errors.New("api: needs a store and a hub")
	}
	c.setDefaults()
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	a := &API{
		Config: c, mux: http.NewServeMux(), cross: http.NewCrossOriginProtection(), metrics: m,
		draining: make(chan struct{}), open: make(map[telemetry.OrgID]int), exports: make(map[telemetry.OrgID]int),
	}
	for _, origin := range c.AllowedOrigins {
		if err := a.cross.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("api: allowed origin %q: %w", origin, err)
		}
	}
	a.register(routes())
	return a, nil
}

// Drain ends every stream, so that clients resume at another replica or after
// the restart, refuses new ones, and waits until they have ended or ctx has.
func (a *API) Drain(ctx context.Context) {
	a.drain.Do(func() {
		a.mu.Lock() // so that no stream is being counted in
		defer a.mu.Unlock()
		close(a.draining)
	})
	ended := make(chan struct{})
	go func() {
		a.streams.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// admit counts a stream in, or says why not. The caller calls leave.
func (a *API) admit(org telemetry.OrgID) (leave func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.draining:
		return nil, &telemetry.Failure{Code: telemetry.Unavailable, Message: "This replica is stopping: connect again.", RetryAfter: time.Second, Cause: errDraining}
	default:
	}
	if a.open[org] >= a.StreamsPerOrganisation {
		f := telemetry.Failf(telemetry.RateLimited, "The organisation has %d open streams, which is the limit: close some, or ask for more.", a.open[org])
		f.RetryAfter = 30 * time.Second
		return nil, f
	}
	a.open[org]++
	a.streams.Add(1)
	a.metrics.streams.Inc()
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.open[org]--; a.open[org] == 0 {
			delete(a.open, org)
		}
		a.metrics.streams.Dec()
		a.streams.Done()
	}, nil
}

func (a *API) allowsOrigin(origin string) bool { return slices.Contains(a.AllowedOrigins, origin) }
