package telemetry

import "time"

// MetricKind says what the value of a metric point means.
type MetricKind uint8

// The kinds. The numbers are stored and sent: never renumber.
const (
	Gauge        MetricKind = iota // Value at Timestamp
	Delta                          // Value was added between Start and Timestamp
	Cumulative                     // Value was added between Start, the counter's beginning, and Timestamp
	Distribution                   // Values were observed between Start and Timestamp: see Histogram
	CumulativeDistribution
)

var metricKinds = words[MetricKind]{kind: "metric kind", names: []string{"gauge", "delta", "cumulative", "distribution", "cumulative_distribution"}}

func (k MetricKind) String() string                { return metricKinds.name(k) }
func (k MetricKind) MarshalText() ([]byte, error)  { return metricKinds.marshal(k) }
func (k *MetricKind) UnmarshalText(b []byte) error { return metricKinds.unmarshal(b, k) }

// Largest parts of a metric point.
const (
	MaxMetricName       = 256 // bytes
	MaxMetricAttributes = 32
	MaxMetricBuckets    = 512
)

// Names of the metrics that agentd measures itself, for each sandbox.
const (
	MetricCPUTime       = "sandbox.cpu.time"        // s, cumulative
	MetricCPUThrottled  = "sandbox.cpu.throttled"   // s, cumulative
	MetricMemoryUsage   = "sandbox.memory.usage"    // By, gauge: without the page cache
	MetricMemoryLimit   = "sandbox.memory.limit"    // By, gauge; absent: none
	MetricMemoryPeak    = "sandbox.memory.peak"     // By, gauge
	MetricNetworkRx     = "sandbox.network.receive" // By, cumulative
	MetricNetworkTx     = "sandbox.network.transmit"
	MetricDiskRead      = "sandbox.disk.read" // By, cumulative
	MetricDiskWrite     = "sandbox.disk.write"
	MetricPIDs          = "sandbox.pids"    // processes and threads, gauge
	MetricCanaryLag     = "node.canary.lag" // s, gauge: a line of agentd's own, from written to acknowledged
	MetricNodeClockSkew = "node.clock.skew" // s, gauge: node minus aggregator
)

// MetricPoint is one value of one metric.
type MetricPoint struct {
	Name      string     `json:"name"`
	Unit      string     `json:"unit,omitempty"` // UCUM, such as By, s, 1
	Kind      MetricKind `json:"kind"`
	Timestamp time.Time  `json:"timestamp"`
	Start     time.Time  `json:"startTime,omitzero"`
	Origin               // Stream is NoStream
	// Value of a gauge or counter; the sum of a distribution.
	Value      float64           `json:"value"`
	Histogram  *Histogram        `json:"histogram,omitempty"` // of a distribution
	Attributes map[string]string `json:"attributes,omitempty"`
	Node       NodeID            `json:"nodeId,omitempty"` // set by the aggregator
}

// Histogram counts observed values by buckets. Either Bounds are given (the
// upper bounds of all buckets but the last, rising), or Exponential is.
type Histogram struct {
	Count       uint64       `json:"count"`
	Min         *float64     `json:"min,omitempty"`
	Max         *float64     `json:"max,omitempty"`
	Bounds      []float64    `json:"bounds,omitempty"`
	Counts      []uint64     `json:"counts,omitempty"` // one more than Bounds
	Exponential *Exponential `json:"exponential,omitempty"`
}

// Exponential holds OpenTelemetry's exponential buckets: bucket i of Positive
// counts values in (base^(offset+i), base^(offset+i+1)] with base 2^(2^-Scale).
type Exponential struct {
	Scale          int32    `json:"scale"`
	ZeroCount      uint64   `json:"zeroCount,omitempty"`
	ZeroThreshold  float64  `json:"zeroThreshold,omitempty"`
	PositiveOffset int32    `json:"positiveOffset,omitempty"`
	Positive       []uint64 `json:"positive,omitempty"`
	NegativeOffset int32    `json:"negativeOffset,omitempty"`
	Negative       []uint64 `json:"negative,omitempty"`
}
