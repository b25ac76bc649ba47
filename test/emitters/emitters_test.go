package emitters

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otellog "go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/theazo/observability/agentd/sandbox"
	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

var record = flag.Bool("record", false, "write what the exporters send to shared/otlp/testdata")

const patience = time.Minute

// node is an endpoint whose every local sender is agt_go.
type node struct {
	address string

	mu      sync.Mutex
	taken   source.Batch
	changed chan struct{}
}

func (n *node) ByAddress(netip.Addr) (source.Target, bool) { return bound, true }
func (n *node) ByPID(int) (source.Target, bool)            { return bound, true }

var bound = source.Target{Org: "org_1", Origin: telemetry.Origin{Agent: "agt_go", Session: "ses_go", Provider: telemetry.Docker, Sandbox: "4f5e"}}

func (n *node) Emit(_ context.Context, b *source.Batch) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken.Entries = append(n.taken.Entries, b.Entries...)
	n.taken.Spans = append(n.taken.Spans, b.Spans...)
	n.taken.Metrics = append(n.taken.Metrics, b.Metrics...)
	close(n.changed)
	n.changed = make(chan struct{})
	return nil
}

func (n *node) await(t *testing.T, done func(*source.Batch) bool) *source.Batch {
	t.Helper()
	limit := time.After(patience)
	for {
		n.mu.Lock()
		taken, changed := n.taken, n.changed
		n.mu.Unlock()
		if done(&taken) {
			return &taken
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("only %d entries, %d spans, %d points came", len(taken.Entries), len(taken.Spans), len(taken.Metrics))
		}
	}
}

func startNode(t *testing.T, quota sandbox.Quota) *node {
	t.Helper()
	n := &node{changed: make(chan struct{})}
	s, err := sandbox.New(sandbox.Config{Listen: []string{"127.0.0.1:0"}, Resolver: n, Quota: quota}, hclog.NewNullLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, nil, n) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if n.address, err = s.Address(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// exporters of one protocol.
type exporters struct {
	trace  sdktrace.SpanExporter
	metric sdkmetric.Exporter
	log    sdklog.Exporter
}

func byGRPC(t *testing.T, address string, gzip bool) (e exporters) {
	t.Helper()
	traces := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure()}
	metrics := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpoint(address), otlpmetricgrpc.WithInsecure()}
	logs := []otlploggrpc.Option{otlploggrpc.WithEndpoint(address), otlploggrpc.WithInsecure()}
	if gzip {
		traces = append(traces, otlptracegrpc.WithCompressor("gzip"))
		metrics = append(metrics, otlpmetricgrpc.WithCompressor("gzip"))
		logs = append(logs, otlploggrpc.WithCompressor("gzip"))
	}
	var errs [3]error
	e.trace, errs[0] = otlptracegrpc.New(t.Context(), traces...)
	e.metric, errs[1] = otlpmetricgrpc.New(t.Context(), metrics...)
	e.log, errs[2] = otlploggrpc.New(t.Context(), logs...)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return e
}

func byHTTP(t *testing.T, address string, gzip bool) (e exporters) {
	t.Helper()
	traces := []otlptracehttp.Option{otlptracehttp.WithEndpoint(address), otlptracehttp.WithInsecure()}
	metrics := []otlpmetrichttp.Option{otlpmetrichttp.WithEndpoint(address), otlpmetrichttp.WithInsecure()}
	logs := []otlploghttp.Option{otlploghttp.WithEndpoint(address), otlploghttp.WithInsecure()}
	if gzip {
		traces = append(traces, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
		metrics = append(metrics, otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
		logs = append(logs, otlploghttp.WithCompression(otlploghttp.GzipCompression))
	}
	var errs [3]error
	e.trace, errs[0] = otlptracehttp.New(t.Context(), traces...)
	e.metric, errs[1] = otlpmetrichttp.New(t.Context(), metrics...)
	e.log, errs[2] = otlploghttp.New(t.Context(), logs...)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return e
}

// complaints are what the SDK says went wrong behind a program's back, partial
// successes among them.
var complaints struct {
	mu   sync.Mutex
	said []string
}

func TestMain(m *testing.M) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		complaints.mu.Lock()
		defer complaints.mu.Unlock()
		complaints.said = append(complaints.said, err.Error())
	}))
	os.Exit(m.Run())
}

func complained() string {
	complaints.mu.Lock()
	defer complaints.mu.Unlock()
	said := strings.Join(complaints.said, "\n")
	complaints.said = nil
	return said
}

var at = time.Date(2026, 11, 22, 9, 0, 0, 123456789, time.UTC)

// fixedIDs makes the ids of a recorded request.
type fixedIDs struct {
	mu   sync.Mutex
	next byte
}

func (f *fixedIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id := trace.TraceID{0xaa, 15: 1}
	return id, f.NewSpanID(ctx, id)
}

func (f *fixedIDs) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	return trace.SpanID{0xbb, 7: f.next}
}

func resourceOf(extra ...attribute.KeyValue) *resource.Resource {
	return resource.NewSchemaless(append([]attribute.KeyValue{
		attribute.String("service.name", "coder"), attribute.Int("process.pid", 7), attribute.StringSlice("process.command_args", []string{"coder", "--fast"}),
	}, extra...)...)
}

// work is what an agent does: a plan, in it a call of a model that fails once
// and a tool, beside them logs and metrics.
func work(t *testing.T, e exporters, r *resource.Resource) error {
	t.Helper()
	ctx := t.Context()
	tp := sdktrace.NewTracerProvider(sdktrace.WithBatcher(e.trace), sdktrace.WithResource(r), sdktrace.WithIDGenerator(&fixedIDs{}))
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(e.metric, sdkmetric.WithInterval(time.Hour))), sdkmetric.WithResource(r),
		sdkmetric.WithView(sdkmetric.NewView(sdkmetric.Instrument{Name: "gen_ai.server.request.duration"}, sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})))
	lp := sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewBatchProcessor(e.log)), sdklog.WithResource(r))

	tracer := tp.Tracer("opentelemetry.instrumentation.openai_v2", trace.WithInstrumentationVersion("2.3"))
	ctx, plan := tracer.Start(ctx, "invoke_agent coder", trace.WithTimestamp(at), trace.WithAttributes(attribute.String("gen_ai.operation.name", "invoke_agent"), attribute.String("gen_ai.agent.name", "coder")))
	_, call := tracer.Start(ctx, "chat gpt-5-mini", trace.WithTimestamp(at.Add(time.Millisecond)), trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(trace.LinkFromContext(ctx)), trace.WithAttributes(
		attribute.String("gen_ai.operation.name", "chat"), attribute.String("gen_ai.provider.name", "openai"), attribute.String("gen_ai.request.model", "gpt-5-mini"),
		attribute.Int("gen_ai.usage.input_tokens", 1200), attribute.Int64("gen_ai.usage.output_tokens", 1<<53+1), attribute.Float64("gen_ai.request.temperature", 0.7), attribute.Bool("stream", true),
		attribute.StringSlice("gen_ai.response.finish_reasons", []string{"stop"}), attribute.String("gen_ai.input.messages", `[{"role":"user","content":"secret"}]`),
	))
	call.AddEvent("first token", trace.WithTimestamp(at.Add(2*time.Millisecond)), trace.WithAttributes(attribute.Int("n", 1)))
	call.RecordError(errors.New("rate limited"), trace.WithTimestamp(at.Add(3*time.Millisecond)))
	call.SetStatus(codes.Error, "rate limited")

	logger := lp.Logger("coder.log")
	var rec otellog.Record
	rec.SetTimestamp(at)
	rec.SetSeverity(otellog.SeverityWarn)
	rec.SetSeverityText("WARNING")
	rec.SetBody(attribute.StringValue("retrying after 429"))
	rec.AddAttributes(attribute.Int("attempt", 2), attribute.Map("http", attribute.Int("status", 429), attribute.Slice("ids", attribute.StringValue("a"), attribute.ByteSliceValue([]byte{0, 255}))))
	logger.Emit(trace.ContextWithSpan(ctx, call), rec)
	var event otellog.Record
	event.SetTimestamp(at)
	event.SetEventName("gen_ai.user.message")
	event.SetBody(attribute.MapValue(attribute.String("content", "secret")))
	logger.Emit(ctx, event)
	call.End(trace.WithTimestamp(at.Add(time.Second)))
	plan.End(trace.WithTimestamp(at.Add(2 * time.Second)))

	meter := mp.Meter("coder")
	model := metric.WithAttributes(attribute.String("gen_ai.request.model", "gpt-5-mini"), attribute.Int("attempt", 2))
	counter, e1 := meter.Int64Counter("calls", metric.WithUnit("{call}"))
	open, e2 := meter.Int64UpDownCounter("open")
	duration, e3 := meter.Float64Histogram("gen_ai.client.operation.duration", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(0.5, 1))
	exponential, e4 := meter.Float64Histogram("gen_ai.server.request.duration", metric.WithUnit("s"))
	gauge, e5 := meter.Float64Gauge("depth")
	if err := errors.Join(e1, e2, e3, e4, e5); err != nil {
		t.Fatal(err)
	}
	counter.Add(ctx, 3, model)
	open.Add(ctx, -2)
	gauge.Record(ctx, 0.5)
	for _, v := range []float64{0.25, 0.75, 4} {
		duration.Record(ctx, v, model)
		exponential.Record(ctx, v)
	}
	return errors.Join(tp.Shutdown(t.Context()), mp.Shutdown(t.Context()), lp.Shutdown(t.Context()))
}

func TestTheSDKsExportersAreUnderstood(t *testing.T) {
	for name, by := range map[string]func(*testing.T, string, bool) exporters{"gRPC": byGRPC, "HTTP": byHTTP} {
		for _, gzip := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s gzip=%t", name, gzip), func(t *testing.T) {
				n := startNode(t, sandbox.Quota{})
				if err := work(t, by(t, n.address, gzip), resourceOf()); err != nil {
					t.Error(err)
				}
				checkWork(t, n.await(t, func(b *source.Batch) bool { return len(b.Spans) == 2 && len(b.Entries) == 2 && len(b.Metrics) == 5 }))
				if said := complained(); said != "" {
					t.Errorf("the SDK says %s", said)
				}
			})
		}
	}
}

func checkWork(t *testing.T, b *source.Batch) {
	t.Helper()
	for _, s := range b.Spans {
		if s.Origin.Agent != "agt_go" || s.Scope != "opentelemetry.instrumentation.openai_v2" || !strings.Contains(string(s.Resource), `"process.command_args":["coder","--fast"]`) {
			t.Errorf("span %+v", s)
		}
		if s.Name != "chat gpt-5-mini" {
			continue
		}
		want := `{"gen_ai.operation.name":"chat","gen_ai.provider.name":"openai","gen_ai.request.model":"gpt-5-mini","gen_ai.usage.input_tokens":1200,"gen_ai.usage.output_tokens":9007199254740993,` +
			`"gen_ai.request.temperature":0.7,"stream":true,"gen_ai.response.finish_reasons":["stop"]}`
		if string(s.Attributes) != want || s.Parent != "spn_bb00000000000001" || s.Kind != telemetry.SpanClient || s.Status != telemetry.SpanError || s.Error != "rate limited" ||
			len(s.Events) != 2 || s.Events[1].Name != "exception" || len(s.Links) != 1 || s.End.Sub(s.Start) != 999*time.Millisecond {
			t.Errorf("call %+v\nattributes %s", s, s.Attributes)
		}
	}
	for _, e := range b.Entries {
		switch e.Message {
		case "retrying after 429":
			want := `{"attempt":2,"http":{"ids":["a","AP8="],"status":429},"severity_text":"WARNING","otel.scope.name":"coder.log","service.name":"coder"}`
			if string(e.Metadata) != want || e.Level != telemetry.Warn || e.Span != "spn_bb00000000000002" || !e.Timestamp.Equal(at.Truncate(time.Microsecond)) {
				t.Errorf("entry %+v\nmetadata %s", e, e.Metadata)
			}
		case "gen_ai.user.message":
		default:
			t.Errorf("entry %+v", e)
		}
		if strings.Contains(e.Message+string(e.Metadata), "secret") {
			t.Errorf("content was kept: %+v", e)
		}
	}
	kinds := map[string]telemetry.MetricKind{
		"calls": telemetry.Cumulative, "open": telemetry.Gauge, "depth": telemetry.Gauge,
		"gen_ai.client.operation.duration": telemetry.CumulativeDistribution, "gen_ai.server.request.duration": telemetry.CumulativeDistribution,
	}
	values := map[string]float64{"calls": 3, "open": -2, "depth": 0.5, "gen_ai.client.operation.duration": 5, "gen_ai.server.request.duration": 5}
	for _, m := range b.Metrics {
		if kind, ok := kinds[m.Name]; !ok || m.Kind != kind || m.Value != values[m.Name] || m.Attributes["service.name"] != "coder" {
			t.Errorf("point %+v", m)
		}
		if m.Name == "gen_ai.client.operation.duration" && (fmt.Sprint(m.Histogram.Counts) != "[1 1 1]" || *m.Histogram.Min != 0.25 || m.Attributes["attempt"] != "2") {
			t.Errorf("histogram %+v", m.Histogram)
		}
	}
}

func TestTheSDKIsToldOfARefusal(t *testing.T) {
	for name, by := range map[string]func(*testing.T, string, bool) exporters{"gRPC": byGRPC, "HTTP": byHTTP} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, sandbox.Quota{})
			err := work(t, by(t, n.address, false), resourceOf(attribute.String("theazo.agent.id", "agt_other")))
			said := fmt.Sprint(err) + complained()
			for _, part := range []string{"2 spans were refused", "2 log records were refused", "5 data points were refused", `theazo.agent.id is "agt_other"`} {
				if !strings.Contains(said, part) {
					t.Errorf("the SDK does not say %q, but %s", part, said)
				}
			}
		})
	}
}

func TestTheSDKTriesAgainWhenToldTo(t *testing.T) {
	for name, by := range map[string]func(*testing.T, string, bool) exporters{"gRPC": byGRPC, "HTTP": byHTTP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNode(t, sandbox.Quota{Records: 1000}) // 10,000 at once
			exporter := by(t, n.address, false).trace
			tp := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter, sdktrace.WithMaxExportBatchSize(6000), sdktrace.WithMaxQueueSize(20000), sdktrace.WithBlocking()))
			for i := range 12000 {
				_, s := tp.Tracer("x").Start(t.Context(), fmt.Sprint(i))
				s.End()
			}
			if err := tp.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			b := n.await(t, func(b *source.Batch) bool { return len(b.Spans) >= 12000 })
			seen := map[string]bool{}
			for _, s := range b.Spans {
				seen[s.Name] = true
			}
			if len(b.Spans) != 12000 || len(seen) != 12000 {
				t.Errorf("%d spans, %d different ones", len(b.Spans), len(seen))
			}
		})
	}
}

func TestRecord(t *testing.T) {
	dir := t.TempDir()
	if *record {
		dir = filepath.Join("..", "..", "shared", "otlp", "testdata")
	}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "go-sdk."+filepath.Base(r.URL.Path)+".pb"), b, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	if err := work(t, byHTTP(t, strings.TrimPrefix(server.URL, "http://"), false), resourceOf()); err != nil {
		t.Error(err)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "go-sdk.*.pb")); err != nil || len(files) != 3 {
		t.Errorf("recorded %v (%v)", files, err)
	}
}
