package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/retry"
)

// Limits of a connection in time. A handler that streams lifts those of its
// request.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 20 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeader      = 8 << 10

	listenAgain = 10 * time.Second
	// shutdownFor is how long a stopping endpoint lets requests end, and drainFor
	// how long it waits for the sink to take what is queued.
	shutdownFor = 2 * time.Second
	drainFor    = 5 * time.Second
)

// Source is the local endpoint as a source of records.
type Source struct {
	cfg     Config
	log     hclog.Logger
	hidden  sync.Once // it is said that processes are
	metrics *metrics
	limits  *limits
	unknown unknown
	routes  map[string]http.HandlerFunc

	collector *collector
	warned    warned

	mu        sync.Mutex
	listening []net.Addr
	changed   chan struct{} // closed and replaced when listening changes

	queues *queues // of the present run
}

// New makes the endpoint. It listens once Run runs. Endpoints that share a
// registerer share their metrics.
func New(cfg Config, log hclog.Logger, registerer prometheus.Registerer) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("sandbox endpoint: %w", err)
	}
	cfg.Quota = cfg.Quota.withDefaults()
	m, err := newMetrics(registerer)
	if err != nil {
		return nil, err
	}
	s := &Source{cfg: cfg, log: log, metrics: m, limits: &limits{metrics: m, of: map[string]int{}}, changed: make(chan struct{})}
	s.routes = map[string]http.HandlerFunc{
		"/": s.about, "/healthz": s.about,
		"/v1/sandbox/log": s.post("log", s.readLog), "/v1/sandbox/model": s.post("model", s.readModel), "/v1/sandbox/span": s.post("span", s.readSpan),
		"/v1/sandbox/progress": s.post("progress", s.readProgress), "/v1/sandbox/complete": s.post("complete", s.readComplete),
		"/v1/sandbox/exec": s.exec,
	}
	if err := s.addOTLP(registerer); err != nil {
		return nil, err
	}
	return s, nil
}

// Name of the source.
func (s *Source) Name() string { return "sandbox" }

// Run listens and serves until ctx ends; then requests end, and what is queued
// is emitted.
//
//	Run ─┬─ listen and serve, one for each entry of Listen, again after a failure
//	     ├─ queues.tidy, which tells gaps and forgets who has gone
//	     └─ queues.work, one for each sandbox that has something queued
func (s *Source) Run(ctx context.Context, resume source.Positions, to source.Sink) error {
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	q := newQueues(keep, to, resume, s.cfg.Quota, s.metrics)
	s.mu.Lock()
	s.queues = q
	s.mu.Unlock()
	if err := q.uncleanStop(ctx, resume); err != nil {
		return err
	}
	stopping := make(chan struct{})
	server := s.server(stopping)
	var wg sync.WaitGroup
	for _, entry := range s.cfg.Listen {
		wg.Go(func() { s.serve(ctx, server, entry) })
	}
	tidy, stopTidy := context.WithCancel(keep)
	var tidying sync.WaitGroup
	tidying.Go(func() { q.tidy(tidy) })

	<-ctx.Done()
	close(stopping)
	limit, cancel := context.WithTimeout(keep, shutdownFor)
	defer cancel()
	if err := server.Shutdown(limit); err != nil {
		_ = server.Close()
	}
	timer := time.AfterFunc(drainFor, stop) // the sink may be blocked for long
	defer timer.Stop()
	wg.Wait()
	stopTidy()
	tidying.Wait()
	return q.drain()
}

// server is the HTTP server. Requests that stream end when stopping is closed.
func (s *Source) server(stopping <-chan struct{}) *http.Server {
	return &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, Protocols: protocols(), HTTP2: http2Limits(), ErrorLog: s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			p, _ := c.RemoteAddr().(*peer)
			return context.WithValue(context.WithValue(ctx, stoppingKey{}, stopping), senderKey{}, sender{peer: p})
		},
	}
}

type stoppingKey struct{}

// serve serves one entry of Listen, for as long as ctx lasts.
func (s *Source) serve(ctx context.Context, server *http.Server, entry string) {
	failed := false
	for ctx.Err() == nil {
		list, err := s.listen(ctx, entry)
		if err == nil {
			failed = false
			err = s.serveOn(server, list)
		}
		if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
			return
		}
		if !failed { // it may stay so for ever: said once
			failed = true
			level := hclog.Warn
			if errors.Is(err, errNoInterface) {
				level = hclog.Info
			}
			s.log.Log(level, "the local endpoint does not listen here; it is tried again", "listen", entry, "error", err)
		}
		if retry.Sleep(ctx, listenAgain) != nil {
			return
		}
	}
}

func (s *Source) serveOn(server *http.Server, list []net.Listener) error {
	s.listens(list, true)
	defer s.listens(list, false)
	ended := make(chan error, len(list))
	for _, l := range list {
		s.log.Info("local endpoint", "address", l.Addr().String())
		go func() { ended <- server.Serve(l) }()
	}
	err := <-ended
	for _, l := range list {
		_ = l.Close()
	}
	for range len(list) - 1 {
		err = errors.Join(err, <-ended)
	}
	return err
}

func (s *Source) listens(list []net.Listener, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range list {
		if on {
			s.listening = append(s.listening, l.Addr())
			continue
		}
		for i, a := range s.listening {
			if a == l.Addr() {
				s.listening = append(s.listening[:i], s.listening[i+1:]...)
				break
			}
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// Address waits until the endpoint listens on a TCP address, and returns it.
func (s *Source) Address(ctx context.Context) (string, error) {
	for {
		s.mu.Lock()
		changed := s.changed
		for _, a := range s.listening {
			if a.Network() == "tcp" {
				s.mu.Unlock()
				return a.String(), nil
			}
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return "", fmt.Errorf("the local endpoint listens nowhere: %w", ctx.Err())
		}
	}
}

// warned remembers what was warned of, so that a sandbox cannot fill our log.
type warned struct {
	mu sync.Mutex
	of map[string]struct{}
}

const maxWarned = 1024

func (s *Source) warnOnce(of, message string, fields ...any) {
	w := &s.warned
	w.mu.Lock()
	_, known := w.of[of]
	if w.of == nil || len(w.of) >= maxWarned {
		w.of = map[string]struct{}{}
	}
	w.of[of] = struct{}{}
	w.mu.Unlock()
	if !known {
		s.log.Warn(message, fields...)
	}
}
