package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/theazo/observability/shared/logexport"
	"github.com/theazo/observability/shared/telemetry"
)

// exportsPerOrganisation bounds how many exports run at a time: each has a
// part of the database's time for as long as it takes.
const exportsPerOrganisation = 4

// slowestExport is what a client takes at least, in bytes a second, averaged
// over the time that it kept us waiting: a place is not held for ever.
const slowestExport = 16 << 10

// maxExport is more than anybody's limit.
const maxExport = 1_000_000_000

// exportFormat is the format that a request asks for instead of a page; nil:
// none. What comes first in Accept wins.
func exportFormat(accept string) *logexport.Format {
	for part := range strings.SplitSeq(accept, ",") {
		name, _, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "application/x-ndjson", "application/ndjson", "application/jsonl":
			f := logexport.NDJSON
			return &f
		case "text/csv":
			f := logexport.CSV
			return &f
		case "application/json", "application/*", "*/*":
			return nil
		}
	}
	return nil
}

// exportQuery reads the parameters of an export. One that would run after its
// own time ends when it began: the oldest first would never catch up.
func (p *params) exportQuery(now time.Time) (q telemetry.LogQuery, most int64) {
	q = telemetry.LogQuery{LogFilter: p.filter(), Order: p.order(), Limit: 1, Count: telemetry.CountNone}
	q.Since, q.Until = p.bounds(now)
	if q.Until.IsZero() && q.Order == telemetry.OldestFirst {
		q.Until = now.UTC().Truncate(time.Microsecond)
	}
	most = int64(p.number("limit", maxExport, 1, maxExport, ""))
	for _, name := range []string{"offset", "cursor", "total"} {
		if p.values.Has(name) {
			p.fail(name, "cannot stand here: an export is not paged; give since and until, and where you like a limit")
		}
	}
	return q, most
}

// errEnough ends an export at its limit.
var errEnough = errors.New("api: the export has as many lines as were asked for")

// export answers GET /v1/logs with all lines that match, as they are read.
//
// Until the first bytes are sent, an error is answered as everywhere. One that
// comes later is the last line, stands in a trailer, and breaks the connection
// off, so that no client takes the part for the whole.
func (c *call) export(format *logexport.Format) error {
	c.stream = true // as to how long it may take
	p := params{values: c.query, env: &c.who.Env}
	q, most := p.exportQuery(c.started)
	if err := p.err(); err != nil {
		return err
	}
	leave, err := c.api.admitExport(c.who.Org)
	if err != nil {
		return err
	}
	defer leave()
	// For the gaps; what is wrong with a query shows here too.
	head, err := c.api.Store.QueryLogs(c.r.Context(), c.who.Scope, &q)
	if err != nil {
		return fmt.Errorf("api: export logs: %w", err)
	}
	x := &exportAnswer{call: c, control: http.NewResponseController(c.out), format: *format}
	w := logexport.NewWriter(x, *format)
	if err = c.exportLines(x, w, &q, most); err == nil {
		err = exportGaps(w, head.Gaps)
	}
	if err == nil {
		err = w.Flush()
	}
	if c.out.status == 0 {
		if err != nil {
			return err
		}
		err = x.begin() // there is nothing
	}
	c.out.Header().Set("X-Export-Lines", strconv.FormatInt(w.Lines(), 10))
	if err == nil {
		return nil
	}
	c.err = err
	f, _ := failureOf(err)
	c.out.Header().Set("X-Export-Error", string(f.Code))
	if errors.Is(err, errNotTaken) || c.r.Context().Err() != nil || w.Fail(f, c.id) != nil || w.Flush() != nil {
		c.api.Log.Debug("the client of an export did not hear of its end", "request_id", c.id)
	}
	panic(http.ErrAbortHandler) // the one way to end an answer as unfinished
}

func (c *call) exportLines(x *exportAnswer, w *logexport.Writer, q *telemetry.LogQuery, most int64) error {
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	err := c.api.Store.ExportLogs(ctx, c.who.Scope, q, func(entries []telemetry.LogEntry) error {
		for i := range entries {
			if w.Lines() == most {
				return errEnough
			}
			if err := w.Entry(&entries[i]); err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil { // a client sees lines when they are found
			return err
		}
		return x.mayGoOn()
	})
	if err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("api: export logs: %w", err)
	}
	return nil
}

func exportGaps(w *logexport.Writer, gaps []telemetry.Gap) error {
	for i := range gaps {
		if err := w.Gap(&gaps[i]); err != nil {
			return err
		}
	}
	return nil
}

// exportAnswer writes the body of an export at its client's pace.
type exportAnswer struct {
	*call
	control *http.ResponseController
	format  logexport.Format
	written int64
	blocked time.Duration
}

var errNotTaken = errors.New("api: the client takes the export too slowly")

// begin sends the headers.
func (x *exportAnswer) begin() error {
	h := x.out.Header()
	h.Set("Content-Type", x.format.ContentType())
	h.Set("X-Accel-Buffering", "no")
	h.Set("Trailer", "X-Export-Lines, X-Export-Error")
	x.out.WriteHeader(http.StatusOK)
	return x.deadline()
}

// deadline gives the next write as long as the client may keep us waiting.
func (x *exportAnswer) deadline() error {
	credit := x.api.WriteTimeout + time.Duration(x.written/slowestExport)*time.Second - x.blocked
	if credit <= 0 {
		return errNotTaken
	}
	return x.control.SetWriteDeadline(time.Now().Add(min(credit, x.api.WriteTimeout)))
}

// Write implements io.Writer for logexport.
func (x *exportAnswer) Write(b []byte) (int, error) {
	began := x.out.status == 0
	if began {
		if err := x.begin(); err != nil {
			return 0, err
		}
	} else if err := x.deadline(); err != nil {
		return 0, err
	}
	start := time.Now()
	n, err := x.out.Write(b)
	if err == nil {
		err = x.control.Flush()
	}
	x.blocked += time.Since(start)
	x.written += int64(n)
	if err != nil {
		return n, fmt.Errorf("%w: %w", errNotTaken, err)
	}
	return n, nil
}

// mayGoOn ends an export when this replica stops.
func (x *exportAnswer) mayGoOn() error {
	select {
	case <-x.api.draining:
		return &telemetry.Failure{Code: telemetry.Unavailable, Message: "This replica is stopping: export again, from where this one ends.", RetryAfter: time.Second, Cause: errDraining}
	default:
		return nil
	}
}

// admitExport counts an export in, or says why not. The caller calls leave.
func (a *API) admitExport(org telemetry.OrgID) (leave func(), err error) {
	a.mu.Lock()
	full := a.exports[org] >= exportsPerOrganisation
	if !full {
		a.exports[org]++
	}
	a.mu.Unlock()
	if full {
		f := telemetry.Failf(telemetry.RateLimited, "The organisation has %d exports running, which is the limit: wait until one of them ends.", exportsPerOrganisation)
		f.RetryAfter = 10 * time.Second
		return nil, f
	}
	forget := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.exports[org]--; a.exports[org] == 0 {
			delete(a.exports, org)
		}
	}
	out, err := a.admit(org)
	if err != nil {
		forget()
		return nil, err
	}
	return func() { out(); forget() }, nil
}
