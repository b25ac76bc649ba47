package otlp

import (
	"fmt"
	"strings"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// Limits of what is taken from one request. Parts beyond a limit are dropped
// and counted, the rest of their record is kept.
const (
	MaxBody       = 8 << 20  // bytes, decompressed: receivers refuse more
	MaxRecords    = 10_000   // log entries, spans or metric points
	MaxAttributes = 128      // of one span, span event, link, log entry or resource, and members of a map
	MaxElements   = 1024     // of an array
	MaxKey        = 256      // bytes
	MaxValue      = 32 << 10 // bytes: texts are cut, lists and maps are dropped
	MaxDepth      = 31       // of lists and maps in each other: 32 with the object of all attributes
	MaxResource   = 4 << 10  // bytes of a resource's JSON, which every span repeats
	MaxEvents     = 64 << 10 // bytes of the attributes of one span's events and links
	MaxBytes      = 24 << 20 // Result.Bytes

	maxMetricKey   = 64 // bytes
	maxMetricValue = 256
	maxUnit        = 63
	maxWord        = 256  // bytes of names of events and scopes
	maxStatus      = 4096 // bytes of the message of a span's status
)

// Signal is what a request carries.
type Signal uint8

// The signals.
const (
	Logs Signal = iota
	Traces
	Metrics
)

func (s Signal) String() string { return [...]string{"logs", "traces", "metrics"}[s] }

// Format is how a request or an answer is encoded.
type Format uint8

// The formats.
const (
	Protobuf Format = iota
	JSON
)

// Reason says why a record was refused or a part of it dropped.
type Reason string

// Reasons for which whole records are refused.
const (
	ForeignClaim  Reason = "foreign_claim"  // Options.Bind refused the resource
	TooMany       Reason = "too_many"       // more than MaxRecords, or than MaxBytes
	NoID          Reason = "no_id"          // a span without trace id or span id
	NoName        Reason = "no_name"        // a metric without a name, or with a longer one than is taken
	NotFinite     Reason = "not_finite"     // NaN or infinite
	NoTemporality Reason = "no_temporality" // neither delta nor cumulative
	BadBuckets    Reason = "bad_buckets"    // they contradict each other, or are too many
	NoData        Reason = "no_data"        // a metric of no known kind, a point without a value
)

// Reasons for which parts of records are dropped or changed.
const (
	Content        Reason = "content"         // content of model messages, which is off
	Attributes     Reason = "attributes"      // more than are taken, without a name or with too long a one
	AttributeBytes Reason = "attribute_bytes" // more than fit into their record
	Duplicate      Reason = "duplicate"       // of one name: the first counts
	CutText        Reason = "cut_text"        // a text was cut
	CutValue       Reason = "cut_value"       // a list or map too long or too deep lost the part beyond
	SpanEvents     Reason = "span_events"     // more than are taken
	SpanLinks      Reason = "span_links"      // more than are taken, or without ids
	BadID          Reason = "bad_id"          // of a log entry or parent
	BadTime        Reason = "bad_time"        // missing, impossible or before its start
	NoRecorded     Reason = "no_recorded"     // points whose flags say that they hold no value
	Downscaled     Reason = "merged_buckets"  // more than are taken, merged into wider ones
	DroppedBuckets Reason = "dropped_buckets" // more than are taken: count and sum were kept
	Quantiles      Reason = "quantiles"       // of a summary: more than are taken, or not finite
	NameCut        Reason = "name_cut"        // of a span or event
)

// Claim is what a resource says of itself.
type Claim struct {
	Agent   telemetry.AgentID
	Session telemetry.SessionID
	User    telemetry.UserID
}

// Options say how a request is taken.
type Options struct {
	// Bind decides whose a resource's records are. What it refuses is refused as a
	// whole; the error's text, a plain sentence, goes into the answer.
	Bind func(Claim) (telemetry.Origin, error)
	// Content keeps the content of model messages.
	Content bool
	// ContentNames are further attributes to take as such content; a name that
	// ends with * stands for all that begin so.
	ContentNames []string
	// Received stands in for missing times.
	Received time.Time
}

// Result is what a request held.
type Result struct {
	Signal  Signal
	Entries []telemetry.LogEntry
	Spans   []telemetry.Span
	Metrics []telemetry.MetricPoint
	// Bytes is about what the records weigh, for quotas: a resource counts with
	// every span.
	Bytes int
	// Refused counts records (of metrics: points) that are not among the above.
	Refused map[Reason]int
	// Dropped counts parts of records.
	Dropped map[Reason]int

	why string // of the first refused claim
}

// Decode reads the body of an export request. The result shares no memory with
// it. The error says that the body is no such message; it is for the sender,
// who must not send the same again.
func Decode(s Signal, f Format, body []byte, o Options) (*Result, error) {
	if len(body) > MaxBody {
		return nil, fmt.Errorf("the request has %d bytes: at most %d are taken", len(body), MaxBody)
	}
	d := &decoder{
		Options: o, reader: reader{json: f == JSON, data: body},
		res: &Result{Signal: s, Refused: map[Reason]int{}, Dropped: map[Reason]int{}},
	}
	root := node{r: &d.reader, b: body}
	switch s {
	case Logs:
		d.request(root, &logsShape)
	case Traces:
		d.request(root, &tracesShape)
	case Metrics:
		d.request(root, &metricsShape)
	}
	if d.json && d.err == nil && d.next() != 0 {
		d.fail("JSON at byte %d: something follows the request", d.pos)
	}
	if d.err != nil {
		return nil, fmt.Errorf("not a request of OTLP %s: %w", s, d.err)
	}
	return d.res, nil
}

// Records is how many records were taken.
func (r *Result) Records() int { return len(r.Entries) + len(r.Spans) + len(r.Metrics) }

// RefusedRecords is how many records were refused.
func (r *Result) RefusedRecords() int {
	n := 0
	for _, of := range r.Refused {
		n += of
	}
	return n
}

// decoder is one walk through a request.
type decoder struct {
	reader
	Options
	res   *Result
	seen  int // records
	scope scope
	own   attributes // of the record being read
	part  attributes // of its event or link
}

// scope is what the records of one scope of one resource share.
type scope struct {
	origin   telemetry.Origin
	service  string
	name     string
	resource []byte // JSON object, or nil
}

// shape is where the three requests differ.
type shape struct {
	request, resource, scope *schema
	record                   func(*decoder, node)
	count                    func(node) int // of records in a refused one; nil: 1
}

var (
	logsShape    = shape{logsRequest, resourceLogs, scopeLogs, (*decoder).log, nil}
	tracesShape  = shape{tracesRequest, resourceSpans, scopeSpans, (*decoder).span, nil}
	metricsShape = shape{metricsRequest, resourceMetrics, scopeMetrics, (*decoder).metric, countPoints}
)

// request walks over all records. What a resource or scope says of itself is
// looked up before its records, because fields may come in any order.
func (d *decoder) request(root node, s *shape) {
	for c := root.walk(s.request); c.next(); {
		refused, origin, attributes := d.resource(c.node, s)
		for c := c.walk(s.resource); c.next(); {
			if c.number != 2 {
				continue
			}
			if refused {
				d.refuseAll(c.node, s)
				continue
			}
			d.enter(c.node, s, origin, attributes)
			for c := c.walk(s.scope); c.next(); {
				if c.number == 2 {
					s.record(d, c.node)
				}
			}
		}
	}
}

// resource reads what a group says of its emitter, and asks whose it is.
func (d *decoder) resource(group node, s *shape) (refused bool, origin telemetry.Origin, a attributes) {
	if n, ok := group.find(s.resource, 1); ok {
		for c := n.walk(resourceMessage); c.next(); {
			switch c.number {
			case 1:
				d.attribute(&a, c.node)
			case 2:
				a.lost(c.uint())
			}
		}
	}
	origin, err := d.Bind(Claim{
		Agent: telemetry.AgentID(a.text("theazo.agent.id")), Session: telemetry.SessionID(a.text("theazo.session.id")),
		User: telemetry.UserID(a.text("user.id")),
	})
	if err != nil && d.res.why == "" {
		d.res.why, _ = cut(clean(err.Error()), 512)
	}
	origin.Stream = telemetry.NoStream
	return err != nil, origin, a
}

// enter reads what a scope says of itself.
func (d *decoder) enter(inner node, s *shape, origin telemetry.Origin, resource attributes) {
	version := ""
	d.scope = scope{origin: origin}
	d.scope.service, _ = cut(resource.text("service.name"), maxMetricValue)
	if n, ok := inner.find(s.scope, 1); ok {
		for c := n.walk(scopeMessage); c.next(); {
			switch c.number {
			case 1:
				d.scope.name = d.short(c.text(), maxWord)
			case 2:
				version = d.short(c.text(), maxWord)
			}
		}
	}
	if d.res.Signal != Traces {
		return
	}
	resource = resource.clone() // the next scope adds its own
	resource.set("otel.scope.version", version)
	d.scope.resource = d.object(&resource, MaxResource)
}

// refuseAll counts the records of a scope whose resource was refused.
func (d *decoder) refuseAll(inner node, s *shape) {
	for c := inner.walk(s.scope); c.next(); {
		switch {
		case c.number != 2:
		case s.count == nil:
			d.res.Refused[ForeignClaim]++
		default:
			d.res.Refused[ForeignClaim] += s.count(c.node)
		}
	}
}

// room reports whether one more record is taken. What one record can hold is
// bounded, so that all of them are by a look at what came before.
func (d *decoder) room() bool {
	if d.seen >= MaxRecords || d.res.Bytes >= MaxBytes {
		d.res.Refused[TooMany]++
		return false
	}
	d.seen++
	return true
}

// short is a clean text of at most that many bytes.
func (d *decoder) short(s string, most int) string {
	s, shorter := cut(clean(s), most)
	if shorter {
		d.res.Dropped[CutText]++
	}
	return s
}

// Earliest and latest nanoseconds that are taken for a time: 2000 to 2200.
const (
	minTime = 946_684_800_000_000_000
	maxTime = 7_258_118_400_000_000_000
)

// time reads nanoseconds since 1970; ok is false for none and for impossible ones.
func (d *decoder) time(nanos uint64) (t time.Time, ok bool) {
	if nanos < minTime || nanos > maxTime {
		if nanos != 0 {
			d.res.Dropped[BadTime]++
		}
		return time.Time{}, false
	}
	return time.UnixMicro(int64(nanos / 1000)).UTC(), true
}

const hexDigits = "0123456789abcdef"

// id writes an id of that many bytes; an id of zeroes is none.
func id(prefix string, b []byte, size int) (string, bool) {
	if len(b) != size {
		return "", false
	}
	var text strings.Builder
	text.Grow(len(prefix) + 2*size)
	text.WriteString(prefix)
	zero := byte(0)
	for _, c := range b {
		zero |= c
		text.WriteByte(hexDigits[c>>4])
		text.WriteByte(hexDigits[c&15])
	}
	return text.String(), zero != 0
}

func traceID(b []byte) (telemetry.TraceID, bool) {
	s, ok := id("trc_", b, 16)
	return telemetry.TraceID(s), ok
}

func spanID(b []byte) (telemetry.SpanID, bool) {
	s, ok := id("spn_", b, 8)
	return telemetry.SpanID(s), ok
}
