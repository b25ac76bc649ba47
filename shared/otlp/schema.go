package otlp

// The parts of OpenTelemetry's protocol that are read here: numbers, names and
// kinds of opentelemetry-proto 1.11 (stable since 1.0). Fields that are not
// listed are skipped, as the protocol asks of receivers.

type kind uint8

const (
	textKind    kind = iota
	bytesKind        // base64 in JSON
	idKind           // bytes that are hexadecimal in JSON
	varintKind       // int32, int64, uint32, uint64, bool, enumerations
	zigzagKind       // sint32
	fixed64Kind      // fixed64, sfixed64
	doubleKind       // fixed64 on the wire
	messageKind
)

// field is how a field is declared.
type field struct {
	number   int
	name     string // in JSON
	kind     kind
	repeated bool
	enum     string // prefix of its words, where it is an enumeration
}

// schema is how a message is declared.
type schema struct {
	name     string
	byNumber [17]*field
	byName   map[string]*field
}

func message(name string, fields ...field) *schema {
	s := &schema{name: name, byName: make(map[string]*field, len(fields))}
	for i := range fields {
		f := &fields[i]
		s.byNumber[f.number] = f
		s.byName[f.name] = f
	}
	return s
}

func one(number int, name string, k kind) field {
	return field{number: number, name: name, kind: k}
}

func many(number int, name string, k kind) field {
	return field{number: number, name: name, kind: k, repeated: true}
}

func enum(number int, name, prefix string) field {
	return field{number: number, name: name, kind: varintKind, enum: prefix}
}

// Words of enumerations by their number, without the prefix. OTLP's JSON has
// numbers; the words are what a general protobuf library writes.
var enumWords = map[string][]string{
	"SPAN_KIND_":               {"UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"},
	"STATUS_CODE_":             {"UNSET", "OK", "ERROR"},
	"AGGREGATION_TEMPORALITY_": {"UNSPECIFIED", "DELTA", "CUMULATIVE"},
	"SEVERITY_NUMBER_": {
		"UNSPECIFIED", "TRACE", "TRACE2", "TRACE3", "TRACE4", "DEBUG", "DEBUG2", "DEBUG3", "DEBUG4", "INFO", "INFO2", "INFO3", "INFO4",
		"WARN", "WARN2", "WARN3", "WARN4", "ERROR", "ERROR2", "ERROR3", "ERROR4", "FATAL", "FATAL2", "FATAL3", "FATAL4",
	},
}

// Requests of the three signals have the same shape: resources, scopes, records.
var (
	logsRequest     = message("ExportLogsServiceRequest", many(1, "resourceLogs", messageKind))
	resourceLogs    = message("ResourceLogs", one(1, "resource", messageKind), many(2, "scopeLogs", messageKind))
	scopeLogs       = message("ScopeLogs", one(1, "scope", messageKind), many(2, "logRecords", messageKind))
	tracesRequest   = message("ExportTraceServiceRequest", many(1, "resourceSpans", messageKind))
	resourceSpans   = message("ResourceSpans", one(1, "resource", messageKind), many(2, "scopeSpans", messageKind))
	scopeSpans      = message("ScopeSpans", one(1, "scope", messageKind), many(2, "spans", messageKind))
	metricsRequest  = message("ExportMetricsServiceRequest", many(1, "resourceMetrics", messageKind))
	resourceMetrics = message("ResourceMetrics", one(1, "resource", messageKind), many(2, "scopeMetrics", messageKind))
	scopeMetrics    = message("ScopeMetrics", one(1, "scope", messageKind), many(2, "metrics", messageKind))
)

var (
	resourceMessage = message("Resource", many(1, "attributes", messageKind), one(2, "droppedAttributesCount", varintKind))
	scopeMessage    = message("InstrumentationScope", one(1, "name", textKind), one(2, "version", textKind))
	keyValue        = message("KeyValue", one(1, "key", textKind), one(2, "value", messageKind))
	anyValue        = message("AnyValue",
		one(1, "stringValue", textKind), one(2, "boolValue", varintKind), one(3, "intValue", varintKind), one(4, "doubleValue", doubleKind),
		one(5, "arrayValue", messageKind), one(6, "kvlistValue", messageKind), one(7, "bytesValue", bytesKind))
	valueList    = message("ArrayValue", many(1, "values", messageKind))
	keyValueList = message("KeyValueList", many(1, "values", messageKind))
)

var logMessage = message("LogRecord",
	one(1, "timeUnixNano", fixed64Kind), one(11, "observedTimeUnixNano", fixed64Kind),
	enum(2, "severityNumber", "SEVERITY_NUMBER_"), one(3, "severityText", textKind), one(5, "body", messageKind),
	many(6, "attributes", messageKind), one(7, "droppedAttributesCount", varintKind),
	one(9, "traceId", idKind), one(10, "spanId", idKind), one(12, "eventName", textKind))

var (
	spanMessage = message("Span",
		one(1, "traceId", idKind), one(2, "spanId", idKind), one(4, "parentSpanId", idKind), one(5, "name", textKind), enum(6, "kind", "SPAN_KIND_"),
		one(7, "startTimeUnixNano", fixed64Kind), one(8, "endTimeUnixNano", fixed64Kind),
		many(9, "attributes", messageKind), one(10, "droppedAttributesCount", varintKind),
		many(11, "events", messageKind), one(12, "droppedEventsCount", varintKind),
		many(13, "links", messageKind), one(14, "droppedLinksCount", varintKind), one(15, "status", messageKind))
	spanEvent = message("Event", one(1, "timeUnixNano", fixed64Kind), one(2, "name", textKind),
		many(3, "attributes", messageKind), one(4, "droppedAttributesCount", varintKind))
	spanLink = message("Link", one(1, "traceId", idKind), one(2, "spanId", idKind),
		many(4, "attributes", messageKind), one(5, "droppedAttributesCount", varintKind))
	spanStatus = message("Status", one(2, "message", textKind), enum(3, "code", "STATUS_CODE_"))
)

var (
	metricMessage = message("Metric", one(1, "name", textKind), one(3, "unit", textKind),
		one(5, "gauge", messageKind), one(7, "sum", messageKind), one(9, "histogram", messageKind),
		one(10, "exponentialHistogram", messageKind), one(11, "summary", messageKind))
	// metricData is Gauge, Sum, Histogram, ExponentialHistogram and Summary: each
	// has the points, and some or none of the rest.
	metricData = message("Data", many(1, "dataPoints", messageKind),
		enum(2, "aggregationTemporality", "AGGREGATION_TEMPORALITY_"), one(3, "isMonotonic", varintKind))
	numberPoint = message("NumberDataPoint", one(2, "startTimeUnixNano", fixed64Kind), one(3, "timeUnixNano", fixed64Kind),
		one(4, "asDouble", doubleKind), one(6, "asInt", fixed64Kind), many(7, "attributes", messageKind), one(8, "flags", varintKind))
	histogramPoint = message("HistogramDataPoint", one(2, "startTimeUnixNano", fixed64Kind), one(3, "timeUnixNano", fixed64Kind),
		one(4, "count", fixed64Kind), one(5, "sum", doubleKind), many(6, "bucketCounts", fixed64Kind), many(7, "explicitBounds", doubleKind),
		many(9, "attributes", messageKind), one(10, "flags", varintKind), one(11, "min", doubleKind), one(12, "max", doubleKind))
	exponentialPoint = message("ExponentialHistogramDataPoint", many(1, "attributes", messageKind),
		one(2, "startTimeUnixNano", fixed64Kind), one(3, "timeUnixNano", fixed64Kind), one(4, "count", fixed64Kind), one(5, "sum", doubleKind),
		one(6, "scale", zigzagKind), one(7, "zeroCount", fixed64Kind), one(8, "positive", messageKind), one(9, "negative", messageKind),
		one(10, "flags", varintKind), one(12, "min", doubleKind), one(13, "max", doubleKind), one(14, "zeroThreshold", doubleKind))
	bucketsMessage = message("Buckets", one(1, "offset", zigzagKind), many(2, "bucketCounts", varintKind))
	summaryPoint   = message("SummaryDataPoint", one(2, "startTimeUnixNano", fixed64Kind), one(3, "timeUnixNano", fixed64Kind),
		one(4, "count", fixed64Kind), one(5, "sum", doubleKind), many(6, "quantileValues", messageKind),
		many(7, "attributes", messageKind), one(8, "flags", varintKind))
	quantileValue = message("ValueAtQuantile", one(1, "quantile", doubleKind), one(2, "value", doubleKind))
)
