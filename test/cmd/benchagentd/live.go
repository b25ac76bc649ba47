package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/theazo/observability/test/workload"
)

const liveFiles = 10

// writer writes numbered lines that say when they were written.
type writer struct {
	files [liveFiles]*os.File
	next  []int64 // by file
	text  []byte
	line  []byte
	total int
}

func newWriter(dir string) (*writer, error) {
	w := &writer{next: make([]int64, liveFiles), text: workload.Text(9, 1<<20)}
	for i := range w.files {
		f, err := os.Create(filepath.Join(dir, workload.FileName(i))) //nolint:gosec // our own directory
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		w.files[i] = f
	}
	return w, nil
}

func (w *writer) close() error {
	var errs []error
	for _, f := range w.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// put writes one line to the file whose turn it is.
func (w *writer) put() error {
	i := w.total % liveFiles
	offset := w.total * 131 % (len(w.text) - 200)
	now := time.Now()
	message := fmt.Appendf(nil, "#i%03ds%09d t=%d %s", i, w.next[i], now.UnixNano(), w.text[offset:offset+100])
	w.line = workload.AppendLine(w.line[:0], message, true, "stdout", now.UTC())
	w.next[i]++
	w.total++
	_, err := w.files[i].Write(w.line)
	return err
}

// steadily writes n lines at a rate. at is called before each.
func (w *writer) steadily(ctx context.Context, n, rate int, at func(k int)) error {
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for k := range n {
		at(k)
		due := began.Add(time.Duration(k) * time.Second / time.Duration(rate))
		if early := time.Until(due); early > 0 {
			timer.Reset(early)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := w.put(); err != nil {
			return err
		}
	}
	return nil
}

// liveRig is a rig whose files are being written.
type liveRig struct {
	*rig
	w *writer
}

// liveRig starts agentd on files with one line each and waits for those.
func (b *bench) liveRig(ctx context.Context, name string) (*liveRig, error) {
	dir, err := os.MkdirTemp(b.dir, "live-")
	if err != nil {
		return nil, err
	}
	w, err := newWriter(dir)
	if err != nil {
		return nil, err
	}
	r, err := b.rig(ctx, name, files(dir)...)
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	l := &liveRig{rig: r, w: w}
	for range liveFiles {
		if err := w.put(); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	if err := r.agent.Start(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	if err := errors.Join(r.await(ctx, liveFiles), pause(ctx, 3*time.Second)); err != nil {
		return nil, errors.Join(err, l.close())
	}
	r.sink.Latencies() // of those that lay there before the start
	return l, nil
}

func (l *liveRig) close() error { return errors.Join(l.rig.close(), l.w.close()) }

// live measures latency and CPU at 1,000 lines a second.
func (b *bench) live(ctx context.Context) (err error) {
	l, err := b.liveRig(ctx, "live")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	before, err := l.cost()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := l.w.steadily(ctx, int(b.full.live.Seconds())*1000, 1000, func(int) {}); err != nil {
		return err
	}
	wall := time.Since(began)
	after, err := l.cost()
	if err != nil {
		return err
	}
	if err := l.await(ctx, int64(l.w.total)); err != nil {
		return err
	}
	latencies := l.sink.Latencies()
	b.figure("live_1000_p50", milliseconds(percentile(latencies, 0.5)), "ms", 60)
	b.figure("live_1000_p99", milliseconds(percentile(latencies, 0.99)), "ms", 120)
	b.figure("live_1000_cpu", (after.CPU-before.CPU).Seconds()/wall.Seconds()*100, "%", 2)
	l.complete("live_1000", l.w.next)
	b.notef("live_1000: worst line %.1f ms; RSS %.0f MiB; %d frames; %.2f bytes written to disk per byte of log",
		milliseconds(percentile(latencies, 1)), megabytes(after.RSS), l.sink.Stats().Frames, float64(after.Written-before.Written)/wall.Seconds()/1000/float64(len(l.w.line)))
	return nil
}

// liveKill kills agentd ten times while 5,000 lines a second are written.
func (b *bench) liveKill(ctx context.Context) (err error) {
	const kills, rate = 10, 5000
	l, err := b.liveRig(ctx, "live_kills")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	n := rate * int(b.full.outage.Seconds())
	var killing sync.WaitGroup
	var killErr error
	err = l.w.steadily(ctx, n, rate, func(k int) {
		if k > 0 && k%(n/(kills+1)) == 0 {
			killing.Wait()
			killing.Go(func() { killErr = errors.Join(killErr, l.killAgent()) })
		}
	})
	killing.Wait()
	return errors.Join(err, killErr, l.finish(ctx, "live_kills"))
}

// liveAway takes the sink away and kills agentd meanwhile, at 1,000 lines a
// second.
func (b *bench) liveAway(ctx context.Context) (err error) {
	l, err := b.liveRig(ctx, "live_away_kill")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	n := 1000 * 2 * int(b.full.outage.Seconds())
	var group sync.WaitGroup
	var awayErr error
	err = l.w.steadily(ctx, n, 1000, func(k int) {
		if k == n/3 {
			group.Go(func() { awayErr = l.awayAndKill(ctx) })
		}
	})
	group.Wait()
	return errors.Join(err, awayErr, l.finish(ctx, "live_away_kill"))
}

// finish waits for everything that was written and prints what did not come.
func (l *liveRig) finish(ctx context.Context, name string) error {
	written := time.Now()
	if err := l.await(ctx, int64(l.w.total)); err != nil {
		return err
	}
	late := time.Since(written)
	if err := l.settle(ctx); err != nil {
		return err
	}
	l.complete(name, l.w.next)
	l.notef("%s: %d lines; the last one came %.1f s after all were written and the sink was back", name, l.w.total, late.Seconds())
	return nil
}
