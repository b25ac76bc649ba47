// Package stream is the language between who hands an organisation's records
// out in commit order (aggregator/live) and who writes them to a client
// (aggregator/api): cursors, batches of encoded records, and what it means to
// read them without a gap.
package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// Cursor is a place in a scope's stream: everything up to and including
// Position has been seen. Epoch is the database's own number of its history:
// after a restore from a backup it is another one, and positions of the old
// one mean nothing.
type Cursor struct{ Epoch, Position int64 }

func (c Cursor) String() string { return string(c.Append(nil)) }

// Append appends the cursor as text: epoch, "-", position.
func (c Cursor) Append(b []byte) []byte {
	b = strconv.AppendInt(b, c.Epoch, 10)
	b = append(b, '-')
	return strconv.AppendInt(b, c.Position, 10)
}

// MarshalText prints the cursor for JSON.
func (c Cursor) MarshalText() ([]byte, error) { return c.Append(nil), nil }

// ParseCursor reads a cursor in the one way that it is printed.
func ParseCursor(s string) (Cursor, error) {
	epoch, position, _ := strings.Cut(s, "-")
	c := Cursor{}
	var errEpoch, errPosition error
	c.Epoch, errEpoch = strconv.ParseInt(epoch, 10, 64)
	c.Position, errPosition = strconv.ParseInt(position, 10, 64)
	if errors.Join(errEpoch, errPosition) != nil || c.Epoch < 0 || c.Position < 0 || c.String() != s {
		return Cursor{}, fmt.Errorf("%.40q is not a stream cursor (<epoch>-<position>, as in a record's cursor)", s)
	}
	return c, nil
}

// Reasons of Missed, beside telemetry.GapSlowReader.
const (
	// Restored: the cursor is of another epoch, or beyond the head: the
	// database was restored since, or the cursor is not of this installation.
	Restored telemetry.GapReason = "restored"
	// Expired: the records after the cursor were older than the retention.
	Expired telemetry.GapReason = "expired"
)

// Missed says what one reader did not get of the records in (From, To],
// while everybody else may have. It is not a record: it has no position.
type Missed struct {
	Reason   telemetry.GapReason
	From, To Cursor
	Count    int64     // records that match the reader's filter; telemetry.GapUnknownCount
	Since    time.Time // bounds of their timestamps, both inclusive; zero: not known
	Until    time.Time
}

// Record is one record of a stream that matches a reader's filter. Many
// readers share JSON: never change it.
type Record struct {
	Position int64
	JSON     []byte         // a telemetry.LogEntry with its cursor; nil where Gap is set
	Gap      *telemetry.Gap // a recorded gap
}

// Batch is what a reader gets at once: first Missed, then Records, by rising
// position. A stream resumed after Through goes on where the batch ends.
type Batch struct {
	Missed  *Missed
	Records []Record
	Through Cursor
}

// ErrClosed is what a reader gets whose source has stopped: the client
// should resume, here later or at another replica.
var ErrClosed = errors.New("stream: closed, resume after the last cursor")

// Reader is one view of a stream. It is for one goroutine; Close may be
// called once by that goroutine at any time.
type Reader interface {
	// Start is where the view began: the client's cursor, or the head.
	Start() Cursor
	// Ready delivers when Take has something to return.
	Ready() <-chan struct{}
	// Take returns what there is; often an empty batch. An error other than
	// the context's ends the view.
	Take(ctx context.Context) (Batch, error)
	// Looked is how far the view has looked when everything taken has been
	// written: beyond the last batch where what followed did not match.
	Looked() Cursor
	Close()
}
