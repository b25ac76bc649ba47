// Package api is the public HTTP door: REST, Server-Sent Events and
// WebSocket, and the dashboard behind them.
//
//	request ─> id, headers, access log, panics ─> CORS, cross-origin check
//	        ─> route table: parameters allowed, permission needed
//	        ─> principal, from the credential and nothing else ─> handler
//
// Promises:
//
//   - Every route says which permission it needs; one that does not fails a test.
//   - The organisation comes from the credential. Ids of another organisation
//     answer 404, the same as ids that never were.
//   - Unknown query parameters, and bad values of known ones, answer 400 and are
//     named, all of them at once. A query q that cannot be read answers 422.
//   - Every error is the one envelope, with the request's id in both places and
//     in X-Request-Id; senders of OTLP get a google.rpc.Status instead. What is
//     internal is logged and never shown.
//   - No credential is written to a log, and none is read from a URL except by
//     streaming endpoints, where browsers can send no header.
//   - An export is whole, or its last line, a trailer and the broken connection
//     say that it is not. It goes at its client's pace, and a client that keeps it
//     waiting loses its place.
//   - Pushed records are answered when they are committed: see Intake.
//   - A stream hands out each matching record after its cursor once, in order, or
//     a gap that says what is missing. A client that takes nothing for
//     WriteTimeout is dropped; it can resume.
package api
