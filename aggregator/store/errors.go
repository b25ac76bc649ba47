package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// retryAfter is what callers are told when the database is away.
const retryAfter = 2 * time.Second

// Deadlines. Every call of the package has one.
const (
	shortTimeout  = 4 * time.Second  // a look-up, one round trip of a query: a caller can still answer 503 within 5 s
	commitTimeout = 15 * time.Second // one attempt to commit
	stepTimeout   = 10 * time.Second // one round trip in the middle of a query
	scanTimeout   = 60 * time.Second // a whole query, searches included
	maintTimeout  = 60 * time.Second // one step of maintenance
)

// failure classifies an error of the database for callers outside; what says
// what we were about to do. A cancelled caller gets its own error back.
func failure(ctx context.Context, what string, err error) error {
	var known *telemetry.Failure
	if err == nil || errors.As(err, &known) {
		return err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	cause := fmt.Errorf("%s: %w", what, err)
	if errors.Is(err, segment.ErrCorrupt) {
		return cause // the database answered: it is damaged, or of a newer release
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return unavailable(cause)
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case "22", "23", "54":
		return &telemetry.Failure{Code: telemetry.Unprocessable, Message: "The database refuses this data.", Cause: cause}
	case "08", "25", "40", "53", "55", "57", "58":
		return unavailable(cause)
	}
	return cause
}

func unavailable(cause error) error {
	return &telemetry.Failure{Code: telemetry.Unavailable, Message: "The database does not answer; try again.", RetryAfter: retryAfter, Cause: cause}
}

// isCode reports whether err is the database's error of that SQLSTATE.
func isCode(err error, code string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == code
}

const (
	uniqueViolation       = "23505"
	checkViolation        = "23514"
	insufficientPrivilege = "42501"
	undefinedTable        = "42P01"
	undefinedFunction     = "42883"
	duplicateObject       = "42710"
	lockNotAvailable      = "55P03"
	deadlockDetected      = "40P01"
	dataCorrupted         = "XX001"
	indexCorrupted        = "XX002"
	serializationFailure  = "40001"
)
