package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// spool makes frames as one node's spool does: gapless sequences per lane.
type spool struct {
	scope telemetry.Scope
	node  telemetry.NodeID
	epoch uint64
	next  [telemetry.NumLanes]uint64
	w     segment.Writer
}

func newSpool(scope telemetry.Scope, node telemetry.NodeID, epoch uint64) *spool {
	return &spool{scope: scope, node: node, epoch: epoch, next: [telemetry.NumLanes]uint64{1, 1}}
}

func (s *spool) frame(lane telemetry.Lane, count int) *frame.Received {
	f := &frame.Received{Node: s.node, ReceivedAt: time.Now(), Frame: frame.Frame{Header: frame.Header{
		Org: s.scope.Org, Env: s.scope.Env, Lane: lane, Class: telemetry.Normal, Epoch: s.epoch, First: s.next[lane], Count: uint32(count),
	}}}
	s.next[lane] += uint64(count)
	return f
}

// lines makes a frame of log lines.
func (s *spool) lines(tb testing.TB, entries ...telemetry.LogEntry) *frame.Received {
	tb.Helper()
	for i := range entries {
		s.w.Append(&entries[i])
	}
	f := s.frame(telemetry.LaneLogs, len(entries))
	f.Body = s.w.Encode(nil)
	var err error
	if f.Segment, err = segment.Parse(f.Body); err != nil {
		tb.Fatal(err)
	}
	return f
}

// numbered makes a frame of n lines "line <first>"… of one agent and session.
func (s *spool) numbered(tb testing.TB, agent telemetry.AgentID, first, n int, at time.Time) *frame.Received {
	tb.Helper()
	entries := make([]telemetry.LogEntry, n)
	for i := range entries {
		entries[i] = telemetry.LogEntry{
			Timestamp: at.Add(time.Duration(i) * time.Millisecond), Level: telemetry.Level((first + i) % 4), Message: fmt.Sprintf("line %d", first+i),
			Origin: telemetry.Origin{Agent: agent, Session: "ses_" + telemetry.SessionID(agent), User: "user", Provider: telemetry.Docker, Sandbox: "box", Stream: telemetry.Stdout},
		}
	}
	return s.lines(tb, entries...)
}

func (s *spool) records(events []telemetry.Event, gaps []telemetry.Gap) *frame.Received {
	f := s.frame(telemetry.LaneEvents, len(events)+len(gaps))
	f.Events, f.Gaps = events, gaps
	return f
}

func (s *spool) tombstone(lane telemetry.Lane, count int) *frame.Received {
	f := s.frame(lane, count)
	f.Tombstone = true
	f.Gaps = []telemetry.Gap{{Reason: telemetry.GapEvicted, Count: int64(count), Bytes: 1000}}
	return f
}

// mustCommit commits and fails on anything but Committed.
func mustCommit(tb testing.TB, s *store.Store, frames ...*frame.Received) []*frame.Published {
	tb.Helper()
	outcomes, published, err := s.Commit(tb.Context(), frames)
	if err != nil {
		tb.Fatal(err)
	}
	for i, o := range outcomes {
		if o.Verdict != frame.Committed {
			tb.Fatalf("frame %s: outcome %+v", &frames[i].Header, o)
		}
	}
	return published
}

// readAll reads a whole stream after a position.
func readAll(ctx context.Context, s *store.Store, scope telemetry.Scope, after int64, limit int) ([]*frame.Published, error) {
	var all []*frame.Published
	for {
		list, err := s.ReadStream(ctx, scope, after, limit)
		if err != nil || len(list) == 0 {
			return all, err
		}
		all = append(all, list...)
		after = list[len(list)-1].Next() - 1
	}
}

// entriesOf lists the lines of published parts.
func entriesOf(list []*frame.Published) []telemetry.LogEntry {
	var entries []telemetry.LogEntry
	for _, p := range list {
		if p.Lines != nil {
			if err := p.Lines.DecodeAll(); err != nil {
				panic(err)
			}
		}
		for i := range p.Count() {
			var e telemetry.LogEntry
			p.Entry(i, &e)
			entries = append(entries, e)
		}
	}
	return entries
}

func queryAll(tb testing.TB, s *store.Store, scope telemetry.Scope, q telemetry.LogQuery) ([]telemetry.LogEntry, telemetry.LogPage) {
	tb.Helper()
	var all []telemetry.LogEntry
	var first telemetry.LogPage
	for n := 0; ; n++ {
		page, err := s.QueryLogs(tb.Context(), scope, &q)
		if err != nil {
			tb.Fatal(err)
		}
		if n == 0 {
			first = page
		}
		all = append(all, page.Entries...)
		if !page.More {
			return all, first
		}
		last := page.Entries[len(page.Entries)-1]
		q.After, q.Offset = &telemetry.LogKey{Timestamp: last.Timestamp, Position: last.Position}, 0
	}
}
