// Package otlp reads what OpenTelemetry emitters send (logs, traces, metrics;
// protobuf or JSON) into the product's own records, and writes the answers that
// they expect. It knows bytes and records, no transport: agentd and aggregator
// receive by gRPC and HTTP, each with its own limits on who may send how much.
//
//	 request body                                    *Result
//	protobuf ──▶ node ─┐
//	                   ├─▶ one walk over the schema ─▶ Entries, Spans, Metrics
//	JSON ──────▶ node ─┘        │                      what was refused and dropped, by reason
//	                            └─ Options.Bind: whose records are they?
//
// The messages are read by hand, over the wire format, by one table that both
// encodings share (schema.go), instead of by generated code: this way limits
// hold while a message is being read and not after it was built in memory, both
// encodings give the same records by construction, and a program that also links
// OpenTelemetry's own generated code has no conflict of names. A program grows
// by 0.21 MiB, conversion and all; the generated messages alone are 0.44 MiB.
//
// The package promises:
//
//   - Every input is taken as hostile. Memory is bounded by the body: a request
//     yields at most MaxRecords records, a span at most MaxAttributes attributes,
//     a value is at most MaxDepth deep and MaxValue bytes long; what is beyond
//     is dropped alone, and counted by reason. Only a body that is no valid
//     message is an error.
//   - A record that is refused as a whole is counted in Refused, so that the
//     answer's partial success says exactly how many were refused and why.
//   - All texts are UTF-8 without NUL, all JSON is valid, in one line, without
//     two members of one name; all numbers are finite; all times are UTC in
//     microseconds.
//   - The content of model messages (prompts, answers, arguments and results of
//     tools) is dropped unless Options.Content allows it: see content.go.
//   - The order of the records is the emitter's.
//
// What OTLP has and the records do not: exemplars, trace state, flags, the
// description and metadata of metrics, entity references.
package otlp
