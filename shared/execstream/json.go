package execstream

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the hello's JSON form, as encoding/json reads it: that
// package and what it needs would make agentd-exec a fifth larger.
func (h *Hello) AppendJSON(b []byte) []byte {
	b = appendText(append(b, `{"execId":`...), h.ID)
	b = append(b, `,"command":[`...)
	for i, arg := range h.Command {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, arg)
	}
	b = append(b, ']')
	if h.Agent != "" {
		b = appendText(append(b, `,"agentId":`...), h.Agent)
	}
	if h.Session != "" {
		b = appendText(append(b, `,"sessionId":`...), h.Session)
	}
	if h.TTY {
		b = append(b, `,"tty":true`...)
	}
	b = appendTime(append(b, `,"startedAt":`...), h.StartedAt)
	return append(b, '}')
}

// AppendJSON appends the exit's JSON form, as encoding/json reads it.
func (e *Exit) AppendJSON(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"code":`...), int64(e.Code), 10)
	if e.Signal != "" {
		b = appendText(append(b, `,"signal":`...), e.Signal)
	}
	b = strconv.AppendInt(append(b, `,"durationMs":`...), e.DurationMS, 10)
	b = appendTime(append(b, `,"endedAt":`...), e.EndedAt)
	b = strconv.AppendInt(append(b, `,"stdoutBytes":`...), e.Stdout, 10)
	b = strconv.AppendInt(append(b, `,"stderrBytes":`...), e.Stderr, 10)
	return append(b, '}')
}

func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}

// appendText appends a JSON text; what is not UTF-8 becomes U+FFFD.
func appendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
