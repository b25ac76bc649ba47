package live_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/aggregator/live/livetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var scope = telemetry.Scope{Org: "org_a", Env: telemetry.Live}

// newHub runs a hub until the test ends.
func newHub(t *testing.T, log live.Log, o live.Options) *live.Hub {
	t.Helper()
	o.Registerer = prometheus.NewRegistry()
	h, err := live.New(log, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

func subscribe(t *testing.T, h *live.Hub, f telemetry.LogFilter, after *stream.Cursor) stream.Reader {
	t.Helper()
	r, err := h.Subscribe(t.Context(), scope, f, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func lines(n int, agent telemetry.AgentID, text string) []telemetry.LogEntry {
	at := time.Now().UTC().Truncate(time.Microsecond)
	list := make([]telemetry.LogEntry, n)
	for i := range list {
		list[i] = telemetry.LogEntry{Timestamp: at, Level: telemetry.Level(i % 4), Origin: telemetry.Origin{Agent: agent}, Message: fmt.Sprintf("%s %d", text, i)}
	}
	return list
}

// seen is what a reader got.
type seen struct {
	positions []int64
	gaps      []telemetry.Gap
	missed    []stream.Missed
	through   stream.Cursor
}

// until takes from the reader until enough says so.
func (s *seen) until(t *testing.T, r stream.Reader, enough func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for !enough() {
		select {
		case <-r.Ready():
		case <-ctx.Done():
			t.Fatalf("waited too long: %d records, through %v, missed %+v", len(s.positions), s.through, s.missed)
		}
		if err := s.take(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *seen) take(ctx context.Context, r stream.Reader) error {
	b, err := r.Take(ctx)
	if err != nil {
		return err
	}
	if b.Missed != nil {
		s.missed = append(s.missed, *b.Missed)
	}
	for _, rec := range b.Records {
		s.positions = append(s.positions, rec.Position)
		if rec.Gap != nil {
			s.gaps = append(s.gaps, *rec.Gap)
		}
	}
	s.through = b.Through
	return nil
}

func TestALineGoesOutWithItsCursor(t *testing.T) {
	log := &livetest.Log{}
	log.Restore(3, 0)
	h := newHub(t, log, live.Options{})
	r := subscribe(t, h, telemetry.LogFilter{}, nil)
	p := log.Commit(scope, "nod_1", lines(2, "agt_a", "hello"), []telemetry.Gap{{Reason: telemetry.GapRotated, Count: 5}})
	h.Publish([]*frame.Published{p})
	<-r.Ready()
	b, err := r.Take(t.Context())
	if err != nil || len(b.Records) != 3 || b.Through.String() != "3-3" || r.Looked() != b.Through {
		t.Fatalf("%+v %v", b, err)
	}
	for _, part := range []string{`"cursor":"3-2"`, `"message":"hello 1"`, `"nodeId":"nod_1"`, `"id":"log_`} {
		if !strings.Contains(string(b.Records[1].JSON), part) {
			t.Errorf("%s is not in %s", part, b.Records[1].JSON)
		}
	}
	if g := b.Records[2].Gap; g == nil || g.Cursor != "3-3" || g.Count != 5 {
		t.Errorf("gap %+v", g)
	}
	if log.Reads() != 0 {
		t.Errorf("the log was read %d times for what was published", log.Reads())
	}
}

func TestAReaderThatResumesMissesNothingAndRepeatsNothing(t *testing.T) {
	log := &livetest.Log{}
	h := newHub(t, log, live.Options{})
	for range 5 {
		log.Commit(scope, "nod_1", lines(1500, "agt_a", "old"), nil)
	}
	r := subscribe(t, h, telemetry.LogFilter{}, &stream.Cursor{Position: 700})
	var s seen
	for i := range 5 {
		h.Publish([]*frame.Published{log.Commit(scope, "nod_1", lines(10, "agt_a", "new"), nil)})
		s.until(t, r, func() bool { return len(s.positions) > 1500*i })
	}
	s.until(t, r, func() bool { return s.through.Position == 7550 })
	for i, p := range s.positions {
		if p != int64(701+i) {
			t.Fatalf("record %d has position %d", i, p)
		}
	}
	if len(s.positions) != 6850 || len(s.missed) != 0 {
		t.Fatalf("%d records, missed %+v", len(s.positions), s.missed)
	}
}

func TestWhatAnotherReplicaCommitsArrivesInOrder(t *testing.T) {
	log := &livetest.Log{}
	a := newHub(t, log, live.Options{})
	r := subscribe(t, a, telemetry.LogFilter{}, nil)
	log.Commit(scope, "nod_2", lines(3, "agt_b", "theirs"), nil) // no hint here
	a.Publish([]*frame.Published{log.Commit(scope, "nod_1", lines(2, "agt_a", "ours"), nil)})
	log.Commit(scope, "nod_2", lines(1, "agt_b", "theirs, found by the poll"), nil)
	var s seen
	s.until(t, r, func() bool { return s.through.Position == 6 })
	for i, p := range s.positions {
		if p != int64(i+1) {
			t.Fatalf("%v", s.positions)
		}
	}
}

// What others commit is looked for by one call, however many scopes are watched.
func TestOnePollServesAllWatchedScopes(t *testing.T) {
	log := &livetest.Log{}
	h := newHub(t, log, live.Options{Poll: 20 * time.Millisecond})
	const scopes = 50
	of := func(i int) telemetry.Scope {
		return telemetry.Scope{Org: telemetry.OrgID(fmt.Sprintf("org_%d", i)), Env: telemetry.Environment(i % 2)}
	}
	readers := make([]stream.Reader, scopes)
	for i := range readers {
		r, err := h.Subscribe(t.Context(), of(i), telemetry.LogFilter{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		readers[i] = r
	}
	_, before := log.Heads()
	const rounds = 3
	for round := range rounds {
		for i := range readers {
			log.Commit(of(i), "nod_2", lines(1, "agt_b", "theirs"), nil) // no hint here
		}
		for i, r := range readers {
			var s seen
			s.until(t, r, func() bool { return s.through.Position == int64(round+1) })
			if len(s.positions) != 1 {
				t.Fatalf("scope %d got %v", i, s.positions)
			}
		}
	}
	single, together := log.Heads()
	if single != scopes || together-before < 1 { // one each when it was opened
		t.Errorf("%d calls for one scope, %d for all", single, together-before)
	}
}

func TestASlowReaderIsToldWhatItMissedAndOthersAreNot(t *testing.T) {
	log := &livetest.Log{}
	h := newHub(t, log, live.Options{Queue: 64 << 10, Patience: -1})
	slow := subscribe(t, h, telemetry.LogFilter{Levels: []telemetry.Level{telemetry.Error}}, nil)
	quick := subscribe(t, h, telemetry.LogFilter{}, nil)
	var q, s seen
	const rounds, perRound = 100, 100
	for i := range rounds {
		h.Publish([]*frame.Published{log.Commit(scope, "nod_1", lines(perRound, "agt_a", strings.Repeat("x", 100)), nil)})
		q.until(t, quick, func() bool { return len(q.positions) == (i+1)*perRound })
	}
	if len(q.missed) != 0 {
		t.Fatalf("the quick reader missed %+v", q.missed)
	}
	s.until(t, slow, func() bool { return len(s.missed) == 1 })
	m := s.missed[0]
	if m.Reason != telemetry.GapSlowReader || m.To.Position != rounds*perRound || m.From.Position != s.positions[len(s.positions)-1] || m.Since.IsZero() || m.Until.Before(m.Since) {
		t.Fatalf("%+v after %d", m, s.positions[len(s.positions)-1])
	}
	if got := int64(len(s.positions)) + m.Count; got != rounds*perRound/4 {
		t.Errorf("%d lines came and %d were told as missed: %d, want %d", len(s.positions), m.Count, got, rounds*perRound/4)
	}
	h.Publish([]*frame.Published{log.Commit(scope, "nod_1", lines(4, "agt_a", "after"), nil)})
	s.until(t, slow, func() bool { return s.through.Position == rounds*perRound+4 })
	if s.positions[len(s.positions)-1] != rounds*perRound+4 || len(s.missed) != 1 {
		t.Errorf("it did not go on: %+v", s.missed)
	}
}

func TestABurstLargerThanTheQueueIsNotLost(t *testing.T) {
	log := &livetest.Log{}
	h := newHub(t, log, live.Options{Queue: 64 << 10, Patience: time.Hour})
	r := subscribe(t, h, telemetry.LogFilter{}, nil)
	var burst []*frame.Published
	for range 20 {
		burst = append(burst, log.Commit(scope, "nod_1", lines(2000, "agt_a", strings.Repeat("y", 50)), nil))
	}
	h.Publish(burst)
	var s seen
	s.until(t, r, func() bool { return s.through.Position == 40_000 })
	if len(s.positions) != 40_000 || len(s.missed) != 0 {
		t.Fatalf("%d lines, missed %+v", len(s.positions), s.missed)
	}
}

func TestAQuietFilteredReaderMovesItsCursorWithoutWaking(t *testing.T) {
	log := &livetest.Log{}
	h := newHub(t, log, live.Options{})
	quiet := subscribe(t, h, telemetry.LogFilter{Agents: []telemetry.AgentID{"agt_other"}}, nil)
	loud := subscribe(t, h, telemetry.LogFilter{}, nil)
	h.Publish([]*frame.Published{log.Commit(scope, "nod_1", lines(10, "agt_a", "x"), nil)})
	var s seen
	s.until(t, loud, func() bool { return len(s.positions) == 10 })
	if quiet.Looked().Position != 10 {
		t.Errorf("looked as far as %v", quiet.Looked())
	}
	select {
	case <-quiet.Ready():
		t.Error("it woke")
	default:
	}
}

func TestAnUnknownCursorIsToldAndGoesOnFromNow(t *testing.T) {
	log := &livetest.Log{}
	log.Restore(2, 0)
	h := newHub(t, log, live.Options{})
	log.Commit(scope, "nod_1", lines(10, "agt_a", "x"), nil)
	for _, c := range []stream.Cursor{{Epoch: 1, Position: 5}, {Epoch: 2, Position: 11}} {
		r := subscribe(t, h, telemetry.LogFilter{}, &c)
		var s seen
		s.until(t, r, func() bool { return len(s.missed) == 1 })
		if m := s.missed[0]; m.Reason != stream.Restored || m.From != c || m.To.String() != "2-10" || m.Count != telemetry.GapUnknownCount {
			t.Errorf("%v: %+v", c, m)
		}
	}
}

func TestExpiredRecordsAreTold(t *testing.T) {
	log := &livetest.Log{}
	h := newHub(t, log, live.Options{})
	for range 4 {
		log.Commit(scope, "nod_1", lines(10, "agt_a", "x"), nil)
	}
	log.Expire(scope, 20)
	r := subscribe(t, h, telemetry.LogFilter{}, &stream.Cursor{Position: 5})
	var s seen
	s.until(t, r, func() bool { return s.through.Position == 40 })
	if len(s.missed) != 1 || s.missed[0].Reason != stream.Expired || s.missed[0].To.Position != 20 || len(s.positions) != 20 {
		t.Fatalf("%+v, %d records", s.missed, len(s.positions))
	}
	log.Expire(scope, 40)
	gone := subscribe(t, h, telemetry.LogFilter{}, &stream.Cursor{Position: 5})
	var g seen
	g.until(t, gone, func() bool { return g.through.Position == 40 })
	if len(g.missed) != 1 || g.missed[0].Reason != stream.Expired || len(g.positions) != 0 {
		t.Fatalf("%+v, %d records", g.missed, len(g.positions))
	}
}

func TestARestoreEndsReadersSoThatTheyResume(t *testing.T) {
	log := &livetest.Log{}
	h := newHub(t, log, live.Options{Poll: 10 * time.Millisecond})
	log.Commit(scope, "nod_1", lines(10, "agt_a", "x"), nil)
	r := subscribe(t, h, telemetry.LogFilter{}, nil)
	log.Restore(1, 0)
	<-r.Ready()
	if _, err := r.Take(t.Context()); !errors.Is(err, stream.ErrClosed) {
		t.Fatalf("%v", err)
	}
	again := subscribe(t, h, telemetry.LogFilter{}, nil)
	if again.Start().String() != "1-0" {
		t.Errorf("a new reader starts at %v", again.Start())
	}
}

func TestReadersOutliveADatabaseThatIsAway(t *testing.T) {
	log := &livetest.Log{}
	h := newHub(t, log, live.Options{Poll: 5 * time.Millisecond})
	r := subscribe(t, h, telemetry.LogFilter{}, nil)
	log.Break(errors.New("away"))
	if _, err := h.Subscribe(t.Context(), telemetry.Scope{Org: "org_new"}, telemetry.LogFilter{}, nil); err == nil {
		t.Error("a new scope was opened without a database")
	}
	log.Commit(scope, "nod_2", lines(1, "agt_a", "theirs"), nil)
	h.Publish([]*frame.Published{log.Commit(scope, "nod_1", lines(1, "agt_a", "ours"), nil)})
	log.Break(nil)
	var s seen
	s.until(t, r, func() bool { return s.through.Position == 2 })
	if len(s.positions) != 2 {
		t.Fatal(s.positions)
	}
	other, err := h.Subscribe(t.Context(), telemetry.Scope{Org: "org_new"}, telemetry.LogFilter{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
}

func TestSubscribeAfterTheEnd(t *testing.T) {
	h, err := live.New(&livetest.Log{}, live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := h.Subscribe(t.Context(), scope, telemetry.LogFilter{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Run(ctx); err != nil {
		t.Fatal(err)
	}
	<-r.Ready()
	if _, err := r.Take(t.Context()); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("an open reader got %v", err)
	}
	r.Close()
	if _, err := h.Subscribe(t.Context(), scope, telemetry.LogFilter{}, nil); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("a new one got %v", err)
	}
}

// TestEveryReaderSeesEachMatchingRecordOnce runs two replicas on one log that
// commit at random, and readers with random filters that disconnect at random
// and resume at either replica.
func TestEveryReaderSeesEachMatchingRecordOnce(t *testing.T) {
	log := &livetest.Log{}
	hubs := []*live.Hub{
		newHub(t, log, live.Options{Queue: 8 << 10, Patience: time.Hour, Poll: 5 * time.Millisecond}),
		newHub(t, log, live.Options{Queue: 8 << 10, Patience: time.Hour, Poll: 5 * time.Millisecond}),
	}
	const total = 30_000
	filters := []telemetry.LogFilter{
		{},
		{Agents: []telemetry.AgentID{"agt_1"}},
		{Levels: []telemetry.Level{telemetry.Error}},
		{Search: "7"},
		{Agents: []telemetry.AgentID{"agt_2"}, Levels: []telemetry.Level{telemetry.Info}},
	}
	var wg sync.WaitGroup
	got := make([]seen, len(filters)*2)
	for i := range got {
		wg.Go(func() { follow(t, hubs, filters[i%len(filters)], total, &got[i], rand.New(rand.NewPCG(uint64(i), 1))) })
	}
	wg.Go(func() { commitAtRandom(log, hubs, total) })
	wg.Wait()
	entries, gaps := log.Entries(scope), log.Gaps(scope)
	for i := range got {
		f := filters[i%len(filters)]
		want := make(map[int64]bool)
		for j := range entries {
			if f.Match(&entries[j]) {
				want[entries[j].Position] = true
			}
		}
		for j := range gaps {
			if f.MatchGap(&gaps[j]) {
				want[gaps[j].Position] = true
			}
		}
		last := int64(0)
		for _, p := range got[i].positions {
			if p <= last || !want[p] {
				t.Fatalf("reader %d (%+v): position %d after %d, wanted %v", i, f, p, last, want[p])
			}
			last = p
		}
		if len(got[i].positions) != len(want) || len(got[i].missed) != 0 {
			t.Errorf("reader %d (%+v): %d records, want %d; missed %+v", i, f, len(got[i].positions), len(want), got[i].missed)
		}
	}
}

func commitAtRandom(log *livetest.Log, hubs []*live.Hub, total int) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := 0; n < total; {
		size := min(rnd.IntN(300), total-n)
		var gaps []telemetry.Gap
		if n+size < total && rnd.IntN(10) == 0 || size == 0 {
			gaps = []telemetry.Gap{{Reason: telemetry.GapRotated, Agent: telemetry.AgentID(fmt.Sprintf("agt_%d", rnd.IntN(3)))}}
		}
		agent := telemetry.AgentID(fmt.Sprintf("agt_%d", rnd.IntN(3)))
		p := log.Commit(scope, "nod_1", lines(size, agent, "line"), gaps)
		n += size + len(gaps)
		if rnd.IntN(8) > 0 { // sometimes the hint is lost
			hubs[rnd.IntN(len(hubs))].Publish([]*frame.Published{p})
		}
	}
}

func follow(t *testing.T, hubs []*live.Hub, f telemetry.LogFilter, total int64, s *seen, rnd *rand.Rand) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	for s.through.Position < total {
		r, err := hubs[rnd.IntN(len(hubs))].Subscribe(ctx, scope, f, &s.through)
		if err != nil {
			t.Error(err)
			return
		}
		poll := time.NewTicker(20 * time.Millisecond)
		for left := 1 + rnd.IntN(40); left > 0 && s.through.Position < total; left-- {
			select {
			case <-r.Ready():
				err = s.take(ctx, r)
			case <-poll.C:
				s.through = r.Looked() // what a heartbeat would carry
			case <-ctx.Done():
				err = ctx.Err()
			}
			if err != nil {
				break
			}
		}
		poll.Stop()
		r.Close()
		if err != nil {
			t.Errorf("at %v of %d: %v", s.through, total, err)
			return
		}
	}
}

func TestPublishNeverWaits(t *testing.T) {
	log := &livetest.Log{}
	h := newHub(t, log, live.Options{Patience: -1})
	r := subscribe(t, h, telemetry.LogFilter{}, nil) // and nobody takes
	message := strings.Repeat("z", 1<<20)
	var last *frame.Published
	for range 100 {
		last = log.Commit(scope, "nod_1", []telemetry.LogEntry{{Origin: telemetry.Origin{Agent: "agt_a"}, Message: message}}, nil)
		h.Publish([]*frame.Published{last})
	}
	var s seen
	s.until(t, r, func() bool { return s.through.Position == last.Position })
	n := int64(len(s.positions))
	for _, m := range s.missed {
		n += m.Count
	}
	if n != 100 {
		t.Errorf("%d lines came, %+v missed", len(s.positions), s.missed)
	}
}

func BenchmarkDeliver(b *testing.B) {
	log := &livetest.Log{}
	h, err := live.New(log, live.Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	r, err := h.Subscribe(ctx, scope, telemetry.LogFilter{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p := log.Commit(scope, "nod_1", lines(1500, "agt_a", "GET /v1/things/4711 200 in 12 ms"), nil)
		h.Publish([]*frame.Published{p})
		for r.Looked().Position < p.Next()-1 {
			<-r.Ready()
			if _, err := r.Take(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	r.Close()
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
