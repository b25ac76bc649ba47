package ingest_test

import (
	"bytes"
	"testing"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// A node says how it is doing, of its own organisation only, and cannot make
// the aggregator write more often than it asked for.
func TestReportsAreKept(t *testing.T) {
	b := start(t, nil, "org_a")
	id := b.enrol(t, "org_a")
	s := b.open(t, id)
	for _, budget := range []int64{7, 8} {
		report, err := wire.EncodeReport(&telemetry.NodeReport{BufferBudget: budget, Sequences: []telemetry.Sequence{{Org: "org_foreign", Epoch: 1, Assigned: 5}}})
		if err != nil {
			t.Fatal(err)
		}
		s.report(report)
	}
	s.send(logs("org_a", 1, 1, "after it"))
	s.acked("org_a", 1, 1)
	r, ok := b.store.Report(id.id)
	if !ok || r.BufferBudget != 7 || len(r.Sequences) != 1 || r.Sequences[0].Org != "org_a" {
		t.Fatalf("%+v", r)
	}
}

// What a node says about itself decides nothing, whatever it is.
func TestRecordsGoOnBehindAReportThatCannotBeRead(t *testing.T) {
	b := start(t, nil, "org_a")
	for _, report := range [][]byte{[]byte("\xff\xff"), bytes.Repeat([]byte{0x12, 0}, 1<<20), {0x12, 0}} {
		id := b.enrol(t, "org_a")
		s := b.open(t, id)
		s.report(report)
		s.send(logs("org_a", 1, 1, "after it"))
		s.acked("org_a", 1, 1)
		if r, ok := b.store.Report(id.id); ok {
			t.Errorf("%.10q was taken for %+v", report, r)
		}
	}
	if n := b.metric(t, "refused_total", "report"); n != 3 {
		t.Errorf("%v were counted", n)
	}
}
