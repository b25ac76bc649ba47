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
	"github.com/theazo/observability/test/workload"
)

// logs is a backlog on disk.
type logs struct {
	workload.Made
	dir string
}

// backlogOf returns the backlog of a size, written once.
func (b *bench) backlogOf(size int64) (*logs, error) {
	if l := b.backlogs[size]; l != nil {
		return l, nil
	}
	l := &logs{dir: filepath.Join(b.dir, fmt.Sprintf("logs-%d", size))}
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return nil, err
	}
	b.progressf("writing %d MiB of json-files", size>>20)
	var err error
	l.Made, err = workload.WriteBytes(l.dir, 10, size, 1)
	b.backlogs[size] = l
	return l, err
}

// variant is a way to run agentd, with a goal for its CPU.
type variant struct {
	name     string
	env      []string
	goal     float64 // CPU s per million lines
	verbatim bool    // messages arrive as they were written
}

// variants are what this agentd can be told to do.
func (b *bench) variants(ctx context.Context) ([]variant, error) {
	text, err := b.settings(ctx)
	if err != nil {
		return nil, err
	}
	plain, full := variant{name: "backlog", goal: 1.8, verbatim: true}, variant{name: "backlog_full", goal: 3.5}
	for _, s := range []struct{ flag, env, off, on string }{
		{"-intake.structure", "AGENTD_INTAKE_STRUCTURE", "false", "true"},
		{"-redact.enabled", "AGENTD_REDACT_ENABLED", "false", "true"},
	} {
		if strings.Contains(text, s.flag) {
			plain.env = append(plain.env, s.env+"="+s.off)
			full.env = append(full.env, s.env+"="+s.on)
		}
	}
	if full.env == nil {
		b.notef("this agentd has neither intake.structure nor redact.enabled: the run with both on is left out")
		return []variant{plain}, nil
	}
	return []variant{plain, full}, nil
}

// backlog measures a backlog from disk to acknowledged.
func (b *bench) backlog(ctx context.Context) error {
	l, err := b.backlogOf(b.full.bytes)
	if err != nil {
		return err
	}
	variants, err := b.variants(ctx)
	if err != nil {
		return err
	}
	for _, v := range variants {
		cpu, err := b.backlogRun(ctx, v, l)
		if err != nil {
			return err
		}
		base, err := b.baselines(l)
		if err != nil {
			return err
		}
		base.note(b, v.name, cpu)
	}
	return nil
}

func (b *bench) backlogRun(ctx context.Context, v variant, l *logs) (cpu time.Duration, err error) {
	r, err := b.rig(ctx, v.name, append(files(l.dir), v.env...)...)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	began := time.Now()
	if err := r.agent.Start(); err != nil {
		return 0, err
	}
	if err := r.await(ctx, l.Total()); err != nil {
		return 0, err
	}
	c, err := r.cost()
	if err != nil {
		return 0, err
	}
	wall := r.sink.Stats().Last.Sub(began)
	million := float64(l.Lines) / 1e6
	r.figure(v.name+"_cpu_per_million_lines", c.CPU.Seconds()/million, "s", v.goal)
	r.figure(v.name+"_peak_rss", megabytes(c.PeakRSS), "MiB", 64)
	r.figure(v.name+"_disk_per_log_byte", float64(c.Written)/float64(l.Bytes), "bytes", 0.25)
	if err := r.settle(ctx); err != nil {
		return 0, err
	}
	r.complete(v.name, l.Messages)
	s := r.sink.Stats()
	r.notef("%s: %.0f MiB, %d lines in %.1f s: %.0f k lines/s, %.0f MB/s; %.1f CPU s in all, %.1f per GB; on the wire %.3f bytes per byte of log, %d frames",
		v.name, megabytes(l.Bytes), l.Lines, wall.Seconds(), float64(l.Lines)/wall.Seconds()/1e3, float64(l.Bytes)/wall.Seconds()/1e6,
		c.CPU.Seconds(), c.CPU.Seconds()/float64(l.Bytes)*1e9, float64(s.Bytes)/float64(l.Bytes), s.Frames)
	if v.verbatim {
		r.exactly(v.name+"_text_difference", s.Text-l.Text, "bytes", 0)
	}
	return c.CPU, nil
}

// kill is kill -9 at 25, 50 and 75 % of a backlog.
func (b *bench) kill(ctx context.Context) error {
	return b.faulty(ctx, "kill3", func(r *rig, total int64) error {
		for quarter := int64(1); quarter <= 3; quarter++ {
			if err := r.await(ctx, total*quarter/4); err != nil {
				return err
			}
			if err := r.killAgent(); err != nil {
				return err
			}
		}
		return nil
	})
}

// away takes the sink away at 30 % of a backlog.
func (b *bench) away(ctx context.Context) error {
	return b.faulty(ctx, "sink_away", func(r *rig, total int64) error {
		if err := r.await(ctx, total*3/10); err != nil {
			return err
		}
		r.sink.Down()
		if err := pause(ctx, b.full.outage); err != nil {
			return err
		}
		return r.sink.Up(ctx)
	})
}

// awayKill kills agentd in the middle of the sink's absence.
func (b *bench) awayKill(ctx context.Context) error {
	return b.faulty(ctx, "sink_away_kill", func(r *rig, total int64) error {
		if err := r.await(ctx, total*3/10); err != nil {
			return err
		}
		return r.awayAndKill(ctx)
	})
}

func (r *rig) awayAndKill(ctx context.Context) error {
	r.sink.Down()
	if err := pause(ctx, r.full.outage/2); err != nil {
		return err
	}
	if err := r.killAgent(); err != nil {
		return err
	}
	if err := pause(ctx, r.full.outage/2); err != nil {
		return err
	}
	return r.sink.Up(ctx)
}

// faulty runs a backlog with a fault in it.
func (b *bench) faulty(ctx context.Context, name string, fault func(r *rig, total int64) error) (err error) {
	l, err := b.backlogOf(b.full.faultBytes)
	if err != nil {
		return err
	}
	r, err := b.rig(ctx, name, files(l.dir)...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.agent.Start(); err != nil {
		return err
	}
	if err := fault(r, l.Total()); err != nil {
		return err
	}
	if err := errors.Join(r.await(ctx, l.Total()), r.settle(ctx)); err != nil {
		return err
	}
	r.complete(name, l.Messages)
	var c proc.Cost
	if c, err = r.cost(); err != nil {
		return err
	}
	r.notef("%s: %d lines; peak RSS %.0f MiB", name, l.Total(), megabytes(c.PeakRSS))
	return nil
}
