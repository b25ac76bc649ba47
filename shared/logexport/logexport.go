// Package logexport writes log entries as a file that other programs read:
// NDJSON or CSV. The API streams it to clients, `aggregator export` to a file.
//
// The package promises:
//
//   - NDJSON: one JSON object a line, the entry as the API prints it. A recorded
//     gap is a line {"gap":{…}} behind the entries, the end of what could not be
//     finished a last line {"error":{…}}.
//   - CSV: RFC 4180 with a heading; gaps and an error are lines at the end that
//     begin with "# ". A message or user id that a spreadsheet would take for a
//     formula gets an apostrophe in front.
//   - Memory is bounded by one buffer of about BufferSize and one entry.
package logexport

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/theazo/observability/shared/telemetry"
)

// BufferSize is how much is written at a time, about.
const BufferSize = 64 << 10

// Format of an export.
type Format uint8

// The formats.
const (
	NDJSON Format = iota
	CSV
)

// ParseFormat reads "ndjson" or "csv".
func ParseFormat(s string) (Format, error) {
	switch s {
	case "ndjson":
		return NDJSON, nil
	case "csv":
		return CSV, nil
	}
	return 0, fmt.Errorf("%.40q is no format: use ndjson or csv", s)
}

// ContentType is the format's media type.
func (f Format) ContentType() string {
	if f == CSV {
		return "text/csv; charset=utf-8; header=present"
	}
	return "application/x-ndjson"
}

// columns of a CSV file.
var columns = []string{
	"id", "timestamp", "level", "source", "agentId", "sessionId", "userId", "provider", "sandboxId", "nodeId", "stream",
	"traceId", "spanId", "message", "metadata",
}

// Writer writes one export. It is for one goroutine.
type Writer struct {
	w      io.Writer
	format Format
	buffer bytes.Buffer
	csv    *csv.Writer
	row    []string
	lines  int64
}

// NewWriter makes a writer of a format. Nothing is written before BufferSize
// is full or Flush is called.
func NewWriter(w io.Writer, f Format) *Writer {
	x := &Writer{w: w, format: f}
	if f == CSV {
		x.csv = csv.NewWriter(&x.buffer)
		x.row = make([]string, len(columns))
		_ = x.csv.Write(columns) // into memory
	}
	return x
}

// Lines is how many entries were taken.
func (x *Writer) Lines() int64 { return x.lines }

// Entry adds an entry.
func (x *Writer) Entry(e *telemetry.LogEntry) error {
	x.lines++
	if x.format == NDJSON {
		x.buffer.Write(append(e.AppendJSON(x.buffer.AvailableBuffer()), '\n'))
		return x.full()
	}
	var at [len(telemetry.TimeFormat)]byte
	provider, stream := "", ""
	if e.Provider != telemetry.NoProvider {
		provider = e.Provider.String()
	}
	if e.Stream != telemetry.NoStream {
		stream = e.Stream.String()
	}
	copy(x.row, []string{
		string(e.ID), string(telemetry.AppendTime(at[:0], e.Timestamp)), e.Level.String(), e.Source.String(), string(e.Agent), string(e.Session),
		harmless(string(e.User)), provider, string(e.Sandbox), string(e.Node), stream, string(e.Trace), string(e.Span), harmless(e.Message), string(e.Metadata),
	})
	if err := x.csv.Write(x.row); err != nil {
		return fmt.Errorf("write a line of CSV: %w", err) // cannot be: it goes to memory
	}
	x.csv.Flush()
	return x.full()
}

// harmless keeps a spreadsheet from running a text as a formula.
func harmless(s string) string {
	if s != "" && strings.IndexByte("=+-@\t\r\n", s[0]) >= 0 {
		return "'" + s
	}
	return s
}

// Gap adds a recorded gap: after the entries.
func (x *Writer) Gap(g *telemetry.Gap) error { return x.note("gap", g) }

// Fail says why there is nothing more: the last that is written.
func (x *Writer) Fail(f *telemetry.Failure, requestID string) error {
	return x.note("error", struct {
		Code      telemetry.Code `json:"code"`
		Message   string         `json:"message"`
		RequestID string         `json:"requestId,omitempty"`
	}{f.Code, f.Message, requestID})
}

func (x *Writer) note(kind string, what any) error {
	b, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("encode a %s: %w", kind, err)
	}
	if x.format == CSV {
		if x.csv != nil {
			x.csv.Flush() // the heading, where no entry came
		}
		fmt.Fprintf(&x.buffer, "# %s: %s\n", kind, b)
	} else {
		fmt.Fprintf(&x.buffer, "{%q:%s}\n", kind, b)
	}
	return x.full()
}

func (x *Writer) full() error {
	if x.buffer.Len() < BufferSize {
		return nil
	}
	return x.Flush()
}

// Flush writes what is in the buffer.
func (x *Writer) Flush() error {
	if x.csv != nil {
		x.csv.Flush()
	}
	if x.buffer.Len() == 0 {
		return nil
	}
	_, err := x.w.Write(x.buffer.Bytes())
	x.buffer.Reset()
	return err
}
