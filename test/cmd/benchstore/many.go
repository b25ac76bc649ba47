package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/feed"
	"github.com/theazo/observability/test/stack"
)

// followers is how many of the many organisations are watched.
const followers = 50

// many measures many organisations with one line a second each: what a line
// costs that comes alone, and how soon it is visible.
func (b *bench) many(ctx context.Context) (err error) {
	s, err := b.aggregator(ctx, "many")
	if err != nil {
		return err
	}
	defer func() { err = stopped(err, s) }()
	tenants, err := s.tenants(ctx, b.orgs)
	if err != nil {
		return err
	}
	nodes := make([]*feed.Node, b.nodes)
	for i := range nodes {
		n, err := feed.Connect(ctx, filepath.Join(s.Dir, fmt.Sprintf("node%d", i)), fmt.Sprintf("node-%d", i), "", s.Aggregator)
		if err != nil {
			return err
		}
		defer func() { _ = n.Close() }()
		nodes[i] = n
	}
	w := watch{}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	var readers errgroup.Group
	for i := range min(followers, b.orgs) {
		ready := make(chan struct{})
		readers.Go(func() error { return w.follow(watching, s.Client(tenants[i*b.orgs/min(followers, b.orgs)]), ready) })
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// Every organisation's first line makes its rows; what is measured comes after.
	const settle = 5
	var before costs
	var began time.Time
	for second := range settle + b.seconds {
		if second == settle {
			w.measure()
			if before, err = s.costs(); err != nil {
				return err
			}
			began = time.Now()
		}
		if err := sendSecond(ctx, nodes, tenants, uint64(second)); err != nil {
			return err
		}
	}
	wall := time.Since(began)
	after, err := s.costs()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err := n.Room(ctx, 0); err != nil {
			return err
		}
	}
	lines := int64(b.orgs * (settle + b.seconds))
	stored, err := s.scalar(ctx, "select coalesce(sum(next - 1), 0)::bigint from stream_counter")
	if err != nil {
		return err
	}
	if stored != lines {
		return fmt.Errorf("%d lines were sent, %d are stored", lines, stored)
	}
	cancel()
	if err := readers.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	a, p := after.since(before)
	b.figure("many_organisations_cpu", (a+p)/wall.Seconds(), "cores", 1.5)
	b.notef("%d organisations, %.0f lines/s; aggregator %.2f cores, PostgreSQL %.2f; peak memory %d MiB",
		b.orgs, float64(b.orgs*b.seconds)/wall.Seconds(), a/wall.Seconds(), p/wall.Seconds(), after.aggregator.PeakRSS>>20)
	took := w.sorted()
	if len(took) == 0 {
		return errors.New("no line was seen on the streams")
	}
	b.figure("many_organisations_visible_p99", milliseconds(took[len(took)*99/100]), "ms", 300)
	b.notef("written to visible on %d streams: p50 %.1f ms, max %.1f ms, %d lines", min(followers, b.orgs), milliseconds(took[len(took)/2]), milliseconds(took[len(took)-1]), len(took))
	return nil
}

// sendSecond sends one line of every organisation, spread over a second in
// steps of 10 ms.
func sendSecond(ctx context.Context, nodes []*feed.Node, tenants []stack.Tenant, second uint64) error {
	const steps = 100
	began := time.Now()
	var w segment.Writer
	for step := range steps {
		if err := retry.Sleep(ctx, time.Until(began.Add(time.Duration(step)*time.Second/steps))); err != nil {
			return err
		}
		for i := len(tenants) * step / steps; i < len(tenants)*(step+1)/steps; i++ {
			now := time.Now()
			e := telemetry.LogEntry{Timestamp: now.UTC().Truncate(time.Microsecond), Origin: telemetry.Origin{Agent: "agt_many", Session: "ses_many"}}
			w.AppendText(&e, "heartbeat of a quiet agent, step "+strconv.FormatUint(second, 10)+" t="+strconv.FormatInt(now.UnixNano(), 10)+" queue=0 workers=1")
			nodes[i%len(nodes)].Put(frame.Header{Org: telemetry.OrgID(tenants[i].Org), Lane: telemetry.LaneLogs, Class: telemetry.Normal, Epoch: manyEpoch, Count: 1}, w.Encode(nil))
		}
	}
	return retry.Sleep(ctx, time.Until(began.Add(time.Second)))
}

var manyEpoch = ids.Epoch()

// watch collects how long lines took from their writing to a stream.
type watch struct {
	mu        sync.Mutex
	measuring bool
	took      []time.Duration
}

func (w *watch) measure() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.measuring = true
}

func (w *watch) sorted() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.took)
	return w.took
}

// follow reads one organisation's stream until ctx ends.
func (w *watch) follow(ctx context.Context, c *stack.Client, ready chan struct{}) error {
	last := ""
	err := c.Stream(ctx, "/v1/logs/stream", &last, func(e stack.Event) bool {
		now := time.Now()
		if e.Name == "ready" {
			close(ready)
		}
		var entry stack.Entry
		if e.Name != "log" || json.Unmarshal([]byte(e.Data), &entry) != nil {
			return true
		}
		_, stamp, _ := strings.Cut(entry.Message, " t=")
		stamp, _, _ = strings.Cut(stamp, " ")
		if ns, err := strconv.ParseInt(stamp, 10, 64); err == nil {
			w.mu.Lock()
			if w.measuring {
				w.took = append(w.took, now.Sub(time.Unix(0, ns)))
			}
			w.mu.Unlock()
		}
		return true
	})
	if err == nil {
		err = errors.New("a stream ended")
	}
	return errors.Join(ctx.Err(), err) // whoever ended it knows
}
