package test

import (
	"testing"
	"time"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/stack"
)

// auditLedger waits until every node of the organisation has reported that
// nothing is on its way any more, and then holds the ledger against the logs
// themselves: every record that was numbered is visible, and is counted once.
func auditLedger(t *testing.T, c *stack.Client, visible int64) {
	t.Helper()
	var nodes struct {
		Data []telemetry.Node `json:"data"`
	}
	if err := c.Get(t.Context(), "/v1/nodes", &nodes); err != nil {
		t.Fatal(err)
	}
	if len(nodes.Data) == 0 {
		t.Fatal("the organisation has no node of its own")
	}
	settled := time.Now()
	var lines uint64
	for _, n := range nodes.Data {
		l := awaitReport(t, c, n.ID, settled)
		if !l.Balanced || l.Totals.Lost != 0 || l.Totals.Quarantined != 0 {
			t.Errorf("ledger of node %s: %+v", n.ID, l.Totals)
		}
		for _, e := range l.Entries {
			if e.Lane == telemetry.LaneLogs.String() {
				lines += e.Visible
			}
		}
	}
	if lines != uint64(visible) { //nolint:gosec // a count
		t.Errorf("the ledgers say that %d lines are visible, GET /v1/logs has %d", lines, visible)
	}
}

// awaitReport returns the first ledger of a node whose report is of after the
// given time and has nothing in flight.
func awaitReport(t *testing.T, c *stack.Client, id telemetry.NodeID, after time.Time) telemetry.Ledger {
	t.Helper()
	var l telemetry.Ledger
	for limit := time.After(stack.Patience); ; {
		l = telemetry.Ledger{}
		if err := c.Get(t.Context(), "/v1/nodes/"+string(id)+"/ledger", &l); err != nil {
			t.Fatal(err)
		}
		if l.ReportedAt.After(after) && l.Totals.InFlight == 0 {
			return l
		}
		select {
		case <-limit:
			t.Fatalf("node %s has not reported an empty buffer in %s: %+v", id, stack.Patience, l)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
