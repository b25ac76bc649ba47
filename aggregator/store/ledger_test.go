package store_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// enrolled makes a node of an organisation, or ("") of the platform.
func enrolled(t *testing.T, db *storetest.Database, s *store.Store, org telemetry.OrgID) telemetry.NodeID {
	t.Helper()
	admin := db.Admin(t)
	if org != "" {
		sql(t, db, "insert into theazo.organisation values ('"+string(org)+"', 'Acme', 'full_platform', 'managed', now()) on conflict do nothing")
	}
	token, err := admin.CreateJoinToken(t.Context(), org, ids.HashOf("authority"), time.Minute, 1, "")
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Join(t.Context(), ids.HashOf(token), anywhere, telemetry.Node{Name: "host"})
	if err != nil {
		t.Fatal(err)
	}
	return n.ID
}

// Whatever becomes of a record, the ledger says so, and the sum is right.
func TestTheLedgerAccountsForEveryRecord(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	node := enrolled(t, db, s, "org_a")
	sp := newSpool(scope, node, 0xfedcba9876543210)
	first := sp.numbered(t, "agt_a", 0, 10, time.Now())
	lost := sp.tombstone(telemetry.LaneLogs, 7)
	bad := sp.frame(telemetry.LaneLogs, 5)
	bad.Body, bad.Quarantine = []byte("?"), "no segment"
	events := sp.records([]telemetry.Event{{Type: telemetry.SandboxStarted, Timestamp: time.Now(), Origin: telemetry.Origin{Agent: "agt_a"}}}, nil)
	newer := sp.frame(telemetry.LaneEvents, 3)
	newer.Body, newer.Unknown = []byte("of a newer release"), 2
	newer.Gaps = []telemetry.Gap{{Reason: telemetry.GapRotated, Count: telemetry.GapUnknownCount}}
	mustCommit(t, s, first, lost, bad, events, newer, sp.tombstone(telemetry.LaneEvents, 2))
	mustCommit(t, s, sp.numbered(t, "agt_a", 10, 4, time.Now()))
	if outcomes, _, err := s.Commit(t.Context(), []*frame.Received{first}); err != nil || outcomes[0].Verdict != frame.Duplicate {
		t.Fatal(outcomes, err)
	}
	s.Reported(node, time.Now(), &telemetry.NodeReport{BufferBytes: 77, Sequences: []telemetry.Sequence{
		{Org: "org_a", Epoch: 0xfedcba9876543210, Lane: telemetry.LaneLogs, Assigned: 30, Acknowledged: 26},
		{Org: "org_a", Epoch: 0xfedcba9876543210, Lane: telemetry.LaneEvents, Assigned: 6, Acknowledged: 6},
		{Org: "org_a", Epoch: 5, Lane: telemetry.LaneLogs, Assigned: 2},
	}})
	if err := s.FlushReports(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := s.Ledger(t.Context(), scope, node)
	if err != nil {
		t.Fatal(err)
	}
	want := []telemetry.LedgerEntry{
		{Epoch: "fedcba9876543210", Lane: "logs", Assigned: 30, Visible: 14, Quarantined: 5, Lost: 7, InFlight: 4, Balanced: true},
		{Epoch: "0000000000000005", Lane: "logs", Assigned: 2, InFlight: 2, Balanced: true},
		{Epoch: "fedcba9876543210", Lane: "events", Assigned: 6, Visible: 2, Quarantined: 2, Lost: 2, Balanced: true},
	}
	if d := cmp.Diff(want, l.Entries); d != "" {
		t.Error(d)
	}
	if !l.Balanced || l.Totals.Assigned != 38 || l.Report == nil || l.Report.BufferBytes != 77 || l.ReportedAt.IsZero() {
		t.Errorf("%+v", l)
	}
	sql(t, db, "update theazo.ingest_mark set visible = visible - 1 where lane = 0")
	if l, err = s.Ledger(t.Context(), scope, node); err != nil || l.Balanced || l.Entries[0].Balanced {
		t.Errorf("a record is missing and the ledger does not say so: %+v %v", l, err)
	}
}

// A node makes two sequences at each start: those that are over are in the
// totals, unless they do not add up.
func TestALedgerSumsUpWhatIsOver(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	node := enrolled(t, db, s, "org_a")
	for epoch := range uint64(20) {
		mustCommit(t, s, newSpool(scope, node, epoch+1).numbered(t, "agt_a", 0, 3, time.Now()))
	}
	s.Reported(node, time.Now(), &telemetry.NodeReport{Sequences: []telemetry.Sequence{{Org: "org_a", Epoch: 20, Lane: telemetry.LaneLogs, Assigned: 5, Acknowledged: 3}}})
	if err := s.FlushReports(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := s.Ledger(t.Context(), scope, node)
	want := telemetry.LedgerEntry{Assigned: 62, Visible: 60, InFlight: 2, Balanced: true}
	if err != nil || len(l.Entries) != 1 || !l.Balanced || l.Totals != want {
		t.Fatalf("%+v %v", l, err)
	}
	sql(t, db, "update theazo.ingest_mark set visible = visible - 1 where epoch = 7")
	if l, err = s.Ledger(t.Context(), scope, node); err != nil || l.Balanced || len(l.Entries) != 2 || l.Entries[0].Epoch != "0000000000000007" {
		t.Fatalf("an old sequence does not add up and the ledger does not say so: %+v %v", l, err)
	}
}

func TestALedgerShowsAnOrganisationItsOwnPartOnly(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	platform, foreign := enrolled(t, db, s, ""), enrolled(t, db, s, "org_b")
	for _, org := range []telemetry.OrgID{"org_a", "org_b"} {
		mustCommit(t, s, newSpool(telemetry.Scope{Org: org}, platform, 1).numbered(t, "agt_x", 0, 3, time.Now()))
	}
	s.Reported(platform, time.Now(), &telemetry.NodeReport{Sequences: []telemetry.Sequence{{Org: "org_a", Epoch: 1, Assigned: 3}, {Org: "org_b", Epoch: 1, Assigned: 900}}})
	if err := s.FlushReports(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := s.Ledger(t.Context(), telemetry.Scope{Org: "org_a"}, platform)
	if err != nil || len(l.Entries) != 1 || l.Totals.Assigned != 3 || l.Report != nil {
		t.Fatalf("%+v %v", l, err)
	}
	for _, id := range []telemetry.NodeID{foreign, "nod_none"} {
		if _, err := s.Ledger(t.Context(), telemetry.Scope{Org: "org_a"}, id); telemetry.CodeOf(err) != telemetry.NotFound {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// A host that enrols anew goes on with the spool that it had: what its old
// name had committed is the base of its new one.
func TestALedgerGoesOnAfterANewEnrolment(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	before, after := enrolled(t, db, s, "org_a"), enrolled(t, db, s, "org_a")
	sp := newSpool(scope, before, 9)
	mustCommit(t, s, sp.numbered(t, "agt_a", 0, 10, time.Now()))
	sp.node = after
	mustCommit(t, s, sp.numbered(t, "agt_a", 10, 5, time.Now()))
	l, err := s.Ledger(t.Context(), scope, after)
	if err != nil || !l.Balanced || l.Totals.Base != 10 || l.Totals.Visible != 5 {
		t.Fatalf("%+v %v", l, err)
	}
}

// An aggregator of the release before, which runs beside this one while it is
// replaced, advances marks and counts nothing.
func TestALedgerGoesOnBesideAnOlderAggregator(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	node := enrolled(t, db, s, "org_a")
	balanced := func(when string, base, visible uint64) {
		t.Helper()
		if l, err := s.Ledger(t.Context(), scope, node); err != nil || !l.Balanced || l.Totals.Base != base || l.Totals.Visible != visible {
			t.Errorf("%s: %+v %v", when, l, err)
		}
	}
	sp := newSpool(scope, node, 9)
	sql(t, db, "insert into theazo.ingest_mark (org, node, epoch, lane, seq) values ('org_a', '"+string(node)+"', 9, 0, 10)")
	sp.next[telemetry.LaneLogs] = 11
	balanced("made by the older one", 10, 0)
	mustCommit(t, s, sp.numbered(t, "agt_a", 10, 5, time.Now()))
	balanced("continued by this one", 10, 5)
	sql(t, db, "update theazo.ingest_mark set seq = 18")
	sp.next[telemetry.LaneLogs] = 19
	balanced("continued by the older one", 13, 5)
	mustCommit(t, s, sp.numbered(t, "agt_a", 18, 2, time.Now()))
	balanced("and again by this one", 13, 7)
}

// After a restore of the database a node may believe that records are safe
// which are not there: it does not send them again by itself.
func TestALedgerMissesWhatANodeTakesForAcknowledged(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	node := enrolled(t, db, s, "org_a")
	mustCommit(t, s, newSpool(scope, node, 9).numbered(t, "agt_a", 0, 10, time.Now()))
	for acknowledged, balanced := range map[uint64]bool{10: true, 12: false} {
		s.Reported(node, time.Now(), &telemetry.NodeReport{Sequences: []telemetry.Sequence{{Org: "org_a", Epoch: 9, Lane: telemetry.LaneLogs, Assigned: 15, Acknowledged: acknowledged}}})
		if err := s.FlushReports(t.Context()); err != nil {
			t.Fatal(err)
		}
		if l, err := s.Ledger(t.Context(), scope, node); err != nil || l.Balanced != balanced || l.Totals.Assigned != 15 {
			t.Errorf("%d acknowledged: %+v %v", acknowledged, l, err)
		}
	}
}

// A frame may begin with records that are known: its last ones count.
func TestALedgerCountsTheEndOfAFrameThatOverlaps(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	node := enrolled(t, db, s, "org_a")
	sp := newSpool(scope, node, 9)
	gap := telemetry.Gap{Reason: telemetry.GapRotated, Count: telemetry.GapUnknownCount}
	mustCommit(t, s, sp.records(nil, []telemetry.Gap{gap, gap, gap, gap}))
	sp.next[telemetry.LaneEvents] = 1
	newer := sp.frame(telemetry.LaneEvents, 5)
	newer.Gaps, newer.Unknown = []telemetry.Gap{gap, gap}, 3
	mustCommit(t, s, newer)
	l, err := s.Ledger(t.Context(), scope, node)
	if err != nil || !l.Balanced || l.Totals.Visible != 4 || l.Totals.Quarantined != 1 {
		t.Fatalf("%+v %v", l, err)
	}
}

func TestRecordsOfEveryKindAreStored(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	at := time.Date(2026, 9, 1, 10, 0, 0, 0, time.UTC)
	origin := telemetry.Origin{Agent: "agt_a", Session: "ses_a", Provider: telemetry.Docker, Sandbox: "box"}
	// What PostgreSQL refuses in jsonb must not stop a commit.
	poison := json.RawMessage(`{"nul":"\u0000","half":"\ud800","big":1e400000}`)
	running := telemetry.Span{Trace: "trc_1", ID: "spn_1", Name: "chat", Origin: origin, Start: at, Attributes: poison, Resource: poison}
	ended := running
	ended.End, ended.Status = at.Add(time.Second), telemetry.SpanError
	ended.Events = []telemetry.SpanEvent{{Name: "exception", Timestamp: at, Attributes: poison}}
	f := sp.frame(telemetry.LaneEvents, 8)
	f.Records = telemetry.Records{
		Events: []telemetry.Event{
			{Type: telemetry.SandboxExited, Timestamp: at, Origin: origin, LastWords: &telemetry.LastWords{Signal: "SIGKILL", OOMKilled: true, Stdout: "the end", MemoryPeak: 5}},
			{Type: telemetry.AgentComplete, Timestamp: at, Origin: origin, Content: poison},
		},
		Spans:      []telemetry.Span{ended, running, {Trace: "trc_1", ID: "spn_2", Parent: "spn_1", Name: "tool", Origin: origin, Start: at}},
		ModelCalls: []telemetry.ModelCall{{Timestamp: at, Origin: origin, Model: "m-1", InputTokens: 100, OutputTokens: 5, Cost: &telemetry.Money{Nanos: 1_500_000, Currency: "usd"}, Metadata: poison}},
		Metrics: []telemetry.MetricPoint{
			{Name: telemetry.MetricCPUTime, Unit: "s", Kind: telemetry.Cumulative, Timestamp: at, Start: at, Origin: origin, Value: 1.25},
			{Name: "latency", Kind: telemetry.Distribution, Timestamp: at, Origin: origin, Value: 9, Histogram: &telemetry.Histogram{Count: 3, Bounds: []float64{1}, Counts: []uint64{1, 2}}, Attributes: map[string]string{"tool": "bash"}},
		},
	}
	mustCommit(t, s, f)
	late := sp.frame(telemetry.LaneEvents, 1)
	late.Spans = []telemetry.Span{running} // arrives after its end
	mustCommit(t, s, late)
	for query, want := range map[string]int{
		"select count(*)::int from span where end_at is not null and id = 'spn_1' and status = 2 and events like '%exception%'": 1,
		"select count(*)::int from span": 2,
		"select count(*)::int from event where last_words::jsonb ->> 'signal' = 'SIGKILL'":                      1,
		"select count(*)::int from event where content like '%1e400000%'":                                       1,
		"select count(*)::int from model_call where cost_nanos = 1500000 and tokens_in = 100 and model = 'm-1'": 1,
		"select count(*)::int from metric_point where value = 1.25 and unit = 's' or histogram like '%bounds%'": 2,
	} {
		if got := scalar[int](t, db, query); got != want {
			t.Errorf("%s: %d, not %d", query, got, want)
		}
	}
}

func TestEventsOfAnAgentPageInOrder(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	at := time.Date(2026, 9, 1, 10, 0, 0, 0, time.UTC)
	code := 137
	var events []telemetry.Event
	for i := range 5 {
		events = append(events, telemetry.Event{Type: telemetry.SandboxHealth, Timestamp: at.Add(time.Duration(i/2) * time.Second), Origin: telemetry.Origin{Agent: "agt_a"}, Reason: string(rune('a' + i))})
	}
	events[4].Type, events[4].ExitCode, events[4].LastWords = telemetry.SandboxExited, &code, &telemetry.LastWords{Signal: "SIGKILL", Stdout: "bye\n", Duration: time.Minute}
	events[4].Content = json.RawMessage(`{"output":"\u0000"}`)
	other := telemetry.Event{Type: telemetry.SandboxStarted, Timestamp: at, Origin: telemetry.Origin{Agent: "agt_b"}}
	mustCommit(t, s, newSpool(scope, "nod_1", 1).records(append(events, other), nil), newSpool(telemetry.Scope{Org: "org_b"}, "nod_1", 1).records(events, nil))
	var read []string
	l := telemetry.Listing{Limit: 2}
	for {
		page, more, err := s.Events(t.Context(), scope, "agt_a", l)
		if err != nil {
			t.Fatal(err)
		}
		for i := range page {
			read = append(read, page[i].Reason)
			if page[i].Type == telemetry.SandboxExited {
				want := telemetry.StoredEvent{Event: events[4], Place: page[i].Place}
				want.Node, want.Source = "nod_1", telemetry.SourceProvider
				if d := cmp.Diff(want, page[i], cmpopts.EquateEmpty()); d != "" {
					t.Error(d)
				}
			}
		}
		if !more {
			break
		}
		last := page[len(page)-1]
		l.After = &telemetry.ListingKey{CreatedAt: last.Timestamp, ID: last.Place}
	}
	if !slices.Equal(read, []string{"e", "d", "c", "b", "a"}) {
		t.Errorf("the pages hold %s", read)
	}
}

// Last words are large: a page ends early rather than take much memory.
func TestEventsWithLastWordsPageBySize(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	const all = 50
	words := &telemetry.LastWords{Stdout: strings.Repeat("x", telemetry.MaxTail), Stderr: strings.Repeat("y", telemetry.MaxTail)}
	var events []telemetry.Event
	for i := range all {
		events = append(events, telemetry.Event{Type: telemetry.SandboxExited, Timestamp: time.Unix(int64(i+1), 0), Origin: telemetry.Origin{Agent: "agt_a"}, LastWords: words})
	}
	mustCommit(t, s, newSpool(scope, "nod_1", 1).records(events, nil))
	read, pages := 0, 0
	for l := (telemetry.Listing{Limit: all}); ; pages++ {
		page, more, err := s.Events(t.Context(), scope, "agt_a", l)
		if err != nil || len(page) == 0 || len(page)*2*telemetry.MaxTail > 5<<20 {
			t.Fatalf("%d events on a page: %v", len(page), err)
		}
		if read += len(page); !more {
			break
		}
		last := page[len(page)-1]
		l.After = &telemetry.ListingKey{CreatedAt: last.Timestamp, ID: last.Place}
	}
	if read != all || pages == 0 {
		t.Errorf("%d events on %d pages and one", read, pages)
	}
}
