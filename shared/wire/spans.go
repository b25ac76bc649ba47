package wire

import (
	"errors"
	"fmt"
	"math"

	"github.com/theazo/observability/shared/telemetry"
)

func spanToWire(s *telemetry.Span) *Span {
	p := &Span{
		Trace: string(s.Trace), Id: string(s.ID), Parent: string(s.Parent), Name: s.Name, Kind: uint32(s.Kind), Origin: originToWire(&s.Origin),
		Start: timeToWire(s.Start), End: timeToWire(s.End), Status: uint32(s.Status), Error: s.Error, Scope: s.Scope,
		Attributes: s.Attributes, Resource: s.Resource,
	}
	for i := range s.Events {
		e := &s.Events[i]
		p.Events = append(p.Events, &SpanEvent{Name: e.Name, Timestamp: timeToWire(e.Timestamp), Attributes: e.Attributes})
	}
	for i := range s.Links {
		l := &s.Links[i]
		p.Links = append(p.Links, &SpanLink{Trace: string(l.Trace), Span: string(l.Span), Attributes: l.Attributes})
	}
	return p
}

func spanFromWire(p *Span) (telemetry.Span, error) {
	s := telemetry.Span{
		Trace: telemetry.TraceID(p.GetTrace()), ID: telemetry.SpanID(p.GetId()), Parent: telemetry.SpanID(p.GetParent()), Name: p.GetName(),
		Start: timeFromWire(p.GetStart()), End: timeFromWire(p.GetEnd()), Error: p.GetError(), Scope: p.GetScope(),
		Attributes: bytesOrNil(p.GetAttributes()), Resource: bytesOrNil(p.GetResource()),
	}
	if p.GetKind() > uint32(telemetry.SpanConsumer) || p.GetStatus() > uint32(telemetry.SpanError) {
		return s, fmt.Errorf("unknown kind %d or status %d", p.GetKind(), p.GetStatus())
	}
	s.Kind, s.Status = telemetry.SpanKind(p.GetKind()), telemetry.SpanStatus(p.GetStatus()) //nolint:gosec // checked above
	var err error
	if s.Origin, err = originFromWire(p.GetOrigin()); err != nil {
		return s, err
	}
	if err := checkSpan(&s, p); err != nil {
		return s, err
	}
	for _, e := range p.GetEvents() {
		s.Events = append(s.Events, telemetry.SpanEvent{Name: e.GetName(), Timestamp: timeFromWire(e.GetTimestamp()), Attributes: bytesOrNil(e.GetAttributes())})
		if err := errors.Join(checkLongText("event", e.GetName(), telemetry.MaxSpanName), checkObject("event's attributes", e.GetAttributes())); err != nil {
			return s, err
		}
	}
	for _, l := range p.GetLinks() {
		s.Links = append(s.Links, telemetry.SpanLink{Trace: telemetry.TraceID(l.GetTrace()), Span: telemetry.SpanID(l.GetSpan()), Attributes: bytesOrNil(l.GetAttributes())})
		if err := errors.Join(checkOptionalID("link's trace", l.GetTrace()), checkOptionalID("link's span", l.GetSpan()), checkObject("link's attributes", l.GetAttributes())); err != nil {
			return s, err
		}
	}
	return s, nil
}

func checkSpan(s *telemetry.Span, p *Span) error {
	if err := telemetry.CheckID(p.GetTrace()); err != nil {
		return fmt.Errorf("trace id %w", err)
	}
	if err := telemetry.CheckID(p.GetId()); err != nil {
		return fmt.Errorf("span id %w", err)
	}
	switch {
	case s.Start.IsZero():
		return errors.New("without a start")
	case len(p.GetEvents()) > telemetry.MaxSpanEvents || len(p.GetLinks()) > telemetry.MaxSpanLinks:
		return fmt.Errorf("%d events and %d links: at most %d and %d are taken", len(p.GetEvents()), len(p.GetLinks()), telemetry.MaxSpanEvents, telemetry.MaxSpanLinks)
	}
	return errors.Join(
		checkOptionalID("parent", p.GetParent()), checkLongText("name", s.Name, telemetry.MaxSpanName), checkText("scope", s.Scope),
		checkLongText("error", s.Error, maxError), checkObject("attributes", s.Attributes), checkObject("resource", s.Resource),
	)
}

func checkObject(name string, b []byte) error {
	if err := telemetry.CheckObject(b, telemetry.MaxSpanAttributes); err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	return nil
}

func metricToWire(m *telemetry.MetricPoint) *MetricPoint {
	p := &MetricPoint{
		Name: m.Name, Unit: m.Unit, Kind: uint32(m.Kind), Timestamp: timeToWire(m.Timestamp), Start: timeToWire(m.Start),
		Origin: originToWire(&m.Origin), Value: m.Value, Attributes: m.Attributes,
	}
	if h := m.Histogram; h != nil {
		p.Histogram = &Histogram{Count: h.Count, Min: h.Min, Max: h.Max, Bounds: h.Bounds, Counts: h.Counts}
		if e := h.Exponential; e != nil {
			p.Histogram.Exponential = &Exponential{
				Scale: e.Scale, ZeroCount: e.ZeroCount, ZeroThreshold: e.ZeroThreshold, PositiveOffset: e.PositiveOffset, Positive: e.Positive,
				NegativeOffset: e.NegativeOffset, Negative: e.Negative,
			}
		}
	}
	return p
}

func metricFromWire(p *MetricPoint) (telemetry.MetricPoint, error) {
	m := telemetry.MetricPoint{
		Name: p.GetName(), Unit: p.GetUnit(), Timestamp: timeFromWire(p.GetTimestamp()), Start: timeFromWire(p.GetStart()),
		Value: p.GetValue(), Attributes: p.GetAttributes(),
	}
	if p.GetKind() > uint32(telemetry.CumulativeDistribution) {
		return m, fmt.Errorf("unknown kind %d", p.GetKind())
	}
	m.Kind = telemetry.MetricKind(p.GetKind()) //nolint:gosec // checked above
	var err error
	if m.Origin, err = originFromWire(p.GetOrigin()); err != nil {
		return m, err
	}
	switch {
	case m.Name == "":
		return m, errors.New("without a name")
	case m.Timestamp.IsZero():
		return m, errors.New("without a time")
	case !finite(m.Value):
		return m, errors.New("value is not a number")
	}
	if m.Histogram, err = histogramFromWire(p.GetHistogram()); err != nil {
		return m, err
	}
	return m, errors.Join(checkLongText("name", m.Name, telemetry.MaxMetricName), checkText("unit", m.Unit), checkAttributes(m.Attributes))
}

func histogramFromWire(p *Histogram) (*telemetry.Histogram, error) {
	if p == nil {
		return nil, nil //nolint:nilnil // gauges and counters have none
	}
	h := &telemetry.Histogram{Count: p.GetCount(), Min: p.Min, Max: p.Max, Bounds: p.GetBounds(), Counts: p.GetCounts()}
	if len(h.Counts) > telemetry.MaxMetricBuckets || len(h.Counts) > 0 && len(h.Counts) != len(h.Bounds)+1 || len(h.Counts) == 0 && len(h.Bounds) > 0 {
		return h, fmt.Errorf("%d bounds and %d buckets", len(h.Bounds), len(h.Counts))
	}
	for i, b := range h.Bounds {
		if !finite(b) || i > 0 && b <= h.Bounds[i-1] {
			return h, errors.New("bounds that do not rise, or are no numbers")
		}
	}
	if h.Min != nil && !finite(*h.Min) || h.Max != nil && !finite(*h.Max) {
		return h, errors.New("smallest or largest value is not a number")
	}
	if e := p.GetExponential(); e != nil {
		h.Exponential = &telemetry.Exponential{
			Scale: e.GetScale(), ZeroCount: e.GetZeroCount(), ZeroThreshold: e.GetZeroThreshold(), PositiveOffset: e.GetPositiveOffset(), Positive: e.GetPositive(),
			NegativeOffset: e.GetNegativeOffset(), Negative: e.GetNegative(),
		}
		if len(e.GetPositive()) > telemetry.MaxMetricBuckets || len(e.GetNegative()) > telemetry.MaxMetricBuckets || !finite(e.GetZeroThreshold()) {
			return h, fmt.Errorf("%d and %d exponential buckets", len(e.GetPositive()), len(e.GetNegative()))
		}
	}
	return h, nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
