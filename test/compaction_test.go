package test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/feed"
	"github.com/theazo/observability/test/proc"
	"github.com/theazo/observability/test/stack"
)

// Two aggregators compact the same streams while each in turn is killed: every
// line is there once at every moment, and whoever is left finishes the work.
func TestFaultCompactionGoesOnWhenAnAggregatorIsKilled(t *testing.T) {
	const rounds, perRound = 4, 3000
	s := replicas(t, "AGGREGATOR_COMPACTION_MAX_AGE=1s")
	a := s.aggregators
	tenant := must(a[0].NewTenant(t.Context(), "compacted"))(t)
	db := must(pgx.Connect(t.Context(), a[0].DSN))(t)
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	// One node for each, so that what one commits the other shows.
	nodes := []*feed.Node{connect(t, filepath.Join(s.dir, "first"), tenant.Org, a[0], a[1]), connect(t, filepath.Join(s.dir, "second"), tenant.Org, a[1], a[0])}
	headers := make([]frame.Header, len(nodes))
	for i := range headers {
		headers[i] = frame.Header{Lane: telemetry.LaneLogs, Class: telemetry.Normal, Epoch: ids.Epoch(), Count: 20}
	}
	followers := []*follower{follow(t, a[0].Client(tenant), "/v1/logs/stream"), follow(t, a[1].Client(tenant), "/v1/logs/stream")}
	sent := make([]int, len(nodes))
	for round := range rounds {
		killed, left := a[round%2], a[(round+1)%2]
		for range perRound / 20 / len(nodes) {
			for i, n := range nodes {
				entries := make([]telemetry.LogEntry, 20)
				for j := range entries {
					sent[i]++
					entries[j] = numbered(telemetry.AgentID(fmt.Sprintf("agt_node%d", i)), sent[i])
				}
				n.Put(headers[i], linesOf(entries...))
			}
		}
		select {
		case <-time.After(300 * time.Millisecond): // in the middle of commits and compaction
		case <-t.Context().Done():
		}
		killed.Kill()
		total := int64(sent[0] + sent[1])
		awaitTotal(t, left.Client(tenant), total)
		awaitCompacted(t, db, left, tenant.Org)
		checkBoth(t, fmt.Sprintf("round %d", round), left.Client(tenant), sent)
		if err := killed.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range followers {
		entries := f.await(t, sent[0]+sent[1])
		for n := range nodes {
			checkNumbered(t, fmt.Sprintf("stream %d, node %d", i, n), of(entries, n), sent[n])
		}
	}
	var chunks int64
	if err := db.QueryRow(t.Context(), "select count(*) from theazo.log_chunk where org = $1", tenant.Org).Scan(&chunks); err != nil || chunks == 0 {
		t.Errorf("%d chunks: %v", chunks, err)
	}
}

// checkBoth checks the lines of both nodes in queries.
func checkBoth(t *testing.T, what string, c *stack.Client, sent []int) {
	t.Helper()
	entries := must(c.AllLogs(t.Context()))(t)
	for n := range sent {
		checkNumbered(t, fmt.Sprintf("%s, node %d", what, n), of(entries, n), sent[n])
	}
}

// of are the entries of one node's agent.
func of(entries []stack.Entry, node int) (own []stack.Entry) {
	for _, e := range entries {
		if e.Agent == fmt.Sprintf("agt_node%d", node) {
			own = append(own, e)
		}
	}
	return own
}

// awaitCompacted waits until nothing of the organisation waits for compaction.
func awaitCompacted(t *testing.T, db *pgx.Conn, a *stack.Aggregator, org string) {
	t.Helper()
	err := proc.Poll(t.Context(), 3*stack.Patience, a.Done(), func() error {
		var waiting int64
		err := db.QueryRow(t.Context(), "select coalesce(sum(next - greatest(compacted, 1)), 0)::bigint from theazo.stream_counter where org = $1", org).Scan(&waiting)
		if err == nil && waiting > 0 {
			err = fmt.Errorf("%d lines wait for compaction", waiting)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v; the end of the log:\n%s", err, a.Tail())
	}
}
