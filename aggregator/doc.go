// Package aggregator is the program in the centre. This package is the only
// place that wires its parts; they meet through shared/ alone.
//
//	nodes ──gRPC──▶ ingest ──frames──▶ store.Commit ──▶ PostgreSQL
//	                  │                     │               ▲
//	                  ◀──acks after COMMIT──┤               │ history, pages
//	                                        ▼               │
//	browsers, SDKs ◀──SSE, WebSocket── live.Hub ◀────────── api ◀──REST── everyone
//
// Start, in order: the private PostgreSQL (where no DSN is given), migrations,
// store, certificate authority, hub, ingest, API, then the listeners; the API
// answers /readyz with 503 until the last is there. Stop runs the other way
// round and is bounded: the API lets streams go (clients resume elsewhere or
// later), ingest commits and acknowledges what it has taken, then the store
// and the database close. What was not acknowledged is still on its node.
package aggregator
