// Package emitters runs OpenTelemetry's own Go SDK and its exporters against the
// node's local endpoint, and holds shared/otlp against OpenTelemetry's generated
// code. It is a module of its own, so that neither the product's programs nor
// its go.mod carry any of it:
//
//	go -C test/emitters test ./...
//
// With -record, the requests that the exporters send are written to
// shared/otlp/testdata, where that package's own tests read them.
package emitters
