package intake

import (
	"math"
	"slices"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// Limits of records, as receivers check them.
const (
	maxText       = 1024 // bytes of a reason, detail, attribute or name
	maxAttributes = 32
	maxError      = 8 << 10   // bytes of a span's error message
	maxSpan       = 512 << 10 // bytes of a span with its events and links
	maxObject     = min(telemetry.MaxMetadata, telemetry.MaxSpanAttributes)
	recordBytes   = 64 // what a record takes beside its texts, about
)

// takeRecords adds a batch's records of the events lane.
func (in *Intake) takeRecords(s *scoped, origin telemetry.Origin, r *telemetry.Records, done *marks) {
	for i := range r.Events {
		in.takeEvent(s, origin, r.Events[i], done)
	}
	for i := range r.Spans {
		in.takeSpan(s, origin, r.Spans[i], done)
	}
	for i := range r.ModelCalls {
		in.takeModelCall(s, origin, r.ModelCalls[i], done)
	}
	for i := range r.Metrics {
		in.takeMetric(s, origin, r.Metrics[i], done)
	}
	for i := range r.Gaps {
		in.takeGap(s, origin, r.Gaps[i], done)
	}
}

// recordOrigin is the origin of a record: its own, or the batch's where it
// names no agent.
func (in *Intake) recordOrigin(of *telemetry.Origin, batch telemetry.Origin, from telemetry.LogSource, done *marks) telemetry.Origin {
	o := batch
	if of.Agent != "" {
		o = in.checkOrigin(*of, true, done)
	}
	o.Stream, o.Source = telemetry.NoStream, from
	return o
}

func (in *Intake) takeEvent(s *scoped, origin telemetry.Origin, e telemetry.Event, done *marks) {
	if telemetry.CheckID(string(e.Type)) != nil {
		in.metrics.dropped.WithLabelValues("bad_event").Inc()
		return
	}
	from := telemetry.SourceProvider
	if e.Type == telemetry.AgentProgress || e.Type == telemetry.AgentComplete {
		from = telemetry.SourceAgent
	}
	e.Origin, e.Node = in.recordOrigin(&e.Origin, origin, from, done), ""
	e.Timestamp = timeOrNow(e.Timestamp, done)
	e.Reason = in.text(e.Reason, maxText, done)
	size := recordBytes + originBytes(&e.Origin) + len(e.Type) + len(e.Reason)
	var n int
	e.Attributes, n = in.attributes(e.Attributes, done)
	size += n
	e.Content = in.object(e.Content, done)
	size += len(e.Content)
	if e.LastWords != nil {
		e.LastWords = in.lastWords(e.LastWords, done)
		size += recordBytes + len(e.LastWords.Stdout) + len(e.LastWords.Stderr)
	}
	if in.hits.total > 0 {
		e.Attributes = in.flaggedAttributes(e.Attributes, done)
		size += recordBytes
	}
	r := s.recordsOf(telemetry.Important, size)
	r.Events = append(r.Events, e)
	in.metrics.events.Inc()
}

func (in *Intake) lastWords(w *telemetry.LastWords, done *marks) *telemetry.LastWords {
	c := *w
	c.Signal, c.ImageDigest = in.text(w.Signal, maxText, done), in.text(w.ImageDigest, maxText, done)
	c.Duration, c.CPUTime, c.MemoryPeak = max(w.Duration, 0), max(w.CPUTime, 0), max(w.MemoryPeak, 0)
	c.Stdout, c.StdoutOmitted = in.tail(w.Stdout, w.StdoutOmitted, done)
	c.Stderr, c.StderrOmitted = in.tail(w.Stderr, w.StderrOmitted, done)
	return &c
}

// tail cleans the end of a stream. What is too much goes at its beginning, and
// before anything is taken out: a secret must not be cut into one that nobody
// knows.
func (in *Intake) tail(s string, omitted int64, done *marks) (string, int64) {
	clean := in.longText(s, 4*telemetry.MaxTail, true, done)
	for len(clean) > telemetry.MaxTail {
		cut := len(clean) - telemetry.MaxTail
		for cut < len(clean) && clean[cut]&0xC0 == 0x80 {
			cut++
		}
		omitted += int64(cut)
		clean = clean[cut:]
	}
	return clean, max(omitted, 0)
}

func (in *Intake) takeSpan(s *scoped, origin telemetry.Origin, p telemetry.Span, done *marks) {
	if telemetry.CheckID(string(p.Trace)) != nil || telemetry.CheckID(string(p.ID)) != nil {
		in.metrics.dropped.WithLabelValues("bad_span").Inc()
		return
	}
	if p.Parent != "" && telemetry.CheckID(string(p.Parent)) != nil {
		p.Parent = ""
		done[markBadID]++
	}
	if p.Kind > telemetry.SpanConsumer {
		p.Kind = telemetry.SpanInternal
	}
	if p.Status > telemetry.SpanError {
		p.Status = telemetry.SpanUnset
	}
	from := min(p.Source, telemetry.SourceModel)
	p.Origin, p.Node = in.recordOrigin(&p.Origin, origin, from, done), ""
	p.Start, p.End = timeOrNow(p.Start, done), microseconds(p.End)
	p.Name, p.Scope = in.text(p.Name, telemetry.MaxSpanName, done), in.text(p.Scope, maxText, done)
	p.Error = in.text(p.Error, maxError, done)
	p.Attributes = in.object(p.Attributes, done)
	p.Resource = in.object(p.Resource, done)
	size := recordBytes + originBytes(&p.Origin) + len(p.Trace) + len(p.ID) + len(p.Parent) +
		len(p.Name) + len(p.Scope) + len(p.Error) + len(p.Attributes) + len(p.Resource)
	p.Events, size = in.spanEvents(p.Events, p.Start, size, done)
	p.Links, size = in.spanLinks(p.Links, size, done)
	p.Attributes = in.flagged(p.Attributes, done)
	r := s.recordsOf(telemetry.Important, size)
	r.Spans = append(r.Spans, p)
	in.metrics.spans.Inc()
}

func (in *Intake) spanEvents(events []telemetry.SpanEvent, start time.Time, size int, done *marks) ([]telemetry.SpanEvent, int) {
	if len(events) == 0 {
		return nil, size
	}
	kept := make([]telemetry.SpanEvent, 0, min(len(events), telemetry.MaxSpanEvents))
	for _, e := range events {
		e.Name = in.text(e.Name, telemetry.MaxSpanName, done)
		e.Attributes = in.object(e.Attributes, done)
		if e.Timestamp = microseconds(e.Timestamp); e.Timestamp.IsZero() {
			e.Timestamp = start
		}
		n := recordBytes/2 + len(e.Name) + len(e.Attributes)
		if len(kept) == telemetry.MaxSpanEvents || size+n > maxSpan {
			done[markTruncated]++
			break
		}
		kept, size = append(kept, e), size+n
	}
	return kept, size
}

func (in *Intake) spanLinks(links []telemetry.SpanLink, size int, done *marks) ([]telemetry.SpanLink, int) {
	if len(links) == 0 {
		return nil, size
	}
	kept := make([]telemetry.SpanLink, 0, min(len(links), telemetry.MaxSpanLinks))
	for _, l := range links {
		if telemetry.CheckID(string(l.Trace)) != nil || telemetry.CheckID(string(l.Span)) != nil {
			done[markBadID]++
			continue
		}
		l.Attributes = in.object(l.Attributes, done)
		n := len(l.Trace) + len(l.Span) + len(l.Attributes) + 8
		if len(kept) == telemetry.MaxSpanLinks || size+n > maxSpan {
			done[markTruncated]++
			break
		}
		kept, size = append(kept, l), size+n
	}
	return kept, size
}

func (in *Intake) takeModelCall(s *scoped, origin telemetry.Origin, c telemetry.ModelCall, done *marks) {
	c.Origin, c.Node = in.recordOrigin(&c.Origin, origin, telemetry.SourceModel, done), ""
	c.Timestamp = timeOrNow(c.Timestamp, done)
	c.Model, c.Vendor = in.text(c.Model, maxText, done), in.text(c.Vendor, maxText, done)
	if c.Trace != "" && telemetry.CheckID(string(c.Trace)) != nil {
		c.Trace = ""
		done[markBadID]++
	}
	if c.Span != "" && telemetry.CheckID(string(c.Span)) != nil {
		c.Span = ""
		done[markBadID]++
	}
	for _, n := range []*int64{&c.InputTokens, &c.OutputTokens, &c.CacheReadTokens, &c.CacheWriteTokens} {
		if *n < 0 {
			*n = 0
			done[markBadValue]++
		}
	}
	if c.Cost != nil {
		cost := *c.Cost
		if c.Cost = &cost; !isCurrency(cost.Currency) {
			c.Cost = nil
			done[markBadValue]++
		}
	}
	c.Metadata = in.flagged(in.object(c.Metadata, done), done)
	size := recordBytes + originBytes(&c.Origin) + len(c.Model) + len(c.Vendor) + len(c.Trace) + len(c.Span) + len(c.Metadata)
	r := s.recordsOf(telemetry.Important, size)
	r.ModelCalls = append(r.ModelCalls, c)
	in.metrics.modelCalls.Inc()
}

func isCurrency(s string) bool {
	if len(s) != 3 {
		return false
	}
	for i := range 3 {
		if s[i] < 'a' || s[i] > 'z' {
			return false
		}
	}
	return true
}

func (in *Intake) takeMetric(s *scoped, origin telemetry.Origin, m telemetry.MetricPoint, done *marks) {
	h, good := histogram(m.Histogram)
	if m.Name == "" || m.Kind > telemetry.CumulativeDistribution || !finite(m.Value) || !good {
		in.metrics.dropped.WithLabelValues("bad_metric").Inc()
		return
	}
	from := min(m.Source, telemetry.SourceModel)
	m.Histogram, m.Node = h, ""
	m.Origin = in.recordOrigin(&m.Origin, origin, from, done)
	m.Timestamp, m.Start = timeOrNow(m.Timestamp, done), microseconds(m.Start)
	m.Name, m.Unit = in.text(m.Name, telemetry.MaxMetricName, done), in.text(m.Unit, maxText, done)
	var n int
	m.Attributes, n = in.attributes(m.Attributes, done)
	if in.hits.total > 0 { // no note in the attributes: those are the series
		done[markRedacted]++
		in.hits.reset()
	}
	size := recordBytes + originBytes(&m.Origin) + len(m.Name) + len(m.Unit) + n
	if h != nil {
		size += 8 * (len(h.Bounds) + len(h.Counts) + 6)
		if e := h.Exponential; e != nil {
			size += 8 * (len(e.Positive) + len(e.Negative) + 6)
		}
	}
	r := s.recordsOf(telemetry.Normal, size)
	r.Metrics = append(r.Metrics, m)
	in.metrics.points.Inc()
}

// histogram returns a copy of h that receivers take, or good false.
func histogram(h *telemetry.Histogram) (*telemetry.Histogram, bool) {
	if h == nil {
		return nil, true
	}
	c := *h
	c.Bounds, c.Counts = slices.Clone(h.Bounds), slices.Clone(h.Counts)
	switch {
	case len(c.Counts) > telemetry.MaxMetricBuckets,
		len(c.Counts) > 0 && len(c.Counts) != len(c.Bounds)+1,
		len(c.Counts) == 0 && len(c.Bounds) > 0,
		c.Min != nil && !finite(*c.Min), c.Max != nil && !finite(*c.Max):
		return nil, false
	}
	for i, b := range c.Bounds {
		if !finite(b) || i > 0 && b <= c.Bounds[i-1] {
			return nil, false
		}
	}
	if h.Exponential != nil {
		e := *h.Exponential
		e.Positive, e.Negative = slices.Clone(e.Positive), slices.Clone(e.Negative)
		if len(e.Positive) > telemetry.MaxMetricBuckets || len(e.Negative) > telemetry.MaxMetricBuckets || !finite(e.ZeroThreshold) {
			return nil, false
		}
		c.Exponential = &e
	}
	return &c, true
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func (in *Intake) takeGap(s *scoped, origin telemetry.Origin, g telemetry.Gap, done *marks) {
	if telemetry.CheckID(string(g.Reason)) != nil {
		g.Reason = telemetry.GapUnreadable
	}
	if g.Agent == "" && g.Session == "" && g.Sandbox == "" {
		g.Agent, g.Session, g.Sandbox = origin.Agent, origin.Session, origin.Sandbox
	} else {
		o := in.checkOrigin(telemetry.Origin{Agent: g.Agent, Session: g.Session, Sandbox: g.Sandbox}, false, done)
		g.Agent, g.Session, g.Sandbox = o.Agent, o.Session, o.Sandbox
	}
	g.Count, g.Bytes = max(g.Count, telemetry.GapUnknownCount), max(g.Bytes, 0)
	g.Since, g.Until, g.Node = microseconds(g.Since), microseconds(g.Until), ""
	g.Detail = in.text(g.Detail, maxText, done)
	in.hits.reset()
	r := s.recordsOf(telemetry.Important, recordBytes+len(g.Agent)+len(g.Session)+len(g.Sandbox)+len(g.Detail))
	r.Gaps = append(r.Gaps, g)
	in.metrics.gaps.Inc()
}

// takeEntries adds log entries that came with their structure.
func (in *Intake) takeEntries(t *taking, origin telemetry.Origin, b *source.Batch, done *marks) {
	for i := range b.Entries {
		e := b.Entries[i]
		from, stream := min(e.Source, telemetry.SourceModel), e.Stream
		if e.Origin = in.recordOrigin(&e.Origin, origin, from, done); stream <= telemetry.Stderr {
			e.Stream = stream
		}
		e.Timestamp = timeOrNow(e.Timestamp, done)
		e.Level = min(e.Level, telemetry.Error)
		if e.Trace != "" && telemetry.CheckID(string(e.Trace)) != nil {
			e.Trace = ""
			done[markBadID]++
		}
		if e.Span != "" && telemetry.CheckID(string(e.Span)) != nil {
			e.Span = ""
			done[markBadID]++
		}
		whole := len(e.Message)
		e.Message = cutText(in.longText(e.Message, telemetry.MaxMessage+4*maxText, true, done), telemetry.MaxMessage)
		if e.Truncated = e.Truncated || whole > telemetry.MaxMessage; e.Truncated {
			done[markTruncated]++
		}
		e.Metadata = in.flagged(in.object(e.Metadata, done), done)
		in.put(t, &e, []byte(e.Message), done)
	}
}

// lineBytes is what a line takes beside its texts, so that empty lines count too.
const lineBytes = 8

func originBytes(o *telemetry.Origin) int {
	return 16 + len(o.Agent) + len(o.Session) + len(o.User) + len(o.Sandbox)
}

// checkOrigin makes an origin that every reader takes: an id that cannot be one
// is left out, and an agent without a good one gets the sandbox's own.
func (in *Intake) checkOrigin(o telemetry.Origin, needAgent bool, done *marks) telemetry.Origin {
	if o == in.parse.origin && (o.Agent != "" || !needAgent) {
		return o // as the batch before: it was good
	}
	fixed := o
	fixed.Stream = telemetry.NoStream
	if o.Provider > telemetry.E2B {
		fixed.Provider = telemetry.NoProvider
	}
	fixed.Source = min(o.Source, telemetry.SourceModel)
	if o.Session != "" && telemetry.CheckID(string(o.Session)) != nil {
		fixed.Session = ""
	}
	if o.User != "" && telemetry.CheckUser(string(o.User)) != nil {
		fixed.User = ""
	}
	if o.Sandbox != "" && telemetry.CheckID(string(o.Sandbox)) != nil {
		fixed.Sandbox = ""
	}
	if (needAgent || o.Agent != "") && telemetry.CheckID(string(o.Agent)) != nil {
		fixed.Agent = ids.AgentOf(o.Provider, o.Sandbox)
	}
	if fixed == o {
		in.parse.origin = o
		return o
	}
	if fixed.Agent != o.Agent || fixed.Session != o.Session || fixed.User != o.User || fixed.Sandbox != o.Sandbox {
		done[markBadID]++
		if in.firstWarning("id " + string(fixed.Agent)) {
			in.log.Warn("a sandbox has ids that cannot be ids; they are left out", "agent", fixed.Agent, "sandbox", fixed.Sandbox)
		}
	}
	return fixed
}

// attributes cleans a map of texts; bytes is how long they are together.
func (in *Intake) attributes(m map[string]string, done *marks) (kept map[string]string, bytes int) {
	if len(m) == 0 {
		return nil, 0
	}
	kept = make(map[string]string, min(len(m), maxAttributes))
	for _, k := range firstKeys(m) {
		key, value := in.text(k, maxText, done), in.text(m[k], maxText, done)
		kept[key] = value
		bytes += len(key) + len(value) + 4
	}
	if len(kept) < len(m) {
		done[markTruncated]++
	}
	return kept, bytes
}

// firstKeys returns the first maxAttributes keys in order.
func firstKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys[:min(len(keys), maxAttributes)]
}

// timeOrNow is the time as it is stored; now where there is none that can be.
func timeOrNow(t time.Time, done *marks) time.Time {
	if t = microseconds(t); t.IsZero() {
		done[markUntimed]++
		return microseconds(time.Now())
	}
	return t
}

// microseconds is the time as it is stored, or the zero time where no calendar
// of the receivers has it.
func microseconds(t time.Time) time.Time {
	if y := t.UTC().Year(); y < 1 || y > 9999 || t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}
