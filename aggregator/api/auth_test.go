package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

func (s *site) signIn(t *testing.T, headers ...string) *http.Cookie {
	t.Helper()
	a := s.do(t, "POST", "/v1/auth/sign-in", `{"apiKey":"`+s.key+`"}`, append(headers, "Content-Type", "application/json")...)
	if a.StatusCode != http.StatusNoContent || len(a.Cookies()) != 1 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	return a.Cookies()[0]
}

func TestSignInAndOut(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.TLSProxy = true })
	ck := s.signIn(t)
	if ck.Name != "theazo_session" || !ck.HttpOnly || ck.SameSite != http.SameSiteLaxMode || ck.Path != "/" || ck.Secure {
		t.Errorf("over plain http: %v", ck)
	}
	if ck := s.signIn(t, "X-Forwarded-Proto", "https"); ck.Name != "__Host-theazo_session" || !ck.Secure || ck.Domain != "" || ck.Path != "/" {
		t.Errorf("over https: %v", ck)
	}
	cookie := ck.Name + "=" + ck.Value
	if a := s.do(t, "GET", "/v1/me", "", "Cookie", cookie); a.StatusCode != 200 {
		t.Errorf("with the cookie: %d %s", a.StatusCode, a.body)
	}
	if a := s.do(t, "GET", "/v1/me", "", "Cookie", cookie, "Authorization", "Bearer th_live_bad"); a.StatusCode != 401 {
		t.Errorf("a bad header is not made good by a cookie: %d", a.StatusCode)
	}
	out := s.do(t, "POST", "/v1/auth/sign-out", "", "Cookie", cookie)
	if out.StatusCode != 204 || out.Cookies()[0].MaxAge >= 0 {
		t.Errorf("sign-out: %d %v", out.StatusCode, out.Cookies())
	}
	for _, bad := range []string{cookie, ck.Name + "=" + s.key, ck.Name + "=", ck.Name + "=thc_" + strings.Repeat("x", 500)} {
		if a := s.do(t, "GET", "/v1/me", "", "Cookie", bad); a.StatusCode != 401 {
			t.Errorf("%.40s: %d", bad, a.StatusCode)
		}
	}
	for _, body := range []string{`{"apiKey":"th_live_x"}`, `{}`, `{"apiKey":"` + s.key[:len(s.key)-1] + `_"}`} {
		if a := s.do(t, "POST", "/v1/auth/sign-in", body, "Content-Type", "application/json"); a.StatusCode != 401 || len(a.Cookies()) != 0 {
			t.Errorf("%s: %d", body, a.StatusCode)
		}
	}
}

func TestBodiesAreStrict(t *testing.T) {
	s := newSite(t, nil)
	for _, c := range []struct {
		kind, body string
		status     int
	}{
		{"text/plain", `{"apiKey":"x"}`, 415},
		{"", `{}`, 415},
		{"application/x-www-form-urlencoded", "apiKey=x", 415},
		{"application/json", `{"apiKey":1}`, 422},
		{"application/json", `{"apiKey":"x","admin":true}`, 422},
		{"application/json", `{"apiKey":"x"}{}`, 400},
		{"application/json", ``, 400},
		{"application/json", `[]`, 400},
		{"application/json", `{"apiKey":"` + strings.Repeat("x", 70<<10) + `"}`, 413},
		{"application/json; charset=utf-8", `{"apiKey":"x"}`, 401},
	} {
		a := s.do(t, "POST", "/v1/auth/sign-in", c.body, "Content-Type", c.kind)
		if envelope(t, a); a.StatusCode != c.status {
			t.Errorf("%s %.40s: %d %s", c.kind, c.body, a.StatusCode, a.body)
		}
	}
}

func TestABodyThatDripsInIsCutOff(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.WriteTimeout = 50 * time.Millisecond })
	body, unfinished := io.Pipe()
	defer unfinished.Close()
	r := s.request(t, "POST", "/v1/auth/sign-in", "", "Content-Type", "application/json")
	r.Body, r.ContentLength = body, 100
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("%d", res.StatusCode)
	}
}

func TestPagesOfOtherSites(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.AllowedOrigins = []string{"https://app.example.com"} })
	ck := s.signIn(t)
	cookie := ck.Name + "=" + ck.Value
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		allowed                  string
	}{
		{"a form of another site", "POST", "/v1/auth/sign-out", "", []string{"Cookie", cookie, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, 403, ""},
		{"an older browser", "POST", "/v1/stream-tokens", "{}", []string{"Cookie", cookie, "Origin", "https://evil.example"}, 403, ""},
		{"a neighbour's subdomain", "POST", "/v1/stream-tokens", "{}", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-site", "Origin", "https://evil.example.com"}, 403, ""},
		{"signing a visitor in", "POST", "/v1/auth/sign-in", "{}", []string{"Sec-Fetch-Site", "cross-site", "Origin", "null"}, 403, ""},
		{"our own page", "POST", "/v1/stream-tokens", "{}", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-origin"}, 200, ""},
		{"a program", "POST", "/v1/stream-tokens", "{}", []string{"Authorization", "Bearer " + s.key}, 200, ""},
		{"an allowed page with a key", "POST", "/v1/stream-tokens", "{}", []string{"Authorization", "Bearer " + s.key, "Sec-Fetch-Site", "cross-site", "Origin", "https://app.example.com"}, 200, "https://app.example.com"},
		{"an allowed page reads", "GET", "/v1/logs", "", []string{"Authorization", "Bearer " + s.key, "Origin", "https://app.example.com"}, 200, "https://app.example.com"},
		{"another page cannot read", "GET", "/v1/logs", "", []string{"Authorization", "Bearer " + s.key, "Origin", "https://evil.example"}, 200, ""},
		{"an allowed page asks first", "OPTIONS", "/v1/logs", "", []string{"Origin", "https://app.example.com", "Access-Control-Request-Method", "GET"}, 204, "https://app.example.com"},
		{"another page asks first", "OPTIONS", "/v1/logs", "", []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "GET"}, 405, ""},
		{"an almost allowed page", "OPTIONS", "/v1/logs", "", []string{"Origin", "https://app.example.com.evil.example", "Access-Control-Request-Method", "GET"}, 405, ""},
	} {
		a := s.do(t, c.method, c.path, c.body, append(c.headers, "Content-Type", "application/json")...)
		if a.StatusCode != c.status || a.Header.Get("Access-Control-Allow-Origin") != c.allowed || a.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %d %v", c.name, a.StatusCode, a.Header)
		}
	}
	if _, err := api.New(api.Config{Store: s.fakeStore, Hub: s.hub, AllowedOrigins: []string{"app.example.com"}}); err == nil {
		t.Error("an origin without a scheme was taken")
	}
}

// streamToken makes a token.
func (s *site) streamToken(t *testing.T, body string) string {
	t.Helper()
	a := s.do(t, "POST", "/v1/stream-tokens", body, "Authorization", "Bearer "+s.key, "Content-Type", "application/json")
	var v struct{ Token, ExpiresAt string }
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.StatusCode != 200 || ids.CheckStreamToken(v.Token) != nil || !strings.HasSuffix(v.ExpiresAt, ".123Z") {
		t.Fatalf("%v %d %s", err, a.StatusCode, a.body)
	}
	return v.Token
}

func TestStreamTokensOpenWhatTheyWereMadeFor(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	s.mu.Lock()
	s.agents[ours] = append(s.agents[ours], telemetry.Agent{ID: "agt_a2", Session: "ses_a", CreatedAt: base})
	s.mu.Unlock()
	all, agent, session := s.streamToken(t, "{}"), s.streamToken(t, `{"agentId":"agt_a","ttlSeconds":60}`), s.streamToken(t, `{"sessionId":"ses_a"}`)
	for _, c := range []struct {
		token, path string
		status      int
	}{
		{all, "/v1/logs/stream?", 200},
		{all, "/v1/agents/agt_a/logs/stream?", 200},
		{all, "/v1/agents/agt_b/logs/stream?", 404},
		{agent, "/v1/agents/agt_a/logs/stream?", 200},
		{agent, "/v1/agents/agt_a2/logs/stream?", 404},
		{agent, "/v1/logs/stream?", 200},
		{agent, "/v1/logs/stream?agentId=agt_a2&", 404},
		{session, "/v1/sessions/ses_a/logs/stream?", 200},
		{session, "/v1/agents/agt_a2/logs/stream?", 200},
		{session, "/v1/agents/agt_a0/logs/stream?", 404},
		{session, "/v1/logs/stream?sessionId=ses_other&", 404},
		{s.key, "/v1/logs/stream?", 200},
		{s.fakeStore.key(ours, telemetry.NodesRead), "/v1/logs/stream?", 403},
		{agent[:len(agent)-1] + "_", "/v1/logs/stream?", 401},
		{ids.NewStreamToken(), "/v1/logs/stream?", 401},
		{"x", "/v1/logs/stream?", 401},
	} {
		es, status := s.tryOpen(t, c.path+"token="+c.token)
		if status != c.status {
			t.Errorf("%s: %d, want %d", c.path, status, c.status)
		}
		es.close()
	}
	es := s.open(t, "/v1/logs/stream?token="+agent)
	if e := es.want("ready"); !strings.Contains(e.data, `"agentId":["agt_a"]`) {
		t.Errorf("its filter: %s", e.data)
	}
	s.publish(ours, messages("agt_a2", "not for it"))
	s.publish(ours, messages("agt_a", "for it"))
	if got := message(t, es.want("log")); got != "for it" {
		t.Error(got)
	}
	for _, path := range []string{"/v1/logs", "/v1/me", "/v1/agents/agt_a"} {
		if a := s.do(t, "GET", path+"?token="+all, ""); a.StatusCode != 400 {
			t.Errorf("%s takes a token in its URL: %d", path, a.StatusCode)
		}
		if a := s.do(t, "GET", path, "", "Authorization", "Bearer "+all); a.StatusCode != 401 {
			t.Errorf("%s takes a stream token: %d", path, a.StatusCode)
		}
	}
}

func TestNoCredentialIsLogged(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	token := s.streamToken(t, `{}`)
	ck := s.signIn(t)
	for _, path := range []string{
		"/v1/logs/stream?token=" + token, "/v1/logs?token=" + token, "/v1/logs?%74oken=" + token, "/v1/logs?search=" + s.key,
		"/v1/logs?" + s.key + "=1", "/v1/logs?Token=" + s.key + ";x", "/v1/logs?x=" + strings.ReplaceAll(s.key, "_", "%5F"),
		"/v1/agents/" + s.key, "/v1/agents/" + token + "/logs/stream", "/v1/" + ck.Value, "/v1/logs?level=" + token, "/v1/logs?cursor=" + s.key,
	} {
		es, _ := s.tryOpen(t, path, "Cookie", ck.Name+"="+ck.Value)
		es.close()
	}
	s.do(t, "POST", "/v1/auth/sign-in", `{"apiKey":"`+s.key+`","x":1}`, "Content-Type", "application/json")
	s.do(t, "POST", "/v1/auth/sign-in", `{"apiKey":"`+s.key[:len(s.key)-1]+`_"}`, "Content-Type", "application/json")
	s.api.Drain(t.Context())
	for name, secret := range map[string]string{"key": s.key, "token": token, "cookie": ck.Value} {
		// The id in a key is no secret; what follows it is.
		parts := strings.Split(secret, "_")
		if strings.Contains(s.log.String(), parts[len(parts)-1][:20]) {
			t.Errorf("the %s is in the log", name)
		}
	}
	if !strings.Contains(s.log.String(), "token=redacted") {
		t.Error("no request with a token was logged")
	}
}

func TestKeysOfEachEnvironmentSeeTheirOwn(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	testScope := telemetry.Scope{Org: ours.Org, Env: telemetry.Test}
	s.publish(testScope, messages("agt_t", "a test"))
	key := s.fakeStore.key(testScope, everyone...)
	for _, c := range []struct{ key, env, total string }{{s.key, "live", "5"}, {key, "test", "1"}} {
		a := s.do(t, "GET", "/v1/logs", "", "Authorization", "Bearer "+c.key)
		if !strings.Contains(a.body, fmt.Sprintf(`"total":%s,`, c.total)) {
			t.Errorf("%s: %s", c.env, a.body)
		}
		if a := s.do(t, "GET", "/v1/me", "", "Authorization", "bearer "+c.key); !strings.Contains(a.body, `"environment":"`+c.env+`"`) {
			t.Errorf("%s: %s", c.env, a.body)
		}
	}
}
