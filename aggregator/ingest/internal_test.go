package ingest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/theazo/observability/aggregator/ingest/ingesttest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

type slowCommitter struct {
	takes   time.Duration
	started []time.Time
	sizes   []int
}

func (c *slowCommitter) Commit(ctx context.Context, frames []*frame.Received) ([]frame.Outcome, []*frame.Published, error) {
	c.started = append(c.started, time.Now())
	c.sizes = append(c.sizes, len(frames))
	timer := time.NewTimer(c.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	return make([]frame.Outcome, len(frames)), nil, nil
}

func testPipeline(c Committer) *pipeline {
	config := &Config{
		Committer: c, Publish: func([]*frame.Published) {}, Log: hclog.NewNullLogger(), Workers: 1,
		CommitEvery: 25 * time.Millisecond, CommitTimeout: time.Second, OrgMemory: 1 << 20, Memory: 1 << 20,
	}
	return newPipeline(config, newMetrics(prometheus.NewRegistry()))
}

func (p *pipeline) put(t *testing.T, org telemetry.OrgID, settled func()) {
	t.Helper()
	if refused := p.reserve(org, 100); refused != "" {
		t.Fatal(refused)
	}
	r := &frame.Received{Frame: frame.Frame{Header: frame.Header{Org: org, Epoch: 1, First: 1, Count: 1}}}
	p.enqueue(&item{received: r, size: 100, settle: func(frame.Outcome, string) { settled() }})
}

func TestALoneFrameIsCommittedAtOnceAFloodInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowCommitter{takes: 5 * time.Millisecond}
		p := testPipeline(c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.run(ctx)
		}()
		start := time.Now()
		settled := 0
		p.put(t, "org_a", func() { settled++ })
		synctest.Wait()
		if len(c.started) != 1 || !c.started[0].Equal(start) {
			t.Fatalf("a lone frame was committed at %v, put at %v", c.started, start)
		}
		// One frame a millisecond, for 100 ms.
		for range 100 {
			timer := time.NewTimer(time.Millisecond)
			<-timer.C
			p.put(t, "org_a", func() { settled++ })
		}
		pause := time.NewTimer(time.Second)
		<-pause.C
		synctest.Wait()
		if settled != 101 || len(c.started) < 5 || len(c.started) > 6 {
			t.Fatalf("%d settled in commits of %v", settled, c.sizes)
		}
		for i := 1; i < len(c.started); i++ {
			if c.started[i].Sub(c.started[i-1]) < 25*time.Millisecond {
				t.Fatalf("commits at %v", c.started)
			}
		}
		cancel()
		<-done
	})
}

func TestAFrozenStoreIsLeftAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowCommitter{takes: time.Hour}
		p := testPipeline(c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.run(ctx)
		}()
		settled := 0
		p.put(t, "org_a", func() { settled++ })
		pause := time.NewTimer(3 * time.Second)
		<-pause.C
		synctest.Wait()
		if len(c.started) < 2 || settled != 0 {
			t.Fatalf("attempts at %v, %d settled", c.started, settled)
		}
		cancel()
		<-done
		if p.total != 0 {
			t.Fatalf("%d bytes are held after the end", p.total)
		}
	})
}

func TestMemoryIsReservedWithinBothBounds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := testPipeline(&slowCommitter{})
		p.config.OrgMemory, p.config.Memory = 1000, 2500
		held := map[telemetry.OrgID][]int64{}
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			org := rapid.SampledFrom([]telemetry.OrgID{"a", "b", "c", "d"}).Draw(rt, "org")
			if n := len(held[org]); n > 0 && rapid.Bool().Draw(rt, "release") {
				p.release(org, held[org][n-1])
				held[org] = held[org][:n-1]
				continue
			}
			size := rapid.Int64Range(1, 600).Draw(rt, "size")
			if p.reserve(org, size) == "" {
				held[org] = append(held[org], size)
			}
			total := int64(0)
			for o, list := range held {
				sum := int64(0)
				for _, n := range list {
					sum += n
				}
				if total += sum; sum > 1000 || sum != p.byOrg[o] {
					rt.Fatalf("%s holds %d, counted %d", o, sum, p.byOrg[o])
				}
			}
			if total > 2500 || total != p.total {
				rt.Fatalf("%d are held, counted %d", total, p.total)
			}
		}
	})
}

func TestLimiterLetsTheRateThroughAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter[string](2, []float64{100, 10}, []float64{100, 10})
		if l.take("a", 1000, 1) != 0 {
			t.Fatal("a full bucket refused")
		}
		wait := l.take("a", 1, 1)
		if wait < 8*time.Second || wait > 10*time.Second {
			t.Fatalf("in debt by 900 of 100 a second: wait %s", wait)
		}
		if l.take("b", 1, 1) != 0 || l.take("c", 1, 1) == 0 {
			t.Fatal("two keys are kept, one more is told to wait")
		}
		timer := time.NewTimer(20 * time.Second)
		<-timer.C
		if l.take("c", 1, 1) != 0 || l.take("a", 1, 1) != 0 {
			t.Fatal("full buckets were not forgotten")
		}
		taken := 0
		for range 1000 {
			timer.Reset(10 * time.Millisecond)
			<-timer.C
			if l.take("a", 1, 1) == 0 {
				taken++
			}
		}
		if taken < 95 || taken > 115 {
			t.Fatalf("%d a second were let through for 10 s, the rate is 10", taken/10)
		}
	})
}

func TestOneReplySaysWhatManyWould(t *testing.T) {
	r := newReplies()
	a, b := streamKey{org: "a", epoch: 1}, streamKey{org: "b", epoch: 1}
	for i := range uint64(100) {
		r.taken()
		r.settle(a, i+1, frame.Outcome{})
	}
	r.taken()
	r.settle(b, 9, frame.Outcome{Verdict: frame.OutOfOrder, Next: 4})
	r.refuse(streamKey{org: "c", epoch: 1}, 7, time.Second, "no")
	if got := r.take(); len(got) != 3 || got[0].GetAck().GetLast() != 100 || got[1].GetRewind().GetNext() != 4 || got[2].GetThrottle() == nil {
		t.Fatalf("%v", got)
	}
	if len(r.take()) != 0 || !r.idle() {
		t.Fatal("said twice")
	}
	// Behind a hole nothing is wanted, and nothing is said again.
	if r.wanted(b, 5) || len(r.take()) != 0 || !r.wanted(b, 4) || !r.wanted(b, 5) {
		t.Fatal("the hole at 4")
	}
}

// A frame that lay behind a hole may turn out to do so when the hole's own frame
// is on its way to the store: what follows that one must not be skipped.
func TestLateNewsOfAHoleThatIsBeingFilled(t *testing.T) {
	r := newReplies()
	k := streamKey{org: "a", epoch: 1}
	for range 5 {
		r.taken()
	}
	late := frame.Outcome{Verdict: frame.OutOfOrder, Next: 3}
	r.settle(k, 4, late)
	if got := r.take(); len(got) != 1 || got[0].GetRewind().GetNext() != 3 {
		t.Fatalf("%v", got)
	}
	if !r.wanted(k, 3) {
		t.Fatal("the frame at the hole is not wanted")
	}
	r.settle(k, 5, late)
	if got := r.take(); len(got) != 0 || !r.wanted(k, 4) {
		t.Fatalf("frame 4 is skipped, and the node told %v", got)
	}
	r.settle(k, 3, frame.Outcome{})
	r.settle(k, 6, frame.Outcome{Verdict: frame.OutOfOrder, Next: 5})
	if got := r.take(); len(got) != 2 || got[0].GetAck().GetLast() != 3 || got[1].GetRewind().GetNext() != 5 {
		t.Fatalf("%v", got)
	}
	// A hole whose frame came and was refused is open again.
	if !r.wanted(k, 5) {
		t.Fatal("the frame at the second hole is not wanted")
	}
	r.refuse(k, 5, time.Second, "no")
	if r.wanted(k, 6) || !r.wanted(k, 5) {
		t.Fatal("the refused frame's place")
	}
}

func TestCheckedFramesNeverPanic(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		body := rapid.OneOf(rapid.SliceOf(rapid.Byte()), rapid.Just(ingesttest.Segment("a", "b"))).Draw(rt, "body")
		body = slices.Clone(body)
		for range rapid.IntRange(0, 3).Draw(rt, "changes") {
			if len(body) > 0 {
				body[rapid.IntRange(0, len(body)-1).Draw(rt, "at")] = rapid.Byte().Draw(rt, "byte")
			}
		}
		r := &frame.Received{Frame: frame.Frame{Body: body, Header: frame.Header{
			Count: rapid.Uint32Range(1, 5).Draw(rt, "count"), Lane: telemetry.Lane(rapid.IntRange(0, 1).Draw(rt, "lane")), Tombstone: rapid.Bool().Draw(rt, "tombstone"),
		}}}
		check(r)
		if good := r.Segment != nil || r.Events != nil || r.Gaps != nil; good && r.Quarantine != "" {
			rt.Fatalf("decoded and in quarantine: %s", r.Quarantine)
		}
	})
}

func FuzzCheck(f *testing.F) {
	f.Add(ingesttest.Segment("a"), uint32(1), false, false)
	f.Add(ingesttest.Segment(strings.Repeat("long ", 1000), "b"), uint32(2), false, false)
	f.Add([]byte{0x0a, 0}, uint32(1), true, true)
	f.Fuzz(func(_ *testing.T, body []byte, count uint32, events, tombstone bool) {
		if len(body) > 1<<20 {
			return
		}
		r := &frame.Received{Frame: frame.Frame{Body: body, Header: frame.Header{Count: count, Tombstone: tombstone}}}
		if events {
			r.Lane = telemetry.LaneEvents
		}
		check(r)
	})
}

// A body that inflates to far more than it may is refused, not inflated.
func TestBombsGoToQuarantine(t *testing.T) {
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := e.EncodeAll(make([]byte, 64<<20), nil)
	good := ingesttest.Segment("x")
	for name, body := range map[string][]byte{
		"bare": bomb, "behind a head": append(slices.Clone(good[:len(good)-8]), bomb...),
	} {
		r := &frame.Received{Frame: frame.Frame{Body: body, Header: frame.Header{Count: 1}}}
		if check(r); r.Quarantine == "" {
			t.Errorf("%s: taken", name)
		}
	}
}

// A transaction's lines are all in memory at once: frames that inflate a
// thousandfold must not be taken by the thousand.
func TestWhatATransactionDecodesIsBounded(t *testing.T) {
	body := ingesttest.Segment(slices.Repeat([]string{strings.Repeat("a", telemetry.MaxMessage)}, 15)...)
	parsed, err := segment.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	if len(body) > 64<<10 {
		t.Fatalf("the bomb takes %d bytes", len(body))
	}
	if cost := decodingCost(&frame.Received{Segment: parsed}); cost < float64(parsed.RawBytes) {
		t.Errorf("decoding %d bytes of text costs %.0f", parsed.RawBytes, cost)
	}
	w := &worker{wake: make(chan struct{}, 1)}
	for range 100 {
		w.add(&item{received: &frame.Received{Frame: frame.Frame{Body: body}, Segment: parsed}, size: int64(len(body))})
	}
	for taken := 0; taken < 100; {
		decoded := 0
		batch, _ := w.take()
		for _, i := range batch {
			decoded += i.received.Segment.RawBytes
		}
		if len(batch) == 0 || decoded > 64<<20 {
			t.Fatalf("%d frames with %d bytes of text in one transaction", len(batch), decoded)
		}
		taken += len(batch)
	}
	if w.bytes != 0 {
		t.Errorf("%d bytes are still counted", w.bytes)
	}
}

type countedOrganisations struct{ asked atomic.Int64 }

func (c *countedOrganisations) KnownOrganisation(context.Context, telemetry.OrgID) (bool, error) {
	return c.asked.Add(1) == 1, nil // there at first, and gone later
}

func (*countedOrganisations) Quotas(context.Context) (map[telemetry.OrgID]telemetry.Quota, error) {
	return nil, nil //nolint:nilnil // none
}

func TestFramesOfKnownOrganisationsDoNotWaitForALookUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &countedOrganisations{}
		c := newOrganisationCache(source)
		known := func(want bool, asked int64) {
			t.Helper()
			if got, err := c.known(t.Context(), "org_a"); err != nil || got != want || source.asked.Load() != asked {
				t.Fatalf("%v %v after %d look-ups", got, err, source.asked.Load())
			}
		}
		known(true, 1)
		<-time.After(knownFor)
		known(true, 1) // an old answer, and the question is left for refresh
		known(true, 1)
		if len(c.again) != 1 {
			t.Fatalf("%d questions", len(c.again))
		}
		ctx, cancel := context.WithCancel(t.Context())
		go c.refresh(ctx)
		synctest.Wait()
		known(false, 2)
		cancel()
		synctest.Wait()
		<-time.After(knownFor)
		known(false, 3)
	})
}

// A line that comes alone is stored at once; a flood in large transactions.
func TestTransactionsOfAFloodAreFewer(t *testing.T) {
	w := &worker{pipeline: testPipeline(&slowCommitter{})}
	calm, many, flood := w.pause(1000, 1), w.pause(maxBatchFrames*2000, maxBatchFrames), w.pause(maxBatchBytes, 40)
	if calm != w.config.CommitEvery || many != calm || flood <= calm {
		t.Errorf("%s after a line, %s after lines of many, %s after a flood", calm, many, flood)
	}
}

// Frames share the memory that they are decoded in; what is kept of one must not
// change with the next.
func TestWhatIsKeptOfAFrameIsItsOwn(t *testing.T) {
	at := time.UnixMicro(1_700_000_000_000_000)
	made := func(i int) *frame.Received {
		var w segment.Writer
		agent := telemetry.AgentID(fmt.Sprintf("agt_%d", i))
		for line := range 1000 {
			w.Append(&telemetry.LogEntry{Timestamp: at.Add(time.Duration(i*1000+line) * time.Second), Origin: telemetry.Origin{Agent: agent}, Message: strings.Repeat("x", 200)})
		}
		return &frame.Received{Frame: frame.Frame{Header: frame.Header{Org: "org_a", Epoch: 1, First: 1, Count: 1000}, Body: w.Encode(nil)}}
	}
	var all []*frame.Received
	for i := range 20 {
		r := made(i)
		if check(r); r.Quarantine != "" {
			t.Fatal(r.Quarantine)
		}
		all = append(all, r)
	}
	for i, r := range all {
		first := at.UnixMicro() + int64(i)*1000*1e6
		want := frame.Times{First: first, Last: first + 999*1e6}
		if len(r.Times) != 1 || r.Times[0] != want || r.Segment.Origins[0].Agent != telemetry.AgentID(fmt.Sprintf("agt_%d", i)) {
			t.Errorf("frame %d: %+v of %+v", i, r.Times, r.Segment.Origins)
		}
	}
}

// Each run of `agentd exec` that ends within milliseconds is such a node.
func TestANodeThatLeftIsNoErrorOfOurs(t *testing.T) {
	var logged strings.Builder
	s := &Server{config: Config{Log: hclog.New(&hclog.LoggerOptions{Output: &logged})}}
	if err := s.statusOf(fmt.Errorf("note that it was seen: %w", context.Canceled)); status.Code(err) != codes.Canceled || logged.Len() > 0 {
		t.Errorf("%v, and in the log: %s", err, logged.String())
	}
}

func TestAPanicWhileReadingAFrameCostsThatFrameOnly(t *testing.T) {
	r := &frame.Received{Segment: &segment.Segment{}}
	var nothing []int
	if unknown := guarded(r, func() (int, error) { return nothing[7], nil }); unknown != 0 || r.Segment != nil || !strings.Contains(r.Quarantine, "index out of range") {
		t.Fatalf("%d %q", unknown, r.Quarantine)
	}
}

// What is accounted for a frame of records covers what it takes, however many
// small parts its records have.
func TestRecordsOfManyPartsCountAsTheMemoryTheyTake(t *testing.T) {
	at := time.Unix(1, 0).UTC()
	span := telemetry.Span{Trace: "t", ID: "s", Start: at, Origin: telemetry.Origin{Agent: "a"}}
	span.Events = slices.Repeat([]telemetry.SpanEvent{{Name: "e"}}, telemetry.MaxSpanEvents)
	point := telemetry.MetricPoint{Name: "m", Timestamp: at, Origin: telemetry.Origin{Agent: "a"}, Histogram: &telemetry.Histogram{}}
	point.Histogram.Exponential = &telemetry.Exponential{Positive: make([]uint64, telemetry.MaxMetricBuckets), Negative: make([]uint64, telemetry.MaxMetricBuckets)}
	for name, records := range map[string]telemetry.Records{
		"events": {Spans: slices.Repeat([]telemetry.Span{span}, 500)}, "buckets": {Metrics: slices.Repeat([]telemetry.MetricPoint{point}, 500)},
	} {
		body, err := wire.EncodeRecords(&records)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := &frame.Received{Frame: frame.Frame{Body: body, Header: frame.Header{Lane: telemetry.LaneEvents, Count: 500}}}
		check(r)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if r.Quarantine != "" {
			t.Fatal(name, r.Quarantine)
		}
		if took := int64(after.HeapAlloc) - int64(before.HeapAlloc); took > decodedSize(r)+1<<20 {
			t.Errorf("%s: %d bytes of a body take %d in memory and count as %d", name, len(body), took, decodedSize(r))
		}
		runtime.KeepAlive(r)
	}
}
