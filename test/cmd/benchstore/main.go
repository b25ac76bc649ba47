// Command benchstore measures the log store: `make bench-store`. Lines of the
// fixed workload (test/workload) go as frames over the real gRPC ingest into a
// real aggregator with its private PostgreSQL, are compacted, and are asked for
// through the HTTP API, as other stores were measured (docs/benchmarks.md). It
// prints one FIGURE a line; lines that begin with # are notes.
//
// Every answer is compared with the naive filter, telemetry.LogFilter.Match,
// over the same lines. It fails when an answer is wrong or a line is lost or
// repeated, and not when a cost is above its goal.
//
// CPU is read from /proc: of the aggregator and of all processes of its
// PostgreSQL; frames are made in this process, which does not count.
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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/theazo/observability/test/stack"
)

type options struct {
	lines   int64
	block   int64
	nodes   int
	runs    int
	orgs    int
	seconds int
	bin     string
	only    []string
	sets    []string
	env     []string
	profile string
	keep    bool
	large   bool
	rate    int64
}

func main() {
	var o options
	var only, sets string
	flag.Int64Var(&o.lines, "lines", 5_000_000, "lines of each set")
	flag.Int64Var(&o.block, "block", 5000, "lines that a node cuts frames of, one per organisation")
	flag.IntVar(&o.nodes, "nodes", 4, "nodes that send")
	flag.IntVar(&o.runs, "runs", 20, "of each query, after two that warm up")
	flag.IntVar(&o.orgs, "orgs", 5000, "organisations with a line a second each")
	flag.IntVar(&o.seconds, "seconds", 60, "length of that")
	flag.StringVar(&o.bin, "bin", "bin", "directory of the programs")
	flag.StringVar(&sets, "sets", "twenty,one", "which sets: lines of twenty organisations, all lines in one")
	flag.StringVar(&only, "only", "ingest,compact,query,many", "what to measure; compact and query need ingest")
	flag.StringVar(&o.profile, "profile", "", "directory for CPU profiles of the aggregator, one per query")
	flag.BoolVar(&o.keep, "keep", false, "leave the data behind and say where")
	flag.Func("env", "NAME=VALUE of the aggregator's environment (repeat)", func(s string) error {
		o.env = append(o.env, s)
		return nil
	})
	flag.BoolVar(&o.large, "large", false, "the hard set instead: hours, in .run/bench-large; it goes on where it was interrupted (give -lines 50000000)")
	flag.Int64Var(&o.rate, "rate", 10_000, "lines a second of the hard set")
	flag.Parse()
	o.only, o.sets = strings.Split(only, ","), strings.Split(sets, ",")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if dir, err := filepath.Abs(o.bin); err == nil {
		o.bin = dir // daemons run elsewhere
	}
	b := &bench{options: o, out: os.Stdout}
	run := b.run
	if o.large {
		run = b.hard
	}
	if err := run(ctx); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "benchstore:", err)
		os.Exit(1) //nolint:gocritic // run has cleaned up
	}
}

type bench struct {
	options
	out   io.Writer
	dir   string
	short int // figures above their goals
	wrong int // answers that differ from the naive filter's
}

func (b *bench) notef(format string, args ...any) {
	_, _ = fmt.Fprintf(b.out, "# "+format+"\n", args...)
}

// figure prints one result. goal is an upper bound; 0: there is none.
func (b *bench) figure(name string, value float64, unit string, goal float64) {
	if goal == 0 {
		_, _ = fmt.Fprintf(b.out, "FIGURE %s %.4g %s\n", name, value, unit)
		return
	}
	verdict := "ok"
	if value > goal {
		verdict = "short"
		b.short++
	}
	_, _ = fmt.Fprintf(b.out, "FIGURE %s %.4g %s goal <=%g %s\n", name, value, unit, goal, verdict)
}

func (b *bench) wants(what string) bool { return slices.Contains(b.only, what) }

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("/var/tmp", "theazo-benchstore-"); err != nil { // not /tmp, which may be memory
		return err
	}
	if b.keep {
		b.notef("data and logs stay in %s", b.dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	if err := os.Chmod(b.dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user passes through
		return err
	}
	// Whole minutes, and old enough that no clock disagrees.
	end := time.Now().UTC().Add(-time.Minute).Truncate(time.Minute)
	if b.wants("ingest") {
		for _, name := range b.sets {
			if err := b.set(ctx, name, end); err != nil {
				return fmt.Errorf("set %s: %w", name, err)
			}
		}
	}
	if b.wants("many") {
		if err := b.many(ctx); err != nil {
			return fmt.Errorf("many organisations: %w", err)
		}
	}
	if b.wrong > 0 {
		return fmt.Errorf("%d answers are wrong", b.wrong)
	}
	b.notef("%d figures are short of their goals; every answer equals the naive filter's", b.short)
	return nil
}

// aggregator starts one with a private PostgreSQL in a directory of its own.
func (b *bench) aggregator(ctx context.Context, name string, env ...string) (*server, error) {
	a, err := stack.NewAggregator(b.bin, filepath.Join(b.dir, name))
	if err != nil {
		return nil, err
	}
	a.Env = append(slices.Clone(b.env), env...)
	s := &server{Aggregator: a}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}
