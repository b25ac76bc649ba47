package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/test/proc"
	"github.com/theazo/observability/test/stack"
)

// follow measures many clients on one organisation.
func (b *bench) follow(ctx context.Context) error {
	settle, cancelSettle := context.WithTimeout(ctx, stack.Patience)
	defer cancelSettle()
	if err := b.source.run(settle, b.rate); err != nil { // so that whatever starts late has started
		return err
	}
	streams, closeAll := context.WithCancel(ctx)
	defer closeAll()
	var group errgroup.Group
	clients := make([]*client, b.clients-1)
	var opening sync.WaitGroup
	for i := range clients {
		c := &client{url: b.aggregator.URL, key: b.tenant.Key, filter: filterOf(i), socket: i%10 == 9}
		clients[i] = c
		opening.Add(1)
		opened := sync.OnceFunc(opening.Done)
		group.Go(func() error {
			defer opened()
			if err := c.follow(streams, opened, nil); err != nil && streams.Err() == nil {
				return fmt.Errorf("client %d (%s): %w", i, c.params.Encode(), err)
			}
			return nil
		})
	}
	opening.Wait()
	stalled, err := b.stalled(ctx)
	if err != nil {
		return err
	}
	first := b.source.written()
	before, err := proc.CostOf(b.aggregator.PID())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.source.run(settle, b.rate*int(b.length.Seconds())); err != nil {
		return err
	}
	wall := time.Since(began)
	after, err := proc.CostOf(b.aggregator.PID())
	if err != nil {
		return err
	}
	last := b.source.written()
	// What is acknowledged is on its way; a line that all of them get says that it has arrived.
	if err := b.flushed(ctx, last); err != nil {
		return err
	}
	closeAll()
	if err := errors.Join(group.Wait(), stalled.Close()); err != nil {
		return err
	}
	b.notef("%d clients (%d of them over WebSocket, one takes nothing), each with a filter of its own, %d lines/s for %.0f s; aggregator and PostgreSQL %.2f cores",
		b.clients, len(clients)/10, b.rate, wall.Seconds(), (after.CPU-before.CPU).Seconds()/wall.Seconds())
	if err := b.latencies(clients, first, last); err != nil {
		return err
	}
	b.figure("tail_memory_peak", float64(after.PeakRSS)/(1<<20), "MiB", 400)
	return b.allGone(ctx)
}

// stalled opens a stream of everything of which nothing is ever read.
func (b *bench) stalled(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(b.aggregator.URL, "http://"))
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(conn, "GET /v1/logs/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n\r\n", b.tenant.Key)
	return conn, err
}

// flushed waits until a client that follows everything has seen the last line,
// and then as long as an answer to that takes the others.
func (b *bench) flushed(ctx context.Context, last int) error {
	c := stack.Client{URL: b.aggregator.URL, Key: b.tenant.Key}
	page, err := c.Logs(ctx, "limit", "1")
	if err != nil || len(page.Data) == 0 || !strings.HasPrefix(page.Data[0].Message, fmt.Sprintf("#%d ", last-1)) {
		return fmt.Errorf("the newest line is not number %d: %+v %w", last-1, page.Data, err)
	}
	timer := time.NewTimer(2 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// latencies holds what came against what should have, and says how late it was.
func (b *bench) latencies(clients []*client, first, last int) error {
	var fromCommit, fromPut []time.Duration
	missing, repeated := 0, 0
	for i, c := range clients {
		want := 0
		for seq := first; seq < last; seq++ {
			if c.match(seq) {
				want++
			}
		}
		previous := -1
		for _, a := range c.got {
			if a.seq < first {
				continue // of the time before all had opened
			}
			if a.seq <= previous || !c.match(a.seq) {
				repeated++
				b.notef("client %d (%s) got line %d after %d", i, c.params.Encode(), a.seq, previous)
				continue
			}
			previous = a.seq
			want--
			put, acked := b.source.times(a.seq)
			fromCommit = append(fromCommit, max(0, a.at.Sub(acked)))
			fromPut = append(fromPut, a.at.Sub(put))
		}
		missing += want
	}
	if len(fromCommit) == 0 {
		return errors.New("no client got any line")
	}
	slices.Sort(fromCommit)
	slices.Sort(fromPut)
	b.notef("%d lines reached clients; what follows counts from the acknowledgement, which is itself one way from the commit", len(fromCommit))
	b.figure("tail_commit_to_client_p50", milliseconds(percentile(fromCommit, 0.5)), "ms", 20)
	b.figure("tail_commit_to_client_p99", milliseconds(percentile(fromCommit, 0.99)), "ms", 100)
	b.figure("tail_node_to_client_p50", milliseconds(percentile(fromPut, 0.5)), "ms", -1)
	b.figure("tail_node_to_client_p99", milliseconds(percentile(fromPut, 0.99)), "ms", -1)
	b.figure("tail_missing", float64(missing), "lines", 0)
	b.figure("tail_repeated", float64(repeated), "lines", 0)
	if missing+repeated > 0 {
		return fmt.Errorf("%d lines are missing, %d came twice or to a client that did not ask", missing, repeated)
	}
	return nil
}

// percentile of sorted values.
func percentile(sorted []time.Duration, p float64) time.Duration {
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*p))]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

var gauge = regexp.MustCompile(`(?m)^aggregator_live_readers (\S+)$`)

// allGone waits until the aggregator holds nothing of clients that left.
func (b *bench) allGone(ctx context.Context) error {
	readers := func() (float64, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.aggregator.Admin+"/metrics", nil)
		if err != nil {
			return 0, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err
		}
		found := gauge.FindSubmatch(text)
		if found == nil {
			return 0, errors.New("the aggregator has no gauge of readers")
		}
		return strconv.ParseFloat(string(found[1]), 64)
	}
	var left float64
	err := proc.Poll(ctx, stack.Patience, nil, func() (err error) {
		if left, err = readers(); err == nil && left > 0 {
			err = fmt.Errorf("%g readers are open whose clients have left", left)
		}
		return err
	})
	b.figure("tail_readers_left", left, "readers", 0)
	return err
}
