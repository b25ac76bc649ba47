package sandbox

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

func TestTheClientsFiveCallsBecomeRecords(t *testing.T) {
	to := target("agt_1", "ses_1")
	e := bound(t, to)
	who := `"agentId":"agt_1","sessionId":"ses_1",`
	for path, body := range map[string]string{
		"log":      `{` + who + `"level":"warn","message":"two\nlines","metadata":{"a": 1},"timestamp":"2026-11-22T07:00:00.123Z","new":[1]}`,
		"model":    `{` + who + `"model":"m-1","inputTokens":1200,"outputTokens":34,"cost":{"amount":0.123,"currency":"USD"},"timestamp":1795330800123}`,
		"span":     `{` + who + `"name":"tool.exec","startTime":"2026-11-22T07:00:00Z","endTime":"2026-11-22T07:00:01.5Z","durationMs":1500,"status":"failed","error":"no","attributes":{"k":"v"}}`,
		"progress": `{` + who + `"percentage":42.5,"message":"half way","timestamp":"2026-11-22T07:00:00Z"}`,
		"complete": `{` + who + `"output":{"answer": 42},"artifacts":[{"name":"a.txt"}],"timestamp":"2026-11-22T07:00:02Z"}`,
	} {
		if r := e.post(t, "/v1/sandbox/"+path, body); r.status != http.StatusAccepted {
			t.Errorf("%s: %+v", path, r)
		}
	}
	all := e.sink.await(t, "five records", func(b source.Batch) bool {
		return len(b.Entries) == 1 && len(b.ModelCalls) == 1 && len(b.Spans) == 1 && len(b.Events) == 2
	})
	at := time.Date(2026, 11, 22, 7, 0, 0, 123e6, time.UTC)
	if l := all.Entries[0]; l.Level != telemetry.Warn || l.LevelInferred || l.Message != "two\nlines" || string(l.Metadata) != `{"a":1}` || !l.Timestamp.Equal(at) || l.Agent != "agt_1" {
		t.Errorf("log %+v", l)
	}
	if m := all.ModelCalls[0]; m.Model != "m-1" || m.InputTokens != 1200 || m.OutputTokens != 34 || m.Cost == nil || *m.Cost != (telemetry.Money{Nanos: 1_230_000, Currency: "usd"}) ||
		!m.Timestamp.Equal(time.UnixMilli(1795330800123)) || m.Source != telemetry.SourceModel {
		t.Errorf("model call %+v cost %+v", m, m.Cost)
	}
	if s := all.Spans[0]; s.Name != "tool.exec" || s.Trace != ids.TraceOf("agt_1") || s.ID == "" || s.End.Sub(s.Start) != 1500*time.Millisecond || s.Status != telemetry.SpanError || s.Error != "no" {
		t.Errorf("span %+v", s)
	}
	for _, ev := range all.Events {
		switch ev.Type {
		case telemetry.AgentProgress:
			if ev.Attributes["percentage"] != "42.5" || ev.Attributes["message"] != "half way" || string(ev.Content) != `{"percentage":42.5,"message":"half way"}` {
				t.Errorf("progress %+v %s", ev, ev.Content)
			}
		case telemetry.AgentComplete:
			if string(ev.Content) != `{"output":{"answer":42},"artifacts":[{"name":"a.txt"}]}` {
				t.Errorf("complete %s", ev.Content)
			}
		default:
			t.Errorf("event %+v", ev)
		}
	}
}

func TestNobodySpeaksForAnother(t *testing.T) {
	e := bound(t, target("agt_1", "ses_1"))
	for body, status := range map[string]int{
		`{"message":"m"}`: 202,
		`{"agentId":"","sessionId":null,"message":"m"}`:              202,
		`{"agentId":"agt_1","message":"m"}`:                          202,
		`{"agentId":"agt_2","message":"m"}`:                          403,
		`{"agentId":"agt_1","sessionId":"ses_2","message":"m"}`:      403,
		`{"agentId":"agt_2","agentId":"agt_1","message":"last one"}`: 202,
		`{"agentId":["agt_1"],"message":"m"}`:                        422,
	} {
		if r := e.post(t, "/v1/sandbox/log", body, "X-Forwarded-For", "10.0.0.9"); r.status != status || status == 403 && (r.Error.Code != "forbidden" || len(r.Error.Details) != 1) {
			t.Errorf("%s: %+v", body, r)
		}
	}
	if r := e.post(t, "/v1/sandbox/log", `{"message":"m"}`, "Origin", "http://evil.example"); r.status != 403 {
		t.Errorf("a page in a browser: %+v", r)
	}
	all := e.sink.await(t, "four entries", func(b source.Batch) bool { return len(b.Entries) == 4 })
	for _, l := range all.Entries {
		if l.Agent != "agt_1" || l.Session != "ses_1" {
			t.Errorf("%+v", l.Origin)
		}
	}
}

func TestATokenIsWhoItNames(t *testing.T) {
	dir := t.TempDir()
	key, err := LoadKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := LoadKey(dir); err != nil || again != key {
		t.Fatalf("the key changed: %v", err)
	}
	if info, err := os.Stat(dir + "/" + keyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	e := start(t, Config{Key: key}, newKeeper())
	token, err := key.Token(target("agt_7", ""), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	old, _ := key.Token(target("agt_7", ""), time.Now().Add(-time.Second))
	foreign, _ := Key{1}.Token(target("agt_7", ""), time.Time{})
	for path, status := range map[string]int{
		"/t/" + token + "/v1/sandbox/log":                202,
		"/t/" + token + "//v1/sandbox/log":               202, // an endpoint with a slash at its end
		"//t/" + token + "/v1/sandbox/log":               202,
		"/v1/sandbox/log":                                403,
		"/t//v1/sandbox/log":                             403,
		"/t/" + old + "/v1/sandbox/log":                  401,
		"/t/" + foreign + "/v1/sandbox/log":              401,
		"/t/" + token[:len(token)-1] + "/v1/sandbox/log": 401,
		"/t/" + token + "/v1/elsewhere":                  404,
	} {
		if r := e.post(t, path, `{"agentId":"agt_7","message":"m"}`); r.status != status {
			t.Errorf("%.60s: %+v", path, r)
		}
	}
	if r := e.post(t, "/t/"+token+"/v1/sandbox/log", `{"agentId":"agt_8","message":"m"}`); r.status != 403 {
		t.Errorf("a token for another agent: %+v", r)
	}
	all := e.sink.await(t, "three entries", func(b source.Batch) bool { return len(b.Entries) == 3 })
	if o := all.Entries[0].Origin; o.Agent != "agt_7" || o.Sandbox != "box-agt_7" {
		t.Errorf("%+v", o)
	}
	for i := range token {
		bad := []byte(token)
		bad[i] ^= 1
		if _, err := key.target(string(bad), time.Now()); err == nil {
			t.Errorf("a token with byte %d changed is taken", i)
		}
	}
	if _, err := (Key{}).target(token, time.Now()); err == nil {
		t.Error("the zero key takes a token")
	}
}

func TestAStolenTokenIsOfNoUseInAnotherTenantsContainer(t *testing.T) {
	key := Key{1}
	mine := target("agt_1", "")
	mine.Org = "org_2"
	e := start(t, Config{Key: key, Resolver: &directory{addresses: map[netip.Addr]source.Target{netip.MustParseAddr("127.0.0.1"): mine}}}, newKeeper())
	token, _ := key.Token(target("agt_7", ""), time.Time{})
	if r := e.post(t, "/t/"+token+"/v1/sandbox/log", `{"message":"m"}`); r.status != 403 {
		t.Errorf("%+v", r)
	}
}

func TestASocketsPeerIsItsContainer(t *testing.T) {
	who := &directory{pids: map[int]source.Target{os.Getpid(): target("agt_5", "")}}
	e := start(t, Config{Resolver: who}, newKeeper())
	if r := send(t, unixClient(t, e.socket), "http://agentd/v1/sandbox/log", `{"message":"m"}`); r.status != 202 {
		t.Fatalf("%+v", r)
	}
	all := e.sink.await(t, "an entry", func(b source.Batch) bool { return len(b.Entries) == 1 })
	if all.Entries[0].Agent != "agt_5" {
		t.Errorf("%+v", all.Entries[0].Origin)
	}
}

func TestTheHostsOwnProcessesAreTheHostWhereThereIsOne(t *testing.T) {
	host := target("agt_host", "")
	e := start(t, Config{Host: &host}, newKeeper())
	if r := send(t, unixClient(t, e.socket), "http://agentd/v1/sandbox/log", `{"message":"m"}`); r.status != 202 {
		t.Errorf("by the socket: %+v", r)
	}
	if r := e.post(t, "/v1/sandbox/log", `{"message":"m"}`); r.status != 403 {
		t.Errorf("by TCP, where nobody can tell who it is: %+v", r)
	}
}

func TestAContainerMaySpeakBeforeItIsKnown(t *testing.T) {
	who := &directory{pids: map[int]source.Target{}}
	e := start(t, Config{Resolver: who}, newKeeper())
	timer := time.AfterFunc(100*time.Millisecond, func() {
		who.mu.Lock()
		defer who.mu.Unlock()
		who.pids[os.Getpid()] = target("agt_new", "")
	})
	defer timer.Stop()
	if r := send(t, unixClient(t, e.socket), "http://agentd/v1/sandbox/log", `{"message":"first words"}`); r.status != 202 {
		t.Errorf("%+v", r)
	}
}

func TestWhatABodyMustBe(t *testing.T) {
	e := bound(t, target("agt_1", "ses_1"))
	deep := strings.Repeat("[", maxDepth+1)
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"log", ``, 400},
		{"log", `null`, 400},
		{"log", `[]`, 400},
		{"log", `"x"`, 400},
		{"log", `{"message":"m"} x`, 400},
		{"log", `{`, 400},
		{"log", `{"message":` + deep, 400},
		{"log", `{"message":"m","metadata":` + deep + strings.Repeat("]", maxDepth+1) + `}`, 400},
		{"log", `{}`, 422},
		{"log", `{"message":null}`, 422},
		{"log", `{"message":"m","timestamp":"yesterday"}`, 422},
		{"log", `{"message":"m","timestamp":1e300}`, 422},
		{"log", `{"message":{"not":"a text"},"level":"silly","metadata":[1],"traceId":"x"}`, 202},
		{"log", `{"message":""}`, 202},
		{"log", `{"message":"` + strings.Repeat("x", maxBody) + `"}`, 413},
		{"model", `{"model":"m","inputTokens":-1}`, 422},
		{"model", `{"model":"m","inputTokens":1e99}`, 422},
		{"model", `{}`, 422},
		{"model", `{"model":"m","cost":{"amount":1e32767}}`, 422},
		{"model", `{"model":"m","cost":{"amount":1,"currency":"gold"}}`, 422},
		{"model", `{"model":"m","cost":null}`, 202},
		{"span", `{}`, 422},
		{"span", `{"name":"n","durationMs":1e308,"error":{"message":"e"}}`, 202},
		{"progress", `{"percentage":"half"}`, 422},
		{"progress", `{}`, 202},
		{"complete", `{"output":"` + strings.Repeat("é", 40<<10) + `"}`, 202},
		{"complete", `{}`, 202},
	} {
		r := e.post(t, "/v1/sandbox/"+c.path, c.body)
		if r.status != c.status || c.status >= 300 && (r.Error.Code == "" || r.Error.Message == "") {
			t.Errorf("%s %.60s: %+v", c.path, c.body, r)
		}
	}
	all := e.sink.await(t, "what was taken", func(b source.Batch) bool { return len(b.Events) == 3 && len(b.Entries) == 2 })
	if l := all.Entries[0]; l.Message != `{"not":"a text"}` || !l.LevelInferred || string(l.Metadata) != `{"value":[1]}` || l.Trace != "" {
		t.Errorf("%+v", l)
	}
	for _, ev := range all.Events {
		if len(ev.Content) > telemetry.MaxMetadata || !json.Valid(ev.Content) {
			t.Errorf("%s: %d bytes of content", ev.Type, len(ev.Content))
		}
	}
	resp, err := http.Get(e.url + "/healthz") //nolint:noctx // our own server
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%v %v", resp, err)
	}
	if err == nil {
		_ = resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestACompletionIsCutWithAMark(t *testing.T) {
	var artifacts []json.RawMessage
	for i := range 1000 {
		artifacts = append(artifacts, json.RawMessage(fmt.Sprintf(`{"name": "artifact-%d", "body": "%s"}`, i, strings.Repeat("x", 100))))
	}
	output, _ := json.Marshal(strings.Repeat("<\x01é", 40<<10))
	list, _ := json.Marshal(artifacts)
	c := completion(output, list)
	b, err := json.Marshal(c)
	if err != nil || len(b) > telemetry.MaxMetadata || len(b) < telemetry.MaxMetadata/2 {
		t.Fatalf("%d bytes (%v)", len(b), err)
	}
	var kept []json.RawMessage
	if err := json.Unmarshal(c.Artifacts, &kept); err != nil {
		t.Fatal(err)
	}
	if c.OutputBytes != len(output) || c.ArtifactsOmitted+len(kept) != 1000 || len(kept) == 0 || len(c.Output) == 0 {
		t.Errorf("%d bytes of output of %d, %d artifacts and %d omitted", len(c.Output), c.OutputBytes, len(kept), c.ArtifactsOmitted)
	}
}

func TestBombsAreRefusedWithBoundedMemory(t *testing.T) {
	e := bound(t, target("agt_1", "ses_1"))
	zeros := make([]byte, 32<<20)
	var gz, zs bytes.Buffer
	g, _ := gzip.NewWriterLevel(&gz, gzip.BestSpeed)
	_, _ = g.Write(zeros)
	_ = g.Close()
	z, _ := zstd.NewWriter(&zs, zstd.WithEncoderLevel(zstd.SpeedFastest))
	_, _ = z.Write(zeros)
	_ = z.Close()
	for encoding, bomb := range map[string][]byte{"zstd": zs.Bytes(), "gzip": gz.Bytes()[:min(gz.Len(), maxBody)]} {
		if r := e.post(t, "/v1/sandbox/log", string(bomb), "Content-Encoding", encoding); r.status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s of %d bytes: %+v", encoding, len(bomb), r)
		}
	}
	gz.Reset()
	g.Reset(&gz)
	_, _ = g.Write([]byte(`{"message":"m"}`))
	_ = g.Close()
	small := z.EncodeAll([]byte(`{"message":"m"}`), nil)
	for body, encoding := range map[string]string{gz.String(): "gzip", string(small): "zstd", `{"message":"m"}`: "identity"} {
		if r := e.post(t, "/v1/sandbox/log", body, "Content-Encoding", encoding); r.status != 202 {
			t.Errorf("%s: %+v", encoding, r)
		}
	}
	if r := e.post(t, "/v1/sandbox/log", `{}`, "Content-Encoding", "br"); r.status != http.StatusUnsupportedMediaType {
		t.Errorf("%+v", r)
	}
	if r := e.post(t, "/v1/sandbox/log", `no gzip`, "Content-Encoding", "gzip"); r.status != 400 {
		t.Errorf("%+v", r)
	}
}

func TestASandboxAboveItsQuotaIsRefusedAndOthersAreNot(t *testing.T) {
	noisy, calm := target("agt_noisy", ""), target("agt_calm", "")
	key := Key{1}
	e := start(t, Config{Key: key, Quota: Quota{Records: 2}}, newKeeper())
	post := func(to source.Target) reply {
		token, _ := key.Token(to, time.Time{})
		return e.post(t, "/t/"+token+"/v1/sandbox/log", `{"message":"m"}`)
	}
	taken, refused := 0, 0
	for range 60 {
		switch r := post(noisy); {
		case r.status == 202:
			taken++
		case r.status == 429 && r.header.Get("Retry-After") != "" && r.Error.Code == "rate_limited":
			refused++
		default:
			t.Fatalf("%+v", r)
		}
	}
	if r := post(calm); r.status != 202 {
		t.Errorf("the calm one: %+v", r)
	}
	if refused == 0 || taken < 2*burstSeconds {
		t.Errorf("%d taken, %d refused", taken, refused)
	}
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	all, told := e.sink.all(), int64(0)
	for _, g := range all.Gaps {
		if g.Reason != telemetry.GapRefused || g.Agent != "agt_noisy" || g.Bytes == 0 {
			t.Errorf("%+v", g)
		}
		told += g.Count
	}
	if told != int64(refused) || len(all.Entries) != taken+1 {
		t.Errorf("%d refused, gaps tell of %d; %d entries of %d", refused, told, len(all.Entries), taken+1)
	}
	if left := e.sink.resume(); len(left) != 0 {
		t.Errorf("after a clean stop positions are left: %s", left)
	}
}

func TestABlockedSinkBlocksNoSandbox(t *testing.T) {
	sink := newKeeper()
	sink.gate = make(chan struct{})
	key := Key{1}
	e := start(t, Config{Key: key, Quota: Quota{Records: 1e6, Bytes: 1e9}}, sink)
	token, _ := key.Token(target("agt_1", ""), time.Time{})
	body := `{"message":"` + strings.Repeat("x", 100<<10) + `"}`
	taken, refused := 0, 0
	for range 30 { // 3 MB: more than the queue holds, and nothing leaves it
		switch r := e.post(t, "/t/"+token+"/v1/sandbox/log", body); r.status {
		case 202:
			taken++
		case 429:
			refused++
		default:
			t.Fatalf("%+v", r)
		}
	}
	if taken == 0 || refused == 0 || taken > 2*maxQueuedBytes/(100<<10) {
		t.Errorf("%d taken, %d refused", taken, refused)
	}
	close(sink.gate)
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	all, told := sink.all(), int64(0)
	for _, g := range all.Gaps {
		told += g.Count
	}
	if len(all.Entries) != taken || told != int64(refused) {
		t.Errorf("%d entries of %d; gaps %+v, %d refused", len(all.Entries), taken, all.Gaps, refused)
	}
}

func TestAKillIsToldAtTheNextStart(t *testing.T) {
	key := Key{1}
	first := start(t, Config{Key: key}, newKeeper())
	token, _ := key.Token(target("agt_1", "ses_1"), time.Time{})
	first.post(t, "/t/"+token+"/v1/sandbox/log", `{"message":"m"}`)
	first.sink.await(t, "the entry", func(b source.Batch) bool { return len(b.Entries) == 1 })
	killed := newKeeper()
	killed.positions = first.sink.resume() // as they were at this moment
	second := start(t, Config{Key: key}, killed)
	all := killed.await(t, "a gap", func(b source.Batch) bool { return len(b.Gaps) == 1 })
	if g := all.Gaps[0]; g.Reason != telemetry.GapUncleanStop || g.Agent != "agt_1" || g.Session != "ses_1" || g.Since.IsZero() || g.Count != telemetry.GapUnknownCount {
		t.Errorf("%+v", g)
	}
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	third := start(t, Config{Key: key}, second.sink)
	if err := third.stop(); err != nil || len(second.sink.all().Gaps) != 1 {
		t.Errorf("told again: %+v (%v)", second.sink.all().Gaps, err)
	}
}

func TestSettings(t *testing.T) {
	for entry, good := range map[string]bool{
		"127.0.0.1:7070": true, "[::1]:7070": true, "docker0:7070": true, "/run/agentd/sandbox/agentd.sock": true,
		"": false, ":7070": false, "7070": false, "127.0.0.1:http": false, "127.0.0.1:70700": false, "/run/../x": false,
	} {
		if err := (&Config{Listen: []string{entry}}).Validate(); (err == nil) != good {
			t.Errorf("%q: %v", entry, err)
		}
	}
}

func TestASenderHasOnlySoManyConnections(t *testing.T) {
	e := bound(t, target("agt_1", "ses_1"))
	address := strings.TrimPrefix(e.url, "http://")
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	refused := 0
	for range maxOfSender + 20 {
		var d net.Dialer
		c, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	for _, c := range slices.Backward(open) { // the last are the ones too many; one that was let in is silent
		_ = c.SetReadDeadline(time.Now().Add(headerTimeout / 5))
		if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			refused++
			continue
		}
		if refused >= 20 {
			break
		}
	}
	if refused < 20 {
		t.Errorf("%d of %d were refused", refused, len(open))
	}
	unix := send(t, unixClient(t, e.socket), "http://agentd/v1/sandbox/log", `{"message":"m"}`)
	if unix.status != http.StatusForbidden {
		t.Errorf("others are answered: %+v", unix)
	}
}
