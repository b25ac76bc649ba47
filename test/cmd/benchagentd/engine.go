package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/test/stack"
)

// linegen is the program that test containers run.
const linegen = "github.com/theazo/observability/test/cmd/linegen"

// engine starts a Docker engine of our own, once, with an image of linegen.
// Where none can run, it says so and returns false: the figure is left out.
func (b *bench) engine(ctx context.Context, figures string) (bool, error) {
	if b.host != "" {
		return true, nil
	}
	state := filepath.Join(b.dir, "docker")
	up := exec.CommandContext(ctx, filepath.Join("tools", "docker-up"), "--private", state) //nolint:gosec // our own script
	up.Stderr = b.progress
	out, err := up.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 4 {
		b.notef("SKIPPED %s: no Docker engine can run here", figures)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("docker-up: %w", err)
	}
	b.engineDown = func() {
		down := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join("tools", "docker-down"), state) //nolint:gosec // our own script
		if out, err := down.CombinedOutput(); err != nil {
			b.progressf("docker-down: %v: %s", err, out)
		}
	}
	b.host = strings.TrimPrefix(strings.TrimSpace(string(out)), "DOCKER_HOST=")
	return true, b.image(ctx)
}

func (b *bench) image(ctx context.Context) error {
	dir := filepath.Join(b.dir, "image")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "linegen"), linegen) //nolint:gosec // our own program
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", linegen, err, out)
	}
	tar := filepath.Join(b.dir, "image.tar")
	if out, err := exec.CommandContext(ctx, "tar", "-C", dir, "-cf", tar, "linegen").CombinedOutput(); err != nil { //nolint:gosec // our own files
		return fmt.Errorf("tar: %w: %s", err, out)
	}
	return b.docker(ctx, "import", "--change", `ENTRYPOINT ["/linegen"]`, tar, "theazo/linegen")
}

func (b *bench) docker(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "docker", args...) //nolint:gosec // fixed arguments
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+b.host)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s: %w: %s", args[0], err, out)
	}
	return nil
}

// engineRig starts agentd on the engine and waits until it has connected.
func (b *bench) engineRig(ctx context.Context, name string, env ...string) (*rig, error) {
	r, err := b.rig(ctx, name, append([]string{"DOCKER_HOST=" + b.host}, env...)...)
	if err != nil {
		return nil, err
	}
	if err := r.agent.Start(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	err = r.agent.Await(ctx, stack.Patience, func() error {
		var s struct {
			Uplink struct {
				ConnectedSince time.Time `json:"connectedSince"`
			} `json:"uplink"`
		}
		if err := stack.UnixGet(ctx, filepath.Join(r.agent.Dir, "agentd.sock"), "/status", &s); err != nil {
			return err
		}
		if s.Uplink.ConnectedSince.IsZero() {
			return errors.New("not connected yet")
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// burst prints lines as fast as a container can, with Docker's files rotating
// every half second or so.
func (b *bench) burst(ctx context.Context) (err error) {
	if there, err := b.engine(ctx, "burst"); err != nil || !there {
		return err
	}
	r, err := b.engineRig(ctx, "burst")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	began := time.Now()
	const name = "burst"
	err = b.docker(ctx, "run", "--name", name, "--network", "none", "--log-opt", "max-size=10m", "--log-opt", "max-file=3", "theazo/linegen",
		"-mark", "0", "-n", strconv.Itoa(b.full.burst), "-size", "100")
	if err != nil {
		return err
	}
	wall := time.Since(began)
	if err := errors.Join(r.await(ctx, int64(b.full.burst)), r.settle(ctx), b.docker(ctx, "rm", "-f", name)); err != nil {
		return err
	}
	r.complete("burst", []int64{int64(b.full.burst)})
	b.notef("burst: %d lines of 100 bytes in %.1f s at max-size=10m max-file=3", b.full.burst, wall.Seconds())
	return nil
}

// short runs containers that are gone before most agents have seen them.
func (b *bench) short(ctx context.Context) (err error) {
	if there, err := b.engine(ctx, "short"); err != nil || !there {
		return err
	}
	r, err := b.engineRig(ctx, "short")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	const lines = 3
	var group errgroup.Group
	group.SetLimit(8)
	for i := range b.full.short {
		group.Go(func() error {
			return b.docker(ctx, "run", "--rm", "--network", "none", "theazo/linegen", "-mark", strconv.Itoa(i), "-n", strconv.Itoa(lines))
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := errors.Join(r.await(ctx, int64(lines*b.full.short)), r.settle(ctx)); err != nil {
		return err
	}
	incomplete := int64(0)
	for i := range b.full.short {
		wanted := make([]int64, i+1)
		wanted[i] = lines
		incomplete += min(1, r.sink.Missing(wanted))
	}
	b.exactly("short_lived_complete", int64(b.full.short)-incomplete, "containers", int64(b.full.short))
	b.exactly("short_lived_repeated", r.sink.Stats().Repeated, "lines", 0)
	return nil
}

// containers measures what containers cost that do nothing, with and without
// their metrics.
func (b *bench) containers(ctx context.Context) (err error) {
	if there, err := b.engine(ctx, "containers"); err != nil || !there {
		return err
	}
	b.progressf("starting %d containers", b.full.containers)
	var group errgroup.Group
	group.SetLimit(4)
	for i := range b.full.containers {
		group.Go(func() error {
			return b.docker(ctx, "run", "-d", "--network", "none", "theazo/linegen", "-mark", strconv.Itoa(i), "-n", "10", "-sleep-after", "24h")
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	settings, err := b.settings(ctx)
	if err != nil {
		return err
	}
	const stats = "-docker.stats_interval"
	if !strings.Contains(settings, stats) {
		b.notef("this agentd has no %s: containers are measured without their metrics", strings.TrimPrefix(stats, "-"))
		return b.containersRun(ctx, "containers", 0.2)
	}
	return errors.Join(
		b.containersRun(ctx, "containers", 0.2, "AGENTD_DOCKER_STATS_INTERVAL=0s"),
		b.containersRun(ctx, "containers_stats", 1, "AGENTD_DOCKER_STATS_INTERVAL=15s"))
}

func (b *bench) containersRun(ctx context.Context, name string, cpuGoal float64, env ...string) (err error) {
	r, err := b.engineRig(ctx, name, env...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.await(ctx, int64(10*b.full.containers)); err != nil {
		return err
	}
	return r.atRest(ctx, name, cpuGoal)
}
