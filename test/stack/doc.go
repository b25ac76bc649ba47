// Package stack runs both daemons as real processes for end-to-end tests and
// benchmarks, and reads what comes out as a client would: pages by REST and a
// stream by SSE that resumes with Last-Event-ID.
package stack
