package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/feed"
	"github.com/theazo/observability/test/stack"
	"github.com/theazo/observability/test/workload"
)

// The hard set: short-lived agents of many organisations, most lines in few of
// them, real texts, PostgreSQL short of memory; ingest, compaction and queries
// at the same time. The question is not how fast, but whether anything grows.
const (
	largeOrganisations = 2000
	largeActive        = 500 // agents that print at a time
	largeMedian        = 40  // lines of an agent
	largeStep          = 5000
	largeMemory        = 2 << 30 // of PostgreSQL with its page cache
	largeRuns          = 10      // of each query in a sample
)

// large is what outlives an interruption: the run goes on where it was.
type large struct {
	Tenants []stack.Tenant `json:"tenants"`
	Agents  int64          `json:"agents"`
	Samples []sample       `json:"samples"`

	path  string
	texts []string
	rand  *rand.Rand
	zipf  *rand.Zipf
	live  []largeAgent
	last  map[int]telemetry.AgentID // an agent of each organisation that has ended
}

type largeAgent struct {
	id   telemetry.AgentID
	org  int
	left int
}

// sample is how the store is at one moment.
type sample struct {
	Lines   int64              `json:"lines"`
	P95     map[string]float64 `json:"p95"` // ms
	Dead    int64              `json:"deadTuples"`
	Backlog int64              `json:"backlogLines"`
	Memory  int64              `json:"memory"`
}

// hard runs the hard set in a directory that it leaves behind, until all lines are stored.
func (b *bench) hard(ctx context.Context) (err error) {
	if b.dir, err = filepath.Abs(filepath.Join(".run", "bench-large")); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user passes through
		return err
	}
	s, err := b.aggregator(ctx, "aggregator")
	if err != nil {
		return err
	}
	defer func() { err = stopped(err, s) }()
	if err := capMemory(s.postmaster, largeMemory); err != nil {
		b.notef("PostgreSQL has all memory of this machine, which makes these figures better than they should be: %v", err)
	}
	l := &large{path: filepath.Join(b.dir, "state.json"), rand: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0)), last: map[int]telemetry.AgentID{}} //nolint:gosec // any agents will do
	if err := l.open(ctx, s); err != nil {
		return err
	}
	stored, err := s.scalar(ctx, "select coalesce(sum(next - 1), 0)::bigint from stream_counter")
	if err != nil {
		return err
	}
	b.notef("%d of %d lines are stored; %d lines/s from now on; interrupt it and start it again as you like", stored, b.lines, b.rate)
	n, err := feed.Connect(ctx, filepath.Join(b.dir, "node-"+fmt.Sprintf("%016x", ids.Epoch())), "large", "", s.Aggregator)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := b.grow(ctx, s, n, l, stored); err != nil {
		return err
	}
	return b.judge(l)
}

// open reads the state of an earlier run, or makes a new one.
func (l *large) open(ctx context.Context, s *server) error {
	l.zipf = rand.NewZipf(l.rand, 1.1, 1, largeOrganisations-1)
	var err error
	if l.texts, err = realTexts(ctx); err != nil {
		return err
	}
	b, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		if l.Tenants, err = s.tenants(ctx, largeOrganisations); err != nil {
			return err
		}
		return l.save()
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(b, l)
}

func (l *large) save() error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(l.path+".new", l.path)
}

// realTexts are lines that people wrote: Go's own sources, which every machine
// has that builds this.
func realTexts(ctx context.Context) (texts []string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("texts: %w", err)
	}
	const enough = 500_000
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		f, err := os.Open(path) //nolint:gosec // a source of Go's
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if text := strings.TrimSpace(lines.Text()); len(text) > 20 {
				texts = append(texts, text)
			}
		}
		if len(texts) > enough {
			return fs.SkipAll
		}
		return nil // a line too long ends its file
	})
	if err == nil && len(texts) == 0 {
		err = errors.New("texts: there are no sources of Go")
	}
	return texts, err
}

// capMemory puts a process and what it starts into a control group.
func capMemory(pid int, bytes int64) error {
	var errs []error
	for dir, limit := range map[string]string{"/sys/fs/cgroup/theazo-bench-large": "memory.max", "/sys/fs/cgroup/memory/theazo-bench-large": "memory.limit_in_bytes"} {
		err := os.MkdirAll(dir, 0o755) //nolint:gosec // a control group
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, limit), fmt.Append(nil, bytes), 0o600)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, pid), 0o600)
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// grow sends lines at the rate, and takes a sample every hundredth of the way.
func (b *bench) grow(ctx context.Context, s *server, n *feed.Node, l *large, stored int64) error {
	epoch, began, from := ids.Epoch(), time.Now(), stored
	writers := map[int]*segment.Writer{}
	each := max(b.lines/100, largeStep)
	next := (stored/each + 1) * each
	// Samples are taken beside, one at a time.
	var asking errgroup.Group
	asking.SetLimit(1)
	taken := make(chan sample, 2) // one that is not looked at yet, and one that is being taken
	keep := func(one sample) error {
		l.Samples = append(l.Samples, one)
		b.notef("%d lines, %d agents: p95 ms %v; %d dead tuples, %d lines wait for compaction, %d MiB", one.Lines, l.Agents, one.P95, one.Dead, one.Backlog, one.Memory>>20)
		return l.save()
	}
	for stored < b.lines {
		select {
		case one := <-taken:
			if err := keep(one); err != nil {
				return err
			}
		default:
		}
		for range largeStep {
			org, e := l.line()
			if writers[org] == nil {
				writers[org] = &segment.Writer{}
			}
			writers[org].Append(&e)
		}
		for org, w := range writers {
			if lines := w.Lines(); lines > 0 {
				n.Put(frame.Header{
					Org: telemetry.OrgID(l.Tenants[org].Org), Lane: telemetry.LaneLogs, Class: telemetry.Normal, Epoch: epoch, Count: uint32(lines), //nolint:gosec // counts lines
				}, w.Encode(nil))
			}
		}
		if err := n.Room(ctx, unacknowledged); err != nil {
			return err
		}
		stored += largeStep
		if stored >= next {
			next += each
			lines, agent := stored, l.last[0]
			asking.TryGo(func() error { // not while the one before still asks
				one, err := sampleOf(ctx, s, l.Tenants[0], agent, lines)
				if err == nil {
					taken <- one
				}
				return err
			})
		}
		if err := retry.Sleep(ctx, time.Until(began.Add(time.Duration(stored-from)*time.Second/time.Duration(b.rate)))); err != nil {
			return err
		}
	}
	if err := asking.Wait(); err != nil {
		return err
	}
	select {
	case one := <-taken:
		if err := keep(one); err != nil {
			return err
		}
	default:
	}
	return n.Room(ctx, 0)
}

// line is the next line of an agent that is alive now.
func (l *large) line() (org int, e telemetry.LogEntry) {
	if len(l.live) < largeActive {
		l.Agents++
		l.live = append(l.live, largeAgent{
			id: telemetry.AgentID(fmt.Sprintf("agt_%08d", l.Agents)), org: int(l.zipf.Uint64()), //nolint:gosec // below the number of organisations
			left: 1 + int(math.Exp(math.Log(largeMedian)+l.rand.NormFloat64())),
		})
	}
	i := l.rand.IntN(len(l.live))
	a := &l.live[i]
	org = a.org
	e = telemetry.LogEntry{
		Timestamp: time.Now().UTC().Truncate(time.Microsecond), Message: l.texts[l.rand.IntN(len(l.texts))],
		Origin: telemetry.Origin{Agent: a.id, Session: "ses_" + telemetry.SessionID(a.id[len("agt_"):len(a.id)-1])}, // ten agents a session
	}
	switch x := l.rand.IntN(100); {
	case x < 15:
		e.Level = telemetry.Debug
	case x < 95:
		e.Level = telemetry.Info
	case x < 99:
		e.Level = telemetry.Warn
	default:
		e.Level = telemetry.Error
	}
	if a.left--; a.left <= 0 {
		l.last[org] = a.id
		l.live = slices.Delete(l.live, i, i+1)
	}
	return org, e
}

// sampleOf asks what people ask, of the largest organisation, while lines come.
func sampleOf(ctx context.Context, s *server, tenant stack.Tenant, agent telemetry.AgentID, lines int64) (sample, error) {
	one := sample{Lines: lines, P95: map[string]float64{}}
	asked := map[string]url.Values{
		"agent":        {"agentId": {string(agent)}, "total": {"none"}},
		"agent_errors": {"agentId": {string(agent)}, "level": {"error"}},
		"text_1h":      {"search": {"timeout"}, "since": {"-1h"}, "total": {"none"}},
		"absent_24h":   {"search": {workload.Absent}, "since": {"-24h"}, "total": {"none"}},
		"total_24h":    {"since": {"-24h"}, "limit": {"1"}},
	}
	if agent == "" { // nobody of the largest has ended yet
		delete(asked, "agent")
		delete(asked, "agent_errors")
	}
	for name, v := range asked {
		var took []time.Duration
		for range largeRuns {
			began := time.Now()
			if _, err := read(ctx, s.Client(tenant), "/v1/logs?"+v.Encode()); err != nil {
				return one, fmt.Errorf("%s: %w", name, err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		one.P95[name] = milliseconds(took[len(took)*95/100])
	}
	var err error
	if one.Dead, err = s.scalar(ctx, "select coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables"); err != nil {
		return one, err
	}
	if one.Backlog, err = s.scalar(ctx, "select coalesce(sum(next - greatest(compacted, 1)), 0)::bigint from stream_counter"); err != nil {
		return one, err
	}
	c, err := s.costs()
	one.Memory = c.aggregator.RSS
	return one, err
}

// judge compares the last quarter of the run with the one before it.
func (b *bench) judge(l *large) error {
	quarter := len(l.Samples) / 4
	if quarter == 0 {
		return fmt.Errorf("%d samples are too few to judge by", len(l.Samples))
	}
	third, fourth := l.Samples[len(l.Samples)-2*quarter:len(l.Samples)-quarter], l.Samples[len(l.Samples)-quarter:]
	rise := func(name string, floor float64, of func(*sample) float64) {
		b.figure("large_"+name+"_rise", max(median(fourth, of), floor)/max(median(third, of), floor), "times", 1.2)
		b.notef("%s: median %.4g, before %.4g", name, median(fourth, of), median(third, of))
	}
	for _, name := range []string{"agent", "agent_errors", "text_1h", "absent_24h", "total_24h"} {
		rise(name, 1, func(s *sample) float64 { return s.P95[name] })
	}
	rise("dead_tuples", 10_000, func(s *sample) float64 { return float64(s.Dead) })
	rise("backlog_lines", 100_000, func(s *sample) float64 { return float64(s.Backlog) })
	rise("memory", 64<<20, func(s *sample) float64 { return float64(s.Memory) })
	return nil
}

func median(samples []sample, of func(*sample) float64) float64 {
	values := make([]float64, len(samples))
	for i := range samples {
		values[i] = of(&samples[i])
	}
	slices.Sort(values)
	return values[len(values)/2]
}
