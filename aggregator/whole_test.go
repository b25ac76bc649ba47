package aggregator

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/logexport"
	"github.com/theazo/observability/shared/telemetry"
)

// running is an aggregator in this process, on a real database.
type running struct {
	t   *testing.T
	cfg Config
	db  *storetest.Database
	org telemetry.OrgID
	url string
}

func startWhole(t *testing.T, change func(*Config)) *running {
	t.Helper()
	r := &running{t: t, cfg: Default(), db: storetest.New(t)}
	r.org = r.db.Organisation(t)
	r.cfg.DataDir = t.TempDir()
	r.cfg.Database.DSN = r.db.DSN
	r.cfg.Listen.API, r.cfg.Listen.Admin, r.cfg.Listen.Enrolment, r.cfg.Listen.Ingest = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	if change != nil {
		change(&r.cfg)
	}
	o := r.cfg.storeOptions()
	o.DSN, o.Log = r.db.DSN, storetest.Log(t)
	var err error
	if o.ErasureKey, err = store.OpenErasureKey(r.cfg.erasureKeyFile()); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	a := &aggregator{cfg: r.cfg, version: "test", log: storetest.Log(t), store: s, registry: prometheus.NewRegistry()}
	if err := a.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + a.public.Addr().String()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx, time.Now(), nil) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return r
}

func (r *running) key(org telemetry.OrgID, env telemetry.Environment, permissions ...telemetry.Permission) string {
	r.t.Helper()
	key, err := r.db.Admin(r.t).CreateAPIKey(r.t.Context(), org, env, "test", permissions, time.Time{})
	if err != nil {
		r.t.Fatal(err)
	}
	return key
}

// httpClient has no keep-alive, so that nothing is left when a test ends.
var httpClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func (r *running) call(method, path, key, contentType string, body io.Reader, headers ...string) (*http.Response, string) {
	r.t.Helper()
	q, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+key)
	q.Header.Set("Content-Type", contentType)
	for i := 0; i+1 < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	res, err := httpClient.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(b)
}

func (r *running) total(key, query string) int64 {
	r.t.Helper()
	res, body := r.call("GET", "/v1/logs?limit=1&"+query, key, "", nil)
	var page struct{ Total int64 }
	if err := json.Unmarshal([]byte(body), &page); err != nil || res.StatusCode != http.StatusOK {
		r.t.Fatalf("%v: %d %s", err, res.StatusCode, body)
	}
	return page.Total
}

const ndjson = "application/x-ndjson"

func pushedLines(agent string, from, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"timestamp":"2026-09-01T10:%02d:%02d.%03dZ","level":"warn","agentId":%q,"sessionId":"ses_ci","message":"line %d"}`+"\n", (from+i)/60%60, (from+i)%60, i%1000, agent, from+i)
	}
	return b.String()
}

func TestPushedLinesAreThereOnceAndOnlyForTheirOwner(t *testing.T) {
	r := startWhole(t, nil)
	key := r.key(r.org, telemetry.Live, telemetry.AllPermissions...)
	other := r.key(r.db.Organisation(t), telemetry.Live, telemetry.AllPermissions...)
	reader := r.key(r.org, telemetry.Live, telemetry.LogsRead)
	test := r.key(r.org, telemetry.Test, telemetry.AllPermissions...)

	// Whoever watches sees them, because the hub is told.
	watch, cancel := context.WithCancel(t.Context())
	defer cancel()
	q, err := http.NewRequestWithContext(watch, http.MethodGet, r.url+"/v1/logs/stream?agentId=agt_ci", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+key)
	stream, err := httpClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()

	body := pushedLines("agt_ci", 0, 500)
	for i, want := range []string{"", "true", "true"} {
		res, answer := r.call("POST", "/v1/logs", key, ndjson, strings.NewReader(body), "Idempotency-Key", "build-7")
		if res.StatusCode != http.StatusOK || !strings.Contains(answer, `"accepted":500`) || res.Header.Get("Idempotency-Replayed") != want {
			t.Fatalf("attempt %d: %d %s %v", i, res.StatusCode, answer, res.Header)
		}
	}
	seen := 0
	for lines := bufio.NewScanner(stream.Body); seen < 500 && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), `data: {"id"`) {
			if !strings.Contains(lines.Text(), fmt.Sprintf(`"message":"line %d"`, seen)) {
				t.Fatalf("line %d is %s", seen, lines.Text())
			}
			seen++
		}
	}
	for query, want := range map[string]int64{"": 500, "agentId=agt_ci": 500, "sessionId=ses_ci&level=warn": 500, "nodeId=api": 500, "q=agent:agt_x": 0, "search=line+7": 11} {
		if n := r.total(key, query); n != want {
			t.Errorf("%s: %d lines", query, n)
		}
	}
	if n := r.total(other, "") + r.total(test, ""); n != 0 {
		t.Errorf("others see %d lines", n)
	}
	if res, answer := r.call("POST", "/v1/logs", key, ndjson, strings.NewReader(pushedLines("agt_ci", 0, 501)), "Idempotency-Key", "build-7"); res.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("the key with another body: %d %s", res.StatusCode, answer)
	}
	// The same text is another organisation's own key, and another environment's.
	for _, k := range []string{other, test} {
		if res, answer := r.call("POST", "/v1/logs", k, ndjson, strings.NewReader(body), "Idempotency-Key", "build-7"); res.StatusCode != http.StatusOK || res.Header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%d %s", res.StatusCode, answer)
		}
		if n := r.total(k, ""); n != 500 {
			t.Errorf("they have %d lines", n)
		}
	}
	if res, answer := r.call("POST", "/v1/logs", reader, ndjson, strings.NewReader(body)); res.StatusCode != http.StatusForbidden || !strings.Contains(answer, "logs:write") {
		t.Errorf("a reader's key: %d %s", res.StatusCode, answer)
	}
	if n := r.total(key, ""); n != 500 {
		t.Errorf("%d lines at the end", n)
	}
}

func TestManyPushersAtATime(t *testing.T) {
	r := startWhole(t, nil)
	key := r.key(r.org, telemetry.Live, telemetry.AllPermissions...)
	var senders sync.WaitGroup
	for i := range 16 {
		senders.Go(func() {
			for n := range 5 {
				var headers []string
				if i%2 == 0 {
					headers = []string{"Idempotency-Key", fmt.Sprint("k", i, "-", n)}
				}
				for range 2 - i%2 { // those with a key twice
					if res, answer := r.call("POST", "/v1/logs", key, ndjson, strings.NewReader(pushedLines(fmt.Sprint("agt_", i), n*20, 20)), headers...); res.StatusCode != http.StatusOK {
						t.Errorf("%d %s", res.StatusCode, answer)
					}
				}
			}
		})
	}
	senders.Wait()
	if n := r.total(key, ""); n != 16*5*20 {
		t.Errorf("%d lines", n)
	}
	for i := range 16 {
		if n := r.total(key, fmt.Sprint("agentId=agt_", i)); n != 100 {
			t.Errorf("agent %d has %d lines", i, n)
		}
	}
}

func TestHostilePushesCostNobodyElseAnything(t *testing.T) {
	r := startWhole(t, func(c *Config) { c.Quota.RecordsPerSecond = 1 })
	key := r.key(r.org, telemetry.Live, telemetry.AllPermissions...)
	other := r.key(r.db.Organisation(t), telemetry.Live, telemetry.AllPermissions...)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 100<<20))
	_ = z.Close()
	for name, c := range map[string]struct {
		path, contentType string
		body              io.Reader
		headers           []string
		status            int
	}{
		"a bomb":         {"/v1/logs", ndjson, &bomb, []string{"Content-Encoding", "gzip"}, 413},
		"too large":      {"/v1/logs", ndjson, bytes.NewReader(make([]byte, 9<<20)), nil, 413},
		"not a type":     {"/v1/logs", "text/html", strings.NewReader("x"), nil, 415},
		"not a coding":   {"/v1/logs", ndjson, strings.NewReader("x"), []string{"Content-Encoding", "br"}, 415},
		"not a line":     {"/v1/logs", ndjson, strings.NewReader("\xff\x00"), nil, 422},
		"deep":           {"/v1/logs", "application/json", strings.NewReader(strings.Repeat("[", 1<<20)), nil, 400},
		"not protobuf":   {"/v1/traces", "application/x-protobuf", strings.NewReader("\xff"), nil, 400},
		"not OTLP":       {"/otlp/v1/metrics", "application/json", strings.NewReader("[]"), nil, 400},
		"bad parameters": {"/v1/logs?org=org_b", ndjson, strings.NewReader(""), nil, 400},
	} {
		if res, answer := r.call("POST", c.path, key, c.contentType, c.body, c.headers...); res.StatusCode != c.status {
			t.Errorf("%s: %d %s", name, res.StatusCode, answer)
		}
	}
	if n := r.total(key, ""); n != 0 {
		t.Errorf("%d lines of it are stored", n)
	}
	// Text that others have tripped over is stored, clean, and found.
	hostile := `{"agentId":"agt_x","message":"\u0000\u001b[31m \ud800 ` + "\xff" + ` \u2028","metadata":{"__proto__":"\u0000","a":1,"a":2}}` + "\n" +
		`{"agentId":"agt_x","message":"far away","timestamp":"9999-12-31T23:59:59Z"}` + "\n" + `{"agentId":"agt_x","message":"long ago","timestamp":"0001-01-02T00:00:00Z"}`
	if res, answer := r.call("POST", "/v1/logs", key, ndjson, strings.NewReader(hostile)); res.StatusCode != 200 || !strings.Contains(answer, `"accepted":3`) {
		t.Fatalf("%d %s", res.StatusCode, answer)
	}
	if n := r.total(key, "agentId=agt_x"); n != 3 {
		t.Errorf("%d lines", n)
	}
	// Over the quota, and nobody else is: 500 lines are paid for by 500 seconds.
	r.call("POST", "/v1/logs", key, ndjson, strings.NewReader(pushedLines("agt_flood", 0, 500)))
	if res, answer := r.call("POST", "/v1/logs", key, ndjson, strings.NewReader(pushedLines("agt_flood", 0, 500))); res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
		t.Errorf("over the quota: %d %s", res.StatusCode, answer)
	}
	if res, answer := r.call("POST", "/v1/logs", other, ndjson, strings.NewReader(pushedLines("agt_o", 0, 10))); res.StatusCode != http.StatusOK {
		t.Errorf("another organisation: %d %s", res.StatusCode, answer)
	}
}

func TestWhatIsStoredCanBeAskedForInEveryWay(t *testing.T) {
	r := startWhole(t, nil)
	key := r.key(r.org, telemetry.Live, telemetry.AllPermissions...)
	if res, answer := r.call("POST", "/v1/logs", key, ndjson, strings.NewReader(pushedLines("agt_a", 0, 3000)+pushedLines("agt_b", 0, 10))); res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", res.StatusCode, answer)
	}
	get := func(path string, into any, headers ...string) string {
		t.Helper()
		res, body := r.call("GET", path, key, "", nil, headers...)
		if res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", path, res.StatusCode, body)
		}
		if into != nil {
			if err := json.Unmarshal([]byte(body), into); err != nil {
				t.Fatalf("%s: %v %s", path, err, body)
			}
		}
		return body
	}
	var page struct {
		Data []struct{ ID, Message string }
	}
	get("/v1/logs?agentId=agt_b&order=asc&total=none", &page)
	if len(page.Data) != 10 {
		t.Fatalf("%+v", page)
	}
	var one struct{ ID, Message string }
	if get("/v1/logs/"+page.Data[4].ID, &one); one != page.Data[4] {
		t.Errorf("%+v is not %+v", one, page.Data[4])
	}
	var near struct {
		Before, After []struct{ Message string }
		HasMoreBefore bool
	}
	get("/v1/logs/"+page.Data[4].ID+"/context?before=2&after=50", &near)
	if len(near.Before) != 2 || near.Before[0].Message != "line 2" || len(near.After) != 5 || !near.HasMoreBefore {
		t.Errorf("%+v", near)
	}
	var sum struct {
		Total        int64
		TotalIsExact bool
		Data         []struct{ Total, Warn int64 }
	}
	get("/v1/logs/histogram?since=2026-09-01T10:00:00Z&until=2026-09-01T11:00:00Z&interval=10m", &sum)
	if sum.Total != 3010 || len(sum.Data) != 6 || sum.Data[0].Warn != 610 {
		t.Errorf("%+v", sum)
	}
	if get("/v1/logs/count?q=agent:agt_a+-%22line+1%22", &sum); sum.Total != 3000-1111 || !sum.TotalIsExact {
		t.Errorf("%+v", sum)
	}
	if body := get("/v1/logs/facets?fields=agentId", nil); !strings.Contains(body, `{"value":"agt_a","count":3000},{"value":"agt_b","count":10}`) {
		t.Errorf("%s", body)
	}
	csv, lines := get("/v1/logs?order=asc", nil, "Accept", "text/csv"), get("/v1/logs?order=asc", nil, "Accept", ndjson)
	if strings.Count(csv, "\n") != 3011 || strings.Count(lines, "\n") != 3010 {
		t.Errorf("%d lines of CSV, %d of NDJSON", strings.Count(csv, "\n"), strings.Count(lines, "\n"))
	}
	// The same from the database itself.
	var out bytes.Buffer
	var last ExportProgress
	x := Export{Scope: telemetry.Scope{Org: r.org}, Query: telemetry.LogQuery{Order: telemetry.OldestFirst}, Format: logexport.NDJSON, Progress: func(p ExportProgress) { last = p }}
	if err := x.Run(t.Context(), r.cfg, &out, storetest.Log(t)); err != nil || out.String() != lines || last.Lines != 3010 || last.Bytes != int64(out.Len()) {
		t.Errorf("%v: %d bytes, %d by the API: %+v", err, out.Len(), len(lines), last)
	}
	// What is erased is in no export, of either kind.
	if res, answer := r.call("POST", "/v1/erasures", r.key(r.org, telemetry.Live, telemetry.DataErase), "application/json", strings.NewReader(`{"agentId":"agt_a"}`)); res.StatusCode/100 != 2 {
		t.Fatalf("%d %s", res.StatusCode, answer)
	}
	out.Reset()
	if err := x.Run(t.Context(), r.cfg, &out, storetest.Log(t)); err != nil || strings.Count(out.String(), "\n") != 10 {
		t.Errorf("%v: %d lines after an erasure", err, strings.Count(out.String(), "\n"))
	}
	if after := get("/v1/logs?order=asc", nil, "Accept", ndjson); after != out.String() {
		t.Errorf("the API gives %d bytes, the database %d", len(after), out.Len())
	}
	x.Scope.Org = "org_none"
	if err := x.Run(t.Context(), r.cfg, &out, storetest.Log(t)); telemetry.CodeOf(err) != telemetry.NotFound {
		t.Errorf("an organisation that there is not: %v", err)
	}
}
