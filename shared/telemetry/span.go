package telemetry

import (
	"encoding/json"
	"time"
)

// SpanStatus is how a span ended.
type SpanStatus uint8

// The states. The numbers are stored and sent: never renumber.
const (
	SpanUnset SpanStatus = iota
	SpanOK
	SpanError
)

var spanStatuses = words[SpanStatus]{kind: "status", names: []string{"unset", "ok", "error"}}

func (s SpanStatus) String() string                { return spanStatuses.name(s) }
func (s SpanStatus) MarshalText() ([]byte, error)  { return spanStatuses.marshal(s) }
func (s *SpanStatus) UnmarshalText(b []byte) error { return spanStatuses.unmarshal(b, s) }

// SpanKind is OpenTelemetry's kind of a span.
type SpanKind uint8

// The kinds. The numbers are stored and sent: never renumber.
const (
	SpanInternal SpanKind = iota
	SpanServer
	SpanClient
	SpanProducer
	SpanConsumer
)

var spanKinds = words[SpanKind]{kind: "span kind", names: []string{"internal", "server", "client", "producer", "consumer"}}

func (k SpanKind) String() string                { return spanKinds.name(k) }
func (k SpanKind) MarshalText() ([]byte, error)  { return spanKinds.marshal(k) }
func (k *SpanKind) UnmarshalText(b []byte) error { return spanKinds.unmarshal(b, k) }

// Largest parts of a span, in bytes and in numbers. Whoever takes a span in
// drops what is beyond and counts it.
const (
	MaxSpanName       = 256
	MaxSpanAttributes = 64 << 10 // bytes of one JSON object
	MaxSpanEvents     = 128
	MaxSpanLinks      = 64
)

// Span is one step of a trace, as its emitter told it. Attributes keep the
// emitter's names and JSON types: what they mean (model, tool, tokens, cost) is
// read from them where they are stored, so that a newer reading needs no newer
// node.
type Span struct {
	Trace  TraceID    `json:"traceId"` // trc_ and 32 hex digits
	ID     SpanID     `json:"spanId"`  // spn_ and 16 hex digits
	Parent SpanID     `json:"parentSpanId,omitempty"`
	Name   string     `json:"name"`
	Kind   SpanKind   `json:"kind"`
	Origin            // Stream is NoStream
	Start  time.Time  `json:"startTime"`
	End    time.Time  `json:"endTime,omitzero"` // zero: it still runs
	Status SpanStatus `json:"status"`
	Error  string     `json:"error,omitempty"` // message of the status
	Scope  string     `json:"scope,omitempty"` // name of the instrumentation
	// Attributes and Resource are JSON objects, or nil.
	Attributes json.RawMessage `json:"attributes,omitempty"`
	Resource   json.RawMessage `json:"resource,omitempty"`
	Events     []SpanEvent     `json:"events,omitempty"`
	Links      []SpanLink      `json:"links,omitempty"`
	Node       NodeID          `json:"nodeId,omitempty"` // set by the aggregator
}

// SpanEvent is something that happened at one moment of a span.
type SpanEvent struct {
	Name       string          `json:"name"`
	Timestamp  time.Time       `json:"timestamp"`
	Attributes json.RawMessage `json:"attributes,omitempty"`
}

// SpanLink points to a span of this or another trace.
type SpanLink struct {
	Trace      TraceID         `json:"traceId"`
	Span       SpanID          `json:"spanId"`
	Attributes json.RawMessage `json:"attributes,omitempty"`
}
