package push

import (
	"context"
	"errors"
	"fmt"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// otlp takes an export request of OpenTelemetry.
func (t *taking) otlp(ctx context.Context) (body []byte, contentType string, repeated bool, err error) {
	encoding := otlp.JSON
	contentType = "application/json"
	if t.format == protobuf {
		encoding, contentType = otlp.Protobuf, "application/x-protobuf"
	}
	result, err := otlp.Decode(t.signal, encoding, t.body, otlp.Options{Bind: bind, Content: t.Content, Received: t.received})
	if err != nil {
		return nil, "", false, &telemetry.Failure{Code: telemetry.InvalidRequest, Message: "The body is " + err.Error() + ".", Cause: err}
	}
	for i := range result.Entries {
		result.Entries[i].Message = clean(result.Entries[i].Message)
	}
	frames, err := t.lineFrames(result.Entries)
	if err != nil {
		return nil, "", false, err
	}
	frames = append(frames, t.recordFrames(result)...)
	if repeated, err = t.store(ctx, frames); err != nil {
		return nil, "", false, err
	}
	t.metrics.rejected.WithLabelValues(t.signal.String()).Add(float64(result.RefusedRecords()))
	return result.Response(encoding), contentType, repeated, nil
}

var errNoAgent = errors.New("are of a resource without theazo.agent.id: set it, for example by OTEL_RESOURCE_ATTRIBUTES=theazo.agent.id=agt_…")

// bind decides whose a resource's records are. Nobody but the key's own
// organisation can be meant, so it may name any agent.
func bind(c otlp.Claim) (telemetry.Origin, error) {
	o := telemetry.Origin{Agent: c.Agent, Session: c.Session, User: c.User, Source: telemetry.SourceAgent}
	if c.Agent == "" {
		return o, errNoAgent
	}
	if err := wire.CheckOrigin(&o); err != nil {
		return o, fmt.Errorf("are of a resource whose %w", err)
	}
	return o, nil
}

// Bounds of one frame of records.
const (
	frameRecords = 512
	frameBytes   = frame.MaxBody / 2
)

// recordFrames makes frames of spans and metric points; what a frame cannot
// hold is refused by itself.
func (t *taking) recordFrames(r *otlp.Result) []*frame.Received {
	var frames []*frame.Received
	for list := r.Spans; len(list) > 0; list = list[min(len(list), frameRecords):] {
		part := list[:min(len(list), frameRecords)]
		frames = t.appendRecords(frames, r, len(part), func(i, j int) telemetry.Records { return telemetry.Records{Spans: part[i:j]} })
	}
	for list := r.Metrics; len(list) > 0; list = list[min(len(list), frameRecords):] {
		part := list[:min(len(list), frameRecords)]
		frames = t.appendRecords(frames, r, len(part), func(i, j int) telemetry.Records { return telemetry.Records{Metrics: part[i:j]} })
	}
	return frames
}

// appendRecords encodes n records as one frame, or in halves where they are too
// large or one of them cannot be stored.
func (t *taking) appendRecords(frames []*frame.Received, r *otlp.Result, n int, part func(i, j int) telemetry.Records) []*frame.Received {
	records := part(0, n)
	body, err := wire.EncodeRecords(&records)
	if err == nil && (len(body) <= frameBytes || n == 1 && len(body) <= frame.MaxBody) {
		if _, _, err = wire.DecodeRecords(body); err == nil {
			return append(frames, t.frame(telemetry.LaneEvents, n, body))
		}
	}
	if n == 1 {
		t.Log.Debug("a record cannot be stored", "signal", t.signal.String(), "error", err)
		r.Refused[otlp.TooMany]++
		return frames
	}
	half := n / 2
	frames = t.appendRecords(frames, r, half, part)
	return t.appendRecords(frames, r, n-half, func(i, j int) telemetry.Records { return part(half+i, half+j) })
}
