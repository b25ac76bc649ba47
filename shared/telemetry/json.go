package telemetry

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"
)

// TimeFormat is how every time leaves the API: UTC with fixed milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// AppendTime appends t in TimeFormat.
func AppendTime(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, TimeFormat) }

// AppendJSON appends the entry as one JSON object, the same fields as the
// struct's tags say. It is written by hand because it runs once per line and
// viewer; a test holds it against encoding/json.
func (e *LogEntry) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	if e.ID != "" {
		b = appendField(b, "id", string(e.ID))
	}
	b = append(b, `"timestamp":"`...)
	b = AppendTime(b, e.Timestamp)
	b = append(b, `","level":"`...)
	b = append(b, e.Level.String()...)
	b = append(b, `",`...)
	b = e.Origin.appendFields(b)
	b = append(b, `"message":`...)
	b = AppendString(b, e.Message)
	if len(e.Metadata) > 0 {
		b = append(b, `,"metadata":`...)
		b = append(b, e.Metadata...)
	}
	b = append(b, ',')
	b = appendOptional(b, "traceId", string(e.Trace))
	b = appendOptional(b, "spanId", string(e.Span))
	if e.LevelInferred {
		b = append(b, `"levelInferred":true,`...)
	}
	if e.Truncated {
		b = append(b, `"truncated":true,`...)
	}
	b = appendOptional(b, "nodeId", string(e.Node))
	if e.Seq != 0 {
		b = append(b, `"seq":`...)
		b = strconv.AppendUint(b, e.Seq, 10)
		b = append(b, ',')
	}
	if !e.ObservedAt.IsZero() {
		b = append(b, `"observedAt":"`...)
		b = AppendTime(b, e.ObservedAt)
		b = append(b, `",`...)
	}
	b = appendOptional(b, "cursor", e.Cursor)
	b[len(b)-1] = '}' // the last comma
	return b
}

// MarshalJSON is AppendJSON for encoding/json.
func (e LogEntry) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

func (o *Origin) appendFields(b []byte) []byte {
	b = appendField(b, "agentId", string(o.Agent))
	b = appendOptional(b, "sessionId", string(o.Session))
	b = appendOptional(b, "userId", string(o.User))
	b = appendOptional(b, "provider", providerName(o.Provider))
	b = appendOptional(b, "sandboxId", string(o.Sandbox))
	b = appendOptional(b, "stream", streamName(o.Stream))
	return appendField(b, "source", o.Source.String())
}

func providerName(p Provider) string {
	if p == NoProvider {
		return ""
	}
	return p.String()
}

func streamName(s Stream) string {
	if s == NoStream {
		return ""
	}
	return s.String()
}

func appendOptional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendField(b, name, value)
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, `":`...)
	b = AppendString(b, value)
	return append(b, ',')
}

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string. Control characters, U+2028 and
// U+2029 are escaped, so that the result can stand in an SSE data line and in
// a script; what is not UTF-8 becomes U+FFFD. HTML characters stay: no page
// of ours puts JSON into HTML.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, `\n`...)
			case '\r':
				b = append(b, `\r`...)
			case '\t':
				b = append(b, `\t`...)
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || r == '\u2028' || r == '\u2029' {
			b = append(b, s[start:i]...)
			if size == 1 {
				b = append(b, "\uFFFD"...)
			} else {
				b = append(b, `\u202`...)
				b = append(b, hexDigits[r&15])
			}
			start = i + size
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// Timestamp is a time that prints as TimeFormat: for response structs.
type Timestamp time.Time

// MarshalJSON prints the time, or null for the zero time.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	if time.Time(t).IsZero() {
		return []byte("null"), nil
	}
	b := append(make([]byte, 0, len(TimeFormat)+2), '"')
	return append(AppendTime(b, time.Time(t)), '"'), nil
}

var _ json.Marshaler = Timestamp{}
