package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/theazo/observability/test/stack"
)

// seams asks for pages while lines are committed and follows each by the
// stream behind its cursor: together they hold every line once.
func (b *bench) seams(ctx context.Context) error {
	return b.whileWriting(ctx, func(ctx context.Context) error {
		open := 0
		for i := range b.trials {
			if err := b.seam(ctx); err != nil {
				b.notef("page %d and the stream behind it: %v", i, err)
				open++
			}
		}
		b.figure("tail_seams_open", float64(open), "of "+strconv.Itoa(b.trials), 0)
		if open > 0 {
			return fmt.Errorf("%d of %d pages do not fit the stream behind them", open, b.trials)
		}
		return nil
	})
}

// whileWriting runs fn while the source writes.
func (b *bench) whileWriting(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*stack.Patience)
	defer cancel()
	writing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var written error
	wg.Go(func() { written = b.source.run(writing, 1<<40) })
	err := fn(ctx)
	stop()
	if wg.Wait(); err == nil {
		err = written
	}
	return err
}

// behind is how many lines of a stream are looked at behind its beginning.
const behind = 20

func (b *bench) seam(ctx context.Context) error {
	api := stack.Client{URL: b.aggregator.URL, Key: b.tenant.Key}
	page, err := api.Logs(ctx, "q", "level:error", "limit", "200")
	if err != nil {
		return err
	}
	next := -1
	for _, e := range page.Data {
		digits, _, _ := strings.Cut(strings.TrimPrefix(e.Message, "#"), " ")
		seq, err := strconv.Atoi(digits)
		if err != nil || next >= 0 && seq != next-errorEvery {
			return fmt.Errorf("line %q behind number %d", e.Message, next)
		}
		next = seq
	}
	newest := next + (len(page.Data)-1)*errorEvery
	c := client{url: b.aggregator.URL, key: b.tenant.Key, filter: filter{params: url.Values{"q": {"level:error"}, "after": {page.StreamCursor}}}}
	return c.contiguous(ctx, newest, behind)
}

// contiguous reads n errors, each the one after the last, which was number last.
func (c *client) contiguous(ctx context.Context, last, n int) error {
	wrong := error(nil)
	err := c.follow(ctx, func() {}, func(seq int) bool {
		if seq != last+errorEvery {
			wrong = fmt.Errorf("number %d came after %d", seq, last)
			return false
		}
		last = seq
		n--
		return n > 0
	})
	switch {
	case wrong != nil:
		return wrong
	case n > 0:
		return fmt.Errorf("the stream ended after number %d, %d before the end: %w", last, n, err)
	}
	return nil
}

// restart kills the aggregator under a stream, which goes on where it was.
func (b *bench) restart(ctx context.Context) error {
	return b.whileWriting(ctx, func(ctx context.Context) error {
		c := client{url: b.aggregator.URL, key: b.tenant.Key, filter: filter{params: url.Values{"q": {"level:error"}}}}
		last, seen := 0, 0
		if err := c.follow(ctx, func() {}, func(seq int) bool {
			last = seq
			seen++
			return seen < behind
		}); err != nil {
			return err
		}
		b.aggregator.Kill()
		began := time.Now()
		if err := b.aggregator.Start(ctx); err != nil {
			return err
		}
		b.notef("killed with -9; ready again after %.1f s", time.Since(began).Seconds())
		if err := c.contiguous(ctx, last, 10*behind); err != nil {
			return fmt.Errorf("resumed after kill -9 at %s: %w", c.lastID, err)
		}
		b.notef("the stream went on behind %d: the next %d lines came once each, in order", last, 10*behind)
		return nil
	})
}
