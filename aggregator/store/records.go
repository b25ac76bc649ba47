package store

import (
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/telemetry"
)

// place is where a record of the events lane came from: its identity.
type place struct {
	scope telemetry.Scope
	node  telemetry.NodeID
	epoch uint64
	seq   uint64
	recv  time.Time
}

type eventRow struct {
	place
	*telemetry.Event
}

type spanRow struct {
	place
	*telemetry.Span
}

type callRow struct {
	place
	*telemetry.ModelCall
}

type metricRow struct {
	place
	*telemetry.MetricPoint
}

// spanKey is what a span is known by.
type spanKey struct {
	scope telemetry.Scope
	trace telemetry.TraceID
	id    telemetry.SpanID
}

// addSpan keeps the last word of a span that comes twice in one commit, which
// one statement could not write twice: an end stands over no end.
func (b *batch) addSpan(r spanRow) {
	k := spanKey{scope: r.scope, trace: r.Trace, id: r.ID}
	if i, twice := b.spanOf[k]; twice {
		if !r.End.IsZero() || b.spans[i].End.IsZero() {
			b.spans[i] = r
		}
		return
	}
	b.spanOf[k] = len(b.spans)
	b.spans = append(b.spans, r)
}

// whose are the columns that all records of the events lane begin with.
type whose struct {
	orgs, nodes, agents, sessions, users, sandboxes []string
	envs, providers                                 []int16
	epochs, seqs                                    []int64
	recvs                                           []time.Time
}

func (w *whose) add(p *place, o *telemetry.Origin) {
	w.orgs, w.envs, w.nodes = append(w.orgs, string(p.scope.Org)), append(w.envs, int16(p.scope.Env)), append(w.nodes, string(p.node))
	w.epochs, w.seqs = append(w.epochs, int64(p.epoch)), append(w.seqs, int64(p.seq)) //nolint:gosec // 64 bits are 64 bits; sequences are below 2^40
	w.recvs = append(w.recvs, clampTime(p.recv))
	w.agents, w.sessions, w.users = append(w.agents, string(o.Agent)), append(w.sessions, string(o.Session)), append(w.users, string(o.User))
	w.providers, w.sandboxes = append(w.providers, int16(o.Provider)), append(w.sandboxes, string(o.Sandbox))
}

// arguments are the first eleven of a statement.
func (w *whose) arguments(more ...any) []any {
	return append([]any{w.orgs, w.envs, w.nodes, w.epochs, w.seqs, w.recvs, w.agents, w.sessions, w.users, w.providers, w.sandboxes}, more...)
}

// whoseColumns names them, whoseTypes are their parameters.
const (
	whoseColumns = `org, env, node, epoch, seq, recv_at, agent, session, "user", provider, sandbox`
	whoseTypes   = `$1::text[], $2::smallint[], $3::text[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::text[], $8::text[], $9::text[], $10::smallint[], $11::text[]`
)

func (b *batch) queueEvents(q *pgx.Batch) {
	var w whose
	var types, reasons, attributes []string
	var ats []time.Time
	var codes []*int32
	var inferred []bool
	var lastWords, contents []*string
	for i := range b.events {
		e := &b.events[i]
		w.add(&e.place, &e.Origin)
		types, ats = append(types, string(e.Type)), append(ats, clampTime(e.Timestamp))
		codes, reasons, inferred = append(codes, exitCode(e.ExitCode)), append(reasons, cleanText(e.Reason)), append(inferred, e.Inferred)
		attributes = append(attributes, attributesJSON(e.Attributes))
		lastWords, contents = append(lastWords, jsonText(e.LastWords, e.LastWords == nil)), append(contents, nullText(e.Content))
	}
	if len(types) > 0 {
		q.Queue(insertEvents, w.arguments(types, ats, codes, reasons, inferred, attributes, lastWords, contents)...)
	}
}

const insertEvents = `insert into event (` + whoseColumns + `, type, at, exit_code, reason, inferred, attributes, last_words, content)
select ` + whoseColumns + `, type, at, exit_code, reason, inferred, attributes::jsonb, last_words, content
from unnest(` + whoseTypes + `, $12::text[], $13::timestamptz[], $14::int[], $15::text[], $16::boolean[], $17::text[], $18::text[], $19::text[])
  as u (` + whoseColumns + `, type, at, exit_code, reason, inferred, attributes, last_words, content)`

func exitCode(code *int) *int32 {
	if code == nil {
		return nil
	}
	v := int32(*code) //nolint:gosec // exit codes came as 32 bits
	return &v
}

func (b *batch) queueSpans(q *pgx.Batch) {
	var w whose
	var traces, ids, parents, names, errs, scopes []string
	var kinds, statuses, sources []int16
	var starts []time.Time
	var ends []*time.Time
	var attributes, resources, events, links []*string
	for i := range b.spans {
		s := &b.spans[i]
		w.add(&s.place, &s.Origin)
		traces, ids, parents, names = append(traces, string(s.Trace)), append(ids, string(s.ID)), append(parents, string(s.Parent)), append(names, cleanText(s.Name))
		kinds, statuses, sources = append(kinds, int16(s.Kind)), append(statuses, int16(s.Status)), append(sources, int16(s.Source))
		starts, ends = append(starts, clampTime(s.Start)), append(ends, nullTime(s.End))
		errs, scopes = append(errs, cleanText(s.Error)), append(scopes, cleanText(s.Scope))
		attributes, resources = append(attributes, nullText(s.Attributes)), append(resources, nullText(s.Resource))
		events, links = append(events, jsonText(s.Events, len(s.Events) == 0)), append(links, jsonText(s.Links, len(s.Links) == 0))
	}
	if len(ids) > 0 {
		q.Queue(insertSpans, w.arguments(traces, ids, parents, names, kinds, starts, ends, statuses, errs, scopes, sources, attributes, resources, events, links)...)
	}
}

// In the order of their key, so that two aggregators that write the same spans
// do not wait for each other in a circle.
const insertSpans = `insert into span as s (org, env, node, recv_at, agent, session, "user", provider, sandbox,
  trace, id, parent, name, kind, start_at, end_at, status, error, scope, source, attributes, resource, events, links)
select org, env, node, recv_at, agent, session, "user", provider, sandbox,
  trace, id, parent, name, kind, start_at, end_at, status, error, scope, source, attributes, resource, events, links
from unnest(` + whoseTypes + `, $12::text[], $13::text[], $14::text[], $15::text[], $16::smallint[], $17::timestamptz[], $18::timestamptz[],
    $19::smallint[], $20::text[], $21::text[], $22::smallint[], $23::text[], $24::text[], $25::text[], $26::text[])
  as u (` + whoseColumns + `, trace, id, parent, name, kind, start_at, end_at, status, error, scope, source, attributes, resource, events, links)
order by org, env, trace, id
on conflict (org, env, trace, id) do update set
  parent = excluded.parent, name = excluded.name, kind = excluded.kind, start_at = excluded.start_at, end_at = excluded.end_at,
  status = excluded.status, error = excluded.error, scope = excluded.scope, recv_at = excluded.recv_at,
  attributes = excluded.attributes, resource = excluded.resource, events = excluded.events, links = excluded.links
where excluded.end_at is not null or s.end_at is null`

func (b *batch) queueModelCalls(q *pgx.Batch) {
	var w whose
	var models, vendors, traces, spans []string
	var ats []time.Time
	var in, out, read, written []int64
	var nanos []*int64
	var currencies, metadata []*string
	for i := range b.calls {
		c := &b.calls[i]
		w.add(&c.place, &c.Origin)
		ats, models, vendors = append(ats, clampTime(c.Timestamp)), append(models, cleanText(c.Model)), append(vendors, cleanText(c.Vendor))
		traces, spans = append(traces, string(c.Trace)), append(spans, string(c.Span))
		in, out, read, written = append(in, c.InputTokens), append(out, c.OutputTokens), append(read, c.CacheReadTokens), append(written, c.CacheWriteTokens)
		var n *int64
		var currency *string
		if c.Cost != nil {
			n, currency = &c.Cost.Nanos, &c.Cost.Currency
		}
		nanos, currencies, metadata = append(nanos, n), append(currencies, currency), append(metadata, nullText(c.Metadata))
	}
	if len(models) > 0 {
		q.Queue(insertModelCalls, w.arguments(ats, models, vendors, traces, spans, in, out, read, written, nanos, currencies, metadata)...)
	}
}

const insertModelCalls = `insert into model_call (` + whoseColumns + `,
  at, model, vendor, trace, span, tokens_in, tokens_out, cache_read, cache_write, cost_nanos, cost_currency, metadata)
select * from unnest(` + whoseTypes + `, $12::timestamptz[], $13::text[], $14::text[], $15::text[], $16::text[],
  $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::text[], $23::text[])`

func (b *batch) queueMetrics(q *pgx.Batch) {
	var w whose
	var names, units []string
	var kinds []int16
	var ats []time.Time
	var starts []*time.Time
	var values []float64
	var histograms, attributes []*string
	for i := range b.metrics {
		m := &b.metrics[i]
		w.add(&m.place, &m.Origin)
		names, units, kinds = append(names, cleanText(m.Name)), append(units, cleanText(m.Unit)), append(kinds, int16(m.Kind))
		ats, starts, values = append(ats, clampTime(m.Timestamp)), append(starts, nullTime(m.Start)), append(values, m.Value)
		histograms, attributes = append(histograms, jsonText(m.Histogram, m.Histogram == nil)), append(attributes, jsonText(m.Attributes, len(m.Attributes) == 0))
	}
	if len(names) > 0 {
		q.Queue(insertMetrics, w.arguments(names, units, kinds, ats, starts, values, histograms, attributes)...)
	}
}

const insertMetrics = `insert into metric_point (` + whoseColumns + `, name, unit, kind, at, start_at, value, histogram, attributes)
select * from unnest(` + whoseTypes + `, $12::text[], $13::text[], $14::smallint[], $15::timestamptz[], $16::timestamptz[], $17::float8[], $18::text[], $19::text[])`

// nullText is a JSON object as it came, or null.
func nullText(b []byte) *string {
	if len(b) == 0 {
		return nil
	}
	text := cleanText(string(b))
	return &text
}

// jsonText is v as JSON, or null where it is empty.
func jsonText(v any, empty bool) *string {
	if empty {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic("store: a checked record always has a JSON form: " + err.Error())
	}
	return nullText(b)
}
