package push

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// maxDepth is how deep a line may be nested: its metadata and itself.
const maxDepth = telemetry.MaxObjectDepth + 1

var (
	errTooMany   = fmt.Errorf("is beyond the first %d: send the rest in another request", MaxRecords)
	errNoObject  = errors.New("is not a JSON object")
	errNoMessage = errors.New("message is missing")
	errSeconds   = errors.New("timestamp is a number before 1973: give milliseconds since 1970, not seconds")
	errTime      = errors.New("timestamp is neither ISO 8601 (2026-09-01T10:00:00.123Z) nor milliseconds since 1970")
)

// line is a log entry as clients write it.
type line struct {
	Timestamp instant             `json:"timestamp"`
	Level     string              `json:"level"`
	Message   json.RawMessage     `json:"message"`
	Agent     telemetry.AgentID   `json:"agentId"`
	Session   telemetry.SessionID `json:"sessionId"`
	User      telemetry.UserID    `json:"userId"`
	Metadata  json.RawMessage     `json:"metadata"`
	Trace     string              `json:"traceId"`
	Span      string              `json:"spanId"`
	Stream    string              `json:"stream"`
	Source    string              `json:"source"`
}

// readLine reads one line. Its error says, to the sender, what is wrong.
func (t *taking) readLine(text []byte, number int) (e telemetry.LogEntry, err error) {
	if number > MaxRecords {
		return e, errTooMany
	}
	in, err := decodeLine(text)
	if err != nil {
		return e, err
	}
	e.Timestamp = in.Timestamp.Time
	if e.Timestamp.IsZero() {
		e.Timestamp = t.received
	}
	var stated bool
	e.Level, stated = levelOf(in.Level)
	e.LevelInferred = !stated
	if e.Origin, err = in.origin(); err != nil {
		return e, err
	}
	if e.Trace, e.Span, err = in.trace(); err != nil {
		return e, err
	}
	if isNull(in.Message) {
		return e, errNoMessage
	}
	e.Message, e.Truncated = cut(clean(textOf(in.Message)), telemetry.MaxMessage)
	e.Metadata, err = object(in.Metadata)
	return e, err
}

func decodeLine(text []byte) (in line, err error) {
	if text[0] != '{' {
		return in, errNoObject
	}
	if err := checkDepth(text, maxDepth); err != nil {
		return in, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err = d.Decode(&in)
	if err == nil && d.InputOffset() < int64(len(text)) {
		return in, errors.New("something follows the JSON object")
	}
	kind, isType := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case err == nil:
		return in, nil
	case errors.Is(err, errTime):
		return in, errTime
	case isType:
		return in, fmt.Errorf("%s must be a text, not a %s", kind.Field, kind.Value)
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		return in, fmt.Errorf("field %.100s is not known: put it into metadata", strings.TrimPrefix(err.Error(), "json: unknown field "))
	}
	return in, fmt.Errorf("is not JSON: %.100s", strings.TrimPrefix(err.Error(), "json: "))
}

func (in *line) origin() (o telemetry.Origin, err error) {
	o = telemetry.Origin{Agent: in.Agent, Session: in.Session, User: in.User}
	if in.Agent == "" {
		return o, errors.New("agentId is missing")
	}
	if err := wire.CheckOrigin(&o); err != nil {
		return o, err
	}
	if in.Stream != "" {
		if o.Stream, err = telemetry.ParseStream(in.Stream); err != nil {
			return o, fmt.Errorf("stream is not valid: %w", err)
		}
	}
	if in.Source != "" {
		if o.Source, err = telemetry.ParseLogSource(in.Source); err != nil {
			return o, fmt.Errorf("source is not valid: %w", err)
		}
	}
	return o, nil
}

// trace reads public ids, and W3C's, which have no prefix.
func (in *line) trace() (telemetry.TraceID, telemetry.SpanID, error) {
	trace, err := publicID("traceId", in.Trace, "trc_", 32)
	if err != nil {
		return "", "", err
	}
	span, err := publicID("spanId", in.Span, "spn_", 16)
	return telemetry.TraceID(trace), telemetry.SpanID(span), err
}

func publicID(name, s, prefix string, digits int) (string, error) {
	switch {
	case s == "":
		return "", nil
	case len(s) == digits && strings.Trim(s, "0123456789abcdefABCDEF") == "":
		return prefix + strings.ToLower(s), nil
	}
	if err := telemetry.CheckID(s); err != nil {
		return "", fmt.Errorf("%s %w", name, err)
	}
	return s, nil
}

// levelOf reads the word for a level. An unknown one is as if it were missing:
// the line counts more than its level.
func levelOf(word string) (level telemetry.Level, stated bool) {
	switch strings.ToLower(word) {
	case "trace", "verbose", "debug":
		return telemetry.Debug, true
	case "info", "log", "notice":
		return telemetry.Info, true
	case "warn", "warning":
		return telemetry.Warn, true
	case "error", "err", "fatal", "critical", "panic", "alert", "emergency":
		return telemetry.Error, true
	}
	return telemetry.Info, false
}

// instant is a time: ISO 8601, or milliseconds since 1970 as Date.now() gives
// them.
type instant struct{ time.Time }

// earliestMillis is in 1973: a smaller number was meant as seconds.
const earliestMillis = 1e11

// latest is the last time that the path from nodes takes.
var latest = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// UnmarshalJSON reads the time.
func (i *instant) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if b[0] != '"' {
		var ms float64
		if err := json.Unmarshal(b, &ms); err != nil || ms < 0 || ms > float64(latest.UnixMilli()) {
			return errTime
		}
		if ms < earliestMillis {
			return errSeconds
		}
		i.Time = time.UnixMicro(int64(ms * 1000)).UTC()
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil || len(text) > 64 {
		return errTime
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if at = at.UTC().Truncate(time.Microsecond); err != nil || at.Year() < 1 || at.After(latest) {
		return errTime
	}
	i.Time = at
	return nil
}

// checkDepth refuses what is nested too deep, whether it is JSON or not.
func checkDepth(b []byte, most int) error {
	depth, text := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return fmt.Errorf("is nested deeper than %d", most)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// textOf is a JSON text's text, and any other value as it is written.
func textOf(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return strings.ToValidUTF8(string(compact(raw)), "\uFFFD")
}

func compact(raw json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return nil
	}
	return b.Bytes()
}

// object is a JSON object on one line; another value is put into one.
func object(raw json.RawMessage) (json.RawMessage, error) {
	if isNull(raw) {
		return nil, nil
	}
	b := withoutNUL(bytes.ToValidUTF8(compact(raw), []byte("\uFFFD")))
	if len(b) == 0 || b[0] != '{' {
		b = append(append([]byte(`{"value":`), b...), '}')
	}
	if err := telemetry.CheckObject(b, telemetry.MaxMetadata); err != nil {
		return nil, fmt.Errorf("metadata %w", err)
	}
	return b, nil
}

// withoutNUL puts the picture of a NUL where a JSON text says one.
func withoutNUL(b []byte) []byte {
	const escaped, pictured = `\u0000`, `\u2400`
	if !bytes.Contains(b, []byte(escaped)) {
		return b
	}
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		if bytes.HasPrefix(b[i:], []byte(escaped)) {
			copy(b[i:], pictured)
		}
		i++ // of an escape, what it escapes
	}
	return b
}

// clean takes out what a text must not hold: NUL becomes its picture, terminal
// escape sequences and line breaks at the end go.
func clean(s string) string {
	s = strings.TrimRight(s, "\r\n")
	if strings.ContainsRune(s, 0) {
		s = strings.ReplaceAll(s, "\x00", "\u2400")
	}
	s = strings.ReplaceAll(s, "\u009b", "\x1b[") // one sign for both
	if strings.IndexByte(s, escape) >= 0 {
		s = withoutEscapes(s)
	}
	return s
}

const escape = 0x1b

func withoutEscapes(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	// Once no text ends any more nobody looks for its end again: many beginnings
	// would take quadratic time.
	endless := false
	for {
		at := strings.IndexByte(s, escape)
		if at < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:at])
		s = s[at:]
		n := len(opening)
		if !opensText(s) {
			n = sequence(s)
		} else if !endless {
			n = sequence(s)
			endless = n == len(opening)
		}
		s = s[n:]
	}
}

// opening is what a sequence that holds a text begins with, such as this one.
const opening = "\x1b]"

func opensText(s string) bool { return len(s) > 1 && strings.IndexByte("]P_^X", s[1]) >= 0 }

// sequence is how long the escape sequence at the beginning of s is.
func sequence(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch s[1] {
	case '[': // parameters, then a letter
		for i := 2; i < len(s); i++ {
			if c := s[i]; c < ' ' || c > '?' {
				if c >= '@' && c <= '~' {
					i++
				}
				return i
			}
		}
		return len(s)
	case ']', 'P', '_', '^', 'X': // a text, up to BEL or ESC \; one without end is no sequence
		for i := 2; i < len(s); i++ {
			if s[i] == 7 {
				return i + 1
			}
			if s[i] == escape && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
		return 2
	}
	// Intermediates and a final character, such as ESC ( B, or that alone.
	n := 1
	for n < len(s) && s[n] >= ' ' && s[n] <= '/' {
		n++
	}
	if n < len(s) && s[n] >= '0' && s[n] <= '~' {
		n++
	}
	return n
}

// cut cuts a text between two runes.
func cut(s string, most int) (text string, wasCut bool) {
	if len(s) <= most {
		return s, false
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most], true
}
