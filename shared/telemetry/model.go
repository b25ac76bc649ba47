package telemetry

import (
	"encoding/json"
	"time"
)

// Money is an amount of one currency in billionths of its main unit: a call of
// a model costs less than a cent. It leaves the API in whole cents.
type Money struct {
	Nanos    int64
	Currency string // ISO 4217 in lower case, such as usd
}

// NanosPerCent is how many of Money's units are a cent.
const NanosPerCent = 10_000_000

// Cents is the amount in cents, halves rounded away from zero.
func (m Money) Cents() int64 {
	if m.Nanos < 0 {
		return (m.Nanos - NanosPerCent/2) / NanosPerCent
	}
	return (m.Nanos + NanosPerCent/2) / NanosPerCent
}

// MarshalJSON writes {"amount": cents, "currency": "usd"}.
func (m Money) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Amount   int64  `json:"amount"`
		Currency string `json:"currency"`
	}{m.Cents(), m.Currency})
}

// ModelCall is one call of a language model, told by the agent that made it.
type ModelCall struct {
	Timestamp time.Time `json:"timestamp"`
	Origin              // Stream is NoStream, Source is SourceModel
	Model     string    `json:"model"`
	Vendor    string    `json:"vendor,omitempty"` // who serves the model, where told
	Trace     TraceID   `json:"traceId,omitempty"`
	Span      SpanID    `json:"spanId,omitempty"`
	// Tokens as the model's own counting says; input includes cached ones.
	InputTokens      int64 `json:"inputTokens"`
	OutputTokens     int64 `json:"outputTokens"`
	CacheReadTokens  int64 `json:"cacheReadTokens,omitempty"`
	CacheWriteTokens int64 `json:"cacheWriteTokens,omitempty"`
	// Cost is what the agent says that the call cost; nil where it does not say.
	Cost     *Money          `json:"cost,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"` // a JSON object, or nil
	Node     NodeID          `json:"nodeId,omitempty"`   // set by the aggregator
}
