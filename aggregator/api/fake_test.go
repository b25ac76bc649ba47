package api_test

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/aggregator/live/livetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore is api.Store in memory: queries are the plain definition.
type fakeStore struct {
	*livetest.Log

	mu       sync.Mutex
	keys     map[string]fakeKey
	sessions map[ids.Hash]telemetry.Principal
	tokens   map[ids.Hash]telemetry.Principal
	agents   map[telemetry.Scope][]telemetry.Agent
	ses      map[telemetry.Scope][]telemetry.Session
	nodes    map[telemetry.Scope][]telemetry.Node
	erasures map[telemetry.Scope][]telemetry.Erasure // oldest first
	err      error                                   // answers everything
	broken   error                                   // ends exports
	panics   bool
}

type fakeKey struct {
	hash ids.Hash
	who  telemetry.Principal
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		Log: &livetest.Log{}, keys: map[string]fakeKey{},
		sessions: map[ids.Hash]telemetry.Principal{}, erasures: map[telemetry.Scope][]telemetry.Erasure{}, tokens: map[ids.Hash]telemetry.Principal{},
		agents: map[telemetry.Scope][]telemetry.Agent{}, ses: map[telemetry.Scope][]telemetry.Session{}, nodes: map[telemetry.Scope][]telemetry.Node{},
	}
}

// key makes an API key.
func (s *fakeStore) key(scope telemetry.Scope, permissions ...telemetry.Permission) string {
	id, key := ids.NewAPIKey(scope.Env)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[id] = fakeKey{ids.HashOf(key), telemetry.Principal{Scope: scope, KeyID: id, KeyName: "test", Permissions: permissions}}
	return key
}

// revoke takes every credential away.
func (s *fakeStore) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.keys)
	clear(s.sessions)
	clear(s.tokens)
}

func (s *fakeStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

var errUnauthorized = telemetry.Failf(telemetry.Unauthorized, "The credential is unknown, revoked or expired.")

func (s *fakeStore) Authenticate(_ context.Context, keyID string, h ids.Hash) (telemetry.Principal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return telemetry.Principal{}, s.err
	}
	if k, ok := s.keys[keyID]; ok && k.hash == h {
		return k.who, nil
	}
	return telemetry.Principal{}, errUnauthorized
}

func (s *fakeStore) CreateWebSession(_ context.Context, who telemetry.Principal, h ids.Hash, _ time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[h] = who
	return s.err
}

func (s *fakeStore) WebSession(_ context.Context, h ids.Hash) (telemetry.Principal, error) {
	return s.lookUp(s.sessions, h)
}

func (s *fakeStore) StreamToken(_ context.Context, h ids.Hash) (telemetry.Principal, error) {
	return s.lookUp(s.tokens, h)
}

func (s *fakeStore) lookUp(in map[ids.Hash]telemetry.Principal, h ids.Hash) (telemetry.Principal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if who, ok := in[h]; ok {
		return who, s.err
	}
	return telemetry.Principal{}, cmp.Or(s.err, error(errUnauthorized))
}

func (s *fakeStore) DeleteWebSession(_ context.Context, h ids.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, h)
	return s.err
}

func (s *fakeStore) CreateStreamToken(_ context.Context, who telemetry.Principal, h ids.Hash, _, most time.Duration) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[h] = who
	return base.Add(most), s.err
}

func (s *fakeStore) Organisation(_ context.Context, scope telemetry.Scope) (telemetry.Organisation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.panics {
		panic("the fake store was told to")
	}
	return telemetry.Organisation{ID: scope.Org, Name: "Ada's agents", Mode: telemetry.FullPlatform}, s.err
}

func (s *fakeStore) Agent(_ context.Context, scope telemetry.Scope, id telemetry.AgentID) (telemetry.Agent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.agents[scope] {
		if a.ID == id {
			return a, s.err
		}
	}
	return telemetry.Agent{}, cmp.Or(s.err, error(telemetry.Failf(telemetry.NotFound, "no agent")))
}

func (s *fakeStore) Events(_ context.Context, scope telemetry.Scope, id telemetry.AgentID, l telemetry.Listing) ([]telemetry.StoredEvent, bool, error) {
	code := 137
	at := time.Date(2026, 9, 1, 10, 0, 0, 123456000, time.UTC)
	list := []telemetry.StoredEvent{
		{Place: "2", Event: telemetry.Event{
			Type: telemetry.SandboxExited, Timestamp: at, Origin: telemetry.Origin{Agent: id, Source: telemetry.SourceProvider}, ExitCode: &code, Reason: "oom",
			LastWords: &telemetry.LastWords{Signal: "SIGKILL", OOMKilled: true, MemoryPeak: 1 << 20, Stderr: "Killed\n"}, Node: "nod_1",
		}},
		{Place: "1", Event: telemetry.Event{Type: telemetry.SandboxStarted, Timestamp: at.Add(-time.Minute), Origin: telemetry.Origin{Agent: id, Source: telemetry.SourceProvider}, Node: "nod_1"}},
	}
	if l.After != nil {
		list = slices.DeleteFunc(list, func(e telemetry.StoredEvent) bool { return !e.Event.Timestamp.Before(l.After.CreatedAt) })
	}
	if scope.Env == telemetry.Test {
		list = nil
	}
	return list[:min(l.Limit, len(list))], l.Limit < len(list), s.err
}

func (s *fakeStore) Session(_ context.Context, scope telemetry.Scope, id telemetry.SessionID) (telemetry.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.ses[scope] {
		if a.ID == id {
			return a, s.err
		}
	}
	return telemetry.Session{}, cmp.Or(s.err, error(telemetry.Failf(telemetry.NotFound, "no session")))
}

// listed pages a list that is newest first.
func listed[T any](all []T, l telemetry.Listing, key func(T) telemetry.ListingKey, match func(T) bool) ([]T, bool) {
	var page []T
	for _, v := range all {
		k := key(v)
		if !match(v) || l.After != nil && (k.CreatedAt.After(l.After.CreatedAt) || k.CreatedAt.Equal(l.After.CreatedAt) && k.ID >= l.After.ID) {
			continue
		}
		if len(page) == l.Limit {
			return page, true
		}
		page = append(page, v)
	}
	return page, false
}

func (s *fakeStore) Agents(_ context.Context, scope telemetry.Scope, l telemetry.Listing) ([]telemetry.Agent, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	page, more := listed(s.agents[scope], l, func(a telemetry.Agent) telemetry.ListingKey {
		return telemetry.ListingKey{CreatedAt: a.CreatedAt, ID: string(a.ID)}
	}, func(a telemetry.Agent) bool {
		return (l.Session == "" || a.Session == l.Session) && (l.Status == nil || a.Status == telemetry.AgentStatus(*l.Status))
	})
	return page, more, s.err
}

func (s *fakeStore) Sessions(_ context.Context, scope telemetry.Scope, l telemetry.Listing) ([]telemetry.Session, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	page, more := listed(s.ses[scope], l, func(a telemetry.Session) telemetry.ListingKey {
		return telemetry.ListingKey{CreatedAt: a.CreatedAt, ID: string(a.ID)}
	}, func(a telemetry.Session) bool {
		return l.Status == nil || a.Status == telemetry.SessionStatus(*l.Status)
	})
	return page, more, s.err
}

func (s *fakeStore) Nodes(_ context.Context, scope telemetry.Scope) ([]telemetry.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[scope], s.err
}

func (s *fakeStore) Ledger(_ context.Context, scope telemetry.Scope, id telemetry.NodeID) (telemetry.Ledger, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.nodes[scope], func(n telemetry.Node) bool { return n.ID == id }) {
		return telemetry.Ledger{}, telemetry.Failf(telemetry.NotFound, "There is no node %s.", id)
	}
	e := telemetry.LedgerEntry{Epoch: "00000000000000ab", Lane: "logs", Assigned: 10, Visible: 7, Quarantined: 1, Lost: 1, InFlight: 1, Balanced: true}
	lane := e
	lane.Epoch = ""
	totals := lane
	totals.Lane = ""
	return telemetry.Ledger{
		Node: id, ReportedAt: time.Date(2026, 9, 1, 10, 0, 0, 0, time.UTC), Balanced: true, Totals: totals, Lanes: []telemetry.LedgerEntry{lane}, Entries: []telemetry.LedgerEntry{e},
		Report: &telemetry.NodeReport{BufferBytes: 5, BufferBudget: 100, Counts: map[string]uint64{"redacted": 3}, Sequences: []telemetry.Sequence{{Org: scope.Org, Epoch: 0xab, Assigned: 10}}},
	}, s.err
}

func (s *fakeStore) QueryLogs(ctx context.Context, scope telemetry.Scope, q *telemetry.LogQuery) (telemetry.LogPage, error) {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	page := telemetry.LogPage{}
	page.Stream, _ = s.StreamHead(ctx, scope)
	within := func(t time.Time) bool {
		return (q.Since.IsZero() || !t.Before(q.Since)) && (q.Until.IsZero() || t.Before(q.Until))
	}
	var all []telemetry.LogEntry
	for _, e := range s.Entries(scope) {
		if q.Match(&e) && within(e.Timestamp) {
			all = append(all, e)
		}
	}
	page.Total = int64(len(all))
	place := func(e *telemetry.LogEntry) telemetry.LogKey {
		return telemetry.LogKey{Timestamp: e.Timestamp, Position: e.Position}
	}
	sign := 1
	if q.Order == telemetry.NewestFirst {
		sign = -1
	}
	slices.SortFunc(all, func(a, b telemetry.LogEntry) int { return sign * place(&a).Compare(place(&b)) })
	all = slices.DeleteFunc(all, func(e telemetry.LogEntry) bool { return q.After != nil && sign*place(&e).Compare(*q.After) <= 0 })
	all = all[min(q.Offset, len(all)):]
	page.More = len(all) > q.Limit
	page.Entries = all[:min(q.Limit, len(all))]
	for _, g := range s.Gaps(scope) {
		if q.MatchGap(&g) && within(g.ObservedAt) {
			page.Gaps = append(page.Gaps, g)
		}
	}
	return page, err
}

var (
	base     = time.Date(2026, 9, 1, 10, 0, 0, 123_456_000, time.UTC)
	ours     = telemetry.Scope{Org: "org_a", Env: telemetry.Live}
	theirs   = telemetry.Scope{Org: "org_b", Env: telemetry.Live}
	everyone = append(slices.Clone(telemetry.AllPermissions), telemetry.DataErase)
)

// site is an API on a fake store and a real hub, behind a real listener.
type site struct {
	*fakeStore
	api *api.API
	hub *live.Hub
	url string
	key string
	log *syncBuffer
}

// syncBuffer keeps what was logged.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// wait waits until something was logged.
func (b *syncBuffer) wait(t *testing.T, text string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(60 * time.Second)
	defer late.Stop()
	for !strings.Contains(b.String(), text) {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("%q was not logged", text)
		}
	}
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newSite(t *testing.T, change func(*api.Config, *live.Options)) *site {
	t.Helper()
	s := start(t, newFakeStore(), change)
	s.key = s.fakeStore.key(ours, everyone...)
	return s
}

// replica is a second aggregator on a site's store.
func replica(t *testing.T, of *site) *site {
	t.Helper()
	s := start(t, of.fakeStore, quickBeats)
	s.key = of.key
	return s
}

func start(t *testing.T, store *fakeStore, change func(*api.Config, *live.Options)) *site {
	t.Helper()
	s := &site{fakeStore: store, log: &syncBuffer{}}
	log := hclog.New(&hclog.LoggerOptions{Output: s.log, Level: hclog.Trace})
	c := api.Config{Store: s.fakeStore, Log: log, Registerer: prometheus.NewRegistry()}
	o := live.Options{Poll: 20 * time.Millisecond, Log: log}
	if change != nil {
		change(&c, &o)
	}
	var err error
	if s.hub, err = live.New(s.Log, o); err != nil {
		t.Fatal(err)
	}
	c.Hub = s.hub
	if s.api, err = api.New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	hubEnded := make(chan error, 1)
	go func() { hubEnded <- s.hub.Run(ctx) }()
	server := httptest.NewServer(s.api)
	s.url = server.URL
	t.Cleanup(func() {
		patience, stop := context.WithTimeout(context.Background(), 30*time.Second)
		defer stop()
		s.api.Drain(patience)
		server.Close()
		cancel()
		if err := <-hubEnded; err != nil {
			t.Error(err)
		}
	})
	return s
}

// publish commits lines and tells the hub.
func (s *site) publish(scope telemetry.Scope, lines []telemetry.LogEntry, gaps ...telemetry.Gap) {
	s.hub.Publish([]*frame.Published{s.Commit(scope, "nod_1", lines, gaps)})
}

// line is a log entry with a message.
func line(agent telemetry.AgentID, message string) telemetry.LogEntry {
	return telemetry.LogEntry{
		Timestamp: base, Level: telemetry.Info, Message: message,
		Origin: telemetry.Origin{Agent: agent, Session: "ses_1", User: "user 1", Provider: telemetry.Docker, Sandbox: "sb1", Stream: telemetry.Stdout},
	}
}

func messages(agent telemetry.AgentID, texts ...string) []telemetry.LogEntry {
	var list []telemetry.LogEntry
	for _, text := range texts {
		list = append(list, line(agent, text))
	}
	return list
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body string
}

// client has no keep-alive, so that nothing is left when a test ends.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// request makes a request; headers are name, value pairs.
func (s *site) request(t *testing.T, method, path, body string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	return r
}

func (s *site) do(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	res, err := client.Do(s.request(t, method, path, body, headers...))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res, string(b)}
}

// get calls with the site's key.
func (s *site) get(t *testing.T, path string) answer {
	t.Helper()
	return s.do(t, "GET", path, "", "Authorization", "Bearer "+s.key)
}
