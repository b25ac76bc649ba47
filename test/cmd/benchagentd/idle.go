package main

import (
	"context"
	"errors"
	"os"

	"github.com/theazo/observability/test/workload"
)

// idle measures what agentd takes while nothing happens.
func (b *bench) idle(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(b.dir, "idle-")
	if err != nil {
		return err
	}
	const lines = 10
	if err := workload.Write(dir, b.full.files, int64(lines*b.full.files), 9); err != nil {
		return err
	}
	r, err := b.rig(ctx, "idle", files(dir)...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.agent.Start(); err != nil {
		return err
	}
	if err := r.await(ctx, int64(lines*b.full.files)); err != nil {
		return err
	}
	return r.atRest(ctx, "idle", 0.2)
}

// atRest measures a started agentd for a while, once it has calmed down.
func (r *rig) atRest(ctx context.Context, name string, cpuGoal float64) error {
	if err := pause(ctx, r.full.idle/3); err != nil {
		return err
	}
	before, err := r.cost()
	if err != nil {
		return err
	}
	if err := pause(ctx, r.full.idle); err != nil {
		return err
	}
	after, err := r.cost()
	if err != nil {
		return err
	}
	r.figure(name+"_rss", megabytes(after.RSS), "MiB", 30)
	r.figure(name+"_cpu", (after.CPU-before.CPU).Seconds()/r.full.idle.Seconds()*100, "%", cpuGoal)
	r.notef("%s: peak RSS %.0f MiB; %d bytes written to disk in %s", name, megabytes(after.PeakRSS), after.Written-before.Written, r.full.idle)
	return nil
}
