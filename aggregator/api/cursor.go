package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// pageCursor is where a listing of logs goes on. It holds what the first page
// made of relative times, so that all pages have the same bounds.
//
//	version(1) order(1) query(8) epoch since until timestamp position (varints)
type pageCursor struct {
	Order        telemetry.Order
	Query        [8]byte // hash of everything that chooses lines
	Epoch        int64
	Since, Until time.Time
	After        telemetry.LogKey
}

const pageCursorVersion = 1

// errCursor says nothing of why: a cursor is opaque.
var errCursor = errors.New("is not a cursor of this list: give back the one of the page before, or leave it out to start anew")

func (c *pageCursor) String() string {
	b := append(make([]byte, 0, 64), pageCursorVersion, byte(c.Order))
	b = append(b, c.Query[:]...)
	b = binary.AppendVarint(b, c.Epoch)
	for _, t := range []time.Time{c.Since, c.Until, c.After.Timestamp} {
		b = appendMicros(b, t)
	}
	b = binary.AppendVarint(b, c.After.Position)
	return base64.RawURLEncoding.EncodeToString(b)
}

// appendMicros writes 0 for the zero time, which is none.
func appendMicros(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendVarint(append(b, 1), t.UnixMicro())
}

// maxCursor is more than the longest cursor.
const maxCursor = 128

func parsePageCursor(text string) (c pageCursor, err error) {
	b, err := decodeCursor(text)
	if err != nil || len(b) < 10 || b[0] != pageCursorVersion || b[1] > byte(telemetry.OldestFirst) {
		return c, errCursor
	}
	c.Order = telemetry.Order(b[1])
	copy(c.Query[:], b[2:])
	r := varints{b: b[10:]}
	c.Epoch = r.next()
	c.Since, c.Until, c.After.Timestamp = r.micros(), r.micros(), r.micros()
	c.After.Position = r.next()
	if r.bad || len(r.b) != 0 || c.String() != text {
		return pageCursor{}, errCursor
	}
	return c, nil
}

// countCursor is where a count goes on that was not done within one request.
//
//	version(1) query(8) epoch since until soFar time id until (varints)
type countCursor struct {
	Query        [8]byte
	Epoch        int64
	Since, Until time.Time
	After        telemetry.CountKey
}

const countCursorVersion = 0x81 // no version of a pageCursor

// at is the cursor of the same count at another place; nil where that is its end.
func (c countCursor) at(after *telemetry.CountKey) *string {
	if after == nil {
		return nil
	}
	c.After = *after
	text := c.String()
	return &text
}

func (c *countCursor) String() string {
	b := append(make([]byte, 0, 96), countCursorVersion)
	b = append(b, c.Query[:]...)
	b = binary.AppendVarint(b, c.Epoch)
	b = appendMicros(appendMicros(b, c.Since), c.Until)
	b = appendMicros(binary.AppendVarint(b, c.After.So), c.After.Time)
	b = binary.AppendVarint(binary.AppendVarint(b, c.After.ID), c.After.Until)
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxPosition is more than any stream comes to, and a number that every client holds.
const maxPosition = 1 << 53

func parseCountCursor(text string) (c countCursor, err error) {
	b, err := decodeCursor(text)
	if err != nil || len(b) < 9 || b[0] != countCursorVersion {
		return c, errCursor
	}
	copy(c.Query[:], b[1:])
	r := varints{b: b[9:]}
	c.Epoch = r.next()
	c.Since, c.Until = r.micros(), r.micros()
	c.After.So, c.After.Time = r.next(), r.micros()
	c.After.ID, c.After.Until = r.next(), r.next()
	// A stream has no more lines than positions.
	if r.bad || len(r.b) != 0 || c.After.So < 0 || c.After.So > c.After.Until || c.After.Until > maxPosition || c.String() != text {
		return countCursor{}, errCursor
	}
	return c, nil
}

func decodeCursor(text string) ([]byte, error) {
	if len(text) > 4*maxCursor {
		return nil, errCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errCursor
	}
	return b, nil
}

// varints takes numbers off the front of b.
type varints struct {
	b   []byte
	bad bool
}

func (r *varints) next() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// maxMicros is the end of the year 9999, where times of the API end.
const maxMicros = 253402300799_999999

func (r *varints) micros() time.Time {
	if len(r.b) == 0 {
		r.bad = true
		return time.Time{}
	}
	given := r.b[0]
	r.b = r.b[1:]
	if given == 0 {
		return time.Time{}
	}
	us := r.next()
	if given > 1 || us > maxMicros || us < -maxMicros {
		r.bad = true
	}
	return time.UnixMicro(us).UTC()
}

// queryHash is of what chooses the lines: the filter, and the time bounds as
// they were written.
func queryHash(f *telemetry.LogFilter, since, until string) [8]byte {
	text, err := json.Marshal(f)
	if err != nil {
		text = nil // cannot be: the filter was made of words that were parsed
	}
	h := sha256.Sum256(fmt.Appendf(text, "\x00%s\x00%s", since, until))
	return [8]byte(h[:8])
}

// listCursor is where a listing of agents or sessions goes on: the time and
// the id of its last entry.
func listCursor(k telemetry.ListingKey) string {
	return base64.RawURLEncoding.EncodeToString(append(appendMicros([]byte{pageCursorVersion}, k.CreatedAt), k.ID...))
}

func parseListCursor(text string) (*telemetry.ListingKey, error) {
	b, err := decodeCursor(text)
	if err != nil || len(b) < 2 || b[0] != pageCursorVersion {
		return nil, errCursor
	}
	r := varints{b: b[1:]}
	k := telemetry.ListingKey{CreatedAt: r.micros()}
	k.ID = strings.Clone(string(r.b))
	if r.bad || telemetry.CheckID(k.ID) != nil || listCursor(k) != text {
		return nil, errCursor
	}
	return &k, nil
}
