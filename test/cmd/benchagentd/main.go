// Command benchagentd measures agentd alone: `make bench-agentd`. Containers'
// log files on one side, on the other a counting ingest server (test/sink) with
// mutual TLS; agentd is a process of its own between them, with its spool on
// a real file system and every fsync made. It prints one FIGURE a line.
//
// CPU is read from /proc; wall times move with whatever else the machine does,
// so the backlog comes with baselines of the same run. Lines that begin with #
// are notes; figures of other agents are in docs/benchmarks.md. It fails when a
// line was lost, repeated or changed, and not when a cost is above its goal.
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
)

// A part is one thing to measure. Parts run in this order.
type part struct {
	name string
	run  func(*bench, context.Context) error
}

var parts = []part{
	{"backlog", (*bench).backlog},
	{"live", (*bench).live},
	{"idle", (*bench).idle},
	{"kill", (*bench).kill},
	{"away", (*bench).away},
	{"awaykill", (*bench).awayKill},
	{"livekill", (*bench).liveKill},
	{"liveaway", (*bench).liveAway},
	{"burst", (*bench).burst},
	{"short", (*bench).short},
	{"containers", (*bench).containers},
	{"size", (*bench).size},
}

func main() {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	b := &bench{out: os.Stdout, progress: os.Stderr, full: options{
		bytes: 1 << 30, faultBytes: 256 << 20, live: 20 * time.Second, outage: 30 * time.Second, idle: 30 * time.Second,
		files: 200, burst: 1_000_000, short: 100, containers: 200,
	}}
	o := &b.full
	flag.Int64Var(&o.bytes, "bytes", o.bytes, "size of the backlog")
	flag.IntVar(&o.containers, "containers", o.containers, "containers that idle on a real engine")
	quick := flag.Bool("quick", false, "small and short: whether it works, not how well")
	only := flag.String("only", strings.Join(names, ","), "what to run")
	flag.StringVar(&b.agentd, "agentd", filepath.Join("bin", "agentd"), "the program to measure")
	flag.StringVar(&b.extra, "env", "", "settings of agentd to add, as NAME=VALUE,NAME=VALUE")
	flag.Parse()
	if *quick {
		b.full = options{
			bytes: 16 << 20, faultBytes: 16 << 20, live: 3 * time.Second, outage: 2 * time.Second, idle: 3 * time.Second,
			files: 200, burst: 100_000, short: 10, containers: 5,
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, strings.Split(*only, ",")); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "benchagentd:", err)
		os.Exit(1) //nolint:gocritic // run has cleaned up
	}
}

// options are how much is measured.
type options struct {
	bytes, faultBytes  int64
	live, outage, idle time.Duration
	files              int // of the idle run
	burst              int // lines
	short              int // containers that live shortly
	containers         int // that idle
}

type bench struct {
	out, progress io.Writer
	agentd        string
	extra         string
	full          options
	dir           string
	backlogs      map[int64]*logs // by size
	host          string          // of the engine, once it is needed
	engineDown    func()
	wrong         []string // figures that must be exact and are not
}

func (b *bench) notef(format string, args ...any) {
	_, _ = fmt.Fprintf(b.out, "# "+format+"\n", args...)
}

func (b *bench) progressf(format string, args ...any) {
	_, _ = fmt.Fprintf(b.progress, "benchagentd: "+format+"\n", args...)
}

// figure prints one result. goal is an upper bound.
func (b *bench) figure(name string, value float64, unit string, goal float64) {
	b.print(name, value, unit, "<=", goal, value <= goal)
}

// exactly prints a result that is either right or wrong, on any machine.
func (b *bench) exactly(name string, value int64, unit string, goal int64) {
	if value != goal {
		b.wrong = append(b.wrong, name)
	}
	b.print(name, float64(value), unit, "==", float64(goal), value == goal)
}

func (b *bench) print(name string, value float64, unit, op string, goal float64, ok bool) {
	verdict := "ok"
	if !ok {
		verdict = "short"
	}
	_, _ = fmt.Fprintf(b.out, "FIGURE %s %.4g %s goal %s%g %s\n", name, value, unit, op, goal, verdict)
}

func (b *bench) run(ctx context.Context, only []string) (err error) {
	for _, name := range only {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q", name)
		}
	}
	if b.dir, err = os.MkdirTemp("/var/tmp", "theazo-bench-"); err != nil { // not /tmp, which may be memory
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	defer func() {
		if b.engineDown != nil {
			b.engineDown()
		}
	}()
	b.backlogs = map[int64]*logs{}
	for _, p := range parts {
		if !slices.Contains(only, p.name) {
			continue
		}
		b.progressf("%s", p.name)
		b.machine(p.name)
		if err := p.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if b.wrong != nil {
		return fmt.Errorf("something was lost, repeated or changed: %s", strings.Join(b.wrong, ", "))
	}
	return nil
}

// machine notes how busy the machine is before a part: figures depend on it,
// and agentd makes fewer and larger cuts while its host is pressed.
func (b *bench) machine(part string) {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return
	}
	note := "load " + strings.Join(strings.Fields(string(load))[:3], " ")
	if pressure, err := os.ReadFile("/proc/pressure/cpu"); err == nil { // not every kernel has it
		first, _, _ := strings.Cut(string(pressure), "\n")
		note += "; waiting for a processor: " + first
	}
	b.notef("%s: %s", part, note)
}

// percentile of sorted values.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*p))]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func megabytes(n int64) float64 { return float64(n) / (1 << 20) }
