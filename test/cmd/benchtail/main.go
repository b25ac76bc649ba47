// Command benchtail measures live tail at scale: `make bench-tail`. A real
// aggregator with its private PostgreSQL takes 1,000 lines a second over the
// real gRPC ingest while 1,000 clients, each with a filter of its own, follow
// one organisation over SSE and WebSocket on loopback. It prints one FIGURE a
// line; lines that begin with # are notes.
//
// Every client's lines are counted against what its filter matches, a page and
// the stream behind it must fit without a gap or a repetition while lines are
// committed, and a stream must go on where it was after kill -9. It fails when
// a line is missing or comes twice, and not when a cost is above its goal.
//
// The clients share this machine's CPUs with what they measure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/theazo/observability/test/feed"
	"github.com/theazo/observability/test/stack"
)

func main() {
	b := &bench{out: os.Stdout}
	flag.IntVar(&b.clients, "clients", 1000, "clients at once")
	flag.IntVar(&b.rate, "rate", 1000, "lines a second")
	seconds := flag.Int("seconds", 20, "how long they follow")
	flag.IntVar(&b.trials, "trials", 20, "pages that are followed by a stream")
	flag.StringVar(&b.bin, "bin", "bin", "directory of the programs; empty: they are built")
	flag.Parse()
	b.length = time.Duration(*seconds) * time.Second
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "benchtail:", err)
		os.Exit(1) //nolint:gocritic // run has cleaned up
	}
}

type bench struct {
	out     io.Writer
	clients int
	rate    int
	trials  int
	length  time.Duration
	bin     string
	dir     string

	aggregator *stack.Aggregator
	tenant     stack.Tenant
	source     *source
}

func (b *bench) notef(format string, args ...any) {
	_, _ = fmt.Fprintf(b.out, "# "+format+"\n", args...)
}

// figure prints one result. goal is an upper bound; negative: there is none.
func (b *bench) figure(name string, value float64, unit string, goal float64) {
	verdict := "ok"
	switch {
	case goal < 0:
		_, _ = fmt.Fprintf(b.out, "FIGURE %s %.4g %s\n", name, value, unit)
		return
	case value > goal:
		verdict = "short"
	}
	_, _ = fmt.Fprintf(b.out, "FIGURE %s %.4g %s goal <=%g %s\n", name, value, unit, goal, verdict)
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("/var/tmp", "theazo-bench-"); err != nil { // not /tmp, which may be memory
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := os.Chmod(b.dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user passes through
		return err
	}
	if b.bin == "" {
		b.bin, err = stack.Build(ctx, filepath.Join(b.dir, "bin"))
	} else {
		b.bin, err = filepath.Abs(b.bin)
	}
	if err != nil {
		return err
	}
	if b.aggregator, err = stack.NewAggregator(b.bin, filepath.Join(b.dir, "aggregator")); err != nil {
		return err
	}
	if err := b.aggregator.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.aggregator.Stop(time.Minute)) }()
	if b.tenant, err = b.aggregator.NewTenant(ctx, "bench"); err != nil {
		return err
	}
	node, err := feed.Connect(ctx, filepath.Join(b.dir, "node"), "bench", b.tenant.Org, b.aggregator)
	if err != nil {
		return err
	}
	b.source = newSource(node, b.rate)
	defer func() { err = errors.Join(err, node.Close()) }()
	for _, part := range []func(context.Context) error{b.follow, b.seams, b.restart} {
		if err := part(ctx); err != nil {
			return fmt.Errorf("%w; the end of the aggregator's log:\n%s", err, b.aggregator.Tail())
		}
	}
	return nil
}
