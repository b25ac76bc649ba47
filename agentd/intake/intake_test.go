package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// memory is a Queue that decodes what it is given.
type memory struct {
	mu        sync.Mutex
	appends   []appended
	positions map[string][]byte
	err       error         // what Append returns
	gate      chan struct{} // Append waits for it where there is one
	full      bool          // Room waits
}

type appended struct {
	at      time.Time
	headers []frame.Header
	lines   []telemetry.LogEntry
	scopes  []telemetry.Scope // of the lines
	telemetry.Records
	positions map[string][]byte
	bodyBytes int
}

func (q *memory) Room(ctx context.Context) error {
	q.mu.Lock()
	full := q.full
	q.mu.Unlock()
	if full {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (q *memory) Append(frames []frame.Frame, positions map[string][]byte) error {
	if q.gate != nil {
		<-q.gate
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	a := appended{at: time.Now(), positions: maps.Clone(positions)}
	for i := range frames {
		if err := a.add(&frames[i]); err != nil {
			return err
		}
	}
	if q.positions == nil {
		q.positions = map[string][]byte{}
	}
	for k, v := range positions {
		if v == nil {
			delete(q.positions, k)
			continue
		}
		q.positions[k] = bytes.Clone(v)
	}
	q.appends = append(q.appends, a)
	return nil
}

func (a *appended) add(f *frame.Frame) error {
	p, err := frameThroughWire(f)
	if err != nil {
		return err
	}
	a.headers = append(a.headers, f.Header)
	a.bodyBytes += len(f.Body)
	if f.Lane == telemetry.LaneEvents {
		r, _, err := wire.DecodeRecords(p.Body)
		if err != nil {
			return err
		}
		if r.Len() != int(f.Count) {
			return fmt.Errorf("%d records, the header says %d", r.Len(), f.Count)
		}
		addRecords(&a.Records, &r)
		return nil
	}
	s, err := segment.Parse(bytes.Clone(p.Body))
	if err != nil {
		return err
	}
	lines := s.Read()
	if err := lines.DecodeAll(); err != nil {
		return err
	}
	if s.Lines != int(f.Count) {
		return fmt.Errorf("%d lines, the header says %d", s.Lines, f.Count)
	}
	for i := range s.Lines {
		var e telemetry.LogEntry
		lines.Entry(i, &e)
		if err := wire.CheckOrigin(&e.Origin); err != nil {
			return err
		}
		a.lines = append(a.lines, e)
		a.scopes = append(a.scopes, f.Scope())
	}
	return nil
}

func addRecords(to, r *telemetry.Records) {
	to.Events, to.Spans, to.ModelCalls = append(to.Events, r.Events...), append(to.Spans, r.Spans...), append(to.ModelCalls, r.ModelCalls...)
	to.Metrics, to.Gaps = append(to.Metrics, r.Metrics...), append(to.Gaps, r.Gaps...)
}

// records returns those of all appends.
func (q *memory) records() (r telemetry.Records) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.appends {
		addRecords(&r, &q.appends[i].Records)
	}
	return r
}

// frameThroughWire checks a frame as a receiver does.
func frameThroughWire(f *frame.Frame) (frame.Frame, error) {
	numbered := *f
	numbered.Epoch, numbered.First = 1, 1
	return wire.FrameFromWire(wire.FrameToWire(&numbered))
}

// all returns everything that was appended so far.
func (q *memory) all() (lines []telemetry.LogEntry, scopes []telemetry.Scope) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range q.appends {
		lines, scopes = append(lines, a.lines...), append(scopes, a.scopes...)
	}
	return lines, scopes
}

func (q *memory) count() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.appends)
}

// start runs an Intake; stop ends it as agentd does and returns Run's error.
func start(tb testing.TB, cfg Config, q Queue) (in *Intake, stop func() error) {
	tb.Helper()
	in = New(cfg, q, hclog.NewNullLogger(), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	tb.Cleanup(func() { _ = stop() })
	return in, stop
}

var (
	noon   = time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)
	target = source.Target{Org: "org_a", Origin: telemetry.Origin{Agent: "agt_1", Session: "ses_1", Sandbox: "abc", Provider: telemetry.Docker}}
)

func line(text string) source.Line {
	return source.Line{Timestamp: noon, Text: []byte(text), Stream: telemetry.Stdout}
}

func batchOf(texts ...string) *source.Batch {
	b := &source.Batch{Target: target}
	for _, t := range texts {
		b.Lines = append(b.Lines, line(t))
	}
	return b
}

func emit(tb testing.TB, to source.Sink, b *source.Batch) {
	tb.Helper()
	if err := to.Emit(tb.Context(), b); err != nil {
		tb.Fatal(err)
	}
}

// TestOrderAndPositions emits any batches in any split, with appends that fail
// now and then: every stream comes out as it went in, and no position is ever
// ahead of its lines.
func TestOrderAndPositions(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		q := &memory{}
		in, stop := start(t, Config{RequireOrg: true, MaxDelay: time.Millisecond}, q)
		sink := in.Sink("docker")
		type key struct {
			scope  telemetry.Scope
			agent  telemetry.AgentID
			stream telemetry.Stream
		}
		want, n := map[key][]string{}, 0
		size := rapid.SampledFrom([]int{0, 0, 0, 10, 10, 200, 200, 3000})
		for range rapid.IntRange(1, 20).Draw(rt, "batches") {
			b := &source.Batch{Target: target, Positions: source.Positions{}}
			b.Org = rapid.SampledFrom([]telemetry.OrgID{"org_a", "org_b"}).Draw(rt, "org")
			b.Env = rapid.SampledFrom([]telemetry.Environment{telemetry.Live, telemetry.Test}).Draw(rt, "env")
			b.Origin.Agent = rapid.SampledFrom([]telemetry.AgentID{"agt_1", "agt_2"}).Draw(rt, "agent")
			for range rapid.IntRange(0, 30).Draw(rt, "lines") {
				n++
				level := rapid.SampledFrom([]string{"", "ERROR ", "[warn] "}).Draw(rt, "level")
				length := size.Draw(rt, "size")
				if n == 17 { // one that is cut; more would only take time
					length = 300 << 10
				}
				text := fmt.Sprintf("%s%d %s", level, n, strings.Repeat("y", length))
				l := line(text)
				l.Stream = rapid.SampledFrom([]telemetry.Stream{telemetry.Stdout, telemetry.Stderr}).Draw(rt, "stream")
				b.Lines = append(b.Lines, l)
				k := key{telemetry.Scope{Org: b.Org, Env: b.Env}, b.Origin.Agent, l.Stream}
				want[k] = append(want[k], text[:min(len(text), telemetry.MaxMessage)])
			}
			b.Positions["p"] = []byte(strconv.Itoa(n))
			emit(t, sink, b)
			for i := range b.Lines { // the sink has copied what it keeps
				clear(b.Lines[i].Text)
			}
		}
		if err := stop(); err != nil {
			rt.Fatal(err)
		}
		lines, scopes := q.all()
		got := map[key][]string{}
		for i, e := range lines {
			k := key{scopes[i], e.Agent, e.Stream}
			got[k] = append(got[k], e.Message)
		}
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatalf("streams: %.2000s", d)
		}
		have, covered := map[int]bool{}, 0
		for _, a := range q.appends {
			for _, e := range a.lines {
				for w := range strings.FieldsSeq(e.Message) {
					if n, err := strconv.Atoi(w); err == nil {
						have[n] = true
					}
				}
			}
			position, _ := strconv.Atoi(string(a.positions["docker/p"]))
			for ; covered < position; covered++ {
				if !have[covered+1] {
					rt.Fatalf("position %d is durable, line %d is not", position, covered+1)
				}
			}
		}
		if got := string(q.positions["docker/p"]); got != strconv.Itoa(n) {
			rt.Fatalf("the last position is %q of %d", got, n)
		}
	})
}

func TestCutTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &memory{}
		in, stop := start(t, Config{MaxDelay: 25 * time.Millisecond}, q)
		sink := in.Sink("s")
		begin := time.Now()
		wait := func(d time.Duration) { // in the bubble's own time
			<-time.After(d)
			synctest.Wait()
		}
		wait(time.Second)
		emit(t, sink, batchOf("lone"))
		wait(gather)
		if q.count() != 1 || q.appends[0].at.Sub(begin) != time.Second+gather {
			t.Fatalf("a lone line waited: %d appends", q.count())
		}
		for range 24 { // more arrive: one cut after MaxDelay takes them all
			wait(time.Millisecond)
			emit(t, sink, batchOf("busy"))
		}
		if q.count() != 1 {
			t.Fatalf("%d appends within the delay", q.count())
		}
		wait(time.Millisecond)
		if q.count() != 2 || len(q.appends[1].lines) != 24 {
			t.Fatalf("%d appends after the delay", q.count())
		}
		emit(t, sink, batchOf(slices.Repeat([]string{"x"}, frameLines)...)) // a full frame never waits
		synctest.Wait()
		if q.count() != 3 {
			t.Fatal("a full frame waited")
		}
		emit(t, sink, &source.Batch{Positions: source.Positions{"k": []byte("1")}})
		wait(500 * time.Millisecond)
		if q.count() != 3 {
			t.Fatal("a position alone was not worth an fsync yet")
		}
		wait(500 * time.Millisecond)
		if q.count() != 4 || string(q.positions["s/k"]) != "1" {
			t.Fatal("a position alone was forgotten")
		}
		emit(t, sink, batchOf("last words"))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		lines, _ := q.all()
		if got := lines[len(lines)-1].Message; got != "last words" {
			t.Errorf("Run left behind what was emitted: %q", got)
		}
		if err := sink.Emit(t.Context(), batchOf("late")); !errors.Is(err, ErrClosed) {
			t.Errorf("emit after Run: %v", err)
		}
	})
}

// TestBackPressure holds the queue shut: Emit takes 640 KiB and a batch of each
// scope, then blocks, and only for the scope that is full.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &memory{gate: make(chan struct{})}
		in, stop := start(t, Config{RequireOrg: true}, q)
		sink := in.Sink("s")
		big := batchOf(strings.Repeat("x", 64<<10))
		big.Positions = source.Positions{"k": []byte("1")} // it can be read again
		taken := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for sink.Emit(ctx, big) == nil {
			taken++
		}
		if taken != heldBytes/(64<<10) {
			t.Errorf("%d batches of 64 KiB were taken", taken)
		}
		other := *big
		other.Org = "org_b"
		emit(t, sink, &other)
		q.mu.Lock()
		q.err = errors.New("disk on fire")
		q.mu.Unlock()
		close(q.gate)
		<-time.After(10 * time.Second)
		if lines, _ := q.all(); len(lines) != 0 {
			t.Fatal("lines in spite of an error")
		}
		q.mu.Lock()
		q.err = nil
		q.mu.Unlock()
		<-time.After(10 * time.Second)
		if lines, _ := q.all(); len(lines) != taken+1 {
			t.Errorf("%d lines of %d after the error went away", len(lines), taken+1)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestStopGivesUp ends Run while nothing can be appended: it says so in time.
func TestStopGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &memory{err: errors.New("disk on fire")}
		in, stop := start(t, Config{}, q)
		emit(t, in.Sink("s"), batchOf("x"))
		synctest.Wait()
		began := time.Now()
		if err := stop(); err == nil || !strings.Contains(err.Error(), "disk on fire") {
			t.Errorf("stop: %v", err)
		}
		if took := time.Since(began); took > 2*lastFlush {
			t.Errorf("stop took %v", took)
		}
	})
}

func TestRequireOrg(t *testing.T) {
	q := &memory{}
	in, stop := start(t, Config{RequireOrg: true}, q)
	for _, org := range []telemetry.OrgID{"", "bad org", "org_a"} {
		b := batchOf("x", "y")
		b.Org = org
		b.Positions = source.Positions{"k " + string(org): []byte("1")}
		emit(t, in.Sink("s"), b)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	lines, scopes := q.all()
	if len(lines) != 2 || scopes[0].Org != "org_a" {
		t.Errorf("%d lines of %v", len(lines), scopes)
	}
	if len(q.positions) != 3 {
		t.Errorf("positions %v: those of dropped lines advance too", q.positions)
	}
	for _, reason := range []string{"no_organisation", "bad_organisation"} {
		if n := value(t, in.metrics.dropped.WithLabelValues(reason)); n != 2 {
			t.Errorf("%v lines are counted as %s", n, reason)
		}
	}
}

// value reads a counter as a scrape does.
func value(tb testing.TB, c prometheus.Counter) float64 {
	tb.Helper()
	reg := prometheus.NewRegistry()
	if err := reg.Register(c); err != nil {
		tb.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

func TestNodeOfOneOrganisationNamesNone(t *testing.T) {
	q := &memory{}
	in, stop := start(t, Config{}, q)
	emit(t, in.Sink("s"), batchOf("x"))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, scopes := q.all(); len(scopes) != 1 || scopes[0].Org != "" {
		t.Errorf("scopes %v: the certificate says whose records these are", scopes)
	}
}

func TestResume(t *testing.T) {
	q := &memory{}
	in, stop := start(t, Config{}, q)
	emit(t, in.Sink("docker"), &source.Batch{Positions: source.Positions{"a": []byte(`{"o":1}`), "b": []byte("2")}})
	emit(t, in.Sink("docker2"), &source.Batch{Positions: source.Positions{"a": []byte("3")}})
	emit(t, in.Sink("docker"), &source.Batch{Positions: source.Positions{"b": []byte("null")}})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(source.Positions{"a": []byte(`{"o":1}`)}, in.Resume("docker", q.positions)); d != "" {
		t.Error(d)
	}
}

// TestResumeOfARestartedSource: what it emitted counts before it is durable, or
// its lines would come twice.
func TestResumeOfARestartedSource(t *testing.T) {
	q := &memory{gate: make(chan struct{})}
	in, stop := start(t, Config{}, q)
	durable := map[string][]byte{"docker/a": []byte("1"), "docker/b": []byte("1"), "docker/c": []byte("1")}
	emit(t, in.Sink("docker"), &source.Batch{Positions: source.Positions{"a": []byte("2"), "b": nil}})
	if d := cmp.Diff(source.Positions{"a": []byte("2"), "c": []byte("1")}, in.Resume("docker", durable)); d != "" {
		t.Error(d)
	}
	close(q.gate)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(in.latest) != 1 {
		t.Errorf("%d positions are kept in memory, one source position is left", len(in.latest))
	}
}

func TestClassOfAFrame(t *testing.T) {
	q := &memory{}
	in, stop := start(t, Config{}, q)
	b := batchOf("fine")
	emit(t, in.Sink("s"), b)
	b = batchOf("fine", "ERROR: not fine")
	b.Env = telemetry.Test
	emit(t, in.Sink("s"), b)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got := map[telemetry.Environment]telemetry.Class{}
	for _, a := range q.appends {
		for _, h := range a.headers {
			got[h.Env] = h.Class
		}
	}
	if got[telemetry.Live] != telemetry.Normal || got[telemetry.Test] != telemetry.Important {
		t.Errorf("classes %v", got)
	}
}

func timeout(tb testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	tb.Helper()
	return context.WithTimeout(tb.Context(), d)
}
