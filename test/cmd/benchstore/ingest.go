package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
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

// unacknowledged is how many bytes of frames a node holds: what bounds this
// process, and more than any window.
const unacknowledged = 32 << 20

// withoutCompaction is a setting of the aggregator.
const withoutCompaction = "AGGREGATOR_COMPACTION_WORKERS=-1"

// spent is CPU seconds.
type spent struct{ aggregator, postgres float64 }

// set measures one set of lines from its ingest to its queries.
func (b *bench) set(ctx context.Context, name string, end time.Time) (err error) {
	// Without compaction at first, so that each of the two is measured alone.
	s, err := b.aggregator(ctx, name, withoutCompaction)
	if err != nil {
		return err
	}
	defer func() { err = stopped(err, s) }()
	orgs := workload.Organisations
	if name == "one" {
		orgs = 1
	}
	d := &data{Records: workload.NewRecords(1, b.lines, end, 24*time.Hour)}
	if d.tenants, err = s.tenants(ctx, orgs); err != nil {
		return err
	}
	b.notef("set %s: %d lines of %d organisations over 24 h to %s", name, b.lines, orgs, end.Format(time.RFC3339))
	wal, err := s.written(ctx)
	if err != nil {
		return err
	}
	spent, err := b.ingest(ctx, s, d, name)
	if err != nil {
		return err
	}
	if b.wants("compact") {
		if err := s.restart(ctx, b.env); err != nil {
			return err
		}
		if err := b.compacted(ctx, s, name, spent, wal); err != nil {
			return err
		}
	}
	if !b.wants("query") {
		return nil
	}
	if err := b.queries(ctx, s, d, name); err != nil {
		return err
	}
	after, err := s.costs()
	if err != nil {
		return err
	}
	b.figure("peak_memory_after_queries_"+name, float64(after.aggregator.PeakRSS)/(1<<20), "MiB", 400)
	return nil
}

// stopped stops a server and keeps what went wrong before.
func stopped(err error, s *server) error {
	if stop := s.stop(); err == nil {
		err = stop
	}
	if err != nil {
		err = fmt.Errorf("%w; the end of the aggregator's log:\n%s", err, s.Tail())
	}
	return err
}

// data is what was sent, and by whom it may be asked for.
type data struct {
	*workload.Records
	tenants []stack.Tenant
}

// org is the organisation that record i, whose own says org, belongs to in this set.
func (d *data) org(org int) int { return org % len(d.tenants) }

// ingest sends all lines and waits until they are acknowledged.
func (b *bench) ingest(ctx context.Context, s *server, d *data, name string) (spent, error) {
	nodes := make([]*feed.Node, b.nodes)
	for i := range nodes {
		n, err := feed.Connect(ctx, filepath.Join(s.Dir, fmt.Sprintf("node%d", i)), fmt.Sprintf("node-%d", i), "", s.Aggregator)
		if err != nil {
			return spent{}, err
		}
		defer func() { _ = n.Close() }()
		nodes[i] = n
	}
	before, err := s.costs()
	if err != nil {
		return spent{}, err
	}
	began := time.Now()
	var next, wire atomic.Int64
	var group errgroup.Group
	for _, n := range nodes {
		group.Go(func() error {
			c := cutter{data: d, node: n, epoch: ids.Epoch()}
			for {
				from := next.Add(b.block) - b.block
				if from >= d.N {
					return n.Room(ctx, 0)
				}
				wire.Add(c.send(from, min(d.N, from+b.block)))
				if err := n.Room(ctx, unacknowledged); err != nil {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return spent{}, err
	}
	wall := time.Since(began)
	after, err := s.costs()
	if err != nil {
		return spent{}, err
	}
	million := float64(d.N) / 1e6
	a, p := after.since(before)
	b.figure("ingest_cpu_per_million_"+name, (a+p)/million, "s", 1.2)
	b.notef("of it aggregator %.2f s, PostgreSQL %.2f s; %.1f s on the clock, %.0f k lines/s, %.1f bytes a line on the wire",
		a/million, p/million, wall.Seconds(), float64(d.N)/wall.Seconds()/1000, float64(wire.Load())/float64(d.N))
	b.figure("peak_memory_ingest_"+name, float64(after.aggregator.PeakRSS)/(1<<20), "MiB", 300)
	total, err := s.scalar(ctx, "select coalesce(sum(next - 1), 0)::bigint from stream_counter")
	if err != nil {
		return spent{}, err
	}
	if total != d.N {
		return spent{}, fmt.Errorf("%d lines were sent, %d are stored", d.N, total)
	}
	return spent{a, p}, nil
}

// cutter makes one node's frames.
type cutter struct {
	*data
	node    *feed.Node
	epoch   uint64
	writers [workload.Organisations]segment.Writer
	message []byte
}

// send cuts lines into frames, one per organisation, and returns their size.
func (c *cutter) send(from, to int64) (bytes int64) {
	var e telemetry.LogEntry
	for i := from; i < to; i++ {
		org, message := c.At(i, &e, c.message[:0])
		c.message = message
		c.writers[c.org(org)].AppendBytes(&e, message)
	}
	for org := range c.tenants {
		w := &c.writers[org]
		lines := w.Lines()
		if lines == 0 {
			continue
		}
		body := w.Encode(nil)
		bytes += int64(len(body))
		c.node.Put(frame.Header{
			Org: telemetry.OrgID(c.tenants[org].Org), Lane: telemetry.LaneLogs, Class: telemetry.Normal, Epoch: c.epoch, Count: uint32(lines), //nolint:gosec // counts lines
		}, body)
	}
	return bytes
}

// compacted waits until nothing waits for compaction, and measures what it cost.
func (b *bench) compacted(ctx context.Context, s *server, name string, ingest spent, wal int64) error {
	before, err := s.costs()
	if err != nil {
		return err
	}
	began, said := time.Now(), time.Now()
	for {
		waiting, err := s.scalar(ctx, "select coalesce(sum(next - greatest(compacted, 1)), 0)::bigint from stream_counter")
		if err != nil {
			return fmt.Errorf("read the backlog: %w", err)
		}
		if waiting == 0 {
			break
		}
		if time.Since(said) > 15*time.Second {
			said = time.Now()
			b.notef("%d lines wait for compaction", waiting)
		}
		if err := retry.Sleep(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
	after, err := s.costs()
	if err != nil {
		return err
	}
	million := float64(b.lines) / 1e6
	a, p := after.since(before)
	b.notef("compaction alone: aggregator %.2f s, PostgreSQL %.2f s", a/million, p/million)
	a, p = a+ingest.aggregator, p+ingest.postgres
	b.figure("ingest_and_compaction_cpu_per_million_"+name, (a+p)/million, "s", 3.0)
	end, err := s.written(ctx)
	if err != nil {
		return err
	}
	size, err := s.size(ctx, "log_chunk")
	if err != nil {
		return err
	}
	chunks, err := s.scalar(ctx, "select count(*) from log_chunk")
	if err != nil {
		return err
	}
	b.notef("of it aggregator %.2f s, PostgreSQL %.2f s; compaction took %.1f s; %d chunks; %.0f bytes of WAL a line",
		a/million, p/million, time.Since(began).Seconds(), chunks, float64(end-wal)/float64(b.lines))
	b.figure("disk_per_line_"+name, float64(size)/float64(b.lines), "B", 45)
	b.figure("peak_memory_compaction_"+name, float64(after.aggregator.PeakRSS)/(1<<20), "MiB", 300)
	return nil
}
