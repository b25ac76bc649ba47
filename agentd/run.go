package agentd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/theazo/observability/agentd/guest"
	"github.com/theazo/observability/agentd/intake"
	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/agentd/uplink"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/health"
	"github.com/theazo/observability/shared/logging"
	"github.com/theazo/observability/shared/retry"
)

// How long a stopping agent waits for what is on disk to be acknowledged. The
// rest goes at the next start; after `exec` there may be none.
const (
	drainService = 2 * time.Second
	drainCommand = 10 * time.Second
)

// Options of one run.
type Options struct {
	Config  Config
	Version string
	Log     hclog.Logger
	// Reload yields configurations that replace Config, each already
	// validated. May be nil.
	Reload <-chan Config
	// Command makes this agentd the parent of one process: it ends when the
	// process has ended. May be nil.
	Command *Command
}

// Run runs the agent until ctx ends, or its command has.
func Run(ctx context.Context, o Options) error {
	a := &agent{Options: o, startedAt: time.Now().UTC(), registry: prometheus.NewRegistry(), offline: newToggle(o.Config.Aggregator.Offline)}
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := a.open(); err != nil {
		return err
	}
	a.registry.MustRegister(newBufferMetrics(a.spool.Stats), newLedgerMetrics(a.spool.Ledger))
	err := a.run(ctx)
	return errors.Join(err, a.spool.Close())
}

type agent struct {
	Options
	startedAt time.Time
	registry  *prometheus.Registry
	spool     *spool.Spool
	intake    *intake.Intake
	sources   *sources
	guest     *guest.Guest
	canary    *canary // nil: none
	offline   *toggle
	kept      *health.Descriptors // log files held open over a reload or a restart

	mu     sync.Mutex
	uplink *uplink.Uplink // nil until the node is enrolled
	alone  bool           // nothing can be sent: the node cannot be enrolled
}

func (a *agent) stateDir(name string) string { return filepath.Join(a.Config.StateDir, name) }

// open opens the buffer, which also locks the state directory.
func (a *agent) open() error {
	if err := os.MkdirAll(a.Config.StateDir, 0o700); err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	var err error
	a.spool, err = spool.Open(spool.Options{
		Dir: a.stateDir("buffer"), SegmentBytes: int64(a.Config.Buffer.Segment), Budget: int64(a.Config.Buffer.Budget),
		Floor: int64(a.Config.Buffer.Floor), EvictAfter: a.Config.Buffer.EvictAfter,
		Log: a.Log.Named("spool"), TombstoneBody: tombstoneBody,
	})
	if err != nil {
		return fmt.Errorf("buffer in %s: %w", a.stateDir("buffer"), err)
	}
	return nil
}

// run starts everything and stops it in order (see the package's doc).
func (a *agent) run(ctx context.Context) error {
	handOver := a.inherit(ctx)
	defer handOver()
	identity, err := a.identity(ctx)
	if err != nil {
		return err
	}
	q := queue{a.spool}
	keep := context.WithoutCancel(ctx)
	guestCtx, stopGuest := context.WithCancel(keep)
	a.guest = guest.Start(guestCtx, a.Config.guestConfig(a.Command != nil), a.Log.Named("guest"), a.registry)
	defer a.guest.Wait()
	defer stopGuest()
	if err := a.makeIntake(identity, q); err != nil {
		return err
	}
	a.makeCanary(identity)
	uplinkCtx, stopUplink := context.WithCancel(keep)
	intakeCtx, stopIntake := context.WithCancel(keep)
	statusCtx, stopStatus := context.WithCancel(keep)
	var uplinkDone, intakeDone, statusDone sync.WaitGroup
	var uplinkErr, intakeErr, statusErr error
	uplinkDone.Go(func() { uplinkErr = a.runUplink(uplinkCtx, identity, q) })
	intakeDone.Go(func() { intakeErr = a.intake.Run(intakeCtx) })
	statusDone.Go(func() { statusErr = serveStatus(statusCtx, a.Config.StateDir, a.registry, a.status) })
	statusDone.Go(func() { health.Watchdog(statusCtx, func(context.Context) error { return nil }) })
	if err := health.Notify(ctx, "READY=1"); err != nil {
		a.Log.Warn("systemd was not told that we are ready", "error", err)
	}

	sourcesErr := a.runSources(ctx)
	_ = health.Notify(keep, "STOPPING=1")
	stopIntake()
	intakeDone.Wait()
	a.drain(ctx, keep)
	stopUplink()
	uplinkDone.Wait()
	stopStatus()
	statusDone.Wait()
	return errors.Join(sourcesErr, intakeErr, uplinkErr, statusErr)
}

// makeIntake makes intake, and what will run the sources that emit to it.
func (a *agent) makeIntake(id *uplink.Identity, q queue) error {
	content, err := a.Config.intakeConfig()
	if err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	if content.Redactor, err = a.Config.redactor(a.registry); err != nil {
		return fmt.Errorf("redact: %w", err)
	}
	content.RequireOrg, content.Pressure = a.namesOrganisations(id), a.pressure
	a.intake = intake.New(content, q, a.Log.Named("intake"), a.registry)
	a.intake.Restore(a.spool.Positions())
	a.sources = &sources{intake: a.intake, durable: a.spool.Positions, log: a.Log, registerer: a.registry}
	a.sources.start = a.sources.supervise
	return nil
}

// handOverTimeout bounds how long systemd may take to accept open files.
const handOverTimeout = 5 * time.Second

// inherit takes over the log files that the last agentd of this service held
// open, and returns what hands them, or others by then, to the next one.
func (a *agent) inherit(ctx context.Context) (handOver func()) {
	var err error
	if a.kept, err = health.Inherit(ctx); err != nil {
		a.Log.Warn("open log files of the last agentd could not all be taken over; what the engine has deleted of them is told as a gap", "error", err)
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOverTimeout)
		defer cancel()
		if n, err := a.kept.HandOver(ctx); err != nil {
			a.Log.Warn("open log files could not be left to the next agentd", "error", err)
		} else if n > 0 {
			a.Log.Info("open log files are left to the next agentd", "files", n)
		}
	}
}

// namesOrganisations reports whether records must say whose they are. A node
// that is not enrolled yet, which only a command's can be, goes by whether the
// command says it.
func (a *agent) namesOrganisations(id *uplink.Identity) bool {
	if id != nil {
		return id.Platform
	}
	return a.Command.Environ("THEAZO_ORG_ID") != ""
}

// runSources runs the sources of the configuration until ctx ends or the
// command has ended, and starts them anew when the configuration changes.
func (a *agent) runSources(ctx context.Context) error {
	if a.Command != nil {
		stop := a.commandEndpoint(ctx)
		defer stop()
		return a.sources.run(ctx, a.Command)
	}
	for {
		list, err := configuredSources(&a.Config, a.spool.Positions, a.kept, a.Log, a.sources.registerer)
		if err != nil {
			return err
		}
		if a.canary != nil {
			list = append(list, a.canary)
		}
		if !a.runUntilChange(ctx, list) {
			return nil
		}
	}
}

// identity returns who the node is, or nil for a command whose node is not
// enrolled yet: it must not wait for us.
func (a *agent) identity(ctx context.Context) (*uplink.Identity, error) {
	id, err := uplink.LoadIdentity(a.Config.StateDir)
	if err == nil {
		return &id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("identity of this node: %w", err)
	}
	if a.Command != nil {
		return nil, nil //nolint:nilnil // no identity yet is not an error here
	}
	return a.enroll(ctx)
}

// enroll trades the join token for a certificate, for as long as it takes the
// aggregator to come up.
func (a *agent) enroll(ctx context.Context) (*uplink.Identity, error) {
	token, err := a.Config.joinToken()
	if err != nil {
		return nil, err
	}
	if token == "" || a.Config.Aggregator.Enrolment == "" {
		return nil, errors.New("this node is not enrolled: get a token with 'aggregator node token -org org_…', " +
			"then give it and the enrolment server's address as aggregator.join_token and aggregator.enrolment, or run 'agentd enroll'")
	}
	pause := retry.Backoff{Min: 200 * time.Millisecond, Max: 30 * time.Second}
	for {
		id, err := uplink.Enroll(ctx, uplink.EnrollConfig{
			Address: a.Config.Aggregator.Enrolment, Token: token, StateDir: a.Config.StateDir, NodeName: a.Config.nodeName(), Version: a.Version,
			Log: a.Log.Named("uplink"),
		})
		if err == nil {
			a.Log.Info("enrolled", "node", string(id.Node))
			return &id, nil
		}
		if uplink.Refused(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("enrol at %s: %w", a.Config.Aggregator.Enrolment, err)
		}
		a.Log.Warn("could not enrol, trying again", "aggregator", a.Config.Aggregator.Enrolment, "error", err)
		if err := retry.Sleep(ctx, pause.Next()); err != nil {
			return nil, err
		}
	}
}

// runUplink sends what is on disk until ctx ends; it enrols first where that
// is still to do.
func (a *agent) runUplink(ctx context.Context, id *uplink.Identity, q queue) error {
	if id == nil {
		if _, err := a.enroll(ctx); err != nil {
			if ctx.Err() == nil {
				a.Log.Error("output is only kept on this machine", "error", err)
				a.mu.Lock()
				a.alone = true
				a.mu.Unlock()
				<-ctx.Done()
			}
			return nil
		}
	}
	u, err := uplink.New(uplink.Config{
		Addresses: a.Config.Aggregator.Addresses, StateDir: a.Config.StateDir, NodeName: a.Config.nodeName(), Version: a.Version,
		Report: a.report,
	}, q, a.Log.Named("uplink"), a.registry)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.uplink = u
	a.mu.Unlock()
	return a.whileOnline(ctx, u.Run)
}

// whileOnline runs the uplink except while the configuration says offline.
func (a *agent) whileOnline(ctx context.Context, run func(context.Context) error) error {
	for ctx.Err() == nil {
		offline, changed := a.offline.get()
		if offline {
			a.Log.Warn("aggregator.offline is set: records stay in the buffer", "budget", a.Config.Buffer.Budget.String())
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		online, stop := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() {
			select {
			case <-changed:
				stop()
			case <-online.Done():
			}
		})
		err := run(online)
		stop()
		watch.Wait()
		if err != nil {
			return err
		}
	}
	return nil
}

// drain waits until everything on disk is acknowledged, for as long as that
// is worth while.
func (a *agent) drain(ctx, keep context.Context) {
	limit := drainService
	if a.Command != nil && ctx.Err() == nil {
		limit = drainCommand
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left := 0
		for _, lane := range a.spool.Stats().Lane {
			left += lane.Frames
		}
		a.mu.Lock()
		alone := a.alone
		a.mu.Unlock()
		if left == 0 || alone {
			return
		}
		select {
		case <-tick.C:
		case <-keep.Done():
			return
		case <-timeout.C:
			a.Log.Info("records that are not acknowledged stay on disk and are sent at the next start", "frames", left, "waited", limit.String())
			return
		}
	}
}

func (a *agent) status() Status {
	s := Status{Version: a.Version, NodeName: a.Config.nodeName(), StartedAt: a.startedAt, Buffer: a.spool.Stats(), Ledger: a.spool.Ledger(), Sources: a.sources.names(), Guest: a.guest.Status()}
	if a.canary != nil {
		s.CanaryLag = a.canary.Lag()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.uplink != nil {
		s.Uplink = a.uplink.Status()
	}
	return s
}

// runUntilChange runs sources until ctx ends or the configuration
// of sources changes. A changed log level is applied in passing.
func (a *agent) runUntilChange(ctx context.Context, list []source.Source) (changed bool) {
	run, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.sources.runAll(run, list)
	}()
	for {
		select {
		case <-done:
			return false
		case next := <-a.Reload:
			restart := a.apply(next)
			if !restart {
				continue
			}
			stop()
			<-done
			return true
		}
	}
}

// apply takes over what can change while running and reports whether sources
// must start anew.
func (a *agent) apply(next Config) (restartSources bool) {
	old := a.Config
	a.Log.SetLevel(logging.Level(next.Log.Level))
	restartSources = sourceSettings(&old) != sourceSettings(&next)
	a.Config.Docker, a.Config.Files, a.Config.Defaults, a.Config.Sandbox = next.Docker, next.Files, next.Defaults, next.Sandbox
	a.Config.Log.Level, a.Config.Aggregator.Offline = next.Log.Level, next.Aggregator.Offline
	a.offline.set(next.Aggregator.Offline)
	was, errWas := config.YAML(&a.Config)
	is, errIs := config.YAML(&next)
	if errWas != nil || errIs != nil || string(was) != string(is) {
		a.Log.Warn("the configuration changed in settings that take effect at the next start only")
	}
	a.Log.Info("configuration applied", "sources_restarted", restartSources)
	return restartSources
}
