package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/theazo/observability/test/stack"
)

// latency measures from a line's write in a container to its arrival on an SSE
// stream. The container's lines hold the time at which they were written; it
// has this machine's clock.
func (b *bench) latency(ctx context.Context) error {
	host, down, err := b.engine(ctx)
	if err != nil {
		return err
	}
	defer down()
	g, err := b.agent(ctx, "latency", "DOCKER_HOST="+host)
	if err != nil {
		return err
	}
	if err := b.startConnected(ctx, g); err != nil {
		return err
	}
	defer func() { _ = g.Stop(time.Minute) }()
	// The second start is the one that hosts see every day: enrolled before.
	if err := g.Stop(time.Minute); err != nil {
		return err
	}
	began := time.Now()
	if err := b.startConnected(ctx, g); err != nil {
		return err
	}
	b.figure("agentd_start_connected", time.Since(began).Seconds(), "s", 1)

	if err := b.image(ctx, host); err != nil {
		return err
	}
	lone, err := b.oneRate(ctx, host, "agt_lone", "2", 60)
	if err != nil {
		return err
	}
	b.figure("latency_lone_p50", milliseconds(percentile(lone, 0.5)), "ms", 25)
	busy, err := b.oneRate(ctx, host, "agt_busy", "1000", int(b.length.Seconds())*1000)
	if err != nil {
		return err
	}
	b.figure("latency_1000_p50", milliseconds(percentile(busy, 0.5)), "ms", 60)
	b.figure("latency_1000_p99", milliseconds(percentile(busy, 0.99)), "ms", 200)
	b.notef("# lone lines: %d, p99 %.1f ms; at 1000 lines/s: %d, max %.1f ms", len(lone), milliseconds(percentile(lone, 0.99)), len(busy), milliseconds(busy[len(busy)-1]))
	return nil
}

// startConnected starts agentd and waits until it says that it is connected.
func (b *bench) startConnected(ctx context.Context, g *stack.Agent) error {
	if err := g.Start(); err != nil {
		return err
	}
	return g.Await(ctx, stack.Patience, func() error {
		var s struct {
			Uplink struct {
				ConnectedSince time.Time `json:"connectedSince"`
			} `json:"uplink"`
		}
		if err := stack.UnixGet(ctx, filepath.Join(g.Dir, "agentd.sock"), "/status", &s); err != nil {
			return err
		}
		if s.Uplink.ConnectedSince.IsZero() {
			return errors.New("not connected yet")
		}
		return nil
	})
}

func (b *bench) docker(ctx context.Context, host string, args ...string) error {
	cmd := exec.CommandContext(ctx, "docker", args...) //nolint:gosec // fixed arguments
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+host)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s: %w: %s", args[0], err, out)
	}
	return nil
}

func (b *bench) image(ctx context.Context, host string) error {
	tar := filepath.Join(b.dir, "linegen.tar")
	cmd := exec.CommandContext(ctx, "tar", "-C", filepath.Join(b.root, "bin"), "-cf", tar, "linegen") //nolint:gosec // fixed arguments
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("tar: %w: %s", err, out)
	}
	return b.docker(ctx, host, "import", "--change", `ENTRYPOINT ["/linegen"]`, tar, "theazo/linegen")
}

// oneRate runs one container that writes n lines at a rate and returns their
// latencies, sorted.
func (b *bench) oneRate(ctx context.Context, host, agent, rate string, n int) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, b.length+stack.Patience)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	var latencies []time.Duration
	var streamErr error
	ready := make(chan struct{})
	got := make(chan struct{})
	wg.Go(func() {
		defer close(got)
		streamErr = b.receive(ctx, agent, n, ready, func(d time.Duration) { latencies = append(latencies, d) })
	})
	select {
	case <-ready:
	case <-got:
		return nil, streamErr
	}
	if err := b.docker(ctx, host, "run", "-d", "--rm", "--network", "none", "--label", "theazo.agent_id="+agent, "theazo/linegen",
		"-n", strconv.Itoa(n), "-rate", rate, "-stamp"); err != nil {
		cancel()
		return nil, err
	}
	<-got
	if streamErr != nil || len(latencies) < n {
		return nil, fmt.Errorf("%d of %d lines of %s arrived: %w", len(latencies), n, agent, streamErr)
	}
	slices.Sort(latencies)
	return latencies, nil
}

// receive follows the stream of all agents until n lines of one have come.
func (b *bench) receive(ctx context.Context, agent string, n int, ready chan struct{}, add func(time.Duration)) error {
	last := ""
	return b.aggregator.Client(b.tenant).Stream(ctx, "/v1/logs/stream", &last, func(e stack.Event) bool {
		now := time.Now()
		if e.Name == "ready" {
			close(ready)
		}
		if e.Name != "log" {
			return true
		}
		var entry stack.Entry
		if json.Unmarshal([]byte(e.Data), &entry) != nil || entry.Agent != agent {
			return true
		}
		_, stamp, found := strings.Cut(entry.Message, "t=")
		stamp, _, _ = strings.Cut(stamp, " ")
		ns, err := strconv.ParseInt(stamp, 10, 64)
		if !found || err != nil {
			return true
		}
		add(now.Sub(time.Unix(0, ns)))
		n--
		return n > 0
	})
}
