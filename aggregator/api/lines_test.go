package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

func TestAQueryThatCannotBeReadSaysWhere(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	for query, want := range map[string]string{
		"level:loud": "at character 7", `"open`: "at character", "/(/": "at character", "(a OR": "at character", "env:test": "environment", "ü level:x": "at character 9",
	} {
		for _, path := range []string{"/v1/logs", "/v1/logs/count", "/v1/logs/histogram", "/v1/logs/facets"} {
			a := s.get(t, path+"?q="+url.QueryEscape(query))
			code, message, fields := envelope(t, a)
			if a.StatusCode != 422 || code != "unprocessable_entity" || !slices.Equal(fields, []string{"q"}) || !strings.Contains(message, want) {
				t.Errorf("%s %s: %d %s", path, query, a.StatusCode, a.body)
			}
		}
	}
	for query, want := range map[string]int{"level:error": 1, "level:>=warn env:live": 2, `"step 3" OR "step 4"`: 2, "-level:debug agent:agt_a": 3, "/step [01]/": 2, "agent:agt_b": 0} {
		if l := readLogs(t, s.get(t, "/v1/logs?q="+url.QueryEscape(query))); l.Total != want {
			t.Errorf("%s: %d lines", query, l.Total)
		}
	}
	// Beside the other filters, and as part of what a cursor belongs to.
	l := readLogs(t, s.get(t, "/v1/logs?limit=1&level=info,debug&q=step"))
	if l.Total != 3 || l.Cursor == nil {
		t.Fatalf("%+v", l)
	}
	if a := s.get(t, "/v1/logs?limit=1&level=info,debug&q=step&cursor="+*l.Cursor); a.StatusCode != 200 {
		t.Errorf("the next page: %s", a.body)
	}
	if a := s.get(t, "/v1/logs?limit=1&level=info,debug&q=other&cursor="+*l.Cursor); a.StatusCode != 400 {
		t.Errorf("the cursor of another query: %s", a.body)
	}
}

func TestACountGoesOnUntilItIsExact(t *testing.T) {
	s := newSite(t, nil)
	for i := range 9 {
		s.publish(ours, messages("agt_a", fmt.Sprintf("line %d", i)))
	}
	type count struct {
		Total        int
		TotalIsExact bool
		CountCursor  *string
	}
	ask := func(path string) (c count) {
		t.Helper()
		a := s.get(t, path)
		if err := json.Unmarshal([]byte(a.body), &c); err != nil || a.StatusCode != 200 {
			t.Fatalf("%v: %d %s", err, a.StatusCode, a.body)
		}
		return c
	}
	const path = "/v1/logs/count?search=line&since=-36500d"
	c, asked := ask(path), 1
	first := *c.CountCursor
	for ; !c.TotalIsExact; asked++ {
		if c.CountCursor == nil {
			t.Fatalf("%+v", c)
		}
		c = ask(path + "&countCursor=" + *c.CountCursor)
	}
	if c.Total != 9 || asked != 5 || c.CountCursor != nil {
		t.Errorf("%+v after %d requests", c, asked)
	}
	for _, query := range []string{"search=other&since=-36500d", "search=line"} {
		if _, _, fields := envelope(t, s.get(t, "/v1/logs/count?"+query+"&countCursor="+first)); !slices.Equal(fields, []string{"countCursor"}) {
			t.Errorf("%s: %v", query, fields)
		}
	}
	s.Restore(4, 1000)
	if a := s.get(t, path+"&countCursor="+first); a.StatusCode != 410 {
		t.Errorf("after a restore: %d %s", a.StatusCode, a.body)
	}
}

func TestAHistogramChoosesItsSteps(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	for query, want := range map[string]time.Duration{
		"":                                  15 * time.Minute,
		"since=-1m":                         time.Second,
		"since=-1h":                         30 * time.Second,
		"since=2026-08-01&until=2026-09-01": 6 * time.Hour,
		"since=2016-09-01&until=2026-09-01": 585 * time.Hour,
		"since=0002-01-01&until=9999-12-31": 584_271 * time.Hour,
		"since=-1h&interval=10m":            10 * time.Minute,
		"since=-7d&interval=1d":             24 * time.Hour,
	} {
		var h struct {
			IntervalMS int64
			Since      time.Time
			Until      time.Time
			Data       []struct{ Timestamp time.Time }
		}
		a := s.get(t, "/v1/logs/histogram?"+query)
		if err := json.Unmarshal([]byte(a.body), &h); err != nil || a.StatusCode != 200 {
			t.Fatalf("%s: %v %s", query, err, a.body)
		}
		if got := time.Duration(h.IntervalMS) * time.Millisecond; got != want || len(h.Data) == 0 || len(h.Data) > 152 {
			t.Errorf("%s: steps of %s, %d buckets", query, got, len(h.Data))
		}
	}
	for _, query := range []string{"since=2026-09-02&until=2026-09-01", "since=9998-01-01"} {
		if _, _, fields := envelope(t, s.get(t, "/v1/logs/histogram?"+query)); !slices.Equal(fields, []string{"since"}) {
			t.Errorf("%s: %v", query, fields)
		}
	}
}

func TestALineOfAnotherScopeIsNotFound(t *testing.T) {
	s := newSite(t, nil)
	fill(s)
	test := s.fakeStore.key(telemetry.Scope{Org: ours.Org, Env: telemetry.Test}, everyone...)
	own, foreign := firstLog(s, ours), firstLog(s, theirs)
	for _, path := range []string{"/v1/logs/%s", "/v1/logs/%s/context"} {
		if a := s.get(t, fmt.Sprintf(path, own)); a.StatusCode != 200 {
			t.Errorf("our own: %d %s", a.StatusCode, a.body)
		}
		for key, id := range map[string]string{s.key: foreign, test: own} {
			a := s.do(t, "GET", fmt.Sprintf(path, id), "", "Authorization", "Bearer "+key)
			unknown := s.do(t, "GET", fmt.Sprintf(path, "log_x"), "", "Authorization", "Bearer "+key)
			if a.StatusCode != 404 || requestID.ReplaceAllString(a.body, "") != strings.ReplaceAll(requestID.ReplaceAllString(unknown.body, ""), "log_x", id) {
				t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
			}
		}
	}
}
