package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

// events serves a stream as Server-Sent Events (product words: log,
// heartbeat, gap, ready, end).
//
// Two readers must be right about every byte. A browser's EventSource takes
// data with or without a space after the colon. The published client reads
// every line that starts with "data: " as a log entry and knows no event
// names. So exactly log entries, and the [DONE] of the end, have the space.
func (c *call) events(to bind) error {
	v, err := c.view(&params{values: c.query, env: &c.who.Env}, c.r.Header.Get("Last-Event-ID"), to)
	if err != nil {
		return err
	}
	if v.ended && v.agent != "" && c.finished(c.r.Context(), v.agent) {
		c.out.WriteHeader(http.StatusNoContent) // makes an EventSource stop
		return nil
	}
	leave, err := c.api.admit(c.who.Org)
	if telemetry.CodeOf(err) == telemetry.RateLimited && err != nil {
		c.retryLater(30 * time.Second)
		return nil
	}
	if err != nil {
		return err
	}
	defer leave()
	if c.r.Method == http.MethodHead {
		eventHeaders(c.out.Header())
		c.out.WriteHeader(http.StatusOK)
		return nil
	}
	return c.guarded(func(ctx context.Context) error {
		if err := v.open(ctx, c); err != nil {
			return err
		}
		defer v.reader.Close()
		eventHeaders(c.out.Header())
		c.out.WriteHeader(http.StatusOK)
		out := &eventSink{to: c.out, control: http.NewResponseController(c.out), timeout: c.api.WriteTimeout, filter: &v.filter}
		// The connection may serve other requests after this one.
		defer func() { _ = out.control.SetWriteDeadline(time.Time{}) }()
		return c.ended(c.follow(ctx, v, out))
	})
}

// ended drops the errors with which streams usually end: the client left, or
// is to resume.
func (c *call) ended(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, errDraining), errors.Is(err, errAged), errors.Is(err, stream.ErrClosed):
		return nil
	default:
		return err
	}
}

// flushAt is how many bytes are written at once.
const flushAt = 64 << 10

// eventSink writes SSE frames.
type eventSink struct {
	to      http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	filter  *telemetry.LogFilter
	buf     []byte // nil between writes
}

func (s *eventSink) wants() bool              { return true }
func (s *eventSink) changed() <-chan struct{} { return nil }

func (s *eventSink) ready(f *telemetry.LogFilter, at stream.Cursor) error {
	data, err := json.Marshal(struct {
		Filters *telemetry.LogFilter `json:"filters"`
		Cursor  stream.Cursor        `json:"cursor"`
	}{f, at})
	if err != nil {
		return fmt.Errorf("api: encode a filter: %w", err)
	}
	s.buf = append(takeBuffer(), "retry: 2000\n\n"...)
	s.frame(at, "ready", "data:", data)
	return s.flush()
}

// batch writes what came together at once.
func (s *eventSink) batch(b *stream.Batch) error {
	s.buf = takeBuffer()
	if b.Missed != nil {
		data, err := json.Marshal(shapeMissed(b.Missed, s.filter))
		if err != nil {
			return fmt.Errorf("api: encode a gap: %w", err)
		}
		s.frame(b.Missed.To, "gap", "data:", data)
	}
	at := b.Through
	for i := range b.Records {
		r := &b.Records[i]
		at.Position = r.Position
		if r.Gap == nil {
			s.frame(at, "log", "data: ", r.JSON)
		} else {
			data, err := json.Marshal(shapeGap(r.Gap))
			if err != nil {
				return fmt.Errorf("api: encode a gap: %w", err)
			}
			s.frame(at, "gap", "data:", data)
		}
		if len(s.buf) >= flushAt {
			if err := s.write(); err != nil {
				return err
			}
		}
	}
	return s.flush()
}

func (s *eventSink) heartbeat(at stream.Cursor) error {
	data := telemetry.AppendTime([]byte(`{"timestamp":"`), time.Now())
	data = append(data, `","cursor":"`...)
	data = append(at.Append(data), `"}`...)
	s.buf = takeBuffer()
	s.frame(at, "heartbeat", "data:", data)
	return s.flush()
}

func (s *eventSink) end(at stream.Cursor) error {
	s.buf = append(takeBuffer(), "id: "...)
	s.buf = append(at.Append(s.buf), endedMark+"\nevent: end\ndata: [DONE]\n\n"...)
	return s.flush()
}

// frame appends one event. data is JSON, in which a line break can only be
// white space between tokens (metadata comes as its author wrote it).
func (s *eventSink) frame(at stream.Cursor, event, label string, data []byte) {
	s.buf = append(s.buf, "id: "...)
	s.buf = at.Append(s.buf)
	s.buf = append(s.buf, "\nevent: "...)
	s.buf = append(s.buf, event...)
	s.buf = append(s.buf, '\n')
	s.buf = append(s.buf, label...)
	start := len(s.buf)
	s.buf = append(s.buf, data...)
	for _, end := range []byte{'\n', '\r'} {
		for i := bytes.IndexByte(s.buf[start:], end); i >= 0; i = bytes.IndexByte(s.buf[start:], end) {
			s.buf[start+i] = ' '
		}
	}
	s.buf = append(s.buf, "\n\n"...)
}

// write hands what is buffered to the connection, which has until the
// deadline to take it.
func (s *eventSink) write() error {
	if err := s.control.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		return fmt.Errorf("api: deadline of a stream: %w", err)
	}
	_, err := s.to.Write(s.buf) //nolint:gosec // event streams are no HTML: nosniff, and JSON escapes what ends a line
	if s.buf = s.buf[:0]; err != nil {
		return fmt.Errorf("api: write a stream: %w", err)
	}
	return nil
}

// flush writes the rest and gives the buffer back.
func (s *eventSink) flush() error {
	err := s.write()
	giveBuffer(s.buf)
	s.buf = nil
	if err != nil {
		return err
	}
	if err := s.control.Flush(); err != nil {
		return fmt.Errorf("api: flush a stream: %w", err)
	}
	return nil
}
