package aggregator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/aggregator/ingest"
	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/aggregator/push"
	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/dashboard"
	"github.com/theazo/observability/shared/health"
	"github.com/theazo/observability/shared/telemetry"
)

// stopTimeout bounds everything between the signal and the end, the database
// apart.
const stopTimeout = 20 * time.Second

// Run runs the aggregator until ctx ends.
func Run(ctx context.Context, cfg Config, version string, log hclog.Logger) (err error) {
	began := time.Now()
	log.Info("starting", "version", version)
	db, err := openDatabase(ctx, &cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	if err := store.Migrate(ctx, db.dsn, log.Named("store")); err != nil {
		return err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	o := cfg.storeOptions()
	o.DSN, o.Log, o.Registerer = db.dsn, log.Named("store"), reg
	if o.ErasureKey, err = store.OpenErasureKey(cfg.erasureKeyFile()); err != nil {
		return err
	}
	s, err := store.Open(ctx, o)
	if err != nil {
		return err
	}
	defer s.Close()
	a := &aggregator{cfg: cfg, version: version, log: log, store: s, registry: reg}
	if err := a.open(ctx); err != nil {
		return err
	}
	return a.run(ctx, began, db.lost())
}

// aggregator is one running program.
type aggregator struct {
	cfg      Config
	version  string
	log      hclog.Logger
	registry *prometheus.Registry
	store    *store.Store
	hub      *live.Hub
	ingest   *ingest.Server
	api      *api.API
	checks   health.Checks

	public, admin net.Listener

	readyMu sync.Mutex // held by who asks the parts
	readyAt time.Time  // of the last answer
	unready error
}

// open makes all parts and takes all addresses, so that a port in use is said
// before anything runs.
func (a *aggregator) open(ctx context.Context) error {
	authority, err := ingest.OpenAuthority(a.cfg.authorityDir())
	if err != nil {
		return fmt.Errorf("certificate authority in %s: %w", a.cfg.authorityDir(), err)
	}
	if err := a.store.SetAuthority(ctx, authority.Fingerprint()); err != nil {
		return err
	}
	if a.hub, err = live.New(a.store, live.Options{Log: a.log.Named("live"), Registerer: a.registry}); err != nil {
		return err
	}
	a.ingest, err = ingest.New(ingest.Config{
		Authority: authority, Committer: a.store, Nodes: a.store, Organisations: a.store, Publish: a.hub.Publish,
		Log: a.log.Named("ingest"), Registerer: a.registry, EnrolmentAddress: a.cfg.Listen.Enrolment, IngestAddress: a.cfg.Listen.Ingest,
		Quota: telemetry.Quota{BytesPerSecond: int64(a.cfg.Quota.BytesPerSecond), RecordsPerSecond: a.cfg.Quota.RecordsPerSecond},
	})
	if err != nil {
		return err
	}
	pushed, err := push.New(push.Config{
		Submitter: a.ingest, Keys: a.store, Log: a.log.Named("push"), Registerer: a.registry, Content: a.cfg.Push.Content,
	})
	if err != nil {
		return err
	}
	a.api, err = api.New(api.Config{
		Store: a.store, Hub: a.hub, Intake: pushed, Dashboard: dashboard.Handler(), Ready: a.ready,
		Log: a.log.Named("api"), Registerer: a.registry, AllowedOrigins: a.cfg.AllowedOrigins, TLSProxy: a.cfg.TLSProxy,
		StreamsPerOrganisation: a.cfg.Query.Streams,
	})
	if err != nil {
		return err
	}
	a.checks.Add("database", a.store.Ping)
	var lc net.ListenConfig
	if a.public, err = lc.Listen(ctx, "tcp", a.cfg.Listen.API); err != nil {
		return fmt.Errorf("listen.api: %w", err)
	}
	if a.admin, err = lc.Listen(ctx, "tcp", a.cfg.Listen.Admin); err != nil {
		return fmt.Errorf("listen.admin: %w", err)
	}
	return nil
}

// run starts the parts in order and stops them in reverse.
func (a *aggregator) run(ctx context.Context, began time.Time, lost <-chan error) error {
	parts, partsCtx := errgroup.WithContext(context.WithoutCancel(ctx))
	partsCtx, stopParts := context.WithCancel(partsCtx)
	defer stopParts()
	parts.Go(func() error { return a.store.Run(partsCtx) })
	parts.Go(func() error { return a.hub.Run(partsCtx) })
	parts.Go(func() error { return a.ingest.Run(partsCtx) })
	public := a.serve(parts, a.public, a.api)
	admin := a.serve(parts, a.admin, a.adminHandler())
	parts.Go(func() error {
		health.Watchdog(partsCtx, a.alive)
		return nil
	})
	a.log.Info("ready", "dashboard", "http://"+a.public.Addr().String(), "admin", a.admin.Addr().String(),
		"enrolment", a.ingest.EnrolmentAddr().String(), "ingest", a.ingest.IngestAddr().String(), "after", time.Since(began).Round(time.Millisecond).String())
	if err := health.Notify(ctx, "READY=1"); err != nil {
		a.log.Warn("systemd was not told that we are ready", "error", err)
	}

	var lostErr error
	select {
	case <-ctx.Done():
		a.log.Info("stopping")
	case lostErr = <-lost:
		a.log.Error("the database is lost, stopping", "error", lostErr)
	case <-partsCtx.Done(): // a part failed: Wait says which
	}
	_ = health.Notify(context.WithoutCancel(ctx), "STOPPING=1")
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	a.api.Drain(stopCtx)
	errs := []error{lostErr, public.Shutdown(stopCtx), a.ingest.Stop(stopCtx)}
	stopParts()
	errs = append(errs, admin.Shutdown(stopCtx), parts.Wait())
	a.log.Info("stopped")
	return errors.Join(errs...)
}

// readyFor is how long an answer of ready is good.
const readyFor = 500 * time.Millisecond

// ready says why the API cannot do its work, if it cannot. Anybody may ask, so
// askers share an answer: each would take a connection that commits need.
func (a *aggregator) ready(ctx context.Context) error {
	a.readyMu.Lock()
	defer a.readyMu.Unlock()
	if !a.readyAt.IsZero() && time.Since(a.readyAt) < readyFor {
		return a.unready
	}
	a.unready = nil
	if failed := a.checks.Run(context.WithoutCancel(ctx)); len(failed) > 0 { // it has a deadline of its own
		a.unready = errors.New(health.Text(failed))
	}
	a.readyAt = time.Now()
	return a.unready
}

// alive is what the watchdog asks: the process, not its database, which has
// its own supervisor.
func (a *aggregator) alive(context.Context) error { return nil }

// serve runs one HTTP server. Streams have no write timeout: the API sets a
// deadline on each write.
func (a *aggregator) serve(parts *errgroup.Group, l net.Listener, h http.Handler) *http.Server {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: a.log.Named("http").StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	parts.Go(func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	})
	return s
}

func (a *aggregator) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", health.Healthz)
	mux.HandleFunc("GET /readyz", a.checks.Readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	// Profiles: of the operator alone, as everything on this listener.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
