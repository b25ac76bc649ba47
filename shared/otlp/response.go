package otlp

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/theazo/observability/shared/telemetry"
)

// Names of what was refused, in the JSON of an answer.
var rejectedNames = [...]string{Logs: "rejectedLogRecords", Traces: "rejectedSpans", Metrics: "rejectedDataPoints"}

var recordNames = [...]string{Logs: "log records", Traces: "spans", Metrics: "data points"}

// What a sender reads of each reason.
var refusals = map[Reason]string{
	TooMany:       fmt.Sprintf("are more than %d in one request, or more than fit", MaxRecords),
	NoID:          "have no trace id or no span id",
	NoName:        fmt.Sprintf("have no name, or one longer than %d bytes", telemetry.MaxMetricName),
	NotFinite:     "are not finite",
	NoTemporality: "are neither delta nor cumulative",
	BadBuckets:    "have buckets that contradict each other, or too many",
	NoData:        "hold no value",
}

// Message says in one sentence what was refused; empty where nothing was.
func (r *Result) Message() string {
	total := r.RefusedRecords()
	if total == 0 {
		return ""
	}
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(r.Refused)) {
		said := refusals[why]
		if why == ForeignClaim {
			said = r.why
		}
		parts = append(parts, strconv.Itoa(r.Refused[why])+" "+said)
	}
	return fmt.Sprintf("%d %s were refused: %s", total, recordNames[r.Signal], strings.Join(parts, "; "))
}

// Response is the body of the answer to an export request, with its partial
// success where records were refused.
func (r *Result) Response(f Format) []byte {
	refused := r.RefusedRecords()
	if f == JSON {
		if refused == 0 {
			return []byte(`{}`)
		}
		b := append([]byte(`{"partialSuccess":{"`), rejectedNames[r.Signal]...)
		b = append(b, `":"`...)
		b = strconv.AppendInt(b, int64(refused), 10)
		b = append(b, `","errorMessage":`...)
		return append(telemetry.AppendString(b, r.Message()), `}}`...)
	}
	if refused == 0 {
		return nil
	}
	var partial []byte
	partial = protowire.AppendTag(partial, 1, protowire.VarintType)
	partial = protowire.AppendVarint(partial, uint64(refused)) //nolint:gosec // a count
	partial = protowire.AppendTag(partial, 2, protowire.BytesType)
	partial = protowire.AppendString(partial, r.Message())
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial)
}

// Status is the body of an answer that refuses a request: a google.rpc.Status
// with one of gRPC's codes.
func Status(f Format, code uint32, message string) []byte {
	message = clean(message)
	if f == JSON {
		b, _ := json.Marshal(struct {
			Code    uint32 `json:"code"`
			Message string `json:"message"`
		}{code, message}) // cannot fail
		return b
	}
	var b []byte
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(code))
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendString(b, message)
}
