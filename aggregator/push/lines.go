package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// rejection says why a line was not taken.
type rejection struct {
	Line  int    `json:"line"` // counted from 1; in a list, its element
	Error string `json:"error"`
}

// linesAnswer is the answer to POST /v1/logs.
type linesAnswer struct {
	Accepted int `json:"accepted"`
	// RejectedCount is how many lines were rejected; Rejected names the first.
	RejectedCount int         `json:"rejectedCount"`
	Rejected      []rejection `json:"rejected"`
}

// maxNamed bounds the rejections that an answer lists.
const maxNamed = 100

func (a *linesAnswer) reject(line int, err error) {
	a.RejectedCount++
	if len(a.Rejected) < maxNamed {
		a.Rejected = append(a.Rejected, rejection{line, err.Error()})
	}
}

// lines takes log entries in the product's own form.
func (t *taking) lines(ctx context.Context) (body []byte, contentType string, repeated bool, err error) {
	answer := linesAnswer{Rejected: []rejection{}}
	var entries []telemetry.LogEntry
	each := func(line int, text []byte) {
		e, err := t.readLine(text, line)
		if err != nil {
			answer.reject(line, err)
			return
		}
		entries = append(entries, e)
	}
	if t.format == lines {
		eachLine(t.body, each)
	} else if err := eachElement(t.body, each); err != nil {
		return nil, "", false, err
	}
	t.metrics.rejected.WithLabelValues(t.signal.String()).Add(float64(answer.RejectedCount))
	answer.Accepted = len(entries)
	if answer.Accepted == 0 && answer.RejectedCount > 0 {
		return nil, "", false, answer.failure()
	}
	frames, err := t.lineFrames(entries)
	if err != nil {
		return nil, "", false, err
	}
	if repeated, err = t.store(ctx, frames); err != nil {
		return nil, "", false, err
	}
	body, err = json.Marshal(answer)
	return append(body, '\n'), "application/json", repeated, err
}

// failure is the answer where no line at all was in order.
func (a *linesAnswer) failure() error {
	f := telemetry.Failf(telemetry.Unprocessable, "None of the %d lines can be taken; line %d: %s.", a.RejectedCount, a.Rejected[0].Line, a.Rejected[0].Error)
	for _, r := range a.Rejected {
		f.Fields = append(f.Fields, telemetry.FieldError{Field: "line " + strconv.Itoa(r.Line), Detail: r.Error})
	}
	return f
}

// eachLine calls each with the lines of NDJSON that are not empty.
func eachLine(body []byte, each func(line int, text []byte)) {
	line := 0
	for text := range bytes.Lines(body) {
		line++
		if text = bytes.TrimSpace(text); len(text) > 0 {
			each(line, text)
		}
	}
}

// eachElement calls each with the elements of a JSON list, or with the one
// object that there is.
func eachElement(body []byte, each func(line int, text []byte)) error {
	body = bytes.TrimSpace(body)
	if len(body) > 0 && body[0] == '{' {
		each(1, body)
		return nil
	}
	notList := func(err error) error {
		return &telemetry.Failure{Code: telemetry.InvalidRequest, Message: "The body is no JSON list of log entries, and no single one.", Cause: err}
	}
	if err := checkDepth(body, maxDepth+1); err != nil {
		return notList(err)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if open, err := d.Token(); err != nil || open != json.Delim('[') {
		return notList(err)
	}
	var element json.RawMessage
	for n := 1; d.More(); n++ {
		element = element[:0]
		if err := d.Decode(&element); err != nil {
			return notList(err)
		}
		each(n, element)
	}
	if _, err := d.Token(); err != nil {
		return notList(err)
	}
	if d.More() {
		return notList(errors.New("something follows the list"))
	}
	return nil
}

// Bounds of one frame of lines: where agentd cuts. frameWhole also counts the
// ids, each as often as it is written: whatever they are, a frame holds them.
const (
	frameLines = 4096
	frameText  = 640 << 10
	frameWhole = 2 << 20
)

// idBytes is what the ids of an entry take at most.
func idBytes(e *telemetry.LogEntry) int {
	return len(e.Agent) + len(e.Session) + len(e.User) + len(e.Trace) + len(e.Span)
}

// lineFrames makes frames of entries, in their order.
func (t *taking) lineFrames(entries []telemetry.LogEntry) ([]*frame.Received, error) {
	var frames []*frame.Received
	var w segment.Writer
	ids := 0
	cut := func() error {
		n := w.Lines()
		ids = 0
		if n == 0 {
			return nil
		}
		body := w.Encode(nil)
		if len(body) > frame.MaxBody {
			return fmt.Errorf("push: %d lines take %d bytes: more than a frame", n, len(body))
		}
		frames = append(frames, t.frame(telemetry.LaneLogs, n, body))
		return nil
	}
	for i := range entries {
		w.Append(&entries[i])
		ids += idBytes(&entries[i])
		if w.Lines() == frameLines || w.RawBytes() >= frameText || w.RawBytes()+ids >= frameWhole {
			if err := cut(); err != nil {
				return nil, err
			}
		}
	}
	err := cut()
	return frames, err
}
