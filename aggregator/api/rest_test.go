package api_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/shared/telemetry"
)

var update = flag.Bool("update", false, "write testdata anew")

// fill gives a site data of two organisations.
func fill(s *site) {
	s.Log.ObservedAt = base.Add(time.Second)
	for _, scope := range []telemetry.Scope{ours, theirs} {
		prefix := strings.TrimPrefix(string(scope.Org), "org_")
		agent, session := telemetry.AgentID("agt_"+prefix), telemetry.SessionID("ses_"+prefix)
		s.mu.Lock()
		s.agents[scope] = []telemetry.Agent{
			{ID: agent, Session: session, User: "user 1", Status: telemetry.AgentRunning, Provider: telemetry.Docker, Sandbox: "sb1", Node: "nod_1", CreatedAt: base, FirstLogAt: base, LastLogAt: base.Add(time.Minute)},
			{ID: agent + "0", Session: "ses_other", Status: telemetry.AgentCompleted, CreatedAt: base.Add(-time.Hour)},
		}
		s.ses[scope] = []telemetry.Session{{ID: session, User: "user 1", Status: telemetry.SessionActive, Env: scope.Env, Metadata: json.RawMessage(`{"plan":"pro"}`), CreatedAt: base}}
		s.nodes[scope] = []telemetry.Node{{ID: telemetry.NodeID("nod_" + prefix), Org: scope.Org, Name: "host", Version: "0.1.0", Generation: 1, CertificateTo: base.Add(24 * time.Hour), CreatedAt: base}}
		s.mu.Unlock()
		var lines []telemetry.LogEntry
		for i := range 5 {
			e := line(agent, fmt.Sprintf("step %d of %s", i, scope.Org))
			e.Timestamp, e.Level, e.Session = base.Add(time.Duration(i)*time.Second), telemetry.Level(i%4), session
			e.Trace, e.Span = "trc_1", "spn_1"
			lines = append(lines, e)
		}
		lines[2].Metadata = json.RawMessage(`{"tool":"grep"}`)
		s.publish(scope, lines, telemetry.Gap{Reason: telemetry.GapRotated, Count: 7, Agent: agent, Since: base, Until: base.Add(time.Second), Detail: "The log file was rotated away."})
	}
}

var requestID = regexp.MustCompile(`req_[0-9a-z]{20}`)

func TestGoldenAnswers(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	limited := s.fakeStore.key(ours, telemetry.LogsRead)
	for name, c := range map[string]struct{ method, path, body, key string }{
		"logs":               {"GET", "/v1/logs?limit=2", "", s.key},
		"logs_filtered":      {"GET", "/v1/logs?agentId=agt_a&level=error,warn&search=STEP&order=asc&since=2026-09-01", "", s.key},
		"logs_none":          {"GET", "/v1/logs?traceId=trc_none", "", s.key},
		"logs_bad":           {"GET", "/v1/logs?level=loud&limit=0&since=yesterday", "", s.key},
		"logs_unknown":       {"GET", "/v1/logs?sessionID=ses_a", "", s.key},
		"logs_no_credential": {"GET", "/v1/logs", "", ""},
		"logs_wrong_key":     {"GET", "/v1/logs", "", "th_live_wrong"},
		"me":                 {"GET", "/v1/me", "", s.key},
		"agents":             {"GET", "/v1/agents?limit=1", "", s.key},
		"agent":              {"GET", "/v1/agents/agt_a", "", s.key},
		"agent_foreign":      {"GET", "/v1/agents/agt_b", "", s.key},
		"sessions":           {"GET", "/v1/sessions", "", s.key},
		"session":            {"GET", "/v1/sessions/ses_a", "", s.key},
		"nodes":              {"GET", "/v1/nodes", "", s.key},
		"events":             {"GET", "/v1/agents/agt_a/events?limit=1", "", s.key},
		"events_foreign":     {"GET", "/v1/agents/agt_b/events", "", s.key},
		"node_ledger":        {"GET", "/v1/nodes/nod_a/ledger", "", s.key},
		"node_ledger_none":   {"GET", "/v1/nodes/nod_b/ledger", "", s.key},
		"nodes_forbidden":    {"GET", "/v1/nodes", "", limited},
		"logs_no_total":      {"GET", "/v1/logs?limit=1&total=none", "", s.key},
		"logs_bad_query":     {"GET", "/v1/logs?q=level:loud", "", s.key},
		"logs_count":         {"GET", "/v1/logs/count?q=step%20-level:debug", "", s.key},
		"logs_count_partial": {"GET", "/v1/logs/count?search=step", "", s.key},
		"logs_histogram":     {"GET", "/v1/logs/histogram?since=2026-09-01T10:00:00Z&until=2026-09-01T10:00:06Z&interval=2s", "", s.key},
		"logs_histogram_bad": {"GET", "/v1/logs/histogram?since=2026-09-01&until=2026-09-02&interval=1s", "", s.key},
		"logs_facets":        {"GET", "/v1/logs/facets?fields=level,sessionId&limit=1", "", s.key},
		"log":                {"GET", "/v1/logs/" + firstLog(s, ours), "", s.key},
		"log_foreign":        {"GET", "/v1/logs/" + firstLog(s, theirs), "", s.key},
		"log_none":           {"GET", "/v1/logs/log_x", "", s.key},
		"log_context":        {"GET", "/v1/logs/" + firstLog(s, ours) + "/context?before=1&after=1", "", s.key},
		"no_such_path":       {"GET", "/v1/nothing", "", s.key},
		"wrong_method":       {"POST", "/v1/agents", "{}", s.key},
		"token_bad_field":    {"POST", "/v1/stream-tokens", `{"ttlSeconds":0}`, s.key},
		"token_unknown":      {"POST", "/v1/stream-tokens", `{"agent":"agt_a"}`, s.key},
		"token_foreign":      {"POST", "/v1/stream-tokens", `{"agentId":"agt_b"}`, s.key},
		"body_not_json":      {"POST", "/v1/stream-tokens", `th_live_secret`, s.key},
		"healthz":            {"GET", "/healthz", "", ""},
		"readyz":             {"GET", "/readyz", "", ""},
		"stream_foreign":     {"GET", "/v1/agents/agt_b/logs/stream", "", s.key},
	} {
		t.Run(name, func(t *testing.T) {
			headers := []string{"Content-Type", "application/json"}
			if c.key != "" {
				headers = append(headers, "Authorization", "Bearer "+c.key)
			}
			a := s.do(t, c.method, c.path, c.body, headers...)
			if id := a.Header.Get("X-Request-Id"); !requestID.MatchString(id) || a.StatusCode >= 400 && strings.Count(a.body, id) != 2 {
				t.Errorf("request id %q in %s", id, a.body)
			}
			golden(t, filepath.Join("testdata", name+".http"), strings.ReplaceAll(requestID.ReplaceAllString(dump(t, c.method, c.path, a), "req_x"), strings.Split(s.key, "_")[2], "keyid"))
		})
	}
}

// dump prints an exchange: status, the headers that say something, the body indented.
func dump(t *testing.T, method, path string, a answer) string {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s\n\n%d\n", method, path, a.StatusCode)
	var names []string
	for name := range a.Header {
		if name != "Date" && name != "Content-Length" && name != "Connection" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&out, "%s: %s\n", name, strings.Join(a.Header[name], ", "))
	}
	var v json.RawMessage
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "\n%s\n", b)
	return out.String()
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// envelope reads an error.
func envelope(t *testing.T, a answer) (code, message string, fields []string) {
	t.Helper()
	var e struct {
		Error struct {
			Code, Message, RequestID string
			Details                  struct {
				Errors []telemetry.FieldError
			}
		}
		RequestID string
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Error.RequestID == "" || e.Error.RequestID != e.RequestID || a.Header.Get("X-Request-Id") != e.RequestID {
		t.Fatalf("%v: %d %s", err, a.StatusCode, a.body)
	}
	for _, f := range e.Error.Details.Errors {
		fields = append(fields, f.Field)
	}
	return e.Error.Code, e.Error.Message, fields
}

// badValues are wrong for a parameter whatever the route. Every parameter of
// every route must be here.
var badValues = map[string][]string{
	"sessionId": {"", "a b", strings.Repeat("x", 129), "a,,b", "\x00", "ses_ü"}, "agentId": {"", "'; drop table", "a/b"},
	"userId": {"", strings.Repeat("u", 257), "\xff", "a\x00b"}, "nodeId": {"", "*"}, "sandboxId": {"", "%"}, "traceId": {"", "<"}, "spanId": {"", ">"},
	"provider": {"", "Docker", "aws", "docker,"}, "stream": {"", "stdin"}, "source": {"", "user"},
	"level": {"", "ERROR", "fatal", "error,loud", "3"}, "minLevel": {"", "loud", "warn,error"},
	"search": {"", strings.Repeat("s", 513), "\xff", "a\x00"},
	"since":  {"", "yesterday", "2026-13-01", "-15", "--15m", "-1e9h", "-99999d", "2026-09-01T10:00:00", "9999-12-31T23:59:59-01:00", "0000-01-01", "0001-01-01", strings.Repeat("9", 70)},
	"until":  {"", "tomorrow", "+15m", "1600000000"},
	"limit":  {"", "0", "-1", "1001", "1.5", "ten", "010", "99999999999999999999"}, "offset": {"", "-1", "10001", "x"},
	"cursor": {"", "x", "AAAA", "AQA", strings.Repeat("A", 5000), "!!!"}, "order": {"", "up", "DESC"},
	"after": {"", "1", "1-", "-1", "x-y", "1-2-3", "01-2"}, "lastEventId": {"", "abc"}, "tail": {"", "-1", "1001", "all"},
	"total": {"", "some", "EXACT"}, "countCursor": {"", "x", "AAAA", "gQA", "!!!"}, "interval": {"", "1", "500ms", "1.5s", "-5m", "0s", "99999d"}, "fields": {"", "message", "level,"},
	"before": {"", "-1", "501"}, "after.context": {"", "-1", "501", "1-2"},
	"token": {"thz_short", "th_live_x", "x"}, "status": {"", "dead", "RUNNING"},
}

func TestEveryParameterRefusesBadValuesByName(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	for _, rt := range api.Routes() {
		if len(rt.Params) == 0 {
			continue
		}
		path := resourcePath(rt.Pattern)
		for _, name := range rt.Params {
			bad := badValues[name]
			if name == "after" && strings.HasSuffix(rt.Pattern, "/context") {
				bad = badValues["after.context"]
			}
			if name == "q" {
				continue // not a 400: see its own test
			}
			if len(bad) == 0 {
				t.Errorf("%s: no bad values are known for %s", rt.Pattern, name)
			}
			if name == "token" {
				continue // a bad one is a 401: see the credentials' test
			}
			if name == "status" && strings.Contains(rt.Pattern, "sessions") {
				bad = append(slices.Clone(bad), "running")
			}
			for _, value := range bad {
				a := s.get(t, path+"?"+url.Values{name: {value}}.Encode())
				code, _, fields := envelope(t, a)
				if a.StatusCode != 400 || code != "invalid_request" || !slices.Contains(fields, name) {
					t.Errorf("%s %s=%.40q: %d %s", path, name, value, a.StatusCode, a.body)
				}
			}
		}
		for _, single := range []string{"minLevel", "search", "since", "until", "limit", "offset", "cursor", "order", "tail", "status"} {
			if slices.Contains(rt.Params, single) {
				a := s.get(t, path+"?"+single+"=1&"+single+"=1")
				if _, _, fields := envelope(t, a); a.StatusCode != 400 || !slices.Contains(fields, single) {
					t.Errorf("%s %s given twice: %d %s", path, single, a.StatusCode, a.body)
				}
			}
		}
	}
}

func resourcePath(pattern string) string {
	if strings.Contains(pattern, "agents/{id}") {
		return strings.Replace(pattern, "{id}", "agt_a", 1)
	}
	return strings.Replace(pattern, "{id}", "ses_a", 1)
}

func TestEveryRouteRefusesUnknownParametersAndBadCredentials(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	nothing := s.fakeStore.key(ours)
	for _, rt := range api.Routes() {
		if rt.Need == "" {
			t.Errorf("%s %s says no permission", rt.Method, rt.Pattern)
		}
		path := resourcePath(rt.Pattern)
		call := func(key, query string) answer {
			headers := []string{"Content-Type", "application/json"}
			if key != "" {
				headers = append(headers, "Authorization", "Bearer "+key)
			}
			return s.do(t, rt.Method, path+query, "{}", headers...)
		}
		a := call(s.key, "?bogus=1")
		if rt.Method == "POST" && (strings.HasPrefix(path, "/otlp/") || path == "/v1/traces" || path == "/v1/metrics") {
			if a.StatusCode != 400 || !strings.Contains(a.body, `{"code":3,"message":"Parameter bogus`) {
				t.Errorf("%s ?bogus=1: %d %s", path, a.StatusCode, a.body)
			}
		} else if _, _, fields := envelope(t, a); a.StatusCode != 400 || !slices.Equal(fields, []string{"bogus"}) {
			t.Errorf("%s ?bogus=1: %d %s", path, a.StatusCode, a.body)
		}
		if a := call(s.key, "?%zz"); a.StatusCode != 400 {
			t.Errorf("%s with a bad query: %d", path, a.StatusCode)
		}
		if rt.Need == "public" {
			continue
		}
		changed := s.key[:len(s.key)-1] + "_"
		for _, key := range []string{"", "th_live_x", changed, "thz_" + s.key[8:], "Basic"} {
			if a := call(key, ""); a.StatusCode != 401 || a.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s with key %q: %d %s", path, key, a.StatusCode, a.body)
			}
		}
		if a := call(nothing, ""); rt.Need != "signed-in" && a.StatusCode != 403 {
			t.Errorf("%s without permission %s: %d %s", path, rt.Need, a.StatusCode, a.body)
		}
	}
}

func TestForeignIdsAnswerLikeUnknownOnes(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	test := s.fakeStore.key(telemetry.Scope{Org: ours.Org, Env: telemetry.Test}, everyone...)
	for _, path := range []string{"/v1/agents/agt_%s", "/v1/sessions/ses_%s", "/v1/agents/agt_%s/logs/stream", "/v1/sessions/ses_%s/logs/stream"} {
		foreign, unknown := s.get(t, fmt.Sprintf(path, "b")), s.get(t, fmt.Sprintf(path, "z"))
		if foreign.StatusCode != 404 || unknown.StatusCode != 404 ||
			requestID.ReplaceAllString(foreign.body, "") != strings.ReplaceAll(requestID.ReplaceAllString(unknown.body, ""), "_z", "_b") {
			t.Errorf("%s: %s %s", path, foreign.body, unknown.body)
		}
		if a := s.do(t, "GET", fmt.Sprintf(path, "a"), "", "Authorization", "Bearer "+test); a.StatusCode != 404 {
			t.Errorf("%s with a key of the other environment: %d", path, a.StatusCode)
		}
	}
	a := s.get(t, "/v1/logs?agentId=agt_b")
	if !strings.Contains(a.body, `"total":0`) {
		t.Errorf("another organisation's lines: %s", a.body)
	}
}

// logsAnswer is what the tests read of GET /v1/logs.
type logsAnswer struct {
	Data         []map[string]any
	Total        int
	TotalIsExact bool
	HasMore      bool
	Cursor       *string
	StreamCursor string
	Gaps         []map[string]any
}

func readLogs(t *testing.T, a answer) logsAnswer {
	t.Helper()
	var l logsAnswer
	if err := json.Unmarshal([]byte(a.body), &l); err != nil || a.StatusCode != 200 {
		t.Fatalf("%v: %d %s", err, a.StatusCode, a.body)
	}
	return l
}

func TestPagesTogetherAreTheWholeList(t *testing.T) {
	s := newSite(t, nil)
	for i := range 47 {
		s.publish(ours, messages("agt_a", strconv.Itoa(i)))
	}
	for _, order := range []string{"asc", "desc"} {
		var all []string
		path := "/v1/logs?limit=10&order=" + order
		for next := path; next != ""; {
			l := readLogs(t, s.get(t, next))
			for _, e := range l.Data {
				all = append(all, e["message"].(string))
			}
			next = ""
			if l.HasMore {
				next = path + "&cursor=" + *l.Cursor
			} else if l.Cursor != nil || l.Total != 47 || l.StreamCursor != "0-47" {
				t.Errorf("last page %+v", l)
			}
		}
		if order == "desc" {
			slices.Reverse(all)
		}
		for i, text := range all {
			if text != strconv.Itoa(i) {
				t.Fatalf("%s: %v", order, all)
			}
		}
		if len(all) != 47 {
			t.Errorf("%s: %d lines", order, len(all))
		}
	}
}

func TestACursorOfAnotherListIsRefused(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	cursor := *readLogs(t, s.get(t, "/v1/logs?limit=1&since=-36500d&level=info,error")).Cursor
	if a := s.get(t, "/v1/logs?limit=3&since=-36500d&level=info,error&cursor="+cursor); a.StatusCode != 200 {
		t.Errorf("another limit: %s", a.body)
	}
	for _, query := range []string{"since=-36500d", "since=-36499d&level=info,error", "since=-36500d&level=info,error&order=asc", "since=-36500d&level=info,error&agentId=agt_a"} {
		a := s.get(t, "/v1/logs?"+query+"&cursor="+cursor)
		if _, _, fields := envelope(t, a); a.StatusCode != 400 || !slices.Equal(fields, []string{"cursor"}) {
			t.Errorf("%s: %d %s", query, a.StatusCode, a.body)
		}
	}
	a := s.get(t, "/v1/logs?offset=1&since=-36500d&level=info,error&cursor="+cursor)
	if _, _, fields := envelope(t, a); a.StatusCode != 400 || !slices.Equal(fields, []string{"offset"}) {
		t.Errorf("offset beside cursor: %s", a.body)
	}
	s.Restore(4, 1000)
	a = s.get(t, "/v1/logs?since=-36500d&level=info,error&cursor="+cursor)
	if code, _, _ := envelope(t, a); a.StatusCode != 410 || code != "gone" {
		t.Errorf("after a restore: %d %s", a.StatusCode, a.body)
	}
}

func TestListsOfAgentsPage(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	first := s.get(t, "/v1/agents?limit=1")
	var p struct {
		Data    []map[string]any
		HasMore bool
		Cursor  *string
	}
	if err := json.Unmarshal([]byte(first.body), &p); err != nil || !p.HasMore || p.Data[0]["id"] != "agt_a" {
		t.Fatalf("%v %s", err, first.body)
	}
	second := s.get(t, "/v1/agents?limit=1&cursor="+*p.Cursor)
	if !strings.Contains(second.body, `"id":"agt_a0"`) || !strings.Contains(second.body, `"hasMore":false,"cursor":null`) {
		t.Errorf("%s", second.body)
	}
	for query, want := range map[string]int{"status=completed": 1, "sessionId=ses_a": 1, "status=failed": 0} {
		if got := strings.Count(s.get(t, "/v1/agents?"+query).body, `"createdAt"`); got != want {
			t.Errorf("%s: %d agents", query, got)
		}
	}
}

func TestFailuresOfTheStore(t *testing.T) {
	s := newSite(t, nil)
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{telemetry.Failf(telemetry.Unavailable, "The database is away."), 503, "unavailable"},
		{fmt.Errorf("password=secret: %w", os.ErrPermission), 500, "internal_error"},
		{fmt.Errorf("scan: %w", os.ErrDeadlineExceeded), 500, "internal_error"},
		{telemetry.Failf(telemetry.RateLimited, "Too many scans."), 429, "rate_limited"},
	} {
		s.fail(c.err)
		a := s.get(t, "/v1/logs")
		if code, message, _ := envelope(t, a); a.StatusCode != c.status || code != c.code || strings.Contains(message, "secret") {
			t.Errorf("%v: %d %s", c.err, a.StatusCode, a.body)
		}
		if c.status == 503 && a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	s.fail(nil)
	s.mu.Lock()
	s.panics = true
	s.mu.Unlock()
	if code, _, _ := envelope(t, s.get(t, "/v1/me")); code != "internal_error" {
		t.Errorf("a panic answers %s", code)
	}
	if !strings.Contains(s.log.String(), "the fake store was told to") {
		t.Error("the panic is not in the log")
	}
}

func TestNotReady(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) {
		c.Ready = func(context.Context) error { return os.ErrClosed }
	})
	if a := s.do(t, "GET", "/readyz", ""); a.StatusCode != http.StatusServiceUnavailable || strings.Contains(a.body, "closed") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := s.do(t, "GET", "/healthz", ""); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}
