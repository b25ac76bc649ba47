package agentd

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/shared/telemetry"
)

// maxCounts is how many counts a report may have.
const maxCounts = 128

// counted are the metrics whose counts a report gives, by the label that says
// why, and what they are called there: dropped.no_organisation.
var counted = map[string]struct{ label, prefix string }{
	"agentd_intake_dropped_total":               {"reason", "dropped."},
	"agentd_intake_marked_total":                {"what", ""},
	"agentd_redacted_values_total":              {"rule", "redacted."},
	"agentd_sandbox_otlp_refused_records_total": {"reason", "refused."},
	"agentd_sandbox_lost_records_total":         {"", "refused"},
	"agentd_docker_gaps_total":                  {"reason", "gaps."},
	"agentd_docker_dropped_events_total":        {"", "dropped.events"},
}

// report says how this node is doing: what the aggregator shows of it.
func (a *agent) report() telemetry.NodeReport {
	stats := a.spool.Stats()
	r := telemetry.NodeReport{
		At: time.Now().UTC(), StartedAt: a.startedAt, BufferBytes: stats.Disk, BufferBudget: stats.Budget, Counts: a.counts(&stats),
		Sequences: sequences(a.spool.Ledger()),
	}
	r.Pressure = a.pressure()
	if a.canary != nil {
		r.CanaryLag = a.canary.Lag()
	}
	for _, lane := range stats.Lane {
		if lane.Frames > 0 && !lane.Oldest.IsZero() && (r.Oldest.IsZero() || lane.Oldest.Before(r.Oldest)) {
			r.Oldest = lane.Oldest.UTC()
		}
	}
	return r
}

// mostOfBuffer is how much a full buffer counts as pressure: enough that lines
// wait to be sent in larger frames, and not so much that any are sampled. What a
// full buffer gives up is the buffer's to decide, and most sources are read
// again later.
const mostOfBuffer = 0.85

// pressure says how hard the node is pressed, 0 to 1: by its host, and by the
// fill of its buffer.
func (a *agent) pressure() float64 {
	if a.guest == nil {
		return 0
	}
	used, ceiling := a.spool.Fill()
	return max(a.guest.Pressure(), mostOfBuffer*min(float64(used)/float64(max(ceiling, 1)), 1))
}

// sequences are the spool's, those with most in flight first: a report has
// room for some thousand.
func sequences(ledger []spool.Sequence) []telemetry.Sequence {
	slices.SortFunc(ledger, func(x, y spool.Sequence) int {
		return cmp.Or(cmp.Compare(y.InFlight, x.InFlight), cmp.Compare(x.Org, y.Org), cmp.Compare(x.Epoch, y.Epoch), cmp.Compare(x.Lane, y.Lane))
	})
	list := make([]telemetry.Sequence, len(ledger))
	for i, s := range ledger {
		list[i] = telemetry.Sequence{
			Org: telemetry.OrgID(s.Org), Epoch: s.Epoch, Lane: telemetry.Lane(s.Lane), Assigned: s.Assigned, Acknowledged: s.Acked, Lost: s.Lost,
		}
	}
	return list
}

// counts are the records that were dropped, cut or changed since the start, by
// reason; what did not happen is left out.
func (a *agent) counts(stats *spool.Stats) map[string]uint64 {
	counts := map[string]uint64{}
	for lane := range stats.Evicted {
		for class, loss := range stats.Evicted[lane] {
			if loss.Records > 0 {
				counts["evicted."+telemetry.Lane(lane).String()+"."+telemetry.Class(class).String()] = loss.Records
			}
		}
	}
	families, err := a.registry.Gather()
	if err != nil {
		a.Log.Debug("some metrics could not be read", "error", err)
	}
	for _, f := range families {
		of, wanted := counted[f.GetName()]
		if !wanted {
			continue
		}
		for _, m := range f.GetMetric() {
			name := of.prefix
			for _, l := range m.GetLabel() {
				if l.GetName() == of.label {
					name = of.prefix + l.GetValue()
				}
			}
			if n := m.GetCounter().GetValue(); n > 0 && len(counts) < maxCounts && telemetry.CheckID(name) == nil {
				counts[name] += uint64(n)
			}
		}
	}
	return counts
}

// ledgerMetrics shows the sums of the ledger at each scrape.
type ledgerMetrics struct {
	ledger  func() []spool.Sequence
	records *prometheus.Desc
}

func newLedgerMetrics(ledger func() []spool.Sequence) *ledgerMetrics {
	return &ledgerMetrics{ledger: ledger, records: prometheus.NewDesc("agentd_ledger_records",
		"Records of the sequences that this node knows: assigned = acknowledged + in_flight; lost are those in flight for which a tombstone goes.", []string{"lane", "state"}, nil)}
}

func (m *ledgerMetrics) Describe(out chan<- *prometheus.Desc) { out <- m.records }

func (m *ledgerMetrics) Collect(out chan<- prometheus.Metric) {
	for lane, t := range ledgerTotals(m.ledger()) {
		name := telemetry.Lane(lane).String()
		for state, n := range map[string]uint64{"assigned": t.Assigned, "acknowledged": t.Acked, "in_flight": t.InFlight, "lost": t.Lost} {
			out <- prometheus.MustNewConstMetric(m.records, prometheus.GaugeValue, float64(n), name, state)
		}
	}
}

// ledgerTotals sums sequences up by lane.
func ledgerTotals(list []spool.Sequence) (totals [telemetry.NumLanes]spool.Sequence) {
	for _, s := range list {
		t := &totals[s.Lane]
		t.Assigned += s.Assigned
		t.Acked += s.Acked
		t.InFlight += s.InFlight
		t.Lost += s.Lost
	}
	return totals
}

// ledgerText is the ledger for people.
func ledgerText(line func(name, format string, args ...any), totals [telemetry.NumLanes]spool.Sequence) {
	for lane, t := range totals {
		if t.Assigned == 0 {
			continue
		}
		lost := ""
		if t.Lost > 0 {
			lost = fmt.Sprintf(", of which %d are lost and told as gaps", t.Lost)
		}
		line("ledger", "%s: %d records = %d acknowledged + %d in flight%s", telemetry.Lane(lane), t.Assigned, t.Acked, t.InFlight, lost)
	}
}
