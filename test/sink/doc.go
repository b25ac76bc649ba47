// Package sink is a counting end of the wire for benchmarks and fault tests of
// agentd alone: the aggregator's own ingest server with mutual TLS, and behind
// it a store that keeps no line. It forgets repeated frames by their marks, as
// the aggregator does, and counts numbered lines (see package workload) in
// bitmaps, so that it knows which have come, which came twice and which are
// missing. It can go away and come back at the same addresses.
package sink
