package wire

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// Limits of records in the events lane.
const (
	maxText       = 1024 // bytes of a reason, detail, attribute or name
	maxAttributes = 32
	maxError      = 8 << 10 // bytes of a span's error message
)

// EncodeRecords makes the body of a frame of the events lane, in the order of
// telemetry.Records.
func EncodeRecords(r *telemetry.Records) ([]byte, error) {
	list := make([]*Record, 0, r.Len())
	for i := range r.Events {
		list = append(list, &Record{Record: &Record_Event{Event: eventToWire(&r.Events[i])}})
	}
	for i := range r.Spans {
		list = append(list, &Record{Record: &Record_Span{Span: spanToWire(&r.Spans[i])}})
	}
	for i := range r.ModelCalls {
		list = append(list, &Record{Record: &Record_ModelCall{ModelCall: modelCallToWire(&r.ModelCalls[i])}})
	}
	for i := range r.Metrics {
		list = append(list, &Record{Record: &Record_Metric{Metric: metricToWire(&r.Metrics[i])}})
	}
	for i := range r.Gaps {
		list = append(list, &Record{Record: &Record_Gap{Gap: gapToWire(&r.Gaps[i])}})
	}
	b, err := proto.Marshal(&Records{Records: list})
	if err != nil {
		return nil, fmt.Errorf("encode records: %w", err)
	}
	return b, nil
}

// DecodeRecords reads the body of a frame of the events lane and checks every
// field of it. A record of a kind that this release does not know is counted
// in unknown: the node is newer.
func DecodeRecords(b []byte) (records telemetry.Records, unknown int, err error) {
	var r Records
	if err := proto.Unmarshal(b, &r); err != nil {
		return telemetry.Records{}, 0, fmt.Errorf("decode records: %w", err)
	}
	if len(r.GetRecords()) > frame.MaxCount {
		return telemetry.Records{}, 0, fmt.Errorf("%d records in one frame: at most %d are taken", len(r.GetRecords()), frame.MaxCount)
	}
	for i, rec := range r.GetRecords() {
		known, err := decodeRecord(rec, &records)
		if err != nil {
			return telemetry.Records{}, 0, fmt.Errorf("record %d: %w", i, err)
		}
		if !known {
			unknown++
		}
	}
	return records, unknown, nil
}

func decodeRecord(rec *Record, to *telemetry.Records) (known bool, err error) {
	switch v := rec.GetRecord().(type) {
	case *Record_Event:
		e, err := eventFromWire(v.Event)
		to.Events = append(to.Events, e)
		return true, named("event", err)
	case *Record_Gap:
		g, err := gapFromWire(v.Gap)
		to.Gaps = append(to.Gaps, g)
		return true, named("gap", err)
	case *Record_Span:
		s, err := spanFromWire(v.Span)
		to.Spans = append(to.Spans, s)
		return true, named("span", err)
	case *Record_ModelCall:
		c, err := modelCallFromWire(v.ModelCall)
		to.ModelCalls = append(to.ModelCalls, c)
		return true, named("model call", err)
	case *Record_Metric:
		m, err := metricFromWire(v.Metric)
		to.Metrics = append(to.Metrics, m)
		return true, named("metric point", err)
	}
	return false, nil
}

func named(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func eventToWire(e *telemetry.Event) *Event {
	p := &Event{
		Type: string(e.Type), Timestamp: timeToWire(e.Timestamp), Origin: originToWire(&e.Origin),
		Reason: e.Reason, Inferred: e.Inferred, Attributes: e.Attributes, Content: e.Content,
	}
	if e.ExitCode != nil {
		code := int32(*e.ExitCode) //nolint:gosec // exit codes are small
		p.ExitCode = &code
	}
	if w := e.LastWords; w != nil {
		p.LastWords = &LastWords{
			Signal: w.Signal, OomKilled: w.OOMKilled, Duration: durationToWire(w.Duration), CpuTime: durationToWire(w.CPUTime),
			MemoryPeak: w.MemoryPeak, ImageDigest: w.ImageDigest, Stdout: w.Stdout, Stderr: w.Stderr,
			StdoutOmitted: w.StdoutOmitted, StderrOmitted: w.StderrOmitted,
		}
	}
	return p
}

func eventFromWire(p *Event) (telemetry.Event, error) {
	e := telemetry.Event{
		Type: telemetry.EventType(p.GetType()), Timestamp: timeFromWire(p.GetTimestamp()),
		Reason: p.GetReason(), Inferred: p.GetInferred(), Attributes: p.GetAttributes(), Content: bytesOrNil(p.GetContent()),
	}
	if p.ExitCode != nil {
		code := int(p.GetExitCode())
		e.ExitCode = &code
	}
	if err := telemetry.CheckID(p.GetType()); err != nil {
		return e, fmt.Errorf("type %w", err)
	}
	if e.Timestamp.IsZero() {
		return e, fmt.Errorf("%s without a time", e.Type)
	}
	var err error
	if e.Origin, err = originFromWire(p.GetOrigin()); err != nil {
		return e, err
	}
	if e.LastWords, err = lastWordsFromWire(p.GetLastWords()); err != nil {
		return e, fmt.Errorf("last words: %w", err)
	}
	if err := telemetry.CheckObject(e.Content, telemetry.MaxMetadata); err != nil {
		return e, fmt.Errorf("content %w", err)
	}
	return e, errors.Join(checkText("reason", p.GetReason()), checkAttributes(p.GetAttributes()))
}

func lastWordsFromWire(p *LastWords) (*telemetry.LastWords, error) {
	if p == nil {
		return nil, nil //nolint:nilnil // most events have none
	}
	w := &telemetry.LastWords{
		Signal: p.GetSignal(), OOMKilled: p.GetOomKilled(), Duration: durationFromWire(p.GetDuration()), CPUTime: durationFromWire(p.GetCpuTime()),
		MemoryPeak: max(p.GetMemoryPeak(), 0), ImageDigest: p.GetImageDigest(), Stdout: p.GetStdout(), Stderr: p.GetStderr(),
		StdoutOmitted: max(p.GetStdoutOmitted(), 0), StderrOmitted: max(p.GetStderrOmitted(), 0),
	}
	return w, errors.Join(
		checkText("signal", w.Signal), checkText("image digest", w.ImageDigest),
		checkLongText("stdout", w.Stdout, telemetry.MaxTail), checkLongText("stderr", w.Stderr, telemetry.MaxTail),
	)
}

func gapToWire(g *telemetry.Gap) *Gap {
	return &Gap{
		Reason: string(g.Reason), Count: g.Count, Bytes: g.Bytes, Since: timeToWire(g.Since), Until: timeToWire(g.Until),
		FirstSeq: g.FirstSeq, LastSeq: g.LastSeq, Agent: string(g.Agent), Session: string(g.Session), Sandbox: string(g.Sandbox), Detail: g.Detail,
	}
}

func gapFromWire(p *Gap) (telemetry.Gap, error) {
	g := telemetry.Gap{
		Reason: telemetry.GapReason(p.GetReason()), Count: p.GetCount(), Bytes: p.GetBytes(), Since: timeFromWire(p.GetSince()), Until: timeFromWire(p.GetUntil()),
		FirstSeq: p.GetFirstSeq(), LastSeq: p.GetLastSeq(), Agent: telemetry.AgentID(p.GetAgent()), Session: telemetry.SessionID(p.GetSession()),
		Sandbox: telemetry.SandboxID(p.GetSandbox()), Detail: p.GetDetail(),
	}
	if err := telemetry.CheckID(p.GetReason()); err != nil {
		return g, fmt.Errorf("reason %w", err)
	}
	if g.Count < telemetry.GapUnknownCount || g.Bytes < 0 {
		return g, fmt.Errorf("count %d and bytes %d", g.Count, g.Bytes)
	}
	return g, errors.Join(
		checkOptionalID("agent", p.GetAgent()), checkOptionalID("session", p.GetSession()), checkOptionalID("sandbox", p.GetSandbox()),
		checkText("detail", g.Detail),
	)
}

func modelCallToWire(c *telemetry.ModelCall) *ModelCall {
	p := &ModelCall{
		Timestamp: timeToWire(c.Timestamp), Origin: originToWire(&c.Origin), Model: c.Model, Vendor: c.Vendor,
		Trace: string(c.Trace), Span: string(c.Span), InputTokens: c.InputTokens, OutputTokens: c.OutputTokens,
		CacheReadTokens: c.CacheReadTokens, CacheWriteTokens: c.CacheWriteTokens, Metadata: c.Metadata,
	}
	if c.Cost != nil {
		p.Cost = &Money{Nanos: c.Cost.Nanos, Currency: c.Cost.Currency}
	}
	return p
}

func modelCallFromWire(p *ModelCall) (telemetry.ModelCall, error) {
	c := telemetry.ModelCall{
		Timestamp: timeFromWire(p.GetTimestamp()), Model: p.GetModel(), Vendor: p.GetVendor(),
		Trace: telemetry.TraceID(p.GetTrace()), Span: telemetry.SpanID(p.GetSpan()), InputTokens: p.GetInputTokens(), OutputTokens: p.GetOutputTokens(),
		CacheReadTokens: p.GetCacheReadTokens(), CacheWriteTokens: p.GetCacheWriteTokens(), Metadata: bytesOrNil(p.GetMetadata()),
	}
	var err error
	if c.Origin, err = originFromWire(p.GetOrigin()); err != nil {
		return c, err
	}
	if min(c.InputTokens, c.OutputTokens, c.CacheReadTokens, c.CacheWriteTokens) < 0 {
		return c, errors.New("a count of tokens below zero")
	}
	if c.Timestamp.IsZero() {
		return c, errors.New("without a time")
	}
	if m := p.GetCost(); m != nil {
		c.Cost = &telemetry.Money{Nanos: m.GetNanos(), Currency: m.GetCurrency()}
		if !isCurrency(m.GetCurrency()) {
			return c, fmt.Errorf("currency %.10q is not three letters", m.GetCurrency())
		}
	}
	if err := telemetry.CheckObject(c.Metadata, telemetry.MaxMetadata); err != nil {
		return c, fmt.Errorf("metadata %w", err)
	}
	return c, errors.Join(checkText("model", c.Model), checkText("vendor", c.Vendor),
		checkOptionalID("trace", p.GetTrace()), checkOptionalID("span", p.GetSpan()))
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

func checkAttributes(m map[string]string) error {
	if len(m) > maxAttributes {
		return fmt.Errorf("%d attributes: at most %d are taken", len(m), maxAttributes)
	}
	for k, v := range m {
		if err := errors.Join(checkText("attribute", k), checkText("attribute", v)); err != nil {
			return err
		}
	}
	return nil
}

func durationToWire(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// durationFromWire bounds what it takes: no duration here is below zero.
func durationFromWire(p *durationpb.Duration) time.Duration {
	if p == nil || !p.IsValid() {
		return 0
	}
	return max(p.AsDuration(), 0)
}

func bytesOrNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
