package push_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/theazo/observability/aggregator/push"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ours = telemetry.Scope{Org: "org_a"}

// sink is a submitter and the memory of keys.
type sink struct {
	mu     sync.Mutex
	err    error
	refuse error // what Admit answers
	marks  map[string]uint64
	keys   map[string]claimed
	frames []*frame.Received
	lines  []telemetry.LogEntry
	telemetry.Records
}

type claimed struct {
	epoch uint64
	body  [sha256.Size]byte
}

func (s *sink) ClaimKey(_ context.Context, scope telemetry.Scope, key [sha256.Size]byte, epoch uint64, body [sha256.Size]byte) (uint64, [sha256.Size]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := scope.String() + string(key[:])
	c, known := s.keys[k]
	if !known {
		c = claimed{epoch, body}
		s.keys[k] = c
	}
	return c.epoch, c.body, s.err
}

// Admit implements push.Submitter.
func (s *sink) Admit(telemetry.OrgID) error { return s.refuse }

// Submit checks what ingest checks, as far as it matters here.
func (s *sink) Submit(_ context.Context, frames []*frame.Received) ([]frame.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	outcomes := make([]frame.Outcome, len(frames))
	for i, f := range frames {
		mark := fmt.Sprint(f.Org, f.Env, f.Node, f.Epoch, f.Lane)
		if f.Epoch != 0 {
			if f.Last() <= s.marks[mark] {
				outcomes[i].Verdict = frame.Duplicate
				continue
			}
			if f.First != s.marks[mark]+1 {
				return nil, errors.New("a frame is out of order")
			}
			s.marks[mark] = f.Last()
		}
		s.frames = append(s.frames, f)
		if f.Lane == telemetry.LaneEvents {
			records, _, err := wire.DecodeRecords(f.Body)
			if err != nil || records.Len() != int(f.Count) {
				return nil, fmt.Errorf("%d records: %w", records.Len(), err)
			}
			s.Spans, s.Metrics = append(s.Spans, records.Spans...), append(s.Metrics, records.Metrics...)
			continue
		}
		g, err := segment.Parse(f.Body)
		if err != nil || g.Lines != int(f.Count) {
			return nil, fmt.Errorf("a segment: %w", err)
		}
		l := g.Read()
		if err := l.DecodeAll(); err != nil {
			return nil, err
		}
		for n := range g.Lines {
			var e telemetry.LogEntry
			l.Entry(n, &e)
			s.lines = append(s.lines, e)
		}
	}
	return outcomes, nil
}

func start(t *testing.T) (*push.Intake, *sink) {
	t.Helper()
	s := &sink{marks: map[string]uint64{}, keys: map[string]claimed{}}
	in, err := push.New(push.Config{Submitter: s, Keys: s, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return in, s
}

type answer struct {
	Accepted      int
	RejectedCount int
	Rejected      []struct {
		Line  int
		Error string
	}
	raw      []byte
	repeated bool
	err      error
}

func post(t *testing.T, in *push.Intake, path, contentType string, body io.Reader, headers ...string) (a answer) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, body)
	r.Header.Set("Content-Type", contentType)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a.raw, _, a.repeated, a.err = in.Push(t.Context(), ours, r)
	if a.err == nil && len(a.raw) > 0 && a.raw[0] == '{' {
		if err := json.Unmarshal(a.raw, &a); err != nil {
			t.Fatalf("%v in %s", err, a.raw)
		}
	}
	return a
}

const ndjson = "application/x-ndjson"

func TestLinesBecomeEntries(t *testing.T) {
	in, s := start(t)
	body := `{"timestamp":"2026-09-01T10:00:00.123456+02:00","level":"warning","message":"one","agentId":"agt_a","sessionId":"ses_a","userId":"u 1","metadata":{"a": [1, 2]},"traceId":"0AF7651916CD43DD8448EB211C80319C","spanId":"spn_1","stream":"stderr","source":"system"}

{"timestamp":1756720800123.5,"message":{"a": 1},"agentId":"agt_a","metadata":7}
{"level":"odd","message":"","agentId":"agt_a","metadata":null,"timestamp":null}
`
	before := time.Now().Add(-time.Second)
	a := post(t, in, "/v1/logs", ndjson, strings.NewReader(body))
	if a.err != nil || a.Accepted != 3 || a.RejectedCount != 0 || !strings.Contains(string(a.raw), `"rejected":[]`) || len(s.lines) != 3 {
		t.Fatalf("%v %s", a.err, a.raw)
	}
	one, two, three := s.lines[0], s.lines[1], s.lines[2]
	if one.Timestamp != time.Date(2026, 9, 1, 8, 0, 0, 123456000, time.UTC) || one.Level != telemetry.Warn || one.LevelInferred || one.Session != "ses_a" || one.User != "u 1" ||
		one.Trace != "trc_0af7651916cd43dd8448eb211c80319c" || one.Span != "spn_1" || one.Stream != telemetry.Stderr || one.Source != telemetry.SourceSystem || string(one.Metadata) != `{"a":[1,2]}` {
		t.Errorf("%+v", one)
	}
	if two.Timestamp.UnixMicro() != 1756720800123500 || two.Message != `{"a":1}` || string(two.Metadata) != `{"value":7}` || !two.LevelInferred {
		t.Errorf("%+v", two)
	}
	if three.Timestamp.Before(before) || three.Metadata != nil || three.Level != telemetry.Info || !three.LevelInferred {
		t.Errorf("%+v", three)
	}
	if f := s.frames[0]; f.Org != ours.Org || f.Node != push.Node || f.Epoch != 0 {
		t.Errorf("%+v", f.Header)
	}
}

func TestListsAndSingleLinesOfJSON(t *testing.T) {
	in, s := start(t)
	for body, want := range map[string]int{
		`[{"message":"a","agentId":"agt_a"}, {"message":"b","agentId":"agt_a"}]`: 2,
		` {"message":"c","agentId":"agt_a"} `:                                    1,
		`[]`:                                                                     0,
	} {
		if a := post(t, in, "/v1/logs", "application/json; charset=utf-8", strings.NewReader(body)); a.err != nil || a.Accepted != want {
			t.Errorf("%s: %v %s", body, a.err, a.raw)
		}
	}
	for _, body := range []string{``, `[`, `[{}`, `[1]x`, `[][]`, `"x"`, `nonsense`, strings.Repeat("[", 100_000)} {
		if a := post(t, in, "/v1/logs", "application/json", strings.NewReader(body)); telemetry.CodeOf(a.err) != telemetry.InvalidRequest {
			t.Errorf("%.40s: %v", body, a.err)
		}
	}
	if len(s.lines) != 3 {
		t.Errorf("%d lines", len(s.lines))
	}
}

func TestABadLineCostsItselfAndIsNamed(t *testing.T) {
	in, s := start(t)
	const good = `{"message":"good","agentId":"agt_a"}`
	bad := map[string]string{
		`{"message":"x"}`:                 "agentId is missing",
		`{"message":"x","agentId":"a b"}`: "agent id holds a character",
		`{"message":"x","agentId":"` + strings.Repeat("a", 129) + `"}`: "longer than",
		`{"agentId":"agt_a"}`:                                                                                    "message is missing",
		`{"agentId":"agt_a","message":null}`:                                                                     "message is missing",
		`{"message":"x","agentId":7}`:                                                                            "agentId must be a text",
		`{"message":"x","agentId":"agt_a","level":50}`:                                                           "level must be a text",
		`{"message":"x","agentId":"agt_a","orgId":"org_b"}`:                                                      `"orgId" is not known: put it into metadata`,
		`{"message":"x","agentId":"agt_a","timestamp":"soon"}`:                                                   "timestamp is neither",
		`{"message":"x","agentId":"agt_a","timestamp":-1}`:                                                       "timestamp is neither",
		`{"message":"x","agentId":"agt_a","timestamp":1e300}`:                                                    "timestamp is neither",
		`{"message":"x","agentId":"agt_a","timestamp":1756720800}`:                                               "not seconds",
		`{"message":"x","agentId":"agt_a","timestamp":"9999-12-31T23:59:59.5Z"}`:                                 "timestamp is neither",
		`{"message":"x","agentId":"agt_a","userId":"a\u0000b"}`:                                                  "user id holds a NUL",
		`{"message":"x","agentId":"agt_a","traceId":"x y"}`:                                                      "traceId holds",
		`{"message":"x","agentId":"agt_a","stream":"stdin"}`:                                                     "stream is not valid",
		`{"message":"x","agentId":"agt_a","source":"user"}`:                                                      "source is not valid",
		`{"message":"x","agentId":"agt_a","metadata":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`: "nested deeper",
		`{"message":"x","agentId":"agt_a","metadata":{"a":"` + strings.Repeat("x", 70_000) + `"}}`:               "metadata of 70008 bytes",
		`{"message":"x","agentId":"agt_a"} {}`:                                                                   "something follows",
		`[1]`:                                                                                                    "not a JSON object",
		`{"a`:                                                                                                    "is not JSON",
		"\x00":                                                                                                   "not a JSON object",
	}
	for text, want := range bad {
		a := post(t, in, "/v1/logs", ndjson, strings.NewReader(good+"\n"+text+"\n"+good))
		if a.err != nil || a.Accepted != 2 || a.RejectedCount != 1 || a.Rejected[0].Line != 2 || !strings.Contains(a.Rejected[0].Error, want) {
			t.Errorf("%.60s: %v %s", text, a.err, a.raw)
		}
		a = post(t, in, "/v1/logs", ndjson, strings.NewReader(text))
		f, ok := errors.AsType[*telemetry.Failure](a.err)
		if !ok || f.Code != telemetry.Unprocessable || len(f.Fields) != 1 || f.Fields[0].Field != "line 1" {
			t.Errorf("%.60s alone: %v", text, a.err)
		}
	}
	if len(s.lines) != 2*len(bad) {
		t.Errorf("%d good lines", len(s.lines))
	}
}

func TestTextIsStoredAsAgentdWouldSendIt(t *testing.T) {
	in, s := start(t)
	for written, want := range map[string]string{
		`"a\u0000b"`: "a\u2400b", "\"\xff\"": "\uFFFD", `"\ud800x"`: "\uFFFDx",
		`"\u001b[1;31mred\u001b[0m text"`: "red text", `"\u001b]0;title\u0007x"`: "x", `"a\u009b31mb"`: "ab", `"\u001b(B\u001b[mplain"`: "plain", `"\u001b7x\u001b("`: "x", `"\u001b]8;;u\u001b\\link"`: "link", `"\u001b"`: "", `"\u001b["`: "", `"\u001b]never ends"`: "never ends",
		`"line\r\n"`: "line", `"two\nlines"`: "two\nlines",
	} {
		s.lines = nil
		a := post(t, in, "/v1/logs", ndjson, strings.NewReader(`{"agentId":"agt_a","metadata":{"k\u0000":"v\\u0000\u0000"},"message":`+written+`}`))
		if a.err != nil || len(s.lines) != 1 || s.lines[0].Message != want || string(s.lines[0].Metadata) != `{"k\u2400":"v\\u0000\u2400"}` {
			t.Errorf("%s: %v %+v", written, a.err, s.lines)
		}
	}
	s.lines = nil
	long := strings.Repeat("ä", telemetry.MaxMessage/2) + "x"
	if a := post(t, in, "/v1/logs", ndjson, strings.NewReader(`{"agentId":"agt_a","message":"x`+long+`"}`)); a.err != nil || !s.lines[0].Truncated || len(s.lines[0].Message) != telemetry.MaxMessage-1 {
		t.Errorf("%v: %d bytes", a.err, len(s.lines[0].Message))
	}
}

func TestLargeRequestsAreCutIntoFramesInOrder(t *testing.T) {
	in, s := start(t)
	var body bytes.Buffer
	for i := range push.MaxRecords + 5 {
		fmt.Fprintf(&body, `{"agentId":"agt_%d","message":"%d %s"}`+"\n", i%50, i, strings.Repeat("x", 300))
	}
	text := body.Bytes()
	for range 2 { // the same key: the same frames, whatever the time
		a := post(t, in, "/v1/logs", ndjson, bytes.NewReader(text), "Idempotency-Key", "big")
		if a.err != nil || a.Accepted != push.MaxRecords || a.RejectedCount != 5 || a.Rejected[0].Line != push.MaxRecords+1 {
			t.Fatalf("%v %s", a.err, a.raw)
		}
	}
	if len(s.frames) < 3 || len(s.lines) != push.MaxRecords {
		t.Fatalf("%d frames of %d lines", len(s.frames), len(s.lines))
	}
	for i, e := range s.lines {
		if !strings.HasPrefix(e.Message, fmt.Sprint(i, " ")) {
			t.Fatalf("line %d is %.20s", i, e.Message)
		}
	}
}

func TestLinesOfManyLongIDsFitTheirFrames(t *testing.T) {
	in, s := start(t)
	var body strings.Builder
	lines := 0
	for ; body.Len() < 6<<20; lines++ {
		id := sha512.Sum512(fmt.Append(nil, lines))
		more := sha512.Sum512(id[:])
		fmt.Fprintf(&body, "{\"message\":\"x\",\"agentId\":\"%x\",\"sessionId\":\"%x\",\"userId\":\"%x%x\",\"traceId\":\"%x\",\"spanId\":\"%x\"}\n", id, more, more, id, id, more)
	}
	if a := post(t, in, "/v1/logs", ndjson, strings.NewReader(body.String())); a.err != nil || a.Accepted != lines || len(s.lines) != lines {
		t.Fatalf("%v: %d of %d lines", a.err, len(s.lines), lines)
	}
	for _, f := range s.frames {
		if len(f.Body) > frame.MaxBody {
			t.Errorf("a frame of %d bytes", len(f.Body))
		}
	}
}

// Quadratic time would end in the test's own time limit.
func TestBeginningsOfEscapeSequencesWithoutEndTakeLinearTime(t *testing.T) {
	in, s := start(t)
	message := strings.Repeat(`\u001b]\u001b[m`, 500_000) + "end"
	if a := post(t, in, "/v1/logs", ndjson, strings.NewReader(`{"agentId":"agt_a","message":"`+message+`"}`)); a.err != nil || s.lines[0].Message != "end" {
		t.Fatal(a.err)
	}
}

func TestAnIdempotencyKeyMakesARepeatHarmless(t *testing.T) {
	in, s := start(t)
	const body = `{"agentId":"agt_a","message":"once"}` + "\n" + `{"agentId":"","message":"bad"}`
	s.err = telemetry.Failf(telemetry.Unavailable, "The database is away.")
	if a := post(t, in, "/v1/logs", ndjson, strings.NewReader(body), "Idempotency-Key", "k"); telemetry.CodeOf(a.err) != telemetry.Unavailable {
		t.Errorf("%v", a.err)
	}
	s.err = nil
	first := post(t, in, "/v1/logs", ndjson, strings.NewReader(body), "Idempotency-Key", "k")
	again := post(t, in, "/v1/logs", ndjson, strings.NewReader(body), "Idempotency-Key", "k")
	if first.err != nil || first.repeated || again.err != nil || !again.repeated || !bytes.Equal(first.raw, again.raw) || len(s.lines) != 1 {
		t.Errorf("%v %v, %d lines: %s %s", first.err, again.err, len(s.lines), first.raw, again.raw)
	}
	if a := post(t, in, "/v1/logs", ndjson, strings.NewReader(body+"\n"), "Idempotency-Key", "k"); telemetry.CodeOf(a.err) != telemetry.Unprocessable {
		t.Errorf("another body: %v", a.err)
	}
	if a := post(t, in, "/v1/logs", ndjson, strings.NewReader(body), "Idempotency-Key", "l"); a.err != nil || len(s.lines) != 2 {
		t.Errorf("another key: %v", a.err)
	}
	for _, key := range []string{"", "ä", "a\tb", strings.Repeat("k", 256)} {
		if a := post(t, in, "/v1/logs", ndjson, strings.NewReader(body), "Idempotency-Key", key); telemetry.CodeOf(a.err) != telemetry.InvalidRequest {
			t.Errorf("%q: %v", key, a.err)
		}
	}
}

// Who sends too many requests leaves nothing behind.
func TestARequestThatIsNotAdmittedClaimsNoKey(t *testing.T) {
	in, s := start(t)
	s.refuse = telemetry.Failf(telemetry.RateLimited, "too many")
	a := post(t, in, "/v1/logs", ndjson, strings.NewReader(`{"agentId":"agt_a","message":"x"}`), "Idempotency-Key", "k")
	if telemetry.CodeOf(a.err) != telemetry.RateLimited || len(s.keys)+len(s.frames) != 0 {
		t.Errorf("%v: %d keys, %d frames", a.err, len(s.keys), len(s.frames))
	}
}

func gzipped(b []byte) *bytes.Buffer {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return &out
}

func zstded(t *testing.T, b []byte, o ...zstd.EOption) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, o...)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(b)
	_ = z.Close()
	return &out
}

func TestBodiesAreInflatedWithinBounds(t *testing.T) {
	in, s := start(t)
	good := []byte(`{"agentId":"agt_a","message":"` + strings.Repeat("x", 100_000) + `"}`)
	for encoding, body := range map[string]io.Reader{"gzip": gzipped(good), "zstd": zstded(t, good), "identity": bytes.NewReader(good)} {
		if a := post(t, in, "/v1/logs", ndjson, body, "Content-Encoding", encoding); a.err != nil || a.Accepted != 1 {
			t.Errorf("%s: %v", encoding, a.err)
		}
	}
	large := bytes.Repeat([]byte(" "), 64<<20)
	for name, c := range map[string]struct {
		encoding string
		body     io.Reader
		large    bool
	}{
		"gzip bomb": {"gzip", gzipped(large), true}, "zstd bomb": {"zstd", zstded(t, large), true}, "too large": {"", bytes.NewReader(large), true},
		"no gzip": {"gzip", bytes.NewReader(good), false}, "no zstd": {"zstd", bytes.NewReader(good), false},
		"half a gzip": {"gzip", io.LimitReader(gzipped(good), 50), false}, "half a zstd": {"zstd", io.LimitReader(zstded(t, good), 20), false},
		"a zstd that looks far back": {"zstd", zstded(t, large[:16<<20], zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false)), true},
	} {
		a := post(t, in, "/v1/logs", ndjson, c.body, "Content-Encoding", c.encoding)
		_, isLarge := errors.AsType[*http.MaxBytesError](a.err)
		if telemetry.CodeOf(a.err) != telemetry.InvalidRequest || isLarge != c.large && name != "a zstd that looks far back" {
			t.Errorf("%s: %v", name, a.err)
		}
	}
	if a := post(t, in, "/v1/logs", ndjson, bytes.NewReader(good), "Content-Encoding", "br"); !errors.Is(a.err, http.ErrNotSupported) {
		t.Errorf("br: %v", a.err)
	}
	if len(s.lines) != 3 {
		t.Errorf("%d lines", len(s.lines))
	}
	// Everything was given back: the largest body still finds room.
	if a := post(t, in, "/v1/logs", ndjson, bytes.NewReader(large[:push.MaxBody])); a.err != nil {
		t.Errorf("the largest body: %v", a.err)
	}
}

// stuck is a body that comes in part.
type stuck struct {
	io.Reader
	arrived chan struct{}
	release chan struct{}
	once    sync.Once
}

func (s *stuck) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		s.once.Do(func() { close(s.arrived) })
		<-s.release
	}
	return n, err
}

func TestSlowBodiesOfOneOrganisationLeaveRoomForOthers(t *testing.T) {
	in, _ := start(t)
	release := make(chan struct{})
	var senders sync.WaitGroup
	refused := make(chan error, 20)
	for range 20 {
		body := &stuck{Reader: bytes.NewReader(bytes.Repeat([]byte(" "), 7<<20)), arrived: make(chan struct{}), release: release}
		senders.Go(func() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/logs", body)
			r.Header.Set("Content-Type", ndjson)
			if _, _, _, err := in.Push(t.Context(), ours, r); err != nil {
				refused <- err
				body.once.Do(func() { close(body.arrived) })
			}
		})
		<-body.arrived
	}
	if len(refused) == 0 || telemetry.CodeOf(<-refused) != telemetry.RateLimited {
		t.Error("20 bodies of 7 MiB are held")
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/logs", strings.NewReader(`{"agentId":"agt_a","message":"x"}`))
	r.Header.Set("Content-Type", ndjson)
	if _, _, _, err := in.Push(t.Context(), telemetry.Scope{Org: "org_b"}, r); err != nil {
		t.Errorf("another organisation: %v", err)
	}
	close(release)
	senders.Wait()
}

func TestContentTypes(t *testing.T) {
	in, _ := start(t)
	for path, types := range map[string][]string{
		"/v1/logs": {"", "text/plain", "application/xml"}, "/otlp/v1/logs": {"", ndjson}, "/v1/traces": {ndjson, "text/csv"}, "/v1/metrics": {""},
	} {
		for _, contentType := range types {
			if a := post(t, in, path, contentType, strings.NewReader("{}")); !errors.Is(a.err, http.ErrNotSupported) {
				t.Errorf("%s %s: %v", path, contentType, a.err)
			}
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"agentId":"agt_a","message":"x","metadata":{"a":"\u0000"},"timestamp":1}`), true)
	f.Add([]byte(`[{"agentId":"agt_a","message":["x"]}]`), false)
	f.Add([]byte("{\"agentId\":\"a\",\"message\":\"\xff\x1b[\"}\n\n{}"), true)
	f.Fuzz(func(t *testing.T, body []byte, asLines bool) {
		in, s := start(t)
		contentType := "application/json"
		if asLines {
			contentType = ndjson
		}
		a := post(t, in, "/v1/logs", contentType, bytes.NewReader(body))
		if a.err != nil && telemetry.CodeOf(a.err) == telemetry.Internal {
			t.Fatal(a.err)
		}
		for i := range s.lines {
			e := &s.lines[i]
			if strings.ToValidUTF8(e.Message, "") != e.Message || strings.ContainsAny(e.Message, "\x00") || telemetry.CheckObject(e.Metadata, telemetry.MaxMetadata) != nil || wire.CheckOrigin(&e.Origin) != nil {
				t.Fatalf("%+v", e)
			}
		}
	})
}
