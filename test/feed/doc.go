// Package feed sends frames to an aggregator as an agentd does: the real
// agentd/uplink, enrolled and mutually authenticated, in front of a queue in
// memory instead of a spool. Benchmarks and fault tests use it where they need
// frames that no agentd would make, or more of them than one can.
package feed
