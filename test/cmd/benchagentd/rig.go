package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/theazo/observability/test/proc"
	"github.com/theazo/observability/test/sink"
	"github.com/theazo/observability/test/stack"
)

// patience is how long nothing new may come before a run is given up.
const patience = 2 * time.Minute

// rig is one agentd, which can be killed, and its sink, which can be away.
type rig struct {
	*bench
	sink  *sink.Sink
	agent *stack.Agent
	spent proc.Cost // by agents that were killed
}

// rig makes a sink that is there and an agentd that was not started yet.
func (b *bench) rig(ctx context.Context, name string, env ...string) (*rig, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, err
	}
	s, err := sink.New(filepath.Join(dir, "authority"))
	if err != nil {
		return nil, err
	}
	if err := s.Up(ctx); err != nil {
		return nil, err
	}
	if b.extra != "" {
		env = append(env, strings.Split(b.extra, ",")...)
	}
	bin := filepath.Join(dir, "bin") // stack.Agent wants it by this name
	if err := os.Mkdir(bin, 0o700); err != nil {
		return nil, err
	}
	program, err := filepath.Abs(b.agentd)
	if err != nil {
		return nil, err
	}
	if err := os.Symlink(program, filepath.Join(bin, "agentd")); err != nil {
		return nil, err
	}
	return &rig{bench: b, sink: s, agent: &stack.Agent{
		Bin: bin, Dir: filepath.Join(dir, "agentd"), Aggregator: []*stack.Aggregator{s.Aggregator()}, Token: s.Token(),
		Env: append([]string{"AGENTD_NODE_NAME=" + name}, env...),
	}}, nil
}

// files are the settings that read json-files and no engine.
func files(dir string) []string {
	return []string{"AGENTD_DOCKER_ENABLED=false", "AGENTD_FILES=" + filepath.Join(dir, "*-json.log")}
}

// close ends all of it. An agentd that stops badly is an error.
func (r *rig) close() error {
	var err error
	if r.agent.Process != nil {
		err = r.agent.Stop(time.Minute)
	}
	r.sink.Down()
	return errors.Join(err, os.RemoveAll(filepath.Dir(r.agent.Dir)))
}

// cost of all agentd processes of this rig so far.
func (r *rig) cost() (proc.Cost, error) {
	c, err := proc.CostOf(r.agent.PID())
	c.CPU += r.spent.CPU
	c.Written += r.spent.Written
	c.PeakRSS = max(c.PeakRSS, r.spent.PeakRSS)
	return c, err
}

// killAgent is kill -9 and a new start.
func (r *rig) killAgent() error {
	c, err := r.cost()
	if err != nil {
		return err
	}
	r.spent = c
	r.agent.Kill()
	return r.agent.Start()
}

// await waits until n numbered lines have come. It gives up when nothing new
// has come for a while, without an error: what is missing is a figure.
func (r *rig) await(ctx context.Context, n int64) error {
	last, moved := int64(-1), time.Now()
	gaveUp := errors.New("nothing new comes")
	err := proc.Poll(ctx, 24*time.Hour, r.agent.Done(), func() error {
		switch got := r.sink.Stats().Unique; {
		case got >= n:
			return nil
		case got != last:
			last, moved = got, time.Now()
		case time.Since(moved) > patience:
			r.progressf("nothing new has come for %s: %d of %d lines are there", patience, got, n)
			return nil
		}
		return gaveUp
	})
	if err != nil {
		return fmt.Errorf("wait for %d lines: %w; the end of %s:\n%s", n, err, r.agent.Log, r.agent.Tail())
	}
	return nil
}

// settle waits until repeats would have come too.
func (r *rig) settle(ctx context.Context) error { return pause(ctx, 2*time.Second) }

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// complete prints what is missing and what came twice.
func (r *rig) complete(name string, wanted []int64) {
	s := r.sink.Stats()
	r.exactly(name+"_lost", r.sink.Missing(wanted), "lines", 0)
	r.exactly(name+"_repeated", s.Repeated, "lines", 0)
	if s.Resent+s.Gaps+s.Bad > 0 {
		r.notef("%s: %d lines were sent again and recognised by their marks; %d gap records; %d frames that could not be read", name, s.Resent, s.Gaps, s.Bad)
	}
}
