package intake

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// from makes a batch of one sandbox.
func from(sandbox string, org telemetry.OrgID, texts ...string) *source.Batch {
	b := batchOf(texts...)
	b.Org, b.Origin.Sandbox, b.Origin.Agent = org, telemetry.SandboxID(sandbox), telemetry.AgentID("agt_"+sandbox)
	return b
}

// classesOf says in frames of which classes each sandbox's lines came, and how
// many.
func (q *memory) classesOf() map[string]map[telemetry.Class]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	of := map[string]map[telemetry.Class]int{}
	for _, a := range q.appends {
		at := 0
		for _, h := range a.headers {
			if h.Lane != telemetry.LaneLogs {
				continue
			}
			for range h.Count {
				s := string(a.lines[at].Sandbox)
				if of[s] == nil {
					of[s] = map[telemetry.Class]int{}
				}
				of[s][h.Class]++
				at++
			}
		}
	}
	return of
}

// flood lets "loud" write two hundred times what "quiet" does, for a while.
func flood(tb testing.TB, sink source.Sink, d time.Duration, loud, quiet func(n int) *source.Batch) {
	tb.Helper()
	const step = 50 * time.Millisecond
	for n := range int(d / step) {
		emit(tb, sink, loud(n))
		emit(tb, sink, quiet(n))
		<-time.After(step)
		synctest.Wait()
	}
}

func numbered(sandbox, text string, lines int) func(int) *source.Batch {
	return func(n int) *source.Batch {
		var texts []string
		for i := range lines {
			texts = append(texts, fmt.Sprintf("%d %s", n*lines+i, text))
		}
		return from(sandbox, "", texts...)
	}
}

func TestLinesAboveTheFairShareAreBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &memory{}
		in, stop := start(t, Config{}, q)
		flood(t, in.Sink("s"), 20*time.Second, numbered("loud", strings.Repeat("x", 100), 200), numbered("quiet", "y", 1))
		emit(t, in.Sink("s"), from("loud", "", "ERROR: a last word"))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		of := q.classesOf()
		if of["quiet"][telemetry.Bulk] != 0 || of["quiet"][telemetry.Normal] != 400 {
			t.Errorf("quiet: %v", of["quiet"])
		}
		if n := of["loud"]; n[telemetry.Bulk] < 60000 || n[telemetry.Normal] > 20000 || n[telemetry.Important] != 1 {
			t.Errorf("loud: %v", n)
		}
		lines, _ := q.all()
		next := map[string]int{}
		for _, e := range lines {
			if n, err := strconv.Atoi(strings.Fields(e.Message)[0]); err == nil {
				if n != next[string(e.Sandbox)] {
					t.Fatalf("%s: line %d where %d is next", e.Sandbox, n, next[string(e.Sandbox)])
				}
				next[string(e.Sandbox)]++
			}
		}
	})
}

// TestEqualSandboxesAreNotAbove: with any number of sandboxes that write about
// the same, and for one alone, nothing is bulk.
func TestEqualSandboxesAreNotAbove(t *testing.T) {
	for _, sandboxes := range []int{1, 2, 20} {
		synctest.Test(t, func(t *testing.T) {
			q := &memory{}
			in, stop := start(t, Config{RequireOrg: true}, q)
			for n := range 300 {
				for s := range sandboxes {
					size := 3000 + (n*7+s*13)%500
					emit(t, in.Sink("s"), from(strconv.Itoa(s), telemetry.OrgID("org_"+strconv.Itoa(s%2)), strings.Repeat("x", size)))
				}
				<-time.After(100 * time.Millisecond)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			for s, n := range q.classesOf() {
				if n[telemetry.Bulk] > 0 {
					t.Errorf("%s of %d: %v", s, sandboxes, n)
				}
			}
		})
	}
}

// TestFewWarningsDoNotSaveAFlood: a frame of a flood with a warning in it is
// important, but it ends soon, and the order stays.
func TestFewWarningsDoNotSaveAFlood(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s scoped
		lines := rapid.IntRange(1, 9000).Draw(t, "lines")
		each := rapid.IntRange(2, 3000).Draw(t, "warning each")
		number := 0
		for i := range lines {
			level := telemetry.Info
			if i%each == 0 {
				level = telemetry.Warn
			}
			l := s.frame(true, level, 20)
			l.bytes += 20
			l.w.AppendBytes(&telemetry.LogEntry{Level: level}, []byte(strconv.Itoa(i)))
			if level == telemetry.Warn && l.class != telemetry.Important {
				t.Fatal("a warning in a frame that is given up first")
			}
			if l != s.logs[len(s.logs)-1] {
				t.Fatal("a line went to a frame before the last")
			}
		}
		bulk := 0
		for _, l := range s.logs {
			number += l.w.Lines()
			if l.class == telemetry.Bulk {
				bulk += l.w.Lines()
			}
		}
		if number != lines || len(s.logs) > 2+lines/splitLines*2 {
			t.Fatalf("%d lines in %d frames", number, len(s.logs))
		}
		if each > 2000 && lines > 2000 && bulk < lines/2 {
			t.Fatalf("%d of %d lines are bulk", bulk, lines)
		}
	})
}

// TestSampling presses the node: of the flood one line in ten is kept, every
// warning is, nothing of others is left out, and gaps tell of each line; also
// after a crash.
func TestSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &memory{}
		pressure := 0.0
		cfg := Config{Pressure: func() float64 { return pressure }}
		in, stop := start(t, cfg, q)
		sink := in.Sink("s")
		loud, quiet := numbered("loud", strings.Repeat("x", 100), 100), numbered("quiet", "y", 1)
		flood(t, sink, 10*time.Second, loud, quiet)
		pressure = 0.95
		began := time.Now()
		flood(t, sink, 25*time.Second, func(n int) *source.Batch {
			b := loud(n)
			b.Lines = append(b.Lines, line("WARNING: w"))
			return b
		}, quiet)
		// The note of what no gap tells of yet is durable with the cut that left
		// it out; a crash comes here.
		r := q.records()
		counted := int64(0)
		for _, g := range r.Gaps {
			counted += g.Count
			if g.Reason != telemetry.GapSampled || g.Sandbox != "loud" || g.Agent != "agt_loud" || g.Since.IsZero() || g.Bytes <= 100*g.Count {
				t.Errorf("gap %+v", g)
			}
		}
		if n := len(r.Gaps); n < 2 || n > 3+int(time.Since(began)/sampleGap) {
			t.Errorf("%d gaps", n)
		}
		lines, _ := q.all()
		warnings, kept, others := 0, int64(0), 0
		for _, e := range lines {
			switch {
			case e.Level == telemetry.Warn:
				warnings++
			case e.Sandbox == "quiet":
				others++
			default:
				kept++
			}
		}
		const emitted = 700 * 100
		if warnings != 500 || others != 700 || kept < 200*100+500*10-10 || kept > 200*100+500*11 {
			t.Errorf("%d warnings, %d others, %d kept", warnings, others, kept)
		}
		again := New(cfg, q, hclog.NewNullLogger(), nil)
		again.Restore(q.positions)
		again.mu.Lock()
		again.logs.cut()
		again.mu.Unlock()
		if err := again.flush(t.Context(), &again.logs, again.append); err != nil {
			t.Fatal(err)
		}
		counted = 0
		for _, g := range q.records().Gaps {
			counted += g.Count
		}
		if counted+kept != emitted {
			t.Errorf("%d lines are told of and %d kept, of %d", counted, kept, emitted)
		}
		for k := range q.positions {
			if strings.HasPrefix(k, samplePrefix) {
				t.Errorf("the note %s is left", k)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPressureDelaysDebugLinesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &memory{}
		pressure := 0.0
		in, stop := start(t, Config{Pressure: func() float64 { return pressure }}, q)
		sink := in.Sink("s")
		after := func(text string) time.Duration {
			emit(t, sink, batchOf("first")) // the lane is not idle
			<-time.After(time.Second)
			emit(t, sink, batchOf("second"))
			<-time.After(2 * gather)
			synctest.Wait()
			n, began := q.count(), time.Now()
			emit(t, sink, batchOf(text))
			for q.count() == n {
				<-time.After(time.Millisecond)
				synctest.Wait()
			}
			return time.Since(began)
		}
		calm := after("DEBUG x")
		pressure = 0.6
		<-time.After(time.Second)
		debug, info := after("DEBUG x"), after("INFO x")
		pressure = 0.8
		<-time.After(time.Second)
		pressed, warning := after("INFO x"), after("WARN x")
		if calm > 30*time.Millisecond || debug < 150*time.Millisecond || info > 30*time.Millisecond || pressed < 75*time.Millisecond || warning > 30*time.Millisecond {
			t.Errorf("calm %v; debug %v, info %v; info %v, warning %v", calm, debug, info, pressed, warning)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}
