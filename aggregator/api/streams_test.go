package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/shared/telemetry"
)

func TestAStreamTakesAQuery(t *testing.T) {
	s := newSite(t, nil)
	const query = `env:live level:>=info -"health check" (agentId:agt_b OR /re(fused|set)/i)`
	es := s.open(t, "/v1/logs/stream?q="+url.QueryEscape(query))
	var ready struct {
		Filters struct {
			Level []string
			Q     string
			Env   []string
		}
	}
	if err := json.Unmarshal([]byte(es.want("ready").data), &ready); err != nil {
		t.Fatal(err)
	}
	if f := ready.Filters; f.Q != `-"health check" (agent:agt_b OR /re(fused|set)/i)` || strings.Join(f.Level, " ") != "info warn error" || f.Env != nil {
		t.Errorf("%+v", f)
	}
	w := s.dial(t, "/v1/logs/stream", []string{"theazo.logs.v1"}, "Authorization", "Bearer "+s.key)
	filters, err := json.Marshal(map[string]string{"q": query})
	if err != nil {
		t.Fatal(err)
	}
	w.send(`{"type":"subscribe","id":"a","filters":%s}`, filters)
	if e := w.envelopes(); e[0].Type != "ready" {
		t.Fatalf("%+v", e)
	}
	s.publish(ours, append(messages("agt_a", "accepted", "Connection REFUSED", "health check refused"), line("agt_b", "anything"), line("agt_b", "a health check")))
	var overSocket []string
	for len(overSocket) < 2 {
		for _, e := range w.envelopes() {
			overSocket = append(overSocket, e.Entry.Message)
		}
	}
	want := []string{"Connection REFUSED", "anything"}
	if got := []string{message(t, es.want("log")), message(t, es.want("log"))}; !slices.Equal(got, want) || !slices.Equal(overSocket, want) {
		t.Errorf("%q, over a socket %q", got, overSocket)
	}
}

func TestAQueryThatCannotBeReadOpensNoStream(t *testing.T) {
	s := newSite(t, nil)
	for query, says := range map[string]string{"level:fatal": "use one of debug, info, warn, error", "env:test": "another environment than the key's"} {
		es, status := s.tryOpen(t, "/v1/logs/stream?q="+url.QueryEscape(query))
		body, err := io.ReadAll(es.res.Body)
		if err != nil || status != http.StatusUnprocessableEntity || !strings.Contains(string(body), says) {
			t.Errorf("%s: %d %s %v", query, status, body, err)
		}
		w := s.dial(t, "/v1/logs/stream", []string{"theazo.logs.v1"}, "Authorization", "Bearer "+s.key)
		w.send(`{"type":"subscribe","id":"a","filters":{"q":"%s"}}`, query)
		if e := w.envelopes()[0]; e.Type != "error" || e.Problem.Code != string(telemetry.Unprocessable) || !strings.Contains(fmt.Sprint(e.Problem), says) {
			t.Errorf("%s over a socket: %+v", query, e)
		}
	}
}

// A query cannot lead away from what the path names, nor be passed over.
func TestAQueryForOthersThanThePathIsRefused(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	for _, c := range []struct {
		path, query string
		status      int
	}{
		{"/v1/agents/agt_a/logs/stream", "agent:agt_b", http.StatusUnprocessableEntity},
		{"/v1/agents/agt_a/logs/stream", "agent:(agt_b agt_a)", http.StatusOK},
		{"/v1/sessions/ses_a/logs/stream", "session:ses_b", http.StatusUnprocessableEntity},
		{"/v1/sessions/ses_a/logs/stream", "agent:agt_b", http.StatusOK},
	} {
		es, status := s.tryOpen(t, c.path+"?q="+url.QueryEscape(c.query))
		if status != c.status {
			t.Errorf("%s of %s: %d", c.query, c.path, status)
		}
		if status == http.StatusOK && strings.Contains(c.query, "agt_a") && !strings.Contains(es.want("ready").data, `"agentId":["agt_a"]`) {
			t.Errorf("%s of %s shows others", c.query, c.path)
		}
	}
}

// The link of a gap asks for the same lines as the stream did, its query included.
func TestTheLinkOfAGapRepeatsTheQuery(t *testing.T) {
	s := newSite(t, func(c *api.Config, o *live.Options) { o.Patience, c.WriteTimeout = -1, time.Minute })
	slow := s.raw(t, "/v1/logs/stream?agentId=agt_a&q="+url.QueryEscape("-(level:debug x) /^line/"))
	for range 150 { // more than the kernel's buffers and the queue hold
		s.publish(ours, messages("agt_a", "line "+strings.Repeat("x", 100<<10)))
	}
	if err := slow.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	all, found := &strings.Builder{}, ""
	buf := make([]byte, 64<<10)
	for found == "" {
		n, err := slow.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(buf[:n])
		if _, rest, ok := strings.Cut(all.String(), `"href":"`); ok && strings.Contains(rest, `"`) {
			found, _, _ = strings.Cut(rest, `"`)
		}
	}
	u, err := url.Parse(strings.ReplaceAll(found, `\u0026`, "&"))
	if err != nil || u.Query().Get("q") != "-(level:debug x) /^line/" || u.Query().Get("agentId") != "agt_a" || u.Query().Get("since") == "" {
		t.Errorf("%s %v", found, err)
	}
}

// A client of one stream counts once, however it is connected.
func TestASocketWithOneSubscriptionCountsOnce(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.StreamsPerOrganisation = 2 })
	w := s.dial(t, "/v1/logs/stream", []string{"theazo.logs.v1"}, "Authorization", "Bearer "+s.key)
	for _, c := range []struct{ id, want string }{{"a", "ready"}, {"b", "ready"}, {"c", "error"}} {
		w.send(`{"type":"subscribe","id":%q}`, c.id)
		if e := w.envelopes()[0]; e.Type != c.want || e.Sub != c.id {
			t.Fatalf("%+v, want %+v", e, c)
		}
	}
	w.send(`{"type":"unsubscribe","id":"a"}`)
	for n := 0; ; n++ { // until it has ended
		id := fmt.Sprintf("d%d", n)
		w.send(`{"type":"subscribe","id":%q}`, id)
		if w.envelopes()[0].Type == "ready" {
			break
		}
	}
	if w.send(`{"type":"subscribe","id":"e"}`); w.envelopes()[0].Type != "error" {
		t.Error("a third stream was opened")
	}
}
