package otlp

import (
	"github.com/theazo/observability/shared/telemetry"
)

// Kinds of spans by OTLP's number.
var spanKinds = [...]telemetry.SpanKind{
	telemetry.SpanInternal, telemetry.SpanInternal, telemetry.SpanServer, telemetry.SpanClient, telemetry.SpanProducer, telemetry.SpanConsumer,
}

// spanRecord is what is gathered of a span beside the span itself.
type spanRecord struct {
	trace, id, parent []byte
	start, end        uint64
	attributes        *attributes
	events, links     uint64 // dropped
	eventBytes        int
}

// span takes one span.
func (d *decoder) span(n node) {
	if !d.room() {
		return
	}
	s := telemetry.Span{Origin: d.scope.origin, Scope: d.scope.name, Resource: d.scope.resource}
	r := spanRecord{attributes: d.own.again()}
	for c := n.walk(spanMessage); c.next(); {
		switch c.number {
		case 1:
			r.trace = c.bytes()
		case 2:
			r.id = c.bytes()
		case 4:
			r.parent = c.bytes()
		case 7:
			r.start = c.uint()
		case 8:
			r.end = c.uint()
		case 9:
			d.attribute(r.attributes, c.node)
		case 10:
			r.attributes.lost(c.uint())
		default:
			d.spanPart(c.number, c.node, &s, &r)
		}
	}
	if !d.spanIDs(&s, &r) {
		return
	}
	d.spanTimes(&s, &r)
	var notes []attribute
	if r.events > 0 {
		notes = append(notes, number(droppedEvents, r.events))
	}
	if r.links > 0 {
		notes = append(notes, number(droppedLinks, r.links))
	}
	s.Attributes = d.object(r.attributes, telemetry.MaxSpanAttributes, notes...)
	d.res.Bytes += 512 + len(s.Name) + len(s.Error) + len(s.Attributes) + r.eventBytes + 80*len(s.Events) + 128*len(s.Links) + len(s.Resource)
	d.res.Spans = append(d.res.Spans, s)
}

// spanPart reads the fields that span does not.
func (d *decoder) spanPart(f int, v node, s *telemetry.Span, r *spanRecord) {
	switch f {
	case 5:
		name, shorter := cut(clean(v.text()), telemetry.MaxSpanName)
		if s.Name = name; shorter {
			d.res.Dropped[NameCut]++
		}
	case 6:
		if k := v.uint(); k < uint64(len(spanKinds)) {
			s.Kind = spanKinds[k]
		}
	case 11:
		d.spanEvent(v, s, r)
	case 12:
		r.events += min(v.uint(), 1<<32)
	case 13:
		d.spanLink(v, s, r)
	case 14:
		r.links += min(v.uint(), 1<<32)
	case 15:
		for c := v.walk(spanStatus); c.next(); {
			switch c.number {
			case 2:
				s.Error = d.short(c.text(), maxStatus)
			case 3:
				if code := c.uint(); code <= uint64(telemetry.SpanError) {
					s.Status = telemetry.SpanStatus(code)
				}
			}
		}
	}
}

// spanIDs refuses a span that nobody could find again.
func (d *decoder) spanIDs(s *telemetry.Span, r *spanRecord) bool {
	var trace, own bool
	s.Trace, trace = traceID(r.trace)
	s.ID, own = spanID(r.id)
	if !trace || !own {
		d.res.Refused[NoID]++
		return false
	}
	if len(r.parent) == 0 {
		return true
	}
	if parent, ok := spanID(r.parent); ok {
		s.Parent = parent
	} else if string(r.parent) != "\x00\x00\x00\x00\x00\x00\x00\x00" { // which some write for none
		d.res.Dropped[BadID]++
	}
	return true
}

// spanTimes makes the best of a span's times. One without an end still runs; one
// that ends before its start, or at an impossible time, took no time.
func (d *decoder) spanTimes(s *telemetry.Span, r *spanRecord) {
	var started, ended bool
	s.Start, started = d.time(r.start)
	s.End, ended = d.time(r.end)
	switch {
	case !started && ended:
		s.Start = s.End
		d.missed(r.start)
	case !started:
		s.Start = d.Received
		d.missed(r.start)
	case ended && s.End.Before(s.Start):
		d.res.Dropped[BadTime]++
	}
	if r.end != 0 && s.End.Before(s.Start) {
		s.End = s.Start
	}
	for i := range s.Events {
		if e := &s.Events[i]; e.Timestamp.IsZero() {
			e.Timestamp = s.Start
		}
	}
}

// missed counts a time that is needed and was not given; time counts the others.
func (d *decoder) missed(nanos uint64) {
	if nanos == 0 {
		d.res.Dropped[BadTime]++
	}
}

func (d *decoder) spanEvent(n node, s *telemetry.Span, r *spanRecord) {
	if len(s.Events) == telemetry.MaxSpanEvents {
		r.events++
		d.res.Dropped[SpanEvents]++
		return
	}
	var e telemetry.SpanEvent
	a := d.part.again()
	for c := n.walk(spanEvent); c.next(); {
		switch c.number {
		case 1:
			e.Timestamp, _ = d.time(c.uint())
		case 2:
			name, shorter := cut(clean(c.text()), maxWord)
			if e.Name = name; shorter {
				d.res.Dropped[NameCut]++
			}
		case 3:
			d.attribute(a, c.node)
		case 4:
			a.lost(c.uint())
		}
	}
	e.Attributes = d.object(a, max(MaxEvents-r.eventBytes, 2*droppedRoom))
	r.eventBytes += len(e.Name) + len(e.Attributes)
	s.Events = append(s.Events, e)
}

func (d *decoder) spanLink(n node, s *telemetry.Span, r *spanRecord) {
	var l telemetry.SpanLink
	a := d.part.again()
	var trace, own bool
	if len(s.Links) < telemetry.MaxSpanLinks {
		for c := n.walk(spanLink); c.next(); {
			switch c.number {
			case 1:
				l.Trace, trace = traceID(c.bytes())
			case 2:
				l.Span, own = spanID(c.bytes())
			case 4:
				d.attribute(a, c.node)
			case 5:
				a.lost(c.uint())
			}
		}
	}
	if !trace || !own {
		r.links++
		d.res.Dropped[SpanLinks]++
		return
	}
	l.Attributes = d.object(a, max(MaxEvents-r.eventBytes, 2*droppedRoom))
	r.eventBytes += len(l.Attributes)
	s.Links = append(s.Links, l)
}
