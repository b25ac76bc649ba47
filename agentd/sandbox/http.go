package sandbox

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// Limits of a body of the sandbox protocol, compressed and not.
const (
	maxBody  = 1 << 20
	maxDepth = 32
)

// Errors of a body that have a status of their own.
var (
	errTooLarge = errors.New("body is too large")
	errEncoding = errors.New("content encoding is not known")
	errMethod   = errors.New("method is not allowed")
)

// ServeHTTP answers a request that came by one of Run's listeners.
func (s *Source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, _ := r.Context().Value(senderKey{}).(sender)
	var path string
	from.token, path = splitToken(r.URL.Path)
	handler := s.routes[path]
	switch {
	case handler == nil && isGRPC(r):
		refuseGRPC(w, telemetry.Failf(telemetry.NotFound, "Of gRPC's methods only Export of OTLP's logs, traces and metrics is understood here."))
	case handler == nil:
		fail(w, telemetry.Failf(telemetry.NotFound, "There is nothing at %.100s; see GET /.", path))
	case r.Header.Get("Origin") != "":
		s.metrics.refused.WithLabelValues("browser").Inc()
		fail(w, telemetry.Failf(telemetry.Forbidden, "Pages in a browser have no business here."))
	default:
		handler(w, r.WithContext(context.WithValue(r.Context(), senderKey{}, from)))
	}
}

// splitToken takes /t/TOKEN off a path. Clients put their own paths behind a
// THEAZO_ENDPOINT that may end in a slash.
func splitToken(path string) (token, rest string) {
	path = "/" + strings.TrimLeft(path, "/")
	if after, ok := strings.CutPrefix(path, "/t/"); ok {
		token, path, _ = strings.Cut(after, "/")
		path = "/" + strings.TrimLeft(path, "/")
	}
	return token, path
}

// about says what this is, to whoever finds it.
func (s *Source) about(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		fail(w, methodFailure(http.MethodGet))
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"status": "ok", "what": "agentd's local endpoint: the sandboxes of this node report here (THEAZO_ENDPOINT)",
		"paths": []string{
			"/v1/sandbox/log", "/v1/sandbox/model", "/v1/sandbox/span", "/v1/sandbox/progress", "/v1/sandbox/complete", "/v1/sandbox/exec",
			"/v1/logs", "/v1/traces", "/v1/metrics",
		},
	})
}

// reader makes a batch of a body that says it is the target's.
type reader func(t *source.Target, body []byte) (*source.Batch, error)

// post makes the handler of one path of the sandbox protocol: one JSON object
// becomes one record.
func (s *Source) post(kind string, read reader) http.HandlerFunc {
	requests := s.metrics.requests.WithLabelValues(kind)
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			fail(w, methodFailure(http.MethodPost))
			return
		}
		t, err := s.target(r)
		if err == nil {
			err = s.receive(w, r, t, read)
		}
		if err != nil {
			fail(w, err)
			return
		}
		requests.Inc()
		answer(w, http.StatusAccepted, struct{}{})
	}
}

// receive reads, decodes and queues one request, within what the sandbox and
// the node may have in memory for it. This protocol's client does not try
// again, so what was in order and finds no room is lost, and told.
func (s *Source) receive(w http.ResponseWriter, r *http.Request, t source.Target, read reader) error {
	encoding := strings.ToLower(r.Header.Get("Content-Encoding"))
	memory := 2 * maxBody // it and what it becomes
	if encoding == "" || encoding == "identity" {
		encoding = ""
		if n := r.ContentLength; n >= 0 && n < maxBody {
			memory = 2 * int(n)
		}
	}
	leave, err := s.current().enter(t, memory)
	if err != nil {
		s.lost(t, 1, memory/2)
		return err
	}
	defer leave()
	body, err := readBody(w, r, encoding)
	var batch *source.Batch
	if err == nil {
		batch, err = read(&t, body)
	}
	if err == nil {
		if err = s.offer(r.Context(), t, batch); err != nil {
			s.lost(t, 1, len(body))
		}
		return err
	}
	if code := telemetry.CodeOf(err); code == telemetry.InvalidRequest || code == telemetry.Unprocessable {
		s.metrics.refused.WithLabelValues("invalid").Inc()
	}
	return err
}

// readBody reads a request's body and undoes its compression, within maxBody
// both before and after.
func readBody(w http.ResponseWriter, r *http.Request, encoding string) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge(maxBody)
	}
	if err != nil {
		return nil, telemetry.Failf(telemetry.InvalidRequest, "The body ended early or came too slowly.")
	}
	if encoding == "" {
		return b, nil
	}
	return decompress(encoding, b)
}

// decompress undoes a content encoding; what becomes larger than maxBody is
// refused before it is there.
func decompress(encoding string, b []byte) ([]byte, error) {
	var out []byte
	var err error
	switch encoding {
	case "gzip", "x-gzip":
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err != nil {
			return nil, telemetry.Failf(telemetry.InvalidRequest, "The body is not gzip, as its Content-Encoding says.")
		}
		out, err = io.ReadAll(io.LimitReader(z, maxBody+1))
	case "zstd": // without the window that a stream asks for, which is not accounted
		out, err = inflate(b, maxBody)
	default:
		return nil, &telemetry.Failure{Code: telemetry.InvalidRequest, Message: "The Content-Encoding is none of gzip, zstd, identity.", Cause: errEncoding}
	}
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded) || err == nil && len(out) > maxBody:
		return nil, tooLarge(maxBody)
	case err != nil:
		return nil, telemetry.Failf(telemetry.InvalidRequest, "The body is not sound %s, or becomes larger than %d bytes.", encoding, maxBody)
	}
	return out, nil
}

func tooLarge(limit int) error {
	return &telemetry.Failure{Code: telemetry.InvalidRequest, Message: fmt.Sprintf("The body is larger than %d bytes.", limit), Cause: errTooLarge}
}

func methodFailure(allowed string) error {
	return &telemetry.Failure{Code: telemetry.InvalidRequest, Message: "Only " + allowed + " is understood here.", Cause: errMethod}
}

// statuses of the codes that this endpoint gives.
var statuses = map[telemetry.Code]int{
	telemetry.InvalidRequest: http.StatusBadRequest, telemetry.Unauthorized: http.StatusUnauthorized, telemetry.Forbidden: http.StatusForbidden,
	telemetry.NotFound: http.StatusNotFound, telemetry.Unprocessable: http.StatusUnprocessableEntity,
	telemetry.RateLimited: http.StatusTooManyRequests, telemetry.Unavailable: http.StatusServiceUnavailable,
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, errTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errEncoding):
		return http.StatusUnsupportedMediaType
	case errors.Is(err, errMethod):
		return http.StatusMethodNotAllowed
	}
	if status, ok := statuses[telemetry.CodeOf(err)]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	body := struct {
		Code    telemetry.Code    `json:"code"`
		Message string            `json:"message"`
		Details map[string]string `json:"details"`
	}{telemetry.CodeOf(err), "Something went wrong here.", map[string]string{}}
	if f, ok := errors.AsType[*telemetry.Failure](err); ok {
		body.Message = f.Message
		for _, field := range f.Fields {
			body.Details[field.Field] = field.Detail
		}
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
		}
	}
	answer(w, statusOf(err), map[string]any{"error": body})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone: nothing to do
}
