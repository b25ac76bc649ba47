package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

const (
	maxAttribute = 1024     // bytes of an event's attribute, as intake keeps it
	maxProgress  = 16 << 10 // bytes of a progress message
)

// decode reads one JSON object; fields that are not known are passed over.
func decode(body []byte, to any) error {
	if err := checkDepth(body); err != nil {
		return err
	}
	err := json.Unmarshal(body, to)
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if t.Field == "" {
			return telemetry.Failf(telemetry.InvalidRequest, "The body is not a JSON object.")
		}
		return unprocessable(t.Field, "is a "+t.Value+", which it cannot be")
	}
	if f, ok := errors.AsType[*telemetry.Failure](err); ok {
		return f
	}
	if err != nil {
		return telemetry.Failf(telemetry.InvalidRequest, "The body is not JSON: %s.", strings.TrimPrefix(err.Error(), "json: "))
	}
	if b := bytes.TrimLeft(body, " \t\r\n"); len(b) == 0 || b[0] != '{' {
		return telemetry.Failf(telemetry.InvalidRequest, "The body is not a JSON object.")
	}
	return nil
}

// checkDepth refuses what is nested too deep, whether it is JSON or not.
func checkDepth(body []byte) error {
	depth, text := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return telemetry.Failf(telemetry.InvalidRequest, "The body is nested deeper than %d.", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

func unprocessable(field, detail string) error {
	f := telemetry.Failf(telemetry.Unprocessable, "%s %s.", field, detail)
	f.Fields = []telemetry.FieldError{{Field: field, Detail: detail}}
	return f
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// textOf is a JSON text's text, and any other value as it is written.
func textOf(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(compact(raw))
}

// compact is a JSON value without the space between its parts; null is nil.
func compact(raw json.RawMessage) json.RawMessage {
	if isNull(raw) {
		return nil
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return nil
	}
	return b.Bytes()
}

// object is a JSON object on one line; another value is put into one.
func object(raw json.RawMessage) json.RawMessage {
	c := compact(raw)
	if len(c) == 0 || c[0] == '{' {
		return c
	}
	return append(append([]byte(`{"value":`), c...), '}')
}

// cutText cuts a text between two runes.
func cutText(s string, most int) (text string, cut bool) {
	if len(s) <= most {
		return s, false
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most], true
}

// cutJSON is as much of a text's beginning as has a JSON form of at most so
// many bytes.
func cutJSON(text string, most int) json.RawMessage {
	for n := most; ; n = n * 3 / 4 {
		part, _ := cutText(text, max(n, 0))
		b, err := json.Marshal(part)
		if err == nil && len(b) <= most || n <= 0 {
			return b
		}
	}
}

// levelOf reads the word for a level. An unknown one is as if it were missing:
// the entry counts more than its level.
func levelOf(word string) (level telemetry.Level, stated bool) {
	switch strings.ToLower(word) {
	case "trace", "verbose", "debug":
		return telemetry.Debug, true
	case "info", "log", "notice":
		return telemetry.Info, true
	case "warn", "warning":
		return telemetry.Warn, true
	case "error", "fatal", "critical":
		return telemetry.Error, true
	}
	return telemetry.Info, false
}

// traceID and spanID read public ids, or those of W3C; "": it is neither.
func traceID(s string) telemetry.TraceID { return telemetry.TraceID(hexID(s, "trc_", 32)) }
func spanID(s string) telemetry.SpanID   { return telemetry.SpanID(hexID(s, "spn_", 16)) }

func hexID(s, prefix string, digits int) string {
	s = strings.ToLower(strings.TrimPrefix(s, prefix))
	if len(s) != digits || strings.Trim(s, "0123456789abcdef") != "" || strings.Trim(s, "0") == "" {
		return ""
	}
	return prefix + s
}

// instant is a time in a body: ISO 8601, or milliseconds since 1970 as
// Date.now() gives them.
type instant struct{ time.Time }

func (i *instant) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if b[0] != '"' {
		var ms float64
		if err := json.Unmarshal(b, &ms); err != nil {
			return unprocessable("timestamp", "is neither ISO 8601 nor milliseconds since 1970")
		}
		if ms < 0 || ms > maxMillis {
			return unprocessable("timestamp", "is out of range")
		}
		i.Time = time.UnixMicro(int64(ms * 1000)).UTC()
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("timestamp: %w", err)
	}
	if text == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 1 || t.Year() > maxYear {
		return unprocessable("timestamp", "is neither ISO 8601 nor milliseconds since 1970")
	}
	i.Time = t.UTC()
	return nil
}

// The last year that has four digits, and its end in milliseconds.
const (
	maxYear   = 9999
	maxMillis = 253402300799999
)

func (i instant) orNow() time.Time {
	if i.IsZero() {
		return time.Now().UTC()
	}
	return i.Time
}

// count is a whole number that is not negative, as a JSON number or null.
type count int64

func (c *count) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	n, err := decimal(string(b), 0)
	if err != nil || n < 0 {
		return unprocessable("tokens", "are not a number of 0 or more")
	}
	*c = count(n)
	return nil
}

// cost is an amount of money in a body: {"amount": CENTS, "currency": "usd"}.
// Cents may have a fraction: a call of a model costs less than one.
type cost struct {
	nanos    int64
	currency string
}

func (c *cost) UnmarshalJSON(b []byte) error {
	var in struct {
		Amount   json.RawMessage `json:"amount"`
		Currency string          `json:"currency"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return unprocessable("cost", "is not an object with amount and currency")
	}
	amount := strings.Trim(string(in.Amount), `"`)
	var err error
	if c.nanos, err = decimal(amount, nanosPerCentDigits); err != nil {
		return unprocessable("cost.amount", "is not an amount of cents")
	}
	switch c.currency = strings.ToLower(in.Currency); {
	case c.currency == "":
		c.currency = "usd"
	case len(c.currency) != 3 || strings.Trim(c.currency, "abcdefghijklmnopqrstuvwxyz") != "":
		return unprocessable("cost.currency", "is not a currency's three letters")
	}
	return nil
}
