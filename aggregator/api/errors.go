package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// statusOf is the one table from codes to HTTP.
var statusOf = map[telemetry.Code]int{
	telemetry.InvalidRequest: http.StatusBadRequest,
	telemetry.Unauthorized:   http.StatusUnauthorized,
	telemetry.Forbidden:      http.StatusForbidden,
	telemetry.NotFound:       http.StatusNotFound,
	telemetry.Conflict:       http.StatusConflict,
	telemetry.Gone:           http.StatusGone,
	telemetry.Unprocessable:  http.StatusUnprocessableEntity,
	telemetry.RateLimited:    http.StatusTooManyRequests,
	telemetry.Unavailable:    http.StatusServiceUnavailable,
	telemetry.Timeout:        http.StatusGatewayTimeout,
	telemetry.Internal:       http.StatusInternalServerError,
}

// statusError is a failure that HTTP has a nearer status for than its code has.
type statusError struct {
	error
	status int
}

func (e statusError) Unwrap() error { return e.error }

// envelope is the body of every error. The id of the request stands in both
// places, because clients of the documentation look inside, those of the
// package beside.
type envelope struct {
	Error struct {
		Code    telemetry.Code `json:"code"`
		Message string         `json:"message"`
		Details struct {
			Errors []telemetry.FieldError `json:"errors,omitempty"`
		} `json:"details"`
		RequestID string `json:"requestId"`
	} `json:"error"`
	RequestID string `json:"requestId"`
}

// failureOf returns what the caller may see of err, and its status.
func failureOf(err error) (*telemetry.Failure, int) {
	var f *telemetry.Failure
	var s statusError
	switch {
	case errors.As(err, &f):
	case errors.Is(err, context.DeadlineExceeded):
		f = telemetry.Failf(telemetry.Timeout, "The request took too long: ask for less, or try again.")
	default:
		f = telemetry.Failf(telemetry.Internal, "Something failed on our side; our log knows it by the request's id.")
	}
	status, ok := statusOf[f.Code]
	switch {
	case errors.As(err, &s):
		status = s.status
	case !ok:
		status = http.StatusInternalServerError
	}
	if f.Code == telemetry.Unavailable && f.RetryAfter == 0 {
		advised := *f
		advised.RetryAfter = time.Second
		f = &advised
	}
	return f, status
}

// fail answers with an error, where nothing was answered yet.
func (c *call) fail(err error) {
	f, status := failureOf(err)
	c.err = err
	if c.out.status != 0 {
		return
	}
	if c.stream && acceptsEvents(c.r) && (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable) {
		c.retryLater(f.RetryAfter)
		return
	}
	h := c.out.Header()
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	if f.Code == telemetry.Unauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="theazo"`)
	}
	if format, speaks := speaksOTLP(c.r); speaks {
		c.failOTLP(f, status, format)
		return
	}
	var body envelope
	body.Error.Code, body.Error.Message, body.Error.Details.Errors = f.Code, f.Message, f.Fields
	body.Error.RequestID, body.RequestID = c.id, c.id
	c.json(status, body)
}

// acceptsEvents reports whether a browser's EventSource asks: it gives up for
// ever on any other answer than 200.
func acceptsEvents(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// retryLater makes an EventSource come back after a while.
func (c *call) retryLater(after time.Duration) {
	eventHeaders(c.out.Header())
	c.out.WriteHeader(http.StatusOK)
	_, _ = fmt.Fprintf(c.out, "retry: %d\n\n", max(after, time.Second).Milliseconds()) // a client that left asks again
}

// json answers with a body.
func (c *call) json(status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		// Only a field that refuses to marshal can do this: a fault of ours.
		c.err = errors.Join(c.err, fmt.Errorf("api: encode the answer: %w", err))
		http.Error(c.out, "internal error, request "+c.id, http.StatusInternalServerError)
		return
	}
	c.send(status, b)
}

// send answers with JSON text.
func (c *call) send(status int, b []byte) {
	c.out.Header().Set("Content-Type", "application/json")
	c.out.WriteHeader(status)
	_, _ = c.out.Write(append(b, '\n')) // a client that left asks again
}

// badFields is a 400 that names each bad parameter.
func badFields(fields []telemetry.FieldError) error {
	first := fields[0]
	f := telemetry.Failf(telemetry.InvalidRequest, "Parameter %s %s.", first.Field, first.Detail)
	if len(fields) > 1 {
		f.Message = fmt.Sprintf("%d parameters are not valid; the first: %s %s.", len(fields), first.Field, first.Detail)
	}
	f.Fields = fields
	return f
}
