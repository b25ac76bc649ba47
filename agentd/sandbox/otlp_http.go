package sandbox

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
)

// Codes of gRPC, which a refusal's body has by HTTP too.
const (
	grpcOK                = 0
	grpcInvalidArgument   = 3
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

var grpcCodes = map[telemetry.Code]uint32{
	telemetry.InvalidRequest: grpcInvalidArgument, telemetry.Forbidden: grpcPermissionDenied, telemetry.Unauthorized: grpcUnauthenticated,
	telemetry.RateLimited: grpcResourceExhausted, telemetry.Unavailable: grpcUnavailable, telemetry.NotFound: grpcUnimplemented,
}

// grpcCode is the code of a refusal. What is too large is an invalid argument
// and not an exhausted resource, because some senders try that again.
func grpcCode(err error) uint32 {
	if errors.Is(err, errEncoding) {
		return grpcUnimplemented
	}
	if code, ok := grpcCodes[telemetry.CodeOf(err)]; ok {
		return code
	}
	return grpcInternal
}

// refusal is what a sender reads of an error.
func refusal(err error) (message string, retrySeconds int) {
	f, ok := errors.AsType[*telemetry.Failure](err)
	if !ok {
		return "Something went wrong here.", 0
	}
	return f.Message, int(math.Ceil(f.RetryAfter.Seconds()))
}

// http answers OTLP's requests by HTTP.
func (c *collector) http(signal otlp.Signal) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		format, ok := formatOf(r.Header.Get("Content-Type"))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			c.fail(w, otlp.JSON, methodFailure(http.MethodPost))
			return
		case !ok:
			c.fail(w, otlp.JSON, &telemetry.Failure{Code: telemetry.InvalidRequest, Message: "The Content-Type is neither application/x-protobuf nor application/json.", Cause: errEncoding})
			return
		}
		result, err := c.request(w, r, signal, format)
		if err != nil {
			c.fail(w, format, err)
			return
		}
		respond(w, http.StatusOK, format, result.Response(format))
	}
}

func (c *collector) request(w http.ResponseWriter, r *http.Request, signal otlp.Signal, format otlp.Format) (*otlp.Result, error) {
	r = withToken(r)
	t, err := c.source.target(r)
	if err != nil {
		return nil, err
	}
	hold := c.flight.hold(t)
	defer hold.release()
	expected := int(max(0, min(r.ContentLength, otlp.MaxBody)))
	body, err := hold.body(r.Header.Get("Content-Encoding"), http.MaxBytesReader(w, r.Body, otlp.MaxBody), expected)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		err = tooLarge(otlp.MaxBody)
	}
	if err != nil {
		return nil, err
	}
	return c.take(r.Context(), t, signal, format, body)
}

// tokenHeader carries a token where the path cannot, which is so by gRPC.
const tokenHeader = "X-Theazo-Token" //nolint:gosec // a name

func withToken(r *http.Request) *http.Request {
	from, ok := r.Context().Value(senderKey{}).(sender)
	if !ok || from.token != "" {
		return r
	}
	from.token = r.Header.Get(tokenHeader)
	return r.WithContext(context.WithValue(r.Context(), senderKey{}, from))
}

// formatOf reads a content type; ok is false for any that OTLP does not have.
func formatOf(contentType string) (f otlp.Format, ok bool) {
	name, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "application/x-protobuf", "application/protobuf":
		return otlp.Protobuf, true
	case "application/json":
		return otlp.JSON, true
	}
	return otlp.JSON, false
}

func (c *collector) fail(w http.ResponseWriter, f otlp.Format, err error) {
	message, retry := refusal(err)
	if retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retry))
	}
	respond(w, statusOf(err), f, otlp.Status(f, grpcCode(err), message))
}

func respond(w http.ResponseWriter, status int, f otlp.Format, body []byte) {
	contentType := "application/x-protobuf"
	if f == otlp.JSON {
		contentType = "application/json"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // no page: its type is one of two, with nosniff; a client that has gone needs nothing
}
