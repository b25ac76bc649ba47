package sandbox

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// said is what every body may say of its sender.
type said struct {
	Agent   string `json:"agentId"`
	Session string `json:"sessionId"`
}

// read reads a body into to and checks its claim.
func (s *Source) read(t *source.Target, body []byte, to any, who *said) error {
	if err := decode(body, to); err != nil {
		return err
	}
	return s.claim(t, who.Agent, who.Session)
}

func (s *Source) readLog(t *source.Target, body []byte) (*source.Batch, error) {
	var in struct {
		said
		Level     string          `json:"level"`
		Message   json.RawMessage `json:"message"`
		Metadata  json.RawMessage `json:"metadata"`
		Timestamp instant         `json:"timestamp"`
		Trace     string          `json:"traceId"`
		Span      string          `json:"spanId"`
	}
	if err := s.read(t, body, &in, &in.said); err != nil {
		return nil, err
	}
	if isNull(in.Message) {
		return nil, unprocessable("message", "is missing")
	}
	level, stated := levelOf(in.Level)
	e := telemetry.LogEntry{
		Timestamp: in.Timestamp.orNow(), Level: level, LevelInferred: !stated, Origin: t.Origin,
		Metadata: object(in.Metadata), Trace: traceID(in.Trace), Span: spanID(in.Span),
	}
	e.Message, e.Truncated = cutText(textOf(in.Message), telemetry.MaxMessage)
	return &source.Batch{Entries: []telemetry.LogEntry{e}}, nil
}

func (s *Source) readModel(t *source.Target, body []byte) (*source.Batch, error) {
	var in struct {
		said
		Model        string          `json:"model"`
		Vendor       string          `json:"vendor"`
		InputTokens  count           `json:"inputTokens"`
		OutputTokens count           `json:"outputTokens"`
		CacheRead    count           `json:"cacheReadTokens"`
		CacheWrite   count           `json:"cacheWriteTokens"`
		Cost         *cost           `json:"cost"`
		Timestamp    instant         `json:"timestamp"`
		Metadata     json.RawMessage `json:"metadata"`
		Trace        string          `json:"traceId"`
		Span         string          `json:"spanId"`
	}
	if err := s.read(t, body, &in, &in.said); err != nil {
		return nil, err
	}
	if in.Model == "" {
		return nil, unprocessable("model", "is missing")
	}
	c := telemetry.ModelCall{
		Timestamp: in.Timestamp.orNow(), Origin: t.Origin, Model: in.Model, Vendor: in.Vendor, Trace: traceID(in.Trace), Span: spanID(in.Span),
		InputTokens: int64(in.InputTokens), OutputTokens: int64(in.OutputTokens), CacheReadTokens: int64(in.CacheRead), CacheWriteTokens: int64(in.CacheWrite),
		Metadata: object(in.Metadata),
	}
	c.Source = telemetry.SourceModel
	if in.Cost != nil {
		c.Cost = &telemetry.Money{Nanos: in.Cost.nanos, Currency: in.Cost.currency}
	}
	b := &source.Batch{}
	b.ModelCalls = []telemetry.ModelCall{c}
	return b, nil
}

func (s *Source) readSpan(t *source.Target, body []byte) (*source.Batch, error) {
	var in struct {
		said
		Name       string          `json:"name"`
		Start      instant         `json:"startTime"`
		End        instant         `json:"endTime"`
		Duration   *float64        `json:"durationMs"`
		Status     string          `json:"status"`
		Error      json.RawMessage `json:"error"`
		Attributes json.RawMessage `json:"attributes"`
		Trace      string          `json:"traceId"`
		Span       string          `json:"spanId"`
		Parent     string          `json:"parentSpanId"`
	}
	if err := s.read(t, body, &in, &in.said); err != nil {
		return nil, err
	}
	if in.Name == "" {
		return nil, unprocessable("name", "is missing")
	}
	span := telemetry.Span{
		Trace: traceID(in.Trace), ID: spanID(in.Span), Parent: spanID(in.Parent), Origin: t.Origin,
		Attributes: object(in.Attributes),
	}
	span.Name, _ = cutText(in.Name, telemetry.MaxSpanName)
	if span.Trace == "" {
		span.Trace = ids.TraceOf(t.Origin.Agent)
	}
	if span.ID == "" {
		span.ID = ids.NewSpan()
	}
	span.Start, span.End = bounds(in.Start.Time, in.End.Time, in.Duration)
	switch in.Status {
	case "completed", "ok", "success":
		span.Status = telemetry.SpanOK
	case "failed", "error":
		span.Status = telemetry.SpanError
	}
	if !isNull(in.Error) {
		span.Error, span.Status = errorText(in.Error), telemetry.SpanError
	}
	b := &source.Batch{}
	b.Spans = []telemetry.Span{span}
	return b, nil
}

// longestSpan is more than any: a duration beyond it is a mistake.
const longestSpan = 10 * 365 * 24 * time.Hour

// bounds finds the start and end of a span from what was said of them.
func bounds(start, end time.Time, durationMs *float64) (from, until time.Time) {
	var d time.Duration
	if durationMs != nil && *durationMs > 0 && *durationMs < float64(longestSpan/time.Millisecond) {
		d = time.Duration(*durationMs * float64(time.Millisecond))
	}
	switch {
	case start.IsZero() && end.IsZero():
		end = time.Now().UTC()
		start = end.Add(-d)
	case start.IsZero():
		start = end.Add(-d)
	case end.IsZero() && durationMs != nil:
		end = start.Add(d)
	}
	return start, end
}

// errorText is the message of an error, which may be a text or an object.
func errorText(raw json.RawMessage) string {
	var o struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &o) == nil && o.Message != "" {
		return o.Message
	}
	return textOf(raw)
}

func (s *Source) readProgress(t *source.Target, body []byte) (*source.Batch, error) {
	var in struct {
		said
		Percentage *float64        `json:"percentage"`
		Message    json.RawMessage `json:"message"`
		Timestamp  instant         `json:"timestamp"`
	}
	if err := s.read(t, body, &in, &in.said); err != nil {
		return nil, err
	}
	content := struct {
		Percentage *float64 `json:"percentage,omitempty"`
		Message    string   `json:"message,omitempty"`
		Truncated  bool     `json:"truncated,omitempty"`
	}{Percentage: in.Percentage}
	attributes := map[string]string{}
	if in.Percentage != nil {
		attributes["percentage"] = strconv.FormatFloat(*in.Percentage, 'f', -1, 64)
	}
	if !isNull(in.Message) {
		text := textOf(in.Message)
		attributes["message"], _ = cutText(text, maxAttribute)
		content.Message, content.Truncated = cutText(text, maxProgress)
	}
	return event(t, telemetry.AgentProgress, in.Timestamp, attributes, content)
}

func (s *Source) readComplete(t *source.Target, body []byte) (*source.Batch, error) {
	var in struct {
		said
		Output    json.RawMessage `json:"output"`
		Artifacts json.RawMessage `json:"artifacts"`
		Timestamp instant         `json:"timestamp"`
	}
	if err := s.read(t, body, &in, &in.said); err != nil {
		return nil, err
	}
	return event(t, telemetry.AgentComplete, in.Timestamp, nil, completion(in.Output, in.Artifacts))
}

func event(t *source.Target, kind telemetry.EventType, at instant, attributes map[string]string, content any) (*source.Batch, error) {
	body, err := json.Marshal(content)
	if err != nil {
		return nil, unprocessable("body", "cannot be kept")
	}
	b := &source.Batch{}
	b.Events = []telemetry.Event{{Type: kind, Timestamp: at.orNow(), Origin: t.Origin, Attributes: attributes, Content: body}}
	return b, nil
}

// completed is the content of an agent.complete event.
type completed struct {
	Output    json.RawMessage `json:"output,omitempty"`
	Artifacts json.RawMessage `json:"artifacts,omitempty"`
	// What is missing, because all of it is over telemetry.MaxMetadata.
	OutputBytes      int `json:"outputBytes,omitempty"` // of the whole output; Output is the beginning of its text
	ArtifactsOmitted int `json:"artifactsOmitted,omitempty"`
}

// completion makes the content fit: first the output, cut, in the room that
// the artifacts leave or in half of it; then as many artifacts as have room.
func completion(output, artifacts json.RawMessage) completed {
	const room = telemetry.MaxMetadata - 256 // for the names around
	c := completed{Output: compact(output), Artifacts: compact(artifacts)}
	if left := room - min(len(c.Artifacts), room/2); len(c.Output) > left {
		c.OutputBytes = len(output)
		c.Output = cutJSON(textOf(output), left)
	}
	if left := room - len(c.Output); len(c.Artifacts) > left {
		c.Artifacts, c.ArtifactsOmitted = cutArray(c.Artifacts, left)
	}
	return c
}

// cutArray keeps the first elements of a JSON array that fit into so many
// bytes, and counts the others. Anything but an array is one element.
func cutArray(array json.RawMessage, most int) (kept json.RawMessage, omitted int) {
	d := json.NewDecoder(bytes.NewReader(array))
	if open, err := d.Token(); err != nil || open != json.Delim('[') {
		return nil, 1
	}
	kept = append(kept, '[')
	var element json.RawMessage
	for d.More() {
		if element = element[:0]; d.Decode(&element) != nil {
			break
		}
		if omitted > 0 || len(kept)+len(element)+len(",]") > most {
			omitted++
			continue
		}
		if len(kept) > 1 {
			kept = append(kept, ',')
		}
		kept = append(kept, element...)
	}
	return append(kept, ']'), omitted
}
