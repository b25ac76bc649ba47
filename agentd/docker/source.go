package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/telemetry"
)

// The sources' names, which prefix their positions.
const (
	engineName = "docker"
	filesName  = "files"
)

// Source reads a Docker engine, or files of its format. It is a source.Source,
// and says which container an address or a process belongs to.
type Source struct {
	cfg     Config
	choose  selection
	log     hclog.Logger
	metrics *metrics
	// connect makes a client; tests put another engine behind it.
	connect func(endpoint string) (engine, error)
	// known is what the present Run knows; nil between runs, when nobody keeps it
	// current.
	known atomic.Pointer[registry]
}

// New returns the source. It touches neither the engine nor the disk before
// Run. Its metrics are registered with the registerer; sources that share one
// share their metrics.
func New(cfg Config, log hclog.Logger, registerer prometheus.Registerer) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("docker source: %w", err)
	}
	choose, err := newSelection(&cfg)
	if err != nil {
		return nil, fmt.Errorf("docker source: %w", err)
	}
	m, err := newMetrics(registerer)
	if err != nil {
		return nil, err
	}
	return &Source{cfg: cfg, choose: choose, log: log, metrics: m, connect: newMobyEngine}, nil
}

// Name is "docker", or "files" where no engine is read.
func (d *Source) Name() string {
	if len(d.cfg.Files) > 0 {
		return filesName
	}
	return engineName
}

// Run reads until ctx ends.
func (d *Source) Run(ctx context.Context, resume source.Positions, to source.Sink) error {
	if len(d.cfg.Files) > 0 {
		return d.runFiles(ctx, resume, to)
	}
	e, err := d.connect(d.cfg.Endpoint)
	if err != nil {
		return err
	}
	defer e.Close()
	info, absent, err := d.meet(ctx, e, resume)
	if err != nil {
		return nil // the context has ended while no engine answered: nothing was read
	}
	return d.runEngine(ctx, e, info, absent, resume, to)
}

// runEngine wires the parts of doc.go's picture and waits for all of them.
func (d *Source) runEngine(ctx context.Context, e engine, info engineInfo, absent bool, resume source.Positions, to source.Sink) error {
	progress, first := newTold(resume)
	root, all := d.logRoot(info), newRegistry()
	use := newMeter(d.cfg.StatsInterval, to, e, d.log, d.metrics)
	drain := &drain{engine: e, log: d.log, metrics: d.metrics, wake: make(chan struct{}, 1)}
	read := d.newReader(to, all, progress)
	tell := &teller{sink: to, engine: e, log: d.log, metrics: d.metrics, told: progress, reader: read, wake: make(chan struct{}, 1)}
	group, ctx := errgroup.WithContext(ctx)
	c := &control{
		cfg: &d.cfg, choose: d.choose, engine: e, log: d.log, metrics: d.metrics, root: root, local: info.Local,
		all: all, reader: read, teller: tell, meter: use, drain: drain, told: progress, first: first, resume: resume,
		runs: map[string]*run{}, suspects: map[string]time.Time{}, wake: make(chan struct{}, 1),
	}
	c.follows = newFollows(ctx, group, c)
	c.watch = newWatcher(d.log, c.found, read.push)
	c.watch.gone = c.directoryGone
	read.watch, read.gone = c.watch, c.gone
	c.loadRuns()
	defer d.closeAll(all, c.watch, read.kept)

	if root != "" {
		if err := c.watch.dir(root); err != nil {
			d.log.Warn("the engine's containers directory cannot be read, so logs come through the engine's API, "+
				"which costs far more and loses lines at rotation. Let agentd read it (CAP_DAC_READ_SEARCH)", "directory", root, "error", err)
			c.root = ""
		}
	}
	d.known.Store(all)
	defer d.known.Store(nil)
	if absent {
		c.readKnown()
		group.Go(func() error { return c.confirmRoot(ctx, d.logRoot) })
	} else if info.Local {
		c.noteRoot()
	}
	group.Go(func() error { return c.watch.run(ctx) })
	group.Go(func() error { return read.run(ctx) })
	group.Go(func() error { return tell.run(ctx) })
	group.Go(func() error { return use.run(ctx) })
	group.Go(func() error { return use.watch.run(ctx) })
	group.Go(func() error { return c.run(ctx) })
	group.Go(func() error {
		drain.run(ctx, progress.since())
		return nil
	})
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

func (d *Source) newReader(to source.Sink, all *registry, progress *told) *reader {
	rounds, over := source.InRounds(to)
	return &reader{
		sink: to, rounds: rounds, over: over, log: d.log, metrics: d.metrics, all: all, told: progress, wake: make(chan struct{}, 1),
		limits: d.cfg.limits(), budget: newBudget(), kept: newKept(d.cfg.Keeper, d.Name()),
	}
}

func (d *Source) closeAll(all *registry, w *watcher, k *kept) {
	w.close()
	k.keep(all.all())
	for _, s := range all.all() {
		s.close()
	}
	d.metrics.sandboxes.Set(0)
}

// awaitEngine waits until the engine answers.
func (d *Source) awaitEngine(ctx context.Context, e engine) (engineInfo, error) {
	pause := retry.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second}
	said := ""
	for {
		info, err := ask(ctx, e)
		if err == nil {
			d.log.Info("reading a Docker engine", "version", info.Version, "root", info.Root)
			return info, nil
		}
		if ctx.Err() != nil {
			return engineInfo{}, ctx.Err()
		}
		if err.Error() != said {
			said = err.Error()
			d.log.Warn("no Docker engine answers; it is tried again until one does. Check that it runs, "+
				"that docker.endpoint names it, and that agentd may use its socket", "error", err)
		}
		if err := retry.Sleep(ctx, pause.Next()); err != nil {
			return engineInfo{}, err
		}
	}
}

func ask(ctx context.Context, e engine) (engineInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := e.Ping(ctx); err != nil {
		return engineInfo{}, err
	}
	return e.Info(ctx)
}

// logRoot returns the directory of the containers' directories, or nothing
// where it is another machine's.
func (d *Source) logRoot(info engineInfo) string {
	switch {
	case d.cfg.LogRoot != "":
		return filepath.Clean(d.cfg.LogRoot)
	case info.Local && info.Root != "":
		return filepath.Join(info.Root, containersDir)
	}
	return ""
}

// newTold reads how far events were told, and whether this is the first start.
func newTold(resume source.Positions) (t *told, first bool) {
	t = &told{start: time.Now().UTC()}
	var p eventsPosition
	if raw, ok := resume[eventsKey]; ok && json.Unmarshal(raw, &p) == nil {
		t.latest = p.Since
		return t, false
	}
	return t, true
}

// loadRuns reads what was told of each container's life by an earlier process.
func (c *control) loadRuns() {
	for key, raw := range c.resume {
		id, ok := strings.CutPrefix(key, runKey)
		if !ok || !isContainerID(id) {
			continue
		}
		r := new(run)
		if err := json.Unmarshal(raw, &r.runPosition); err != nil {
			c.log.Warn("what was told of a container cannot be read; it is found again", "container", id, "error", err)
			continue
		}
		r.resumed = r.Told
		c.runs[id] = r
	}
}

// identifyVanished identifies a container that the engine does not know any
// more: by our own note of it, or by the engine's note beside its log. A
// directory that nobody knows and that was there before us is a leftover of the
// engine, and stays unread.
func (c *control) identifyVanished(r *run) bool {
	if r.Who == nil {
		d := r.sandbox.configured()
		if d == nil || !r.sandbox.born.Load() {
			return false
		}
		c.identify(r, d)
		return !r.ignored
	}
	w := r.Who
	target := source.Target{Org: w.Org, Env: w.Env, Origin: telemetry.Origin{
		Agent: w.Agent, Session: w.Session, User: w.User, Provider: telemetry.Docker,
		Sandbox: telemetry.SandboxID(r.sandbox.id), Source: telemetry.SourceAgent,
	}}
	start := &beginning{}
	if raw, ok := c.resume[logKey+r.sandbox.id]; ok {
		if p := new(logPosition); json.Unmarshal(raw, p) == nil {
			start.position = p
		}
	}
	r.sandbox.identified(&target, start)
	return true
}

// runFiles reads files without any engine.
func (d *Source) runFiles(ctx context.Context, resume source.Positions, to source.Sink) error {
	progress, _ := newTold(resume)
	all := newRegistry()
	read := d.newReader(to, all, progress)
	f := &files{Source: d, all: all, reader: read, resume: resume}
	f.watch = newWatcher(d.log, f.found, read.push)
	read.watch, read.gone = f.watch, all.remove
	defer d.closeAll(all, f.watch, read.kept)
	if err := f.open(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.watch.run(ctx) })
	group.Go(func() error { return read.run(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}
