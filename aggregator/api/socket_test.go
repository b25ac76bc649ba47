package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/shared/telemetry"
)

// ws is a WebSocket client.
type ws struct {
	t    *testing.T
	conn *websocket.Conn
	ctx  context.Context
}

func (s *site) dial(t *testing.T, path string, protocols []string, headers ...string) *ws {
	t.Helper()
	w, res := s.tryDial(t, path, protocols, headers...)
	if w == nil {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("%s: %d %s", path, res.StatusCode, b)
	}
	return w
}

func (s *site) tryDial(t *testing.T, path string, protocols []string, headers ...string) (*ws, *http.Response) {
	t.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	conn, res, err := websocket.Dial(ctx, s.url+path, &websocket.DialOptions{HTTPClient: client, HTTPHeader: h, Subprotocols: protocols})
	if err != nil {
		if res == nil {
			t.Fatal(err)
		}
		return nil, res
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(16 << 20)
	return &ws{t, conn, ctx}, res
}

func (w *ws) send(format string, args ...any) {
	w.t.Helper()
	if err := w.conn.Write(w.ctx, websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		w.t.Fatal(err)
	}
}

// read returns the next message.
func (w *ws) read() string {
	w.t.Helper()
	_, b, err := w.conn.Read(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// closed waits for the close code.
func (w *ws) closed() websocket.StatusCode {
	w.t.Helper()
	for {
		if _, _, err := w.conn.Read(w.ctx); err != nil {
			if websocket.CloseStatus(err) == -1 {
				w.t.Errorf("no close frame: %v", err)
			}
			return websocket.CloseStatus(err)
		}
	}
}

// envelopeMessage is a message of theazo.logs.v1.
type envelopeMessage struct {
	Type, Sub, Cursor, Time string
	Entry                   struct{ Message, Cursor string }
	Filters                 map[string]any
	Gap                     map[string]any
	Problem                 struct {
		Code, Message string
		Errors        []telemetry.FieldError
	}
}

// envelopes returns the envelopes of the next message that is no heartbeat.
func (w *ws) envelopes() []envelopeMessage {
	w.t.Helper()
	for {
		text := w.read()
		if !strings.HasPrefix(text, "[") {
			text = "[" + text + "]"
		}
		var list []envelopeMessage
		if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) == 0 {
			w.t.Fatalf("%v: %s", err, text)
		}
		if list[0].Type != "heartbeat" {
			return list
		}
	}
}

// want returns the next envelope, which must be alone and of a kind.
func (w *ws) want(kind, sub string) envelopeMessage {
	w.t.Helper()
	list := w.envelopes()
	if len(list) != 1 || list[0].Type != kind || list[0].Sub != sub {
		w.t.Fatalf("%+v came instead of %s for %s", list, kind, sub)
	}
	return list[0]
}

func TestAPlainSocketSendsOneEntryPerMessage(t *testing.T) {
	s := newSite(t, quickBeats)
	fill(s)
	auth := []string{"Authorization", "Bearer " + s.key}
	w := s.dial(t, "/v1/logs/stream?agentId=agt_a&tail=1", nil, auth...)
	next := func() (e struct {
		Message, Cursor, Level, Source string
		Gap                            map[string]any
	},
	) {
		if err := json.Unmarshal([]byte(w.read()), &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := next(); e.Message != "step 4 of org_a" || e.Cursor != "0-5" {
		t.Errorf("%+v", e)
	}
	if e := next(); e.Level != "warn" || e.Source != "system" || e.Message != "7 lines are missing here: rotated" || e.Gap["count"] != 7.0 || e.Cursor != "0-6" {
		t.Errorf("%+v", e)
	}
	w.send("hello") // is ignored
	s.publish(ours, messages("agt_a", "one", "two"))
	if e, f := next(), next(); e.Message != "one" || f.Message != "two" || f.Cursor != "0-8" {
		t.Errorf("%+v %+v", e, f)
	}
	w = s.dial(t, "/v1/sessions/ses_a/logs/stream?after=9-9", nil, auth...)
	if e := next(); e.Message != "an unknown number of lines is missing here: restored" || e.Gap["reason"] != "restored" || e.Cursor != "0-8" {
		t.Errorf("%+v", e)
	}
}

func TestSocketsAreRefusedLikeOtherCalls(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.AllowedOrigins = []string{"https://app.example.com"} })
	fill(s)
	ck := s.signIn(t)
	cookie, key := ck.Name+"="+ck.Value, "Bearer "+s.key
	for _, c := range []struct {
		path    string
		headers []string
		status  int
	}{
		{"/v1/logs/stream", nil, 401},
		{"/v1/logs/stream?token=thz_x", nil, 401},
		{"/v1/logs/stream?level=loud", []string{"Authorization", key}, 400},
		{"/v1/agents/agt_b/logs/stream", []string{"Authorization", key}, 404},
		{"/v1/logs/stream", []string{"Cookie", cookie, "Origin", "https://evil.example"}, 403},
		{"/v1/logs/stream", []string{"Authorization", key, "Origin", "https://evil.example"}, 403},
		{"/v1/logs/stream", []string{"Cookie", cookie, "Origin", "https://app.example.com"}, 101},
		{"/v1/logs/stream", []string{"Cookie", cookie, "Origin", s.url}, 101},
		{"/v1/logs/stream?token=" + s.streamToken(t, "{}"), nil, 101},
	} {
		if _, res := s.tryDial(t, c.path, nil, c.headers...); res.StatusCode != c.status {
			t.Errorf("%s %v: %d, want %d", c.path, c.headers, res.StatusCode, c.status)
		}
	}
}

var v1 = []string{"theazo.logs.v1"}

func TestEnvelopesCarrySeveralSubscriptions(t *testing.T) {
	s := newSite(t, quickBeats)
	w := s.dial(t, "/v1/logs/stream", append(v1, "theazo.token."+s.streamToken(t, "{}")))
	if w.conn.Subprotocol() != "theazo.logs.v1" {
		t.Fatal(w.conn.Subprotocol())
	}
	w.send(`{"type":"subscribe","id":"a","filters":{"agentId":"agt_a"}}`)
	if m := w.want("ready", "a"); m.Cursor != "0-0" || fmt.Sprint(m.Filters["agentId"]) != "[agt_a]" {
		t.Errorf("%+v", m)
	}
	w.send(`{"type":"subscribe","id":"b","filters":{"agentId":["agt_b","agt_c"],"minLevel":"info"},"tail":5}`)
	w.want("ready", "b")
	s.publish(ours, messages("agt_a", "1", "2"))
	if list := w.envelopes(); len(list) != 2 || list[0].Sub != "a" || list[1].Entry.Message != "2" || list[1].Cursor != "0-2" || list[1].Entry.Cursor != "0-2" {
		t.Errorf("%+v", list)
	}
	s.publish(ours, messages("agt_c", "3"), telemetry.Gap{Reason: telemetry.GapRotated, Agent: "agt_b", Count: 2})
	if list := w.envelopes(); len(list) != 2 || list[0].Sub != "b" || list[1].Type != "gap" || list[1].Gap["count"] != 2.0 || list[1].Cursor != "0-4" {
		t.Errorf("%+v", list)
	}
	w.send(`{"type":"subscribe","id":"a"}`)
	if m := w.want("error", "a"); m.Problem.Code != "conflict" {
		t.Errorf("%+v", m)
	}
	w.send(`{"type":"unsubscribe","id":"b"}`)
	w.send(`{"type":"subscribe","id":"c","filters":{"level":"loud"}}`)
	if m := w.want("error", "c"); m.Problem.Code != "invalid_request" || m.Problem.Errors[0].Field != "level" {
		t.Errorf("%+v", m)
	}
	w.send(`{"type":"subscribe","id":"c","filters":{"limit":"1"}}`)
	if m := w.want("error", "c"); m.Problem.Errors[0].Field != "limit" {
		t.Errorf("%+v", m)
	}
	w.send(`{"type":"pause","id":"nobody"}`)
	if m := w.want("error", "nobody"); m.Problem.Code != "not_found" {
		t.Errorf("%+v", m)
	}
	w.send(`{"type":"subscribe","id":"c","after":"0-3"}`)
	w.want("ready", "c")
	if m := w.want("gap", "c"); m.Cursor != "0-4" {
		t.Errorf("%+v", m)
	}
	w.send(`{"type":"subscribe","id":"d","after":"5-3"}`)
	w.want("ready", "d")
	if m := w.want("gap", "d"); m.Gap["reason"] != "restored" {
		t.Errorf("%+v", m)
	}
	w.send(`not json`)
	if code := w.closed(); code != 4400 {
		t.Error(code)
	}
}

func TestEnvelopesHeartbeat(t *testing.T) {
	s := newSite(t, quickBeats)
	w := s.dial(t, "/v1/logs/stream", v1, "Authorization", "Bearer "+s.key)
	w.send(`{"type":"subscribe","id":"a"}`)
	w.want("ready", "a")
	var m envelopeMessage
	if err := json.Unmarshal([]byte(w.read()), &m); err != nil || m.Type != "heartbeat" || m.Sub != "a" || m.Cursor != "0-0" || m.Time == "" {
		t.Errorf("%v %+v", err, m)
	}
}

func TestPauseResumeAndCredit(t *testing.T) {
	s := newSite(t, nil)
	w := s.dial(t, "/v1/logs/stream", v1, "Authorization", "Bearer "+s.key)
	w.send(`{"type":"subscribe","id":"a"}`)
	w.want("ready", "a")
	w.send(`{"type":"pause","id":"a"}`)
	// An error in answer to this says that the pause was taken.
	w.send(`{"type":"ack","id":"a","cursor":"x"}`)
	w.want("error", "a")
	s.publish(ours, messages("agt_a", "1"))
	w.send(`{"type":"subscribe","id":"b","after":"0-0"}`)
	w.want("ready", "b")
	w.want("log", "b") // and not a's
	w.send(`{"type":"unsubscribe","id":"b"}`)
	w.send(`{"type":"resume","id":"a"}`)
	w.want("log", "a")

	w.send(`{"type":"ack","id":"a","cursor":"0-1"}`)
	w.send(`{"type":"ack","id":"a","cursor":"x"}`)
	w.want("error", "a")
	got := 0
	count := func(to int) {
		t.Helper()
		for got < to {
			got += len(w.envelopes())
		}
	}
	for range 5 {
		s.publish(ours, messages("agt_a", make([]string, 1000)...))
		count(got + 1000)
	}
	s.publish(ours, messages("agt_a", "beyond the window"))
	w.send(`{"type":"ack","id":"a","cursor":"x"}`)
	w.want("error", "a") // not the line
	w.send(`{"type":"ack","id":"a","cursor":"0-3001"}`)
	if m := w.want("log", "a"); m.Entry.Message != "beyond the window" {
		t.Errorf("%+v", m)
	}
}

func TestTheFirstMessageMayBringTheCredential(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.AuthTimeout = time.Minute })
	fill(s)
	w := s.dial(t, "/v1/agents/agt_a/logs/stream", v1)
	w.send(`{"type":"auth","token":%q}`, s.streamToken(t, `{"agentId":"agt_a"}`))
	w.send(`{"type":"subscribe","id":"a"}`)
	if m := w.want("ready", "a"); fmt.Sprint(m.Filters["agentId"]) != "[agt_a]" {
		t.Errorf("%+v", m)
	}
	for _, c := range []struct {
		message string
		code    websocket.StatusCode
	}{
		{`{"type":"auth","token":"thz_x"}`, 4401},
		{`{"type":"auth","token":"` + s.fakeStore.key(ours, telemetry.NodesRead) + `"}`, 4403},
		{`{"type":"subscribe","id":"a"}`, 4400},
		{`{`, 4400},
	} {
		w := s.dial(t, "/v1/logs/stream", v1)
		w.send("%s", c.message)
		if code := w.closed(); code != c.code {
			t.Errorf("%s: %d", c.message, code)
		}
	}
	w = s.dial(t, "/v1/agents/agt_b/logs/stream", v1)
	w.send(`{"type":"auth","token":%q}`, s.key)
	w.send(`{"type":"subscribe","id":"a"}`)
	if m := w.want("error", "a"); m.Problem.Code != "not_found" {
		t.Errorf("%+v", m)
	}
}

func TestSocketsEndWithACode(t *testing.T) {
	for name, c := range map[string]struct {
		change    func(*api.Config, *live.Options)
		protocols []string
		anonymous bool
		do        func(*site)
		code      websocket.StatusCode
	}{
		"no credential in time": {func(c *api.Config, _ *live.Options) { c.AuthTimeout = 50 * time.Millisecond }, v1, true, nil, 4408},
		"waiting at a stop":     {nil, v1, true, func(s *site) { s.api.Drain(context.Background()) }, 1012},
		"stop":                  {nil, v1, false, func(s *site) { s.api.Drain(context.Background()) }, 1012},
		"plain stop":            {nil, nil, false, func(s *site) { s.api.Drain(context.Background()) }, 1012},
		"revoked":               {func(c *api.Config, _ *live.Options) { c.Recheck = 10 * time.Millisecond }, v1, false, func(s *site) { s.revoke() }, 4401},
		"plain revoked":         {func(c *api.Config, _ *live.Options) { c.Recheck = 10 * time.Millisecond }, nil, false, func(s *site) { s.revoke() }, 4401},
		"plain restored":        {nil, nil, false, func(s *site) { s.Restore(2, 0) }, 1012},
		"too many":              {func(c *api.Config, _ *live.Options) { c.StreamsPerOrganisation = -1 }, nil, false, nil, 4429},
		"large message":         {nil, v1, false, nil, 1009},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.change)
			fill(s)
			headers := []string{"Authorization", "Bearer " + s.key}
			if c.anonymous {
				headers = nil
			}
			w := s.dial(t, "/v1/logs/stream?after=0-5", c.protocols, headers...)
			if name == "large message" {
				w.send("%s", strings.Repeat("x", 1<<17))
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if c.do != nil {
					c.do(s)
				}
			}()
			if code := w.closed(); code != c.code {
				t.Errorf("closed with %d, want %d", code, c.code)
			}
			<-done
		})
	}
}

func TestASocketThatTakesNothingIsDropped(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.WriteTimeout = 200 * time.Millisecond })
	w := s.dial(t, "/v1/logs/stream?after=0-0", nil, "Authorization", "Bearer "+s.key)
	text := strings.Repeat("x", 200<<10)
	for range 100 {
		s.publish(ours, messages("agt_a", text))
	}
	s.log.wait(t, "write to a socket")
	for {
		if _, _, err := w.conn.Read(w.ctx); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			return
		}
	}
}
