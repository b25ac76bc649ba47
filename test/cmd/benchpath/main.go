// Command benchpath measures the path of a line: `make bench-path`. It runs
// both daemons, a private PostgreSQL and a real Docker engine on this machine
// and prints one FIGURE a line, short ones as short. CPU is read from /proc;
// wall times move with whatever else the machine does, so the CPU figure comes
// with a baseline of the same run: decoding the same files with encoding/json.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/theazo/observability/test/stack"
)

func main() {
	lines := flag.Int64("lines", 1_000_000, "lines of the CPU run")
	seconds := flag.Int("seconds", 20, "length of the latency runs")
	only := flag.String("only", "start,latency,cpu", "which to run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	b := &bench{out: os.Stdout, lines: *lines, length: time.Duration(*seconds) * time.Second}
	if err := b.run(ctx, strings.Split(*only, ",")); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "benchpath:", err)
		os.Exit(1) //nolint:gocritic // run has cleaned up
	}
}

type bench struct {
	out    io.Writer
	root   string
	dir    string
	lines  int64
	length time.Duration

	aggregator *stack.Aggregator
	tenant     stack.Tenant
}

func (b *bench) notef(format string, args ...any) { _, _ = fmt.Fprintf(b.out, format+"\n", args...) }

// figure prints one result. goal is an upper bound.
func (b *bench) figure(name string, value float64, unit string, goal float64) {
	verdict := "ok"
	if value > goal {
		verdict = "short"
	}
	_, _ = fmt.Fprintf(b.out, "FIGURE %s %.4g %s goal <=%g %s\n", name, value, unit, goal, verdict)
}

func (b *bench) run(ctx context.Context, only []string) (err error) {
	if b.root, err = os.Getwd(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("/var/tmp", "theazo-bench-"); err != nil { // not /tmp, which may be memory
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := os.Chmod(b.dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user passes through
		return err
	}
	b.aggregator, err = stack.NewAggregator(filepath.Join(b.root, "bin"), filepath.Join(b.dir, "aggregator"))
	if err != nil {
		return err
	}
	if err := b.starts(ctx, slices.Contains(only, "start")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.aggregator.Stop(time.Minute)) }()
	if b.tenant, err = b.aggregator.NewTenant(ctx, "bench"); err != nil {
		return err
	}
	if slices.Contains(only, "latency") {
		if err := b.latency(ctx); err != nil {
			return err
		}
	}
	if slices.Contains(only, "cpu") {
		return b.cpu(ctx)
	}
	return nil
}

// starts measures the aggregator's start, and leaves it running.
func (b *bench) starts(ctx context.Context, measure bool) error {
	began := time.Now()
	if err := b.aggregator.Start(ctx); err != nil {
		return err
	}
	if !measure {
		return nil
	}
	b.figure("aggregator_start_new", time.Since(began).Seconds(), "s", 4)
	if err := b.aggregator.Stop(time.Minute); err != nil {
		return err
	}
	began = time.Now()
	if err := b.aggregator.Start(ctx); err != nil {
		return err
	}
	b.figure("aggregator_start_existing", time.Since(began).Seconds(), "s", 1.5)
	return nil
}

// agent prepares an agentd of the bench's tenant.
func (b *bench) agent(ctx context.Context, name string, env ...string) (*stack.Agent, error) {
	token, err := b.aggregator.Command(ctx, "node", "token", "-org", b.tenant.Org)
	if err != nil {
		return nil, err
	}
	return &stack.Agent{
		Bin: filepath.Join(b.root, "bin"), Dir: filepath.Join(b.dir, name), Aggregator: []*stack.Aggregator{b.aggregator}, Token: token,
		Env: append([]string{"AGENTD_NODE_NAME=" + name}, env...),
	}, nil
}

// engine makes a Docker engine available and returns its DOCKER_HOST.
func (b *bench) engine(ctx context.Context) (host string, down func(), err error) {
	state := filepath.Join(b.dir, "docker")
	up := exec.CommandContext(ctx, filepath.Join(b.root, "tools", "docker-up"), state) //nolint:gosec // our own script
	up.Stderr = os.Stderr
	out, err := up.Output()
	if err != nil {
		return "", nil, fmt.Errorf("latency is measured with a real Docker engine, and there is none: %w", err)
	}
	down = func() {
		cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(b.root, "tools", "docker-down"), state) //nolint:gosec // our own script
		if out, err := cmd.CombinedOutput(); err != nil {
			_, _ = fmt.Fprintf(os.Stderr, "benchpath: %v: %s\n", err, out)
		}
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "DOCKER_HOST="), down, nil
}

// percentile of sorted values.
func percentile(sorted []time.Duration, p float64) time.Duration {
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*p))]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
