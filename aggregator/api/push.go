package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
)

// Intake takes records that clients push, instead of agentd.
type Intake interface {
	// Push stores the records of a request for a scope, and returns when they are
	// committed: the answer's body and type, and whether all had been stored
	// before. In its errors, http.MaxBytesError says that the body is too large,
	// http.ErrNotSupported that its type or encoding is not known.
	Push(ctx context.Context, scope telemetry.Scope, r *http.Request) (body []byte, contentType string, repeated bool, err error)
}

// bodyTime is how long a pushed body may take to come in.
const bodyTime = 30 * time.Second

// push answers POST /v1/logs, /v1/traces and /v1/metrics.
func (c *call) push() error {
	if c.api.Intake == nil {
		return telemetry.Failf(telemetry.Unavailable, "This aggregator takes no records by its API.")
	}
	_ = http.NewResponseController(c.out).SetReadDeadline(time.Now().Add(bodyTime)) // a reader without deadlines is no connection
	body, contentType, repeated, err := c.api.Intake.Push(c.r.Context(), c.who.Scope, c.r)
	if err != nil {
		return pushError(err)
	}
	if repeated {
		c.out.Header().Set("Idempotency-Replayed", "true")
	}
	c.out.Header().Set("Content-Type", contentType)
	c.out.WriteHeader(http.StatusOK)
	_, _ = c.out.Write(body) // a client that left asks again
	return nil
}

// pushError gives an error the status that senders know it by.
func pushError(err error) error {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return statusError{err, http.StatusRequestEntityTooLarge}
	}
	if errors.Is(err, http.ErrNotSupported) {
		return statusError{err, http.StatusUnsupportedMediaType}
	}
	return err
}

// grpcCodes are what a refusal says in its body, as OTLP has it. What they have
// no word for is an internal error.
var grpcCodes = map[telemetry.Code]uint32{
	telemetry.InvalidRequest: 3, telemetry.Unprocessable: 3, telemetry.Timeout: 4, telemetry.NotFound: 5, telemetry.Forbidden: 7, telemetry.RateLimited: 8,
	telemetry.Unavailable: 14, telemetry.Unauthorized: 16,
}

// speaksOTLP reports whether the sender reads answers as OTLP has them, and in
// which format. A body of application/json that is sent to /v1/logs may be
// either; its sender finds our envelope, which is JSON as well.
func speaksOTLP(r *http.Request) (otlp.Format, bool) {
	if r.Method != http.MethodPost || !strings.HasPrefix(r.URL.Path, "/v1/") && !strings.HasPrefix(r.URL.Path, "/otlp/") {
		return otlp.JSON, false
	}
	name, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "application/x-protobuf", "application/protobuf":
		return otlp.Protobuf, true
	}
	return otlp.JSON, strings.HasPrefix(r.URL.Path, "/otlp/") || r.URL.Path == "/v1/traces" || r.URL.Path == "/v1/metrics"
}

// failOTLP answers with a google.rpc.Status.
func (c *call) failOTLP(f *telemetry.Failure, status int, format otlp.Format) {
	code, known := grpcCodes[f.Code]
	if !known {
		code = 13
	}
	if f.Code == telemetry.Timeout {
		status = http.StatusServiceUnavailable // which senders try again
	}
	contentType := "application/json"
	if format == otlp.Protobuf {
		contentType = "application/x-protobuf"
	}
	c.out.Header().Set("Content-Type", contentType)
	c.out.WriteHeader(status)
	_, _ = c.out.Write(otlp.Status(format, code, f.Message)) // a client that left asks again
}
