// Package link holds the tests of the path from a node to the aggregator: the
// real agentd/uplink and the real aggregator/ingest over TCP and TLS, between a
// queue and a store in memory, with connections that break at the worst moments.
package link
