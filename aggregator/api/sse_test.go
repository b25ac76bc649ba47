package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/shared/telemetry"
)

// event is what a browser's EventSource dispatches.
type event struct {
	id, kind, data string
}

// eventSource reads as the standard says: fields with or without one space
// after the colon, several data lines joined, the id kept.
type eventSource struct {
	t      *testing.T
	res    *http.Response
	cancel context.CancelFunc
	lines  *bufio.Reader
	id     string
	retry  string
}

// open opens a stream; it must answer 200.
func (s *site) open(t *testing.T, path string, headers ...string) *eventSource {
	t.Helper()
	es, status := s.tryOpen(t, path, headers...)
	if status != http.StatusOK {
		b, _ := io.ReadAll(es.res.Body)
		t.Fatalf("%s: %d %s", path, status, b)
	}
	return es
}

func (s *site) tryOpen(t *testing.T, path string, headers ...string) (*eventSource, int) {
	t.Helper()
	if !strings.Contains(path, "token=") {
		headers = append(headers, "Authorization", "Bearer "+s.key)
	}
	r := s.request(t, "GET", path, "", headers...)
	ctx, cancel := context.WithTimeout(r.Context(), 60*time.Second)
	res, err := client.Do(r.WithContext(ctx))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	es := &eventSource{t: t, res: res, cancel: cancel, lines: bufio.NewReaderSize(res.Body, 64<<10)}
	t.Cleanup(es.close)
	return es, res.StatusCode
}

func (es *eventSource) close() {
	es.cancel()
	_ = es.res.Body.Close()
}

// next returns the next event, or an error at the end of the stream.
func (es *eventSource) next() (event, error) {
	var e event
	for {
		text, err := es.lines.ReadString('\n')
		if err != nil {
			return e, err
		}
		text = strings.TrimSuffix(text, "\n")
		if text == "" {
			if e.data == "" {
				e = event{}
				continue
			}
			e.id = es.id
			return e, nil
		}
		field, value, _ := strings.Cut(text, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			es.id = value
		case "event":
			e.kind = value
		case "data":
			e.data += value
		case "retry":
			es.retry = value
		}
	}
}

// want returns the next event of a kind, skipping heartbeats.
func (es *eventSource) want(kind string) event {
	es.t.Helper()
	for {
		e, err := es.next()
		if err != nil {
			es.t.Fatalf("waiting for %s: %v", kind, err)
		}
		if e.kind == kind {
			return e
		}
		if e.kind != "heartbeat" && kind != "heartbeat" {
			es.t.Fatalf("%+v came instead of %s", e, kind)
		}
	}
}

func message(t *testing.T, e event) string {
	t.Helper()
	var l struct{ Message, Cursor string }
	if err := json.Unmarshal([]byte(e.data), &l); err != nil || l.Cursor != e.id {
		t.Fatalf("%v: %+v", err, e)
	}
	return l.Message
}

// publishedReader reads exactly as the published package does: split on
// newlines, lines that start with "data: ", JSON or [DONE].
func publishedReader(body io.Reader, entry func(map[string]any) bool) (done bool, err error) {
	lines := bufio.NewReader(body)
	for {
		text, err := lines.ReadString('\n')
		if err != nil {
			return false, err
		}
		data, ok := strings.CutPrefix(strings.TrimSuffix(text, "\n"), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			return true, nil
		}
		var e map[string]any
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return false, fmt.Errorf("%w in %q", err, data)
		}
		if !entry(e) {
			return false, nil
		}
	}
}

func quickBeats(c *api.Config, _ *live.Options) { c.Heartbeat = 5 * time.Millisecond }

func TestThePublishedReaderSeesNothingButEntries(t *testing.T) {
	s := newSite(t, quickBeats)
	es := s.open(t, "/v1/logs/stream?tail=10")
	pretty := line("agt_a", "two\nlines\r\u2028 and \x00")
	pretty.Metadata = json.RawMessage("{\n  \"tool\": \"grep\",\r\n  \"n\": 1\n}")
	es.want("ready")
	es.want("heartbeat")
	s.publish(ours, []telemetry.LogEntry{pretty}, telemetry.Gap{Reason: telemetry.GapEvicted, Count: 3})
	es.want("log")
	es.want("gap")
	es.want("heartbeat")
	s.publish(ours, messages("agt_a", "last"))
	es.want("log")

	res, err := client.Do(s.request(t, "GET", "/v1/logs/stream?after=0-0", "", "Authorization", "Bearer "+s.key, "Content-Type", "application/json", "X-SDK-Version", "0.1.6"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got []map[string]any
	if _, err := publishedReader(res.Body, func(e map[string]any) bool {
		got = append(got, e)
		return e["message"] != "last"
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0]["message"] != "two\nlines\r\u2028 and \x00" || got[0]["metadata"].(map[string]any)["tool"] != "grep" {
		t.Errorf("%v", got)
	}
}

func TestABrowserSeesReadyHeartbeatsAndGaps(t *testing.T) {
	s := newSite(t, quickBeats)
	s.publish(ours, messages("agt_a", "before"))
	es := s.open(t, "/v1/logs/stream?agentId=agt_a&level=info")
	h := es.res.Header
	if h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-cache, no-transform" || h.Get("X-Accel-Buffering") != "no" {
		t.Errorf("%v", h)
	}
	if e := es.want("ready"); e.data != `{"filters":{"agentId":["agt_a"],"level":["info"]},"cursor":"0-1"}` || e.id != "0-1" || es.retry != "2000" {
		t.Errorf("%+v retry %s", e, es.retry)
	}
	s.publish(ours, messages("agt_b", "filtered out"))
	for { // heartbeats move the cursor over what did not match
		e, err := es.next()
		if err != nil || e.kind != "heartbeat" || !strings.HasPrefix(e.data, `{"timestamp":"20`) || !strings.Contains(e.data, `"cursor":"`+e.id+`"`) {
			t.Fatalf("%+v %v", e, err)
		}
		if e.id == "0-2" {
			break
		}
	}
	s.publish(ours, messages("agt_a", "shown"), telemetry.Gap{Reason: telemetry.GapRotated, Count: 9, Agent: "agt_a"}, telemetry.Gap{Reason: telemetry.GapRotated, Agent: "agt_b"})
	if e := es.want("log"); message(t, e) != "shown" || e.id != "0-3" {
		t.Errorf("%+v", e)
	}
	if e := es.want("gap"); e.id != "0-4" || !strings.Contains(e.data, `"reason":"rotated","count":9`) {
		t.Errorf("%+v", e)
	}
}

func TestStreamsStartWhereTheyAreAskedTo(t *testing.T) {
	s := newSite(t, nil)
	for i := range 6 {
		e := line("agt_a", strconv.Itoa(i+1))
		e.Timestamp = base.Add(-time.Duration(i) * time.Second) // the newest by time came first
		s.publish(ours, []telemetry.LogEntry{e})
	}
	for _, c := range []struct {
		query, header, ready string
		want                 []string
	}{
		{"?tail=2", "", "0-0", []string{"1", "2"}},
		{"?tail=3", "0-4", "0-4", []string{"5", "6"}},
		{"?after=0-5", "", "0-5", []string{"6"}},
		{"?lastEventId=0-5&after=0-1", "", "0-5", []string{"6"}},
		{"?after=0-1", "0-3", "0-3", []string{"4", "5", "6"}},
		{"?tail=0", "", "0-6", nil},
	} {
		var headers []string
		if c.header != "" {
			headers = []string{"Last-Event-ID", c.header}
		}
		es := s.open(t, "/v1/logs/stream"+c.query, headers...)
		if e := es.want("ready"); e.id != c.ready {
			t.Errorf("%s %s: ready at %s", c.query, c.header, e.id)
		}
		for _, want := range c.want {
			if got := message(t, es.want("log")); got != want {
				t.Errorf("%s %s: %s, want %s", c.query, c.header, got, want)
			}
		}
		es.close()
	}
	if es, status := s.tryOpen(t, "/v1/logs/stream", "Last-Event-ID", "nonsense"); status != 400 {
		t.Errorf("%d %v", status, es)
	}
	es := s.open(t, "/v1/logs/stream?after=9-1")
	es.want("ready")
	if e := es.want("gap"); e.data != `{"from":"9-1","to":"0-6","count":-1,"reason":"restored"}` || e.id != "0-6" {
		t.Errorf("%+v", e)
	}
}

// TestResumedStreamsHaveEveryLineOnce publishes through two replicas while
// clients disconnect at random and resume with Last-Event-ID at either.
func TestResumedStreamsHaveEveryLineOnce(t *testing.T) {
	a := newSite(t, func(c *api.Config, o *live.Options) { c.Heartbeat, o.Poll = 20*time.Millisecond, 10*time.Millisecond })
	b := replica(t, a)
	const total = 20_000
	var wg sync.WaitGroup
	wg.Go(func() {
		rnd := rand.New(rand.NewPCG(3, 4))
		for n := 0; n < total; {
			size := min(1+rnd.IntN(400), total-n)
			lines := make([]telemetry.LogEntry, size)
			for i := range lines {
				lines[i] = line(telemetry.AgentID(fmt.Sprintf("agt_%d", (n+i)%2)), strconv.Itoa(n+i))
			}
			[]*site{a, b}[rnd.IntN(2)].publish(ours, lines)
			n += size
		}
	})
	for i, query := range []string{"", "?agentId=agt_1", "?search=77"} {
		wg.Go(func() { followToEnd(t, []*site{a, b}, query, total, rand.New(rand.NewPCG(uint64(i), 9))) })
	}
	wg.Wait()
}

func followToEnd(t *testing.T, sites []*site, query string, total int, rnd *rand.Rand) {
	t.Helper()
	id, got := "0-0", []string(nil)
	for id != fmt.Sprintf("0-%d", total) {
		es, status := sites[rnd.IntN(2)].tryOpen(t, "/v1/logs/stream"+query, "Last-Event-ID", id)
		if status != 200 {
			t.Errorf("%d", status)
			return
		}
		for range 1 + rnd.IntN(3000) {
			e, err := es.next()
			if err != nil {
				t.Errorf("%s at %s: %v", query, id, err)
				return
			}
			if id = e.id; e.kind == "log" {
				got = append(got, message(t, e))
			} else if e.kind == "gap" {
				t.Errorf("%+v", e)
			}
			if id == fmt.Sprintf("0-%d", total) {
				break
			}
		}
		es.close()
	}
	var want []string
	for i := range total {
		text := strconv.Itoa(i)
		if query == "" || query == "?agentId=agt_1" && i%2 == 1 || query == "?search=77" && strings.Contains(text, "77") {
			want = append(want, text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d lines, want %d", query, len(got), len(want))
		return
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s: line %d is %s", query, i, got[i])
			return
		}
	}
}

func TestAMessageOfAMegabyteArrivesWhole(t *testing.T) {
	s := newSite(t, nil)
	es := s.open(t, "/v1/logs/stream")
	es.want("ready")
	text := strings.Repeat("0123456789abcde\n", 64<<10)
	s.publish(ours, messages("agt_a", text, "next"))
	if got := message(t, es.want("log")); got != text {
		t.Errorf("%d bytes came", len(got))
	}
	if got := message(t, es.want("log")); got != "next" {
		t.Error(got)
	}
}

func TestStreamsEndForTheirClientsToResume(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*api.Config, *live.Options)
		do     func(*site)
	}{
		"drain":     {nil, func(s *site) { s.api.Drain(context.Background()) }},
		"revoked":   {func(c *api.Config, _ *live.Options) { c.Recheck = 10 * time.Millisecond }, func(s *site) { s.revoke() }},
		"age":       {func(c *api.Config, _ *live.Options) { c.StreamLife = 100 * time.Millisecond }, func(*site) {}},
		"restored":  {nil, func(s *site) { s.publish(ours, messages("agt_a", "x")); s.Restore(2, 0) }},
		"unharmed?": {func(c *api.Config, _ *live.Options) { c.Recheck = 10 * time.Millisecond }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.change)
			es := s.open(t, "/v1/logs/stream")
			es.want("ready")
			if c.do == nil { // a database that is away ends no stream
				s.fail(telemetry.Failf(telemetry.Unavailable, "away"))
				s.publish(ours, messages("agt_a", "still here"))
				es.want("log")
				return
			}
			c.do(s)
			for {
				if _, err := es.next(); err != nil {
					break
				}
			}
			if strings.Contains(s.log.String(), "[ERROR]") {
				t.Error(s.log)
			}
		})
	}
}

func TestEventSourcesAreToldToComeBackLater(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.StreamsPerOrganisation = 1 })
	first := s.open(t, "/v1/logs/stream")
	first.want("ready")
	a := s.get(t, "/v1/logs/stream")
	if a.StatusCode != 200 || a.body != "retry: 30000\n\n" || a.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("over the limit: %d %q", a.StatusCode, a.body)
	}
	other := s.fakeStore.key(theirs, telemetry.LogsRead)
	es := s.open(t, "/v1/logs/stream?token="+other)
	es.want("ready")
	s.fail(telemetry.Failf(telemetry.Unavailable, "away"))
	a = s.do(t, "GET", "/v1/logs/stream", "", "Authorization", "Bearer "+s.key, "Accept", "text/event-stream")
	if a.StatusCode != 200 || a.body != "retry: 1000\n\n" {
		t.Errorf("a browser without a database: %d %q", a.StatusCode, a.body)
	}
	if a := s.get(t, "/v1/logs/stream"); a.StatusCode != 503 || a.Header.Get("Retry-After") != "1" {
		t.Errorf("another client: %d %q", a.StatusCode, a.body)
	}
	s.fail(nil)
	s.api.Drain(t.Context())
	if a := s.get(t, "/v1/logs/stream"); a.StatusCode != 503 {
		t.Errorf("while stopping: %d %q", a.StatusCode, a.body)
	}
}

func TestTheStreamOfAFinishedAgentEnds(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) {
		c.Heartbeat, c.EndAfter = 5*time.Millisecond, 20*time.Millisecond
	})
	fill(s)
	s.mu.Lock()
	s.agents[ours][0].Status = telemetry.AgentCompleted
	s.mu.Unlock()
	path := "/v1/agents/agt_a/logs/stream"
	res, err := client.Do(s.request(t, "GET", path+"?tail=3", "", "Authorization", "Bearer "+s.key))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n := 0
	if done, err := publishedReader(res.Body, func(map[string]any) bool { n++; return true }); !done || err != nil || n != 3 {
		t.Errorf("%d entries, done %v: %v", n, done, err)
	}
	es := s.open(t, path+"?after=0-6")
	es.want("ready")
	end := es.want("end")
	if end.data != "[DONE]" || end.id != "0-6.end" {
		t.Errorf("%+v", end)
	}
	if es, status := s.tryOpen(t, path, "Last-Event-ID", end.id); status != 204 {
		t.Errorf("%d %v", status, es)
	}
	s.mu.Lock()
	s.agents[ours][0].Status = telemetry.AgentRunning
	s.mu.Unlock()
	s.publish(ours, messages("agt_a", "it runs again"))
	if es := s.open(t, path, "Last-Event-ID", end.id); es.want("ready").id != "0-6" || message(t, es.want("log")) != "it runs again" {
		t.Error("it did not go on")
	}
}

func TestHeadOfAStream(t *testing.T) {
	s := newSite(t, nil)
	a := s.do(t, "HEAD", "/v1/logs/stream", "", "Authorization", "Bearer "+s.key)
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/event-stream" || a.body != "" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
}
