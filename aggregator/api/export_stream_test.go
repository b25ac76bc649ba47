package api_test

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/shared/telemetry"
)

// export asks for one and returns what came, the trailers, and how it ended.
func (s *site) export(t *testing.T, accept, query string) (body string, res *http.Response, err error) {
	t.Helper()
	res, err = client.Do(s.request(t, "GET", "/v1/logs"+query, "", "Authorization", "Bearer "+s.key, "Accept", accept))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), res, err
}

func TestAnExportIsEverythingThatMatches(t *testing.T) {
	s := newSite(t, nil)
	for i := range 2500 {
		e := line("agt_a", fmt.Sprintf("line %d", i))
		e.Timestamp, e.Level = base.Add(time.Duration(i)*time.Second), telemetry.Level(i%4)
		s.publish(ours, []telemetry.LogEntry{e})
	}
	s.publish(ours, nil, telemetry.Gap{Reason: telemetry.GapRotated, Count: 7, Agent: "agt_a"}, telemetry.Gap{Reason: telemetry.GapEvicted, Count: 1, Agent: "agt_other"})
	s.publish(theirs, messages("agt_a", "not ours"))
	body, res, err := s.export(t, "application/x-ndjson", "?order=asc&agentId=agt_a&until=2030-01-01")
	if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/x-ndjson" || res.Trailer.Get("X-Export-Lines") != "2500" {
		t.Fatalf("%v: %d %v %v", err, res.StatusCode, res.Header, res.Trailer)
	}
	rows := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	if len(rows) != 2501 || rows[2500][:24] != `{"gap":{"reason":"rotate` {
		t.Fatalf("%d rows, the last %s", len(rows), rows[len(rows)-1])
	}
	for i, row := range rows[:2500] {
		var e struct{ ID, Message string }
		if err := json.Unmarshal([]byte(row), &e); err != nil || e.Message != fmt.Sprintf("line %d", i) || e.ID == "" {
			t.Fatalf("row %d: %v %s", i, err, row)
		}
	}
	body, res, err = s.export(t, "text/csv, */*", "?level=error&limit=3")
	r := csv.NewReader(strings.NewReader(body))
	r.Comment = '#'
	table, errTable := r.ReadAll()
	if err != nil || errTable != nil || len(table) != 4 || table[1][2] != "error" || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/csv") {
		t.Errorf("%v %v: %v", err, errTable, table)
	}
	if body, res, err = s.export(t, "application/x-ndjson", "?traceId=none"); err != nil || res.StatusCode != 200 || strings.Count(body, "\n") != 2 || res.Trailer.Get("X-Export-Lines") != "0" {
		t.Errorf("nothing: %v %d %q", err, res.StatusCode, body) // the two gaps
	}
	for accept, want := range map[string]string{"*/*": "application/json", "application/json, text/csv": "application/json", "": "application/json"} {
		if _, res, _ := s.export(t, accept, "?limit=1"); res.Header.Get("Content-Type") != want {
			t.Errorf("Accept %q is answered with %s", accept, res.Header.Get("Content-Type"))
		}
	}
	for _, query := range []string{"?cursor=x", "?offset=1", "?total=none", "?limit=0", "?q=level:x"} {
		if body, res, _ := s.export(t, "text/csv", query); res.StatusCode != 400 && res.StatusCode != 422 || !strings.Contains(body, `"requestId"`) {
			t.Errorf("%s: %d %s", query, res.StatusCode, body)
		}
	}
}

func TestABrokenExportIsNotTakenForTheWhole(t *testing.T) {
	s := newSite(t, nil)
	for i := range 20 {
		s.publish(ours, messages("agt_a", strconv.Itoa(i)))
	}
	s.mu.Lock()
	s.broken = telemetry.Failf(telemetry.Unavailable, "The database is away.")
	s.mu.Unlock()
	for accept, mark := range map[string]string{"application/x-ndjson": `{"error":{`, "text/csv": "# error: {"} {
		body, _, err := s.export(t, accept, "")
		rows := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
		if last := rows[len(rows)-1]; err == nil || !strings.HasPrefix(last, mark) || !strings.Contains(last, `"unavailable"`) {
			t.Errorf("%s: %v, the last row is %s", accept, err, last)
		}
	}
	s.fail(telemetry.Failf(telemetry.Unavailable, "The database is away."))
	if body, res, err := s.export(t, "text/csv", ""); err != nil || res.StatusCode != 503 || !strings.HasPrefix(body, `{"error"`) {
		t.Errorf("before it began: %v %d %s", err, res.StatusCode, body)
	}
	if !strings.Contains(s.log.String(), "request failed") {
		t.Error("it is not in the log")
	}
}

func TestAReaderWhoTakesNothingLosesItsExport(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.WriteTimeout = 2 * time.Second })
	text := strings.Repeat("x", 200<<10)
	for range 60 {
		s.publish(ours, messages("agt_a", text))
	}
	conn := s.rawAccept(t, "/v1/logs", "application/x-ndjson")
	s.log.wait(t, "takes the export too slowly")
	if b, err := io.ReadAll(bufio.NewReader(conn)); err == nil && len(b) > 60*len(text) {
		t.Errorf("all of it came: %d bytes", len(b))
	}
	// Its place is free again.
	if body, _, err := s.export(t, "application/x-ndjson", ""); err != nil || strings.Count(body, "\n") != 60 {
		t.Errorf("the next one: %v", err)
	}
}

func TestExportsOfAnOrganisationAreBounded(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.WriteTimeout = time.Minute })
	text := strings.Repeat("x", 250<<10)
	for range 80 {
		s.publish(ours, messages("agt_a", text))
	}
	var open []io.Closer
	refused := false
	for range 6 {
		res, err := client.Do(s.request(t, "GET", "/v1/logs", "", "Authorization", "Bearer "+s.key, "Accept", "application/x-ndjson"))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, res.Body)
		refused = refused || res.StatusCode == 429 && res.Header.Get("Retry-After") != ""
	}
	other := s.fakeStore.key(theirs, everyone...)
	a := s.do(t, "GET", "/v1/logs", "", "Authorization", "Bearer "+other, "Accept", "text/csv")
	if a.StatusCode != 200 {
		t.Errorf("another organisation: %d", a.StatusCode)
	}
	for _, body := range open {
		_ = body.Close()
	}
	if !refused {
		t.Error("six exports at a time")
	}
}

func TestADrainingReplicaEndsExports(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.WriteTimeout = time.Minute })
	text := strings.Repeat("x", 250<<10)
	for range 80 {
		s.publish(ours, messages("agt_a", text))
	}
	res, err := client.Do(s.request(t, "GET", "/v1/logs", "", "Authorization", "Bearer "+s.key, "Accept", "application/x-ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.api.Drain(t.Context())
	}()
	b, err := io.ReadAll(res.Body)
	<-drained
	whole := strings.Count(string(b), "\n") == 80 && err == nil // it was quicker
	if !whole && (err == nil || !strings.HasPrefix(string(b)[strings.LastIndex(strings.TrimSuffix(string(b), "\n"), "\n")+1:], `{"error"`)) {
		t.Errorf("%v, %d bytes", err, len(b))
	}
}
