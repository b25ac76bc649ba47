package otlp

import (
	"strings"

	"github.com/theazo/observability/shared/telemetry"
)

// logRecord is a log record as it was read, before it is an entry.
type logRecord struct {
	time, observed uint64
	severity       uint64
	word           string // severity text
	body           value
	event          string
	attributes     *attributes
	trace, span    []byte
}

// log takes one log record.
func (d *decoder) log(n node) {
	if !d.room() {
		return
	}
	r := logRecord{attributes: d.own.again()}
	for c := n.walk(logMessage); c.next(); {
		switch c.number {
		case 1:
			r.time = c.uint()
		case 2:
			r.severity = c.uint()
		case 3:
			r.word = d.short(c.text(), maxWord)
		case 5:
			r.body = d.valueUpTo(MaxBody, c.node, 0) // a text is cut as a line is
		case 6:
			d.attribute(r.attributes, c.node)
		case 7:
			r.attributes.lost(c.uint())
		case 9:
			r.trace = c.bytes()
		case 10:
			r.span = c.bytes()
		case 11:
			r.observed = c.uint()
		case 12:
			r.event = d.short(c.text(), maxWord)
		}
	}
	e := telemetry.LogEntry{Origin: d.scope.origin}
	e.Level, e.LevelInferred = r.level()
	d.logTimes(&r, &e)
	d.logIDs(&r, &e)
	d.logText(&r, &e)
	d.logMetadata(&r, &e)
	d.res.Bytes += 256 + len(e.Message) + len(e.Metadata)
	d.res.Entries = append(d.res.Entries, e)
}

func (d *decoder) logTimes(r *logRecord, e *telemetry.LogEntry) {
	var ok bool
	if e.Timestamp, ok = d.time(r.time); ok {
		return
	}
	if e.Timestamp, ok = d.time(r.observed); !ok {
		e.Timestamp = d.Received
	}
}

func (d *decoder) logIDs(r *logRecord, e *telemetry.LogEntry) {
	if len(r.trace) > 0 {
		if trace, ok := traceID(r.trace); ok {
			e.Trace = trace
		} else {
			d.res.Dropped[BadID]++
		}
	}
	if len(r.span) > 0 {
		if span, ok := spanID(r.span); ok {
			e.Span = span
		} else {
			d.res.Dropped[BadID]++
		}
	}
}

// logText chooses the message: the body, else the event's name, else what a log
// entry of an exception says.
func (d *decoder) logText(r *logRecord, e *telemetry.LogEntry) {
	if r.event == "" {
		r.event, _ = cut(r.attributes.text("event.name"), maxWord)
	}
	if r.body.kind != null && r.body.plain() != r.event && !d.Content && contentEvent(r.event) {
		d.res.Dropped[Content]++
		r.body = value{}
	}
	e.Message, e.Truncated = cut(r.body.plain(), telemetry.MaxMessage)
	if e.Truncated {
		d.res.Dropped[CutText]++
	}
	for _, other := range []string{r.event, r.attributes.text("exception.message"), r.attributes.text("exception.type")} {
		if e.Message == "" {
			e.Message = other
		}
	}
}

func (d *decoder) logMetadata(r *logRecord, e *telemetry.LogEntry) {
	r.attributes.set("event.name", r.event)
	if !strings.EqualFold(r.word, e.Level.String()) {
		r.attributes.set("severity_text", r.word)
	}
	r.attributes.set("otel.scope.name", d.scope.name)
	r.attributes.set("service.name", d.scope.service)
	e.Metadata = d.object(r.attributes, telemetry.MaxMetadata)
}

// level maps the severity's number, else its word.
func (r *logRecord) level() (level telemetry.Level, inferred bool) {
	switch n := r.severity; {
	case n == 0 || n > 24:
	case n <= 8:
		return telemetry.Debug, false
	case n <= 12:
		return telemetry.Info, false
	case n <= 16:
		return telemetry.Warn, false
	default:
		return telemetry.Error, false
	}
	switch strings.ToLower(r.word) {
	case "trace", "debug", "verbose", "fine", "finer", "finest":
		return telemetry.Debug, false
	case "info", "information", "informational", "notice", "config":
		return telemetry.Info, false
	case "warn", "warning":
		return telemetry.Warn, false
	case "error", "err", "severe", "fatal", "critical", "crit", "alert", "emergency", "emerg", "panic":
		return telemetry.Error, false
	}
	return telemetry.Info, true
}
