package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/feed"
)

const (
	perSecond = 20   // frames
	agents    = 1000 // of 10 each a session
	words     = 7
)

// agentOf, sessionOf, wordOf and isError say what line number seq is.
func agentOf(seq int) telemetry.AgentID { return telemetry.AgentID(fmt.Sprintf("agt_%d", seq%agents)) }

func sessionOf(seq int) telemetry.SessionID {
	return telemetry.SessionID(fmt.Sprintf("ses_%d", seq%agents/10))
}

func wordOf(seq int) int { return seq % words }

func isError(seq int) bool { return seq%errorEvery == 0 }

// errorEvery is how many lines there are to an error.
const errorEvery = 10

// source writes numbered lines at a rate.
type source struct {
	node     *feed.Node
	perFrame int
	epoch    uint64
	writer   segment.Writer

	mu    sync.Mutex
	next  int         // number of the next line
	put   []time.Time // by frame
	acked []time.Time
}

func newSource(node *feed.Node, rate int) *source {
	return &source{node: node, perFrame: max(1, rate/perSecond), epoch: ids.Epoch()}
}

// run writes until ctx ends or enough lines are written, and waits until all
// are acknowledged.
func (s *source) run(ctx context.Context, lines int) error {
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	settled := context.WithoutCancel(ctx)
	for n := 0; n < lines; n += s.perFrame {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s.node.Room(settled, 0)
		}
		h, index := s.send()
		wg.Go(func() {
			if s.node.Acknowledged(settled, h) == nil {
				s.mu.Lock()
				s.acked[index] = time.Now()
				s.mu.Unlock()
			}
		})
	}
	return s.node.Room(ctx, 0)
}

// send puts one frame.
func (s *source) send() (h frame.Header, index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UTC()
	for range s.perFrame {
		seq := s.next
		e := telemetry.LogEntry{
			Timestamp: now.Add(time.Duration(seq%s.perFrame) * time.Microsecond).Truncate(time.Microsecond), Level: telemetry.Info,
			Origin:  telemetry.Origin{Agent: agentOf(seq), Session: sessionOf(seq), Provider: telemetry.Docker, Stream: telemetry.Stdout},
			Message: fmt.Sprintf("#%d word%d POST /api/v1/orders/%d completed status=200 in %dms request_id=%016x", seq, wordOf(seq), seq*7919%1000003, seq%200, uint64(seq)*0x9E3779B97F4A7C15), //nolint:gosec // counts up
		}
		if isError(seq) {
			e.Level = telemetry.Error
		}
		s.writer.Append(&e)
		s.next++
	}
	h = s.node.Put(frame.Header{Env: telemetry.Live, Lane: telemetry.LaneLogs, Class: telemetry.Normal, Epoch: s.epoch, Count: uint32(s.perFrame)}, s.writer.Encode(nil)) //nolint:gosec // a flag of a benchmark
	s.put, s.acked = append(s.put, now), append(s.acked, time.Time{})
	return h, len(s.put) - 1
}

// written is how many lines there are.
func (s *source) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// times returns when line seq was given to the node, and acknowledged.
func (s *source) times(seq int) (put, acked time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put[seq/s.perFrame], s.acked[seq/s.perFrame]
}
