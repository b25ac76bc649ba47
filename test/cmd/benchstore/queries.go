package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/stack"
	"github.com/theazo/observability/test/workload"
)

// query is one line of the table: what is asked, of what, and what it may take.
type query struct {
	name  string
	kind  kind
	goal  float64 // p95, ms; 0: none
	extra []string
	*want
}

// kind of an answer.
type kind int

const (
	page      kind = iota // the newest lines, no total
	total                 // how many match
	histogram             // the same by level and time
)

// questions of a set. Sessions and agents are asked for in the organisation
// that has them.
func (b *bench) questions(d *data, name string) []query {
	until := d.End.Add(time.Second)
	day, hour := d.End.Add(-d.Span), d.End.Add(-time.Hour)
	ask := func(f telemetry.LogFilter, since time.Time) *want {
		return &want{filter: f, since: since, until: until, tenant: d.org(someTenant)}
	}
	text := func(s string) telemetry.LogFilter { return telemetry.LogFilter{Search: s} }
	const session, agent = 777, 123
	bySession, byAgent := ask(telemetry.LogFilter{Sessions: []telemetry.SessionID{workload.SessionID(session)}}, day),
		ask(telemetry.LogFilter{Agents: []telemetry.AgentID{workload.AgentID(agent)}, Levels: []telemetry.Level{telemetry.Error}}, day)
	bySession.tenant, byAgent.tenant = d.org(session%workload.Organisations), d.org(agent%workload.Organisations)
	odd := ask(telemetry.LogFilter{}, d.End.Add(-13*time.Hour-7*time.Minute-1234567*time.Microsecond))
	odd.until = d.End.Add(-97 * time.Minute)
	warn := ask(telemetry.LogFilter{Levels: []telemetry.Level{telemetry.Warn, telemetry.Error}}, day)

	list := []query{
		{name: "newest_session_24h", goal: 5, want: bySession, extra: []string{"sessionId", string(workload.SessionID(session))}},
		{name: "newest_error_agent_24h", goal: 2.5, want: byAgent, extra: []string{"agentId", string(workload.AgentID(agent)), "level", "error"}},
		{name: "newest_timeout_1h", want: ask(text("timeout"), hour), extra: []string{"search", "timeout"}},
		{name: "newest_timeout_24h", want: ask(text("timeout"), day), extra: []string{"search", "timeout"}},
		{name: "newest_imeou_24h", want: ask(text("imeou"), day), extra: []string{"search", "imeou"}},
		{name: "newest_absent_24h", goal: 10, want: ask(text(workload.Absent), day), extra: []string{"search", workload.Absent}},
		{name: "count_timeout_24h", kind: total, goal: 60, want: ask(text("timeout"), day), extra: []string{"search", "timeout"}},
		{name: "count_imeou_24h", kind: total, want: ask(text("imeou"), day), extra: []string{"search", "imeou"}},
		{name: "count_absent_24h", kind: total, goal: 10, want: ask(text(workload.Absent), day), extra: []string{"search", workload.Absent}},
		{name: "total_24h", kind: total, goal: 10, want: ask(telemetry.LogFilter{}, day)},
		{name: "total_odd_range", kind: total, goal: 10, want: odd},
		{name: "total_warn_24h", kind: total, goal: 10, want: warn, extra: []string{"minLevel", "warn"}},
		{name: "total_session_24h", kind: total, goal: 10, want: bySession, extra: []string{"sessionId", string(workload.SessionID(session))}},
		{name: "histogram_24h", kind: histogram, goal: 15, want: ask(telemetry.LogFilter{}, day), extra: []string{"interval", "5m"}},
	}
	if name == "one" { // goals for all lines in one organisation
		for i := range list {
			switch list[i].name {
			case "newest_timeout_1h", "newest_absent_24h", "count_absent_24h":
				list[i].goal = 30
			case "newest_timeout_24h":
				list[i].goal = 60
			case "count_timeout_24h":
				list[i].goal = 500
			}
		}
	}
	return list
}

// someTenant is the organisation that is asked where nothing else names one.
const someTenant = 7

// slow is how long a query takes of which five runs are enough.
const slow = 5 * time.Second

// queries asks every question through the API and compares the answers.
func (b *bench) queries(ctx context.Context, s *server, d *data, name string) error {
	list := b.questions(d, name)
	var wants []*want
	for i := range list {
		if !slices.Contains(wants, list[i].want) {
			wants = append(wants, list[i].want)
		}
	}
	answer(d, wants)
	for i := range list {
		q := &list[i]
		if err := b.ask(ctx, s, d, q, name); err != nil {
			b.wrong++
			b.notef("WRONG %s_%s: %.300s", q.name, name, strings.ReplaceAll(err.Error(), "\n", " "))
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

// ask runs one query: two to warm up, whose answers are compared too.
func (b *bench) ask(ctx context.Context, s *server, d *data, q *query, set string) error {
	client := s.Client(d.tenants[q.tenant])
	path := q.path()
	var before costs
	var took []time.Duration
	var group errgroup.Group
	for i := range b.runs + 2 {
		if i == 2 {
			var err error
			if before, err = s.costs(); err != nil {
				return err
			}
			if b.profile != "" {
				group.Go(func() error { return b.cpuProfile(ctx, s, q.name+"_"+set) })
			}
		}
		began := time.Now()
		body, err := read(ctx, client, path)
		if err != nil {
			return err
		}
		d0 := time.Since(began)
		if err := q.check(d.Records, body); err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
		if i >= 2 {
			took = append(took, d0)
		}
		if d0 > slow && i >= 6 {
			break
		}
	}
	after, err := s.costs()
	if err != nil {
		return err
	}
	a, p := after.since(before)
	slices.Sort(took)
	runs := float64(len(took))
	b.figure("query_"+q.name+"_"+set+"_p95", milliseconds(took[min(len(took)-1, len(took)*95/100)]), "ms", q.goal)
	b.notef("p50 %.2f ms, min %.2f ms, %.1f ms of CPU each (PostgreSQL %.1f), %d match, %d runs",
		milliseconds(took[len(took)/2]), milliseconds(took[0]), (a+p)*1000/runs, p*1000/runs, q.count, len(took))
	return group.Wait()
}

// path of the question.
func (q *query) path() string {
	v := url.Values{"since": {q.since.Format(time.RFC3339Nano)}, "until": {q.until.Format(time.RFC3339Nano)}}
	for i := 0; i+1 < len(q.extra); i += 2 {
		v.Set(q.extra[i], q.extra[i+1])
	}
	switch q.kind {
	case histogram:
		return "/v1/logs/histogram?" + v.Encode()
	case total:
		v.Set("limit", "1")
	case page:
		v.Set("limit", "100")
		v.Set("total", "none")
	}
	return "/v1/logs?" + v.Encode()
}

// read asks for a path and returns the answer's body.
func read(ctx context.Context, c *stack.Client, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.Key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &stack.StatusError{Status: resp.StatusCode, Body: string(b)}
	}
	return b, err
}

// check compares an answer with the naive filter's.
func (q *query) check(d *workload.Records, body []byte) error {
	if q.kind == histogram {
		return q.checkHistogram(body)
	}
	var p struct {
		Data         []stack.Entry
		Total        int64
		TotalIsExact bool
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return err
	}
	if q.kind == total {
		if p.Total != q.count || !p.TotalIsExact {
			return fmt.Errorf("the total is %d (exact: %t), %d match", p.Total, p.TotalIsExact, q.count)
		}
		return nil
	}
	if len(p.Data) != len(q.last) {
		return fmt.Errorf("%d lines came, %d match", len(p.Data), len(q.last))
	}
	for i := range p.Data {
		e := record(d, q.last[len(q.last)-1-i])
		if got := &p.Data[i]; got.Message != e.Message || !got.Timestamp.Equal(e.Timestamp.Truncate(time.Millisecond)) || got.Level != e.Level.String() ||
			got.Agent != string(e.Agent) || got.Session != string(e.Session) {
			return fmt.Errorf("line %d is %+v, should be %+v", i, *got, e)
		}
	}
	return nil
}

var errHistogram = errors.New("the histogram differs")

func (q *query) checkHistogram(body []byte) error {
	var h struct {
		Data []struct {
			Timestamp                time.Time
			Debug, Info, Warn, Error int64
		}
		Total int64
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return err
	}
	if h.Total != q.count {
		return fmt.Errorf("%w: the total is %d, %d match", errHistogram, h.Total, q.count)
	}
	sum := int64(0)
	for _, bucket := range h.Data {
		var got [telemetry.NumLevels]int64
		got[telemetry.Debug], got[telemetry.Info], got[telemetry.Warn], got[telemetry.Error] = bucket.Debug, bucket.Info, bucket.Warn, bucket.Error
		if right := q.buckets[bucket.Timestamp.Unix()]; got != right {
			return fmt.Errorf("%w: lines by level at %s are %d, should be %d", errHistogram, bucket.Timestamp, got, right)
		}
		for _, n := range got {
			sum += n
		}
	}
	if sum != q.count {
		return fmt.Errorf("%w: its buckets cover %d of %d lines", errHistogram, sum, q.count)
	}
	return nil
}

// cpuProfile keeps a profile of the aggregator, where it offers one.
func (b *bench) cpuProfile(ctx context.Context, s *server, name string) error {
	body, err := read(ctx, &stack.Client{URL: s.Admin}, "/debug/pprof/profile?seconds=2")
	if err != nil {
		b.notef("no profile of %s: %v", name, err)
		return nil
	}
	return os.WriteFile(filepath.Join(b.profile, strings.ReplaceAll(name, "/", "_")+".pprof"), body, 0o600)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
