// Command devrun is what `make run` starts: the whole product on this machine,
// with a sample agent, until Ctrl-C. Everything it keeps lies in .run, so the
// next start goes on with the same data; .run/env tells scripts how to reach it.
//
//	devrun ─┬─ aggregator serve (with its private PostgreSQL)
//	        ├─ dockerd            (only where no engine answers; tools/docker-up)
//	        ├─ agentd run         (or: agentd exec -- sampleagent, without an engine)
//	        └─ container theazo-sample
//
// They are stopped in the reverse order.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/theazo/observability/test/proc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	d := &devrun{out: os.Stdout, began: time.Now()}
	if err := d.run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		d.sayf("\n%v\n", err)
		os.Exit(1) //nolint:gocritic // run has cleaned up
	}
}

type devrun struct {
	out      io.Writer
	began    time.Time
	root     string // of the repository
	dir      string // of the data
	env      environment
	lock     *runLock
	children []*proc.Process
	stops    []stopStep // in the order of the starts
}

// stopStep undoes one start.
type stopStep struct {
	what string
	do   func() error
}

func (d *devrun) sayf(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format, args...) }

// step shows what is being done, and how long it took when it is done.
func (d *devrun) step(what string, do func() error) error {
	d.sayf("  %-46s", what+" …")
	began := time.Now()
	if err := do(); err != nil {
		d.sayf("failed\n")
		return fmt.Errorf("%s: %w", what, err)
	}
	d.sayf("%5.1f s\n", time.Since(began).Seconds())
	return nil
}

func (d *devrun) run(ctx context.Context) error {
	defer func() {
		d.stop()
		d.lock.release()
	}()
	var err error
	if d.root, err = os.Getwd(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(d.root, "bin", "aggregator")); err != nil {
		return errors.New("bin/aggregator is missing: run `make run` in the repository's root")
	}
	d.sayf("\nStarting everything on this machine (Ctrl-C stops it, the data stays):\n")
	if err := d.prepare(ctx); err != nil {
		return err
	}
	for _, s := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"aggregator with its private PostgreSQL", d.startAggregator},
		{"organisation and API key", d.ensureKey},
		{"Docker engine", d.ensureDocker},
		{"agentd and the sample agent", d.startAgent},
		{"first lines arrive", d.awaitLines},
	} {
		if err := d.step(s.what, func() error { return s.do(ctx) }); err != nil {
			return err
		}
	}
	d.welcome()
	return d.watch(ctx)
}

func (d *devrun) welcome() {
	d.sayf(`
Ready after %.1f s.

  Dashboard   %s
  API key     %s
              (sign in with it; scripts find it in %s)
  Try         curl -s -H "Authorization: Bearer $THEAZO_API_KEY" "$THEAZO_URL/v1/logs?limit=3"   (after: source %s)
  agentd      bin/agentd status -state_dir %s
  Logs        %s

`, time.Since(d.began).Seconds(), d.env.get("THEAZO_URL"), d.env.get("THEAZO_API_KEY"), d.env.path, d.env.path,
		d.env.get("AGENTD_STATE_DIR"), filepath.Join(d.dir, "*.log"))
	if d.env.get("DOCKER_HOST") != "" {
		d.sayf("  Your own containers are collected too: docker run --label theazo.agent_id=agt_mine --label theazo.session_id=ses_1 …\n"+
			"  (engine: DOCKER_HOST=%s)\n\n", d.env.get("DOCKER_HOST"))
	}
	d.sayf("Ctrl-C stops everything.\n")
}

// watch waits for Ctrl-C, or for a child that ends by itself.
func (d *devrun) watch(ctx context.Context) error {
	ended := make(chan *proc.Process, len(d.children))
	for _, p := range d.children {
		go func() {
			<-p.Done()
			ended <- p
		}()
	}
	select {
	case <-ctx.Done():
		d.sayf("\nStopping:\n")
		return ctx.Err()
	case p := <-ended:
		return fmt.Errorf("%s ended by itself (%w); the end of its log:\n%s", p.Name, p.Err(), p.Tail())
	}
}

// start starts one of our programs, and remembers how to stop it.
func (d *devrun) start(name string, env []string, argv ...string) (*proc.Process, error) {
	p, err := proc.Start(proc.Options{Name: name, Argv: argv, Env: env, Dir: d.dir, EndsWithUs: true})
	if err != nil {
		return nil, err
	}
	if err := d.lock.add(p.PID()); err != nil {
		d.sayf("  (%v)\n", err)
	}
	d.children = append(d.children, p)
	d.stops = append(d.stops, stopStep{name, func() error { return p.Stop(40 * time.Second) }})
	return p, nil
}

// stop undoes every start, the last one first.
func (d *devrun) stop() {
	for _, v := range slices.Backward(d.stops) {
		_ = d.step(v.what, v.do) // step has said what failed; the others stop all the same
	}
}
