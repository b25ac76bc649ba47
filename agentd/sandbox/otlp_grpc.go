package sandbox

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
)

// gRPC is spoken here by hand, over net/http's HTTP/2: three unary methods are a
// length before each message and a status in the trailers. grpc-go's server
// reads a message of any allowed size into memory before it asks whose it is,
// keeps windows for each connection, and takes compressors from a registry of
// the whole process; here the connections, their limits and binding are those of
// HTTP, a message is read under the same memory as any body, and nothing but
// gzip and zstd is ever inflated.

// Methods of OTLP by gRPC, as paths.
const (
	grpcLogs    = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
	grpcTraces  = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	grpcMetrics = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
)

// Limits of HTTP/2. A connection costs no more than its windows.
const (
	maxStreams   = 8
	streamWindow = 64 << 10
	pingAfter    = 30 * time.Second
	pingTimeout  = 15 * time.Second
)

// protocols of the endpoint: gRPC needs HTTP/2 without TLS beside HTTP/1.1.
func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

func http2Limits() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: 2 * streamWindow,
		SendPingTimeout: pingAfter, PingTimeout: pingTimeout,
	}
}

// isGRPC reports whether a request is a call of gRPC.
func isGRPC(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	return r.ProtoMajor == 2 && r.Method == http.MethodPost && (kind == "application/grpc" || kind == "application/grpc+proto")
}

// grpc answers one of OTLP's methods.
func (c *collector) grpc(signal otlp.Signal) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !isGRPC(r) {
			w.Header().Set("Accept-Post", "application/grpc, application/grpc+proto")
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		result, err := c.call(r, signal)
		if err != nil {
			refuseGRPC(w, err)
			return
		}
		startGRPC(w)
		body := result.Response(otlp.Protobuf)
		frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))) //nolint:gosec // a status message
		_, _ = w.Write(append(frame, body...))                               //nolint:gosec // no browser takes application/grpc for a page; a client that has gone needs nothing
		w.Header().Set("Grpc-Status", strconv.Itoa(grpcOK))
	}
}

// startGRPC begins an answer, whose status stands in the trailers.
func startGRPC(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Grpc-Accept-Encoding", "gzip,zstd,identity")
	h.Set("Trailer", "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin")
	w.WriteHeader(http.StatusOK)
}

func refuseGRPC(w http.ResponseWriter, err error) {
	startGRPC(w)
	h, code := w.Header(), grpcCode(err)
	message, retry := refusal(err)
	h.Set("Grpc-Status", strconv.Itoa(int(code)))
	h.Set("Grpc-Message", percentEncode(message))
	if retry > 0 {
		h.Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(retryInfo(code, message, retry)))
	}
}

// call reads the one message of a call and takes it.
func (c *collector) call(r *http.Request, signal otlp.Signal) (*otlp.Result, error) {
	r = withToken(r)
	t, err := c.source.target(r)
	if err != nil {
		return nil, err
	}
	hold := c.flight.hold(t)
	defer hold.release()
	body, err := hold.message(r.Body, r.Header.Get("Grpc-Encoding"))
	if err != nil {
		return nil, err
	}
	return c.take(r.Context(), t, signal, otlp.Protobuf, body)
}

// message reads gRPC's frame: whether it is compressed, its length, itself.
func (h *hold) message(from io.Reader, encoding string) ([]byte, error) {
	var prefix [5]byte
	if _, err := io.ReadFull(from, prefix[:]); err != nil {
		return nil, bodyError(err, "The call has no whole message.")
	}
	length := binary.BigEndian.Uint32(prefix[1:])
	switch {
	case length > otlp.MaxBody:
		return nil, tooLarge(otlp.MaxBody)
	case prefix[0] == 0:
		encoding = ""
	case prefix[0] != 1 || encoding == "" || encoding == "identity":
		return nil, telemetry.Failf(telemetry.InvalidRequest, "The message is marked as compressed, and the call names no encoding.")
	}
	one := &io.LimitedReader{R: from, N: int64(length)}
	body, err := h.body(encoding, one, int(length))
	switch {
	case err != nil:
		return nil, err
	case one.N > 0:
		return nil, telemetry.Failf(telemetry.InvalidRequest, "The message ended early.")
	}
	if _, err := io.ReadFull(from, prefix[:1]); !errors.Is(err, io.EOF) {
		return nil, telemetry.Failf(telemetry.InvalidRequest, "The call holds more than one message, or did not end.")
	}
	return body, nil
}

// retryInfo is a google.rpc.Status that tells when to try again.
func retryInfo(code uint32, message string, seconds int) []byte {
	field := func(b []byte, number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
	}
	delay := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(seconds)) //nolint:gosec // positive
	info := field(nil, 1, delay)
	detail := field(nil, 1, []byte("type.googleapis.com/google.rpc.RetryInfo"))
	detail = field(detail, 2, info)
	return field(otlp.Status(otlp.Protobuf, code, message), 3, detail)
}

// percentEncode writes a message as gRPC's headers have it.
func percentEncode(s string) string {
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			out.WriteByte(c)
		} else {
			out.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return out.String()
}
