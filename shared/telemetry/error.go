package telemetry

import (
	"errors"
	"fmt"
	"time"
)

// Code classifies an error once for all doors: one table maps it to HTTP
// (aggregator/api), one to gRPC (shared/wire).
type Code string

// The codes of contract.md, and those that product.md 5.4 adds.
const (
	InvalidRequest Code = "invalid_request"
	Unauthorized   Code = "unauthorized"
	Forbidden      Code = "forbidden"
	NotFound       Code = "not_found"
	Conflict       Code = "conflict"
	Gone           Code = "gone"
	Unprocessable  Code = "unprocessable_entity"
	RateLimited    Code = "rate_limited"
	Unavailable    Code = "unavailable"
	Timeout        Code = "timeout"
	Internal       Code = "internal_error"
)

// FieldError names one bad field or parameter and says what is allowed.
type FieldError struct {
	Field    string `json:"field"`
	Detail   string `json:"detail"`
	Position int    `json:"position,omitempty"` // of the fault, in characters from 1; 0: the whole field
}

// Failure is an error that a caller outside may see.
type Failure struct { //nolint:errname // a word that people read, not XxxError
	Code       Code
	Message    string // a whole sentence: what failed, on what, what to do next
	Fields     []FieldError
	RetryAfter time.Duration // zero: no advice
	Cause      error         // for our own log, never shown
}

func (e *Failure) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func (e *Failure) Unwrap() error { return e.Cause }

// Failf makes a Failure.
func Failf(code Code, format string, args ...any) *Failure {
	return &Failure{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the first Failure in err's chain, or Internal.
func CodeOf(err error) Code {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Code
	}
	return Internal
}
