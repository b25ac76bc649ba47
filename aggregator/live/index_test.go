package live

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/logquery"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// published makes a part of the lines.
func published(t interface{ Fatal(args ...any) }, lines []telemetry.LogEntry) *frame.Published {
	var w segment.Writer
	for i := range lines {
		w.Append(&lines[i])
	}
	s, err := segment.Parse(w.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	l := s.Read()
	if err := l.DecodeAll(); err != nil {
		t.Fatal(err)
	}
	return frame.NewPublished(telemetry.Scope{Org: "org_a"}, 11, time.Unix(1, 0).UTC(), &segment.Part{Segment: s, Node: "nod_1", Epoch: 1, FirstSeq: 1}, l)
}

func drawLines(t *rapid.T) []telemetry.LogEntry {
	lines := make([]telemetry.LogEntry, rapid.IntRange(1, 80).Draw(t, "lines"))
	few := rapid.IntRange(0, 3)
	for i := range lines {
		lines[i] = telemetry.LogEntry{
			Timestamp: time.Unix(int64(i), 0).UTC(), Level: telemetry.Level(few.Draw(t, "level")),
			Message: rapid.SampledFrom([]string{"a", "Timeout", "b timeout", "ÄB"}).Draw(t, "message"),
			Origin: telemetry.Origin{
				Agent: telemetry.AgentID(fmt.Sprintf("agt_%d", few.Draw(t, "agent"))), Session: telemetry.SessionID(fmt.Sprintf("ses_%d", few.Draw(t, "session"))),
				User: telemetry.UserID(fmt.Sprintf("u%d", few.Draw(t, "user"))), Sandbox: telemetry.SandboxID(fmt.Sprintf("sbx_%d", few.Draw(t, "sandbox"))),
				Stream: telemetry.Stream(rapid.IntRange(0, 2).Draw(t, "stream")),
			},
		}
		if few.Draw(t, "traced") == 0 {
			lines[i].Trace, lines[i].Metadata = "trc_1", []byte(`{"k":{"n":7}}`)
		}
	}
	return lines
}

// drawQuery joins conditions of the grammar.
func drawQuery(t *rapid.T) (f telemetry.LogFilter) {
	var conditions []string
	for range rapid.IntRange(0, 3).Draw(t, "conditions") {
		conditions = append(conditions, rapid.SampledFrom([]string{
			"agent:agt_1", "agent:(agt_1 agt_2)", "session:ses_0", "user:u2", "user:nobody", "sandbox:sbx_3", "node:nod_1", "node:nod_2", "level:error", "level:>=warn",
			"-level:debug", "stream:stdout", "timeout", "äb", "trace:trc_1", "has:trace", "meta.k.n:>6", "(agent:agt_0 OR timeout)", "-session:ses_1", "/^b/",
		}).Draw(t, "condition"))
	}
	if err := logquery.Parse(strings.Join(conditions, " "), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// Whatever stands under which anchor, each view gets exactly what its filter
// matches, in order.
func TestTheIndexFindsWhatEachFilterMatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index := newIndex()
		tail := &tailer{}
		var views []*view
		for i := range rapid.IntRange(1, 30).Draw(t, "views") {
			v := newView(drawQuery(t))
			v.readers[&Reader{state: live}] = struct{}{}
			views = append(views, v)
			index.add(strconv.Itoa(i), v)
		}
		for i := range views { // some have left again
			if rapid.IntRange(0, 4).Draw(t, "leave") == 0 {
				index.remove(strconv.Itoa(i))
				views[i].readers = nil
			}
		}
		p := newPart(published(t, drawLines(t)), 1)
		if rapid.Bool().Draw(t, "gap") {
			p.Gaps = []telemetry.Gap{{Reason: telemetry.GapRotated, Agent: "agt_1", Position: p.Position + int64(p.Count())}}
		}
		got := map[*view][]int64{}
		for _, c := range index.candidates(p) {
			if _, twice := got[c.view]; twice {
				t.Fatalf("%+v is there twice", c.view.filter)
			}
			got[c.view] = []int64{}
			for _, ch := range tail.cut(&c, p).chunks {
				for _, r := range ch.records {
					got[c.view] = append(got[c.view], r.Position)
				}
			}
		}
		for _, v := range views {
			if want := matches(&v.filter, p); v.readers != nil && !slices.Equal(got[v], want) && len(got[v])+len(want) > 0 {
				t.Fatalf("%+v %s: %v, want %v", v.filter, v.filter.Where, got[v], want)
			}
			if _, found := got[v]; found && v.readers == nil {
				t.Fatalf("%+v has left", v.filter)
			}
		}
		if index.removeAll(); len(index.by) != 0 || index.used != newIndex().used {
			t.Fatalf("left behind: %v", index.by)
		}
	})
}

func (x *index) removeAll() {
	for key := range x.views {
		x.remove(key)
	}
}

func matches(f *telemetry.LogFilter, p *part) (positions []int64) {
	var e telemetry.LogEntry
	for i := range p.Count() {
		if p.Entry(i, &e); f.Match(&e) {
			positions = append(positions, e.Position)
		}
	}
	for i := range p.Gaps {
		if f.MatchGap(&p.Gaps[i]) {
			positions = append(positions, p.Gaps[i].Position)
		}
	}
	return positions
}

// BenchmarkThousandViews hands a second's lines of a busy organisation, in
// commits of 20 parts, to a thousand views of their own filters.
func BenchmarkThousandViews(b *testing.B) {
	tail := &tailer{index: newIndex(), hub: &Hub{options: Options{Queue: 1 << 30}}}
	for i := range 1000 {
		var f telemetry.LogFilter
		query := fmt.Sprintf("agent:agt_%d level:>=info", i)
		switch {
		case i%10 == 0:
			query = fmt.Sprintf("level:error -word%d", i)
		case i%10 == 1:
			query = fmt.Sprintf("session:ses_%d", i/10)
		case i%50 == 2:
			query = fmt.Sprintf("timeout word%d", i)
		}
		if err := logquery.Parse(query, &f); err != nil {
			b.Fatal(err)
		}
		v := newView(f)
		v.readers[&Reader{tailer: tail, view: v, state: live}] = struct{}{}
		tail.index.add(query, v)
	}
	var parts []*frame.Published
	for n := range 20 {
		lines := make([]telemetry.LogEntry, 50)
		for i := range lines {
			agent := (n*50 + i*7) % 1000
			lines[i] = telemetry.LogEntry{
				Timestamp: time.Unix(1, 0), Level: telemetry.Level(i % 4), Message: fmt.Sprintf("GET /v1/things/%d 200 in 12 ms", i),
				Origin: telemetry.Origin{Agent: telemetry.AgentID(fmt.Sprintf("agt_%d", agent)), Session: telemetry.SessionID(fmt.Sprintf("ses_%d", agent/10))},
			}
		}
		parts = append(parts, published(b, lines))
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range parts {
			tail.deliver(p)
		}
		for _, v := range tail.index.views {
			for r := range v.readers {
				r.queue, r.queued, r.woken = nil, 0, false
			}
		}
		tail.woken = tail.woken[:0]
	}
}
