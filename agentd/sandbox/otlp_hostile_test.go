package sandbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	runtimemetrics "runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
)

func TestOTLPSaysWhenToTryAgain(t *testing.T) {
	sink := newKeeper()
	sink.gate = make(chan struct{})
	one := target("agt_one", "ses_one")
	e := start(t, Config{Resolver: &directory{addresses: map[netip.Addr]source.Target{netip.MustParseAddr("127.0.0.1"): one}}, Quota: Quota{Records: 1000}}, sink)
	t.Cleanup(func() { close(sink.gate) })
	// A sandbox has one large batch on its way, however large, and a queue.
	large := otlpRequest(part(5, part(1, bytes.Repeat([]byte("x"), 200<<10))))
	var refused otlpAnswer
	taken := 0
	for refused = e.otlp(t, "/v1/logs", typeProtobuf, large); refused.status == http.StatusOK; taken++ {
		refused = e.otlp(t, "/v1/logs", typeProtobuf, large)
	}
	if taken < 5 || taken > 20 {
		t.Errorf("%d requests of 200 KiB taken", taken)
	}
	if refused.status != http.StatusTooManyRequests || refused.header.Get("Retry-After") != "1" || !strings.HasPrefix(refused.body, "\x08\x08\x12") {
		t.Errorf("%+v", refused)
	}
	c := dial(t, "passthrough:///"+strings.TrimPrefix(e.url, "http://"))
	_, err := export(t.Context(), c, grpcLogs, large)
	s := status.Convert(err).Proto()
	if codes.Code(s.GetCode()) != codes.ResourceExhausted || len(s.GetDetails()) != 1 || !strings.HasSuffix(s.GetDetails()[0].GetTypeUrl(), "/google.rpc.RetryInfo") ||
		string(s.GetDetails()[0].GetValue()) != "\x0a\x02\x08\x01" {
		t.Errorf("by gRPC: %v", s)
	}
	if got := status.Convert(err).Message(); !strings.Contains(got, "queue is full") {
		t.Errorf("message %q", got)
	}
}

func TestTheLargestRequestFitsIntoAnEmptyQueue(t *testing.T) {
	e := bound(t, target("agt_one", "ses_one"))
	var logs []byte
	record := part(2, part(5, part(1, bytes.Repeat([]byte("x"), 740))))
	for range otlp.MaxRecords + 5 {
		logs = append(logs, record...)
	}
	r := e.otlp(t, "/v1/logs", typeProtobuf, part(1, part(2, logs)))
	if r.status != http.StatusOK || !strings.Contains(r.body, "5 log records were refused") {
		t.Fatalf("%d %q", r.status, r.body)
	}
	e.sink.await(t, "the records", func(all source.Batch) bool { return len(all.Entries) == otlp.MaxRecords })
	if err := e.stop(); err != nil {
		t.Error(err)
	}
	all := e.sink.all()
	if len(all.Gaps) != 1 || all.Gaps[0].Count != 5 || all.Gaps[0].Reason != telemetry.GapRefused {
		t.Errorf("gaps %+v", all.Gaps)
	}
}

// bomb is a body of zeroes that becomes 1 GiB, in pieces that follow each other.
func bomb(t *testing.T, encoding string) []byte {
	t.Helper()
	if encoding == "gzip" {
		return bytes.Repeat(gzipped(t, make([]byte, 1<<20)), 1<<10)
	}
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.Write(make([]byte, otlp.MaxBody)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.Repeat(out.Bytes(), 64)
}

// A zstd frame that announces 1 GiB and a window of as much, and holds nothing.
var announced = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x80 | 0x20, 0, 0, 0, 0x40, 0x01, 0, 0}

func TestBombsAreRefusedWithinBoundedMemory(t *testing.T) {
	e := bound(t, target("agt_one", "ses_one"))
	c := framed(t, e)
	for name, b := range map[string]struct {
		encoding string
		body     []byte
	}{
		"gzip": {"gzip", bomb(t, "gzip")}, "zstd": {"zstd", bomb(t, "zstd")}, "announced": {"zstd", announced},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		const times = 3
		for range times {
			if r := e.otlp(t, "/v1/traces", typeProtobuf, b.body, "Content-Encoding", b.encoding); r.status != http.StatusRequestEntityTooLarge && r.status != http.StatusBadRequest {
				t.Errorf("%s by HTTP: %d %q", name, r.status, r.body)
			}
			if r := c.call(t, grpcTraces, b.encoding, frame(1, b.body)); r.status != "3" {
				t.Errorf("%s by gRPC: %+v", name, r)
			}
		}
		runtime.ReadMemStats(&after)
		each := (after.TotalAlloc - before.TotalAlloc) / times / 2
		t.Logf("a bomb of %s, %d bytes that become 1 GiB: refused with %.1f MiB allocated", name, len(b.body), float64(each)/(1<<20))
		if each > 4*otlp.MaxBody {
			t.Errorf("%s: %d bytes allocated for each", name, each)
		}
	}
	if e.collector.flight.total != 0 || len(e.collector.flight.of) != 0 {
		t.Errorf("memory was not given back: %d, %v", e.collector.flight.total, e.collector.flight.of)
	}
}

func TestManyBombsAtOnceStayWithinBoundedMemory(t *testing.T) {
	e := bound(t, target("agt_one", "ses_one"))
	c := framed(t, e)
	zipped, packed := bomb(t, "gzip"), bomb(t, "zstd")
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		sample := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		highest := uint64(0)
		for {
			runtimemetrics.Read(sample)
			highest = max(highest, sample[0].Value.Uint64())
			select {
			case <-stop:
				peak <- highest
				return
			case <-tick.C:
			}
		}
	}()
	var senders sync.WaitGroup
	for i := range 64 {
		senders.Go(func() {
			encoding, body := "gzip", zipped
			if i%2 == 0 {
				encoding, body = "zstd", packed
			}
			if i%4 < 2 {
				if r := c.call(t, grpcTraces, encoding, frame(1, body)); r.status != "3" && r.status != "8" {
					t.Errorf("by gRPC: %+v", r)
				}
				return
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/v1/traces", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", typeProtobuf)
			req.Header.Set("Content-Encoding", encoding)
			req.Close = true
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return // answered and closed before all of it was sent
			}
			_ = resp.Body.Close()
			if s := resp.StatusCode; s != http.StatusRequestEntityTooLarge && s != http.StatusBadRequest && s != http.StatusTooManyRequests {
				t.Errorf("by HTTP: %d", s)
			}
		})
	}
	senders.Wait()
	close(stop)
	highest := <-peak >> 20
	t.Logf("64 bombs at once, each of 1 GiB: the heap was at most %d MiB", highest)
	if highest > 200 {
		t.Errorf("the heap grew to %d MiB", highest)
	}
}

// A framed client speaks gRPC's frames by hand, sound or not.
type framedClient struct {
	http *http.Client
	url  string
}

type trailers struct {
	http            int
	status, message string
	body            string
}

func framed(t *testing.T, e *endpoint) *framedClient {
	t.Helper()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p}
	t.Cleanup(tr.CloseIdleConnections)
	return &framedClient{&http.Client{Transport: tr}, e.url}
}

func frame(flag byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(body))), body...)
}

func (c *framedClient) call(t *testing.T, method, encoding string, frames []byte) trailers {
	t.Helper()
	return c.from(t, method, encoding, bytes.NewReader(frames))
}

func (c *framedClient) from(t *testing.T, method, encoding string, body io.Reader) trailers {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+method, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("Grpc-Encoding", encoding)
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return trailers{resp.StatusCode, resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message"), string(b)}
}

func TestFramesOfGRPC(t *testing.T) {
	e := bound(t, target("agt_one", "ses_one"))
	c := framed(t, e)
	span := otlpRequest(spanOTLP)
	for name, f := range map[string]struct {
		encoding, status string
		frames           []byte
	}{
		"plain":               {"", "0", frame(0, span)},
		"identity":            {"identity", "0", frame(0, span)},
		"gzip":                {"gzip", "0", frame(1, gzipped(t, span))},
		"zstd":                {"zstd", "0", frame(1, zstded(t, span))},
		"announced, not used": {"gzip", "0", frame(0, span)},
		"nothing":             {"", "3", nil},
		"half a prefix":       {"", "3", []byte{0, 0, 0}},
		"cut off":             {"", "3", frame(0, span)[:20]},
		"cut off gzip":        {"gzip", "3", frame(1, gzipped(t, span))[:20]},
		"two":                 {"", "3", append(frame(0, span), frame(0, span)...)},
		"something behind":    {"", "3", append(frame(0, span), 0)},
		"a lie about size":    {"", "3", []byte{0, 0xff, 0xff, 0xff, 0xff}},
		"encoding not named":  {"", "3", frame(1, gzipped(t, span))},
		"encoding not known":  {"snappy", "12", frame(1, span)},
		"flag not known":      {"gzip", "3", frame(2, span)},
		"more than its gzip":  {"gzip", "3", frame(1, append(gzipped(t, span), "tail"...))},
	} {
		if r := c.call(t, grpcTraces, f.encoding, f.frames); r.http != http.StatusOK || r.status != f.status || (r.body == "\x00\x00\x00\x00\x00") != (f.status == "0") {
			t.Errorf("%s: %+v, want status %s", name, r, f.status)
		}
	}
	e.sink.await(t, "the spans", func(all source.Batch) bool { return len(all.Spans) == 5 })
	if r := e.otlp(t, grpcTraces, "application/grpc", frame(0, span)); r.status != http.StatusUnsupportedMediaType {
		t.Errorf("gRPC by HTTP/1.1: %+v", r)
	}
	if r := c.call(t, "/opentelemetry.proto.collector.trace.v1.TraceService/Other", "", nil); r.http != http.StatusOK || r.status != "12" {
		t.Errorf("another method: %+v", r)
	}
}

// Who sends slowly holds memory for what has come, and never so much that
// another finds none.
func TestSlowSendersLeaveRoomForOthers(t *testing.T) {
	slow, quick := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	e := start(t, Config{Resolver: &directory{addresses: map[netip.Addr]source.Target{slow: target("agt_slow", ""), quick: target("agt_quick", "")}}}, newKeeper())
	c := framed(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	started := make(chan struct{}, 6)
	for range 6 {
		senders.Go(func() {
			body, w := io.Pipe()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+grpcLogs, body)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/grpc")
			var writing sync.WaitGroup
			writing.Go(func() {
				head := binary.BigEndian.AppendUint32([]byte{0}, otlp.MaxBody)
				_, _ = w.Write(append(head, make([]byte, 6<<20)...))
				started <- struct{}{}
			})
			if resp, err := c.http.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			_ = body.CloseWithError(io.ErrClosedPipe)
			writing.Wait()
		})
	}
	for range 6 { // each has sent its part or was refused
		select {
		case <-started:
		case <-time.After(patience):
			t.Fatal("the slow senders do not come along")
		}
	}
	e.collector.flight.mu.Lock()
	held := e.collector.flight.total
	e.collector.flight.mu.Unlock()
	if held > maxFlight/2 {
		t.Errorf("one sandbox holds %d bytes", held)
	}
	local := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/v1/logs", bytes.NewReader(otlpRequest(part(5, part(1, bytes.Repeat([]byte("y"), 4<<20))))))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", typeProtobuf)
	resp, err := (&http.Client{Transport: local}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the quick sender got %d", resp.StatusCode)
	}
	cancel()
	senders.Wait()
}

// What encoders of every level make, streaming or not, is inflated up to the limit
// and not a byte further.
func TestInflatingUpToTheLimit(t *testing.T) {
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression} {
		sizes := []int{100, 300 << 10}
		if level == zstd.SpeedFastest {
			sizes = []int{0, 1, 20 << 10, otlp.MaxBody, otlp.MaxBody + 1}
		}
		for _, size := range sizes {
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(i >> 10)
			}
			var streamed bytes.Buffer
			w, err := zstd.NewWriter(&streamed, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			whole := w.EncodeAll(data, nil)
			for _, piece := range [][]byte{data[:size/2], data[size/2:]} {
				if _, err := w.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			for encoding, bodies := range map[string][][]byte{"zstd": {whole, streamed.Bytes()}, "gzip": {gzipped(t, data)}, "": {data}} {
				for _, body := range bodies {
					var f flight
					h := f.hold(target("a", ""))
					got, err := h.body(encoding, bytes.NewReader(body), len(body))
					if fits := size <= otlp.MaxBody; (err == nil) != fits || fits && !bytes.Equal(got, data) {
						t.Errorf("%q of %d bytes at level %s: %d bytes, %v", encoding, size, level, len(got), err)
					}
					if h.bytes < len(got) {
						t.Errorf("%q of %d bytes: only %d are held", encoding, size, h.bytes)
					}
					h.release()
				}
			}
		}
	}
}

func TestHoldsAreGivenBack(t *testing.T) {
	var f flight
	one, other := f.hold(target("a", "")), f.hold(target("b", ""))
	if err := one.grow(maxFlight / 2); err != nil {
		t.Fatal(err)
	}
	err := one.grow(1)
	if got, ok := errors.AsType[*telemetry.Failure](err); !ok || got.Code != telemetry.RateLimited || got.RetryAfter == 0 {
		t.Errorf("more than half: %v", err)
	}
	if err := other.grow(maxFlight/4 + 1); err == nil {
		t.Error("more than half of the rest was given")
	}
	if err := other.grow(maxFlight / 4); err != nil {
		t.Error(err)
	}
	one.release()
	other.shrink(1)
	other.release()
	f.hold(target("c", "")).release()
	if f.total != 0 || len(f.of) != 0 {
		t.Errorf("%d bytes of %v are left", f.total, f.of)
	}
}
