package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/telemetry"
)

// reports are what nodes said of themselves since the last flush, the latest
// of each. One statement stores them all, whatever the number of nodes.
type reports struct {
	mu     sync.Mutex
	latest map[telemetry.NodeID]nodeReport
}

type nodeReport struct {
	at     time.Time
	report telemetry.NodeReport
}

// Reported keeps a node's report until Run stores it. It does not block.
func (s *Store) Reported(id telemetry.NodeID, at time.Time, r *telemetry.NodeReport) {
	s.reports.mu.Lock()
	defer s.reports.mu.Unlock()
	if s.reports.latest == nil {
		s.reports.latest = map[telemetry.NodeID]nodeReport{}
	}
	s.reports.latest[id] = nodeReport{at: at, report: *r}
}

func (s *Store) flushReports(ctx context.Context) error {
	s.reports.mu.Lock()
	latest := s.reports.latest
	s.reports.latest = nil
	s.reports.mu.Unlock()
	if len(latest) == 0 {
		return nil
	}
	var nodes, bodies []string
	var ats []time.Time
	for id, r := range latest {
		body, err := json.Marshal(&r.report)
		if err != nil {
			return fmt.Errorf("report of node %s: %w", id, err)
		}
		nodes, bodies, ats = append(nodes, string(id)), append(bodies, cleanText(string(body))), append(ats, clampTime(r.at))
	}
	_, err := s.maint.Exec(ctx, "select nodes_reported($1, $2, $3)", nodes, ats, bodies)
	return err
}

// maxLedgerEntries bounds an answer: a node makes an epoch at each start.
const maxLedgerEntries = 1000

// Ledger returns both sides of a node's sequences of one organisation that the
// node still reports or that are out of balance, the latter first, then those
// with most in flight; all others are in the totals. Failure not_found for nodes that are
// another organisation's.
func (s *Store) Ledger(ctx context.Context, scope telemetry.Scope, id telemetry.NodeID) (telemetry.Ledger, error) {
	what := "read the ledger of node " + string(id)
	l := telemetry.Ledger{Node: id}
	own, err := s.readReport(ctx, what, scope, &l)
	if err != nil {
		return l, err
	}
	reported := map[markKey]telemetry.Sequence{}
	if l.Report != nil {
		for _, q := range l.Report.Sequences {
			if q.Org == scope.Org {
				reported[markKey{org: q.Org, node: id, epoch: q.Epoch, lane: q.Lane}] = q
			}
		}
		if !own {
			l.Report = nil // it tells of other organisations
		}
	}
	err = s.inScope(ctx, what, scope, func(ctx context.Context, conn *pgx.Conn) error {
		if err := readRest(ctx, conn, scope.Org, &l, reported); err != nil {
			return err
		}
		return readReported(ctx, conn, scope.Org, &l, reported)
	})
	if err != nil {
		return l, err
	}
	for k, q := range reported { // nothing of it has arrived yet, or under the node's earlier name
		q.Acknowledged = 0
		l.Entries = append(l.Entries, ledgerEntry(k, q, 0, 0, 0, 0, 0))
	}
	sumUp(&l)
	return l, nil
}

// A sequence that the node no longer reports is over, and what is counted of it
// adds up, or it is looked at by itself.
const (
	reportedMarks = `with reported as (select * from unnest($3::bigint[], $4::smallint[]) r (epoch, lane))
select epoch, lane, seq, base + seq - counted, visible, quarantined, lost from ingest_mark m
where org = $1 and node = $2 and ((epoch, lane) in (select epoch, lane from reported) or base + visible + quarantined + lost <> counted)
order by seq desc limit $5`

	restOfMarks = `with reported as (select * from unnest($3::bigint[], $4::smallint[]) r (epoch, lane))
select lane, sum(seq)::bigint, sum(base + seq - counted)::bigint, sum(visible)::bigint, sum(quarantined)::bigint, sum(lost)::bigint
from ingest_mark
where org = $1 and node = $2 and (epoch, lane) not in (select epoch, lane from reported) and base + visible + quarantined + lost = counted
group by lane`
)

// readRest adds up the sequences that are over, by lane: a node makes two at
// each start, for ever.
func readRest(ctx context.Context, conn *pgx.Conn, org telemetry.OrgID, l *telemetry.Ledger, reported map[markKey]telemetry.Sequence) error {
	epochs, lanes := keysOf(reported)
	rows, err := conn.Query(ctx, restOfMarks, string(org), string(l.Node), epochs, lanes)
	if err != nil {
		return err
	}
	var seq, base, visible, quarantined, lost int64
	var lane int16
	_, err = pgx.ForEachRow(rows, []any{&lane, &seq, &base, &visible, &quarantined, &lost}, func() error {
		k := markKey{lane: telemetry.Lane(lane)}                                                         //nolint:gosec // written from one
		e := ledgerEntry(k, telemetry.Sequence{}, uint64(seq), uint64(base), visible, quarantined, lost) //nolint:gosec // written from ones
		e.Epoch = ""
		l.Lanes = append(l.Lanes, e)
		return nil
	})
	return err
}

// readReported adds the entries that both sides speak of, and takes them out of
// reported.
func readReported(ctx context.Context, conn *pgx.Conn, org telemetry.OrgID, l *telemetry.Ledger, reported map[markKey]telemetry.Sequence) error {
	epochs, lanes := keysOf(reported)
	rows, err := conn.Query(ctx, reportedMarks, string(org), string(l.Node), epochs, lanes, maxLedgerEntries+len(epochs))
	if err != nil {
		return err
	}
	var epoch, seq, base, visible, quarantined, lost int64
	var lane int16
	_, err = pgx.ForEachRow(rows, []any{&epoch, &lane, &seq, &base, &visible, &quarantined, &lost}, func() error {
		k := markKey{org: org, node: l.Node, epoch: uint64(epoch), lane: telemetry.Lane(lane)}                            //nolint:gosec // written from ones
		l.Entries = append(l.Entries, ledgerEntry(k, reported[k], uint64(seq), uint64(base), visible, quarantined, lost)) //nolint:gosec // written from ones
		delete(reported, k)
		return nil
	})
	return err
}

func keysOf(reported map[markKey]telemetry.Sequence) (epochs []int64, lanes []int16) {
	epochs, lanes = []int64{}, []int16{} // null would be in no list and out of none
	for k := range reported {
		epochs, lanes = append(epochs, int64(k.epoch)), append(lanes, int16(k.lane)) //nolint:gosec // 64 bits are 64 bits
	}
	return epochs, lanes
}

// readReport reads the node's last report, which is l's, and whether the node
// is the organisation's own.
func (s *Store) readReport(ctx context.Context, what string, scope telemetry.Scope, l *telemetry.Ledger) (own bool, err error) {
	var at *time.Time
	var body *string
	found, err := one(ctx, s.api, what, []any{&own, &at, &body}, "select own, reported_at, report from node_report_for($1, $2)", string(scope.Org), string(l.Node))
	switch {
	case err != nil:
		return false, err
	case !found:
		return false, telemetry.Failf(telemetry.NotFound, "There is no node %s.", l.Node)
	case body == nil:
		return own, nil
	}
	l.ReportedAt, l.Report = timeOrZero(at), &telemetry.NodeReport{}
	if err := json.Unmarshal([]byte(*body), l.Report); err != nil {
		return false, &telemetry.Failure{Code: telemetry.Internal, Message: "The report of this node cannot be read.", Cause: err}
	}
	return own, nil
}

// ledgerEntry holds what the node says against what was counted here. What a
// node has not reported yet is what has arrived of it. The report is older than
// the counts: what it takes for acknowledged is among them, or lost.
func ledgerEntry(k markKey, node telemetry.Sequence, seq, base uint64, visible, quarantined, lost int64) telemetry.LedgerEntry {
	e := telemetry.LedgerEntry{
		Epoch: fmt.Sprintf("%016x", k.epoch), Lane: k.lane.String(), Assigned: max(node.Assigned, seq), Base: base,
		Visible: uint64(max(visible, 0)), Quarantined: uint64(max(quarantined, 0)), Lost: uint64(max(lost, 0)),
	}
	e.InFlight = e.Assigned - seq
	e.Balanced = e.Assigned == e.Base+e.Visible+e.Quarantined+e.Lost+e.InFlight && node.Acknowledged <= seq
	return e
}

// sumUp adds the entries to the totals of their lanes, and leaves those of the
// most records.
func sumUp(l *telemetry.Ledger) {
	l.Balanced = true
	for i := range l.Entries {
		e := &l.Entries[i]
		add(laneOf(l, e.Lane), e)
	}
	for i := range l.Lanes {
		add(&l.Totals, &l.Lanes[i])
		l.Balanced = l.Balanced && l.Lanes[i].Balanced
	}
	slices.SortFunc(l.Lanes, func(a, b telemetry.LedgerEntry) int { return cmp.Compare(a.Lane, b.Lane) })
	l.Totals.Balanced = l.Balanced
	slices.SortFunc(l.Entries, func(a, b telemetry.LedgerEntry) int {
		balanced := func(e telemetry.LedgerEntry) int {
			if e.Balanced {
				return 1
			}
			return 0
		}
		return cmp.Or(balanced(a)-balanced(b), cmp.Compare(b.InFlight, a.InFlight), cmp.Compare(b.Assigned, a.Assigned), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Lane, b.Lane))
	})
	l.Entries = l.Entries[:min(len(l.Entries), maxLedgerEntries)]
}

// laneOf returns the totals of a lane.
func laneOf(l *telemetry.Ledger, lane string) *telemetry.LedgerEntry {
	for i := range l.Lanes {
		if l.Lanes[i].Lane == lane {
			return &l.Lanes[i]
		}
	}
	l.Lanes = append(l.Lanes, telemetry.LedgerEntry{Lane: lane, Balanced: true})
	return &l.Lanes[len(l.Lanes)-1]
}

func add(sum, e *telemetry.LedgerEntry) {
	sum.Assigned += e.Assigned
	sum.Base += e.Base
	sum.Visible += e.Visible
	sum.Quarantined += e.Quarantined
	sum.Lost += e.Lost
	sum.InFlight += e.InFlight
	sum.Balanced = sum.Balanced && e.Balanced
}
