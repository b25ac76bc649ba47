package test

import (
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/proc"
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
		for _, e := range l.Lanes {
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

// A canary flies from a node to the database, and everybody can see how long
// that took.
func TestTheCanaryIsSeenAtBothEnds(t *testing.T) {
	dir := directory(t)
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "canary"))(t)
	g := agent(t, dir, "node", tenant.Org, []string{"AGENTD_DOCKER_ENABLED=false", "AGENTD_CANARY_INTERVAL=1s"}, a)
	if err := proc.Poll(t.Context(), stack.Patience, g.Done(), func() error { _, err := g.Status(t.Context()); return err }); err != nil {
		t.Fatal(err)
	}
	c := a.Client(tenant)
	var nodes struct {
		Data []telemetry.Node `json:"data"`
	}
	if err := c.Get(t.Context(), "/v1/nodes", &nodes); err != nil || len(nodes.Data) != 1 {
		t.Fatal(nodes, err)
	}
	awaitSome(t, c, "agentId", "agt_agentd."+string(nodes.Data[0].ID))
	l := awaitReport(t, c, nodes.Data[0].ID, time.Now())
	if l.Report == nil || l.Report.CanaryLag <= 0 {
		t.Errorf("the report tells of no canary: %+v", l.Report)
	}
	if s := must(g.Status(t.Context()))(t); !strings.Contains(s, `"canaryLagNanos"`) {
		t.Errorf("agentd status tells of no canary: %s", s)
	}
}
