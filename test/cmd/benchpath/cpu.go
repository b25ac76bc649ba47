package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/theazo/observability/test/proc"
	"github.com/theazo/observability/test/workload"
)

// cpu measures what a backlog of Docker json-files costs, from disk to
// committed, all processes together.
func (b *bench) cpu(ctx context.Context) error {
	logs := filepath.Join(b.dir, "logs")
	if err := os.MkdirAll(logs, 0o750); err != nil {
		return err
	}
	const files = 10
	b.lines -= b.lines % files
	b.notef("# writing %d lines of the workload", b.lines)
	if err := workload.Write(logs, files, b.lines, 1); err != nil {
		return err
	}
	baseline, err := jsonBaseline(logs)
	if err != nil {
		return err
	}
	g, err := b.agent(ctx, "cpu", "AGENTD_DOCKER_ENABLED=false", "AGENTD_FILES="+filepath.Join(logs, "*-json.log"))
	if err != nil {
		return err
	}
	postmaster, err := b.aggregator.PostgresPID()
	if err != nil {
		return err
	}
	before, err := b.costs(postmaster)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := g.Start(); err != nil {
		return err
	}
	client := b.aggregator.Client(b.tenant)
	defer func() { _ = g.Stop(time.Minute) }()
	next := time.Now()
	err = g.Await(ctx, 10*time.Minute, func() error {
		if time.Now().Before(next) { // asking costs the aggregator too
			return fmt.Errorf("%d lines are not all there", b.lines)
		}
		next = time.Now().Add(500 * time.Millisecond)
		page, err := client.Logs(ctx, "limit", "1")
		if err == nil && page.Total < b.lines {
			err = fmt.Errorf("%d of %d lines are there", page.Total, b.lines)
		}
		return err
	})
	if err != nil {
		return err
	}
	wall := time.Since(began)
	agent, err := proc.CostOf(g.PID())
	if err != nil {
		return err
	}
	after, err := b.costs(postmaster)
	if err != nil {
		return err
	}
	b.report(agent, before, after, baseline, wall)
	return nil
}

type costs struct{ aggregator, postgres proc.Cost }

// costs of the aggregator without the PostgreSQL that is its child, and of
// that.
func (b *bench) costs(postmaster int) (costs, error) {
	all, err := proc.CostOf(b.aggregator.PID())
	if err != nil {
		return costs{}, err
	}
	pg, err := proc.CostOf(postmaster)
	all.CPU -= pg.CPU
	return costs{all, pg}, err
}

func (b *bench) report(agent proc.Cost, before, after costs, baseline, wall time.Duration) {
	million := float64(b.lines) / 1e6
	a := agent.CPU.Seconds() / million
	g := (after.aggregator.CPU - before.aggregator.CPU).Seconds() / million
	p := (after.postgres.CPU - before.postgres.CPU).Seconds() / million
	b.figure("cpu_per_million_lines", a+g+p, "s", 6)
	b.notef("# of it agentd %.2f s, aggregator %.2f s, PostgreSQL %.2f s; %.1f s on the clock, %.0f k lines/s", a, g, p, wall.Seconds(), float64(b.lines)/wall.Seconds()/1000)
	b.notef("# baseline of this run: decoding the same files with encoding/json %.2f s CPU per million lines; the whole path is %.2f times that",
		baseline.Seconds()/million, (a+g+p)*million/baseline.Seconds())
	b.notef("# peak memory: agentd %d MB, aggregator %d MB", agent.PeakRSS/1e6, after.aggregator.PeakRSS/1e6)
}

// jsonBaseline is the CPU time of decoding every line with encoding/json.
func jsonBaseline(dir string) (time.Duration, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*-json.log"))
	if err != nil {
		return 0, err
	}
	began := selfCPU()
	for _, path := range paths {
		f, err := os.Open(path) //nolint:gosec // our own file
		if err != nil {
			return 0, err
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(make([]byte, 1<<20), 1<<20)
		for lines.Scan() {
			var line struct {
				Log, Stream string
				Time        time.Time
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				return 0, err
			}
		}
		_ = f.Close()
		if err := lines.Err(); err != nil {
			return 0, err
		}
	}
	return selfCPU() - began, nil
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for ourselves
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
