package sandbox

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// What was answered with 202 is handed on, however the endpoint is stopped.
func TestAnAnswerIsKeptOverEveryStop(t *testing.T) {
	sink := newKeeper()
	taken := atomic.Int64{}
	for range 15 {
		e := start(t, Config{Resolver: &directory{addresses: map[netip.Addr]source.Target{netip.MustParseAddr("127.0.0.1"): target("agt_1", "")}}}, sink)
		var senders sync.WaitGroup
		begun := make(chan struct{}, 4)
		for range 4 {
			senders.Go(func() {
				c := http.Client{Transport: &http.Transport{}}
				defer c.CloseIdleConnections()
				for i := range 30 {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/v1/sandbox/log", strings.NewReader(`{"message":"m"}`))
					if err != nil {
						t.Error(err)
						return
					}
					resp, err := c.Do(req)
					if err != nil {
						return // it is stopping
					}
					_ = resp.Body.Close()
					if resp.StatusCode == http.StatusAccepted {
						taken.Add(1)
					}
					if i == 3 {
						begun <- struct{}{}
					}
				}
			})
		}
		<-begun
		if err := e.stop(); err != nil {
			t.Fatal(err)
		}
		senders.Wait()
	}
	// A request may be taken and its answer be cut off, never the other way round.
	if n := int64(len(sink.all().Entries)); n < taken.Load() || taken.Load() == 0 {
		t.Errorf("%d entries of %d that were taken", n, taken.Load())
	}
	if left := sink.resume(); len(left) != 0 {
		t.Errorf("positions are left: %s", left)
	}
}

// Whatever a body is, it becomes a sound record of its sender, or an error for
// the client.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{
		`{"level":"warn","message":"m","metadata":{"a":[1,2]},"timestamp":"2026-11-22T07:00:00Z","traceId":"0af7651916cd43dd8448eb211c80319c"}`,
		`{"model":"m","inputTokens":1.5e3,"cost":{"amount":"0.1","currency":"EUR"},"timestamp":1795330800123}`,
		`{"name":"n","startTime":"2026-11-22T07:00:00Z","durationMs":1e300,"status":"failed","error":{"message":"e"},"attributes":[1]}`,
		`{"percentage":1e-300,"message":["\ud800","\u0000"]}`, `{"output":[[[]]],"artifacts":[{},"x",null,1e999]}`, `{"artifacts":{"not":"a list"}}`,
	} {
		f.Add([]byte(seed))
	}
	s, err := New(Config{}, hclog.NewNullLogger(), prometheus.NewRegistry())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		to := target("agt_1", "ses_1")
		for name, read := range map[string]reader{"log": s.readLog, "model": s.readModel, "span": s.readSpan, "progress": s.readProgress, "complete": s.readComplete} {
			b, err := read(&to, body)
			if err != nil {
				if code := telemetry.CodeOf(err); code == telemetry.Internal {
					t.Fatalf("%s: %v", name, err)
				}
				continue
			}
			if n, _ := sizeOf(b); n != 1 {
				t.Fatalf("%s: %d records", name, n)
			}
			for _, e := range b.Entries {
				checkSound(t, e.Origin, e.Message, e.Metadata)
			}
			for _, e := range b.Events {
				checkSound(t, e.Origin, e.Attributes["message"], e.Content)
				if len(e.Content) > telemetry.MaxMetadata {
					t.Fatalf("%s: %d bytes of content", name, len(e.Content))
				}
			}
			for _, e := range b.Spans {
				checkSound(t, e.Origin, e.Name, e.Attributes)
			}
			for _, e := range b.ModelCalls {
				checkSound(t, e.Origin, e.Model, e.Metadata)
				if e.InputTokens < 0 || e.OutputTokens < 0 {
					t.Fatalf("%+v", e)
				}
			}
		}
	})
}

func checkSound(t *testing.T, o telemetry.Origin, text string, object json.RawMessage) {
	t.Helper()
	if o.Agent != "agt_1" || o.Session != "ses_1" {
		t.Fatalf("%+v", o)
	}
	if !utf8.ValidString(text) {
		t.Fatalf("%q is not UTF-8", text)
	}
	if object != nil && (!json.Valid(object) || object[0] != '{') {
		t.Fatalf("%q is no object", object)
	}
}
