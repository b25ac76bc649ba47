package sandbox

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcgzip "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
)

// part is a field that holds bytes, in protobuf.
func part(number protowire.Number, value ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), bytes.Join(value, nil))
}

func textAttribute(key, value string) []byte {
	return bytes.Join([][]byte{part(1, []byte(key)), part(2, part(1, []byte(value)))}, nil)
}

// request is one record of a signal, of a resource with these attributes.
func otlpRequest(record []byte, resource ...[]byte) []byte {
	var attributes []byte
	for _, a := range resource {
		attributes = append(attributes, part(1, a)...)
	}
	return part(1, part(1, attributes), part(2, part(2, record)))
}

var (
	spanOTLP   = bytes.Join([][]byte{part(1, []byte("0123456789abcdef")), part(2, []byte("01234567")), part(5, []byte("chat"))}, nil)
	logOTLP    = part(5, part(1, []byte("hello")))
	metricOTLP = bytes.Join([][]byte{part(1, []byte("tokens")), part(5, part(1, protowire.AppendFixed64(protowire.AppendTag(nil, 6, protowire.Fixed64Type), 42)))}, nil)
)

// metricPoints of all batches.
func (k *keeper) metricPoints() (all []telemetry.MetricPoint) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, b := range k.batches {
		all = append(all, b.Metrics...)
	}
	return all
}

type otlpAnswer struct {
	status int
	header http.Header
	body   string
}

func (e *endpoint) otlp(t *testing.T, path, contentType string, body []byte, header ...string) otlpAnswer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Close = true
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return otlpAnswer{resp.StatusCode, resp.Header, string(b)}
}

const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json; charset=utf-8"
)

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	return w.EncodeAll(b, nil)
}

// counted is the value of one label of a counter.
func counted(t *testing.T, c *prometheus.CounterVec, label string) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestOTLPByHTTP(t *testing.T) {
	e := bound(t, target("agt_one", "ses_one"))
	jsonLog := []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}]}`)
	for name, c := range map[string]struct {
		path, kind string
		body       []byte
		header     []string
		answer     string
	}{
		"logs":    {"/v1/logs", typeProtobuf, otlpRequest(logOTLP), nil, ""},
		"traces":  {"/v1/traces", typeProtobuf, gzipped(t, otlpRequest(spanOTLP)), []string{"Content-Encoding", "gzip"}, ""},
		"metrics": {"/v1/metrics", typeProtobuf, zstded(t, otlpRequest(metricOTLP)), []string{"Content-Encoding", "zstd"}, ""},
		"json":    {"/v1/logs", typeJSON, jsonLog, nil, "{}"},
		"own":     {"/v1/logs", typeProtobuf, otlpRequest(logOTLP, textAttribute("theazo.agent.id", "agt_one"), textAttribute("theazo.session.id", "ses_one")), nil, ""},
	} {
		if r := e.otlp(t, c.path, c.kind, c.body, c.header...); r.status != http.StatusOK || r.body != c.answer || !strings.HasPrefix(c.kind, r.header.Get("Content-Type")) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	all := e.sink.await(t, "the records", func(all source.Batch) bool {
		return len(all.Entries) == 3 && len(all.Spans) == 1 && len(e.sink.metricPoints()) == 1
	})
	want := target("agt_one", "ses_one").Origin
	want.Source = telemetry.SourceAgent
	if s := all.Spans[0]; s.Name != "chat" || s.Origin != want || s.Trace != "trc_30313233343536373839616263646566" {
		t.Errorf("span %+v", s)
	}
	if m := e.sink.metricPoints()[0]; m.Name != "tokens" || m.Value != 42 || m.Origin != want {
		t.Errorf("point %+v", m)
	}
	for _, l := range all.Entries {
		if l.Message != "hello" || l.Origin != want || !l.LevelInferred {
			t.Errorf("entry %+v", l)
		}
	}
}

func TestOTLPRefusals(t *testing.T) {
	e := bound(t, target("agt_one", "ses_one"))
	tests := map[string]struct {
		kind, header string
		body         []byte
		status       int
		says         string
	}{
		"malformed":       {typeProtobuf, "", []byte{0xff}, http.StatusBadRequest, "malformed"},
		"malformed json":  {typeJSON, "", []byte(`{`), http.StatusBadRequest, `{"code":3,"message":"not a request of OTLP traces: JSON`},
		"content type":    {"text/plain", "", nil, http.StatusUnsupportedMediaType, "application/x-protobuf"},
		"encoding":        {typeProtobuf, "br", []byte("x"), http.StatusUnsupportedMediaType, "gzip, zstd"},
		"no gzip":         {typeProtobuf, "gzip", []byte("x"), http.StatusBadRequest, "not gzip"},
		"cut gzip":        {typeProtobuf, "gzip", gzipped(t, otlpRequest(spanOTLP))[:30], http.StatusBadRequest, "gzip"},
		"no zstd":         {typeProtobuf, "zstd", []byte("x"), http.StatusBadRequest, "zstd"},
		"too large":       {typeProtobuf, "", make([]byte, otlp.MaxBody+1), http.StatusRequestEntityTooLarge, "larger"},
		"too large gzip":  {typeProtobuf, "gzip", gzipped(t, make([]byte, otlp.MaxBody+1)), http.StatusRequestEntityTooLarge, "larger"},
		"too large zstd":  {typeProtobuf, "zstd", zstded(t, make([]byte, otlp.MaxBody+1)), http.StatusRequestEntityTooLarge, "larger"},
		"foreign agent":   {typeJSON, "", []byte(`{"resourceSpans":[{"resource":{"attributes":[{"key":"theazo.agent.id","value":{"stringValue":"agt_two"}}]},"scopeSpans":[{"spans":[{},{}]}]}]}`), http.StatusOK, `{"partialSuccess":{"rejectedSpans":"2","errorMessage":"2 spans were refused: 2 are of a resource whose theazo.agent.id is \"agt_two\", which is not the sender's"}}`},
		"foreign session": {typeJSON, "", []byte(`{"resourceSpans":[{"resource":{"attributes":[{"key":"theazo.session.id","value":{"stringValue":"ses_two"}}]},"scopeSpans":[{"spans":[{}]}]}]}`), http.StatusOK, `theazo.session.id is \"ses_two\"`},
		"partly":          {typeProtobuf, "", append(otlpRequest(spanOTLP), otlpRequest(nil)...), http.StatusOK, "1 have no trace id"},
		"empty":           {typeProtobuf, "", nil, http.StatusOK, ""},
	}
	for name, c := range tests {
		r := e.otlp(t, "/v1/traces", c.kind, c.body, "Content-Encoding", c.header)
		if r.status != c.status || !strings.Contains(r.body, c.says) {
			t.Errorf("%s: %d %q, want %d %q", name, r.status, r.body, c.status, c.says)
		}
	}
	if n := counted(t, e.collector.metrics.refused, string(otlp.ForeignClaim)); n != 3 {
		t.Errorf("%v foreign records counted", n)
	}
	all := e.sink.await(t, "the span", func(all source.Batch) bool { return len(all.Spans) == 1 })
	if len(all.Spans) != 1 || all.Spans[0].Origin.Agent != "agt_one" {
		t.Errorf("%+v", all.Spans)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+"/v1/traces", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != http.MethodPost {
		t.Errorf("GET: %d %v", resp.StatusCode, resp.Header)
	}
	http.DefaultClient.CloseIdleConnections()
}

// rawCodec sends and takes messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func export(ctx context.Context, c *grpc.ClientConn, method string, body []byte, o ...grpc.CallOption) (string, error) {
	var answer []byte
	err := c.Invoke(ctx, method, &body, &answer, o...)
	return string(answer), err
}

func TestOTLPByGRPC(t *testing.T) {
	one := target("agt_one", "ses_one")
	e := start(t, Config{
		Key:      Key{1},
		Resolver: &directory{addresses: map[netip.Addr]source.Target{netip.MustParseAddr("127.0.0.1"): one}, pids: map[int]source.Target{os.Getpid(): target("agt_pid", "")}},
	}, newKeeper())
	c := dial(t, "passthrough:///"+strings.TrimPrefix(e.url, "http://"))
	for method, body := range map[string][]byte{grpcLogs: otlpRequest(logOTLP), grpcMetrics: otlpRequest(metricOTLP), grpcTraces: otlpRequest(spanOTLP)} {
		if answer, err := export(t.Context(), c, method, body); err != nil || answer != "" {
			t.Errorf("%s: %q, %v", method, answer, err)
		}
	}
	if answer, err := export(t.Context(), c, grpcTraces, otlpRequest(spanOTLP), grpc.UseCompressor(grpcgzip.Name)); err != nil || answer != "" {
		t.Errorf("gzip: %q, %v", answer, err)
	}
	if answer, err := export(t.Context(), c, grpcTraces, append(otlpRequest(spanOTLP), otlpRequest(spanOTLP, textAttribute("theazo.agent.id", "agt_two"))...)); err != nil || !strings.Contains(answer, "1 spans were refused") {
		t.Errorf("partly: %q, %v", answer, err)
	}
	large := otlpRequest(part(5, part(1, bytes.Repeat([]byte("x"), 4<<20))))
	if answer, err := export(t.Context(), c, grpcLogs, large); err != nil || answer != "" {
		t.Errorf("4 MiB: %q, %v", answer, err)
	}
	for name, c2 := range map[string]struct {
		body []byte
		code codes.Code
	}{
		"malformed": {[]byte{0xff}, codes.InvalidArgument},
		"too large": {make([]byte, otlp.MaxBody+1), codes.InvalidArgument},
	} {
		if _, err := export(t.Context(), c, grpcTraces, c2.body); status.Code(err) != c2.code || len(status.Convert(err).Proto().GetDetails()) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	withToken := metadata.AppendToOutgoingContext(t.Context(), tokenHeader, "nonsense")
	if _, err := export(withToken, c, grpcTraces, otlpRequest(spanOTLP)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a bad token: %v", err)
	}
	if _, err := export(t.Context(), c, "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export", nil); status.Code(err) != codes.Unimplemented {
		t.Errorf("a signal that is not taken: %v", err)
	}
	socket := dial(t, "unix://"+e.socket)
	if _, err := export(t.Context(), socket, grpcTraces, otlpRequest(spanOTLP)); err != nil {
		t.Errorf("by the unix socket: %v", err)
	}
	all := e.sink.await(t, "the records", func(all source.Batch) bool { return len(all.Spans) == 4 && len(all.Entries) == 2 })
	byAgent := map[telemetry.AgentID]int{}
	for _, s := range all.Spans {
		byAgent[s.Origin.Agent]++
	}
	if byAgent["agt_one"] != 3 || byAgent["agt_pid"] != 1 {
		t.Errorf("spans of %v", byAgent)
	}
}
