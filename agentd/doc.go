// Package agentd is the program that runs on every compute host. This package
// is the only place that wires its parts; they meet through shared/ alone.
//
//	docker  ─┐                ┌─────────┐  frames   ┌───────┐  unsent   ┌────────┐
//	files   ─┤                │ intake  │           │ spool │           │ uplink │
//	sandbox ─┼─▶ intake.Sink ─▶ redact  ├──────────▶│ fsync ├──────────▶│        ├─▶ aggregator
//	exec    ─┤                └────▲────┘ +positions└───────┘◀──────────┤        │
//	canary  ─┘            pressure │                    │      acks     └────────┘
//	                         guest ┘                    └─▶ report: the ledger, what was dropped
//
// Goroutines, and the order in which they end: sources first (so that nothing
// more is read), then intake (what was read becomes durable), then uplink
// (what is durable is given a moment to be acknowledged), then the spool is
// closed. A kill -9 at any point costs nothing that this order would have
// saved: the spool's fsync comes before every acknowledgement and every
// position that a source resumes from.
//
// Configuration is read once by Load; Run watches its file and applies a
// changed log level, changed sources and aggregator.offline without a restart.
// Log files that sources hold open outlive that, and a restart under systemd.
// Settings that need
// a restart are named in the log when they change.
package agentd
