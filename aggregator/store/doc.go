// Package store is everything SQL: the schema and its roles, the commit of
// frames, streams, queries, credentials and nodes.
//
// # A commit
//
//	frames ──decode──▶ ┌ round trip 1 ─────────────────┐   ┌ round trip 2 ───────────────────────────────┐
//	(of many           │ begin; the organisations;     │   │ marks; agents, sessions; counters advance;  │
//	 organisations)    │ lock and read the marks       │──▶│ log_hot, gap, event, quarantine rows; commit│──▶ outcomes, Published
//	                   └───────────────────────────────┘   └─────────────────────────────────────────────┘
//	                              judge each frame: committed, duplicate, out of order
//
// A mark is the last sequence committed of one (organisation, node, epoch,
// lane). It changes in the transaction that holds the records, so:
//
//   - a frame is visible completely and exactly once, whatever dies and however
//     often it is sent again; there is no time window and no index on lines;
//   - a frame whose predecessors are missing changes nothing;
//   - a host that enrols anew goes on where the same epoch of its organisation
//     stands under its old name;
//   - lines and gaps get consecutive positions in their (organisation,
//     environment) stream. The counter is locked from its advance to the end of
//     the transaction, so a position becomes visible after all lower ones.
//
// Locks are taken in one order everywhere (marks, agents, sessions, counters,
// each sorted), so commits wait for each other and do not deadlock.
//
// # Reading
//
// A row of log_hot joins the segments of one flush, column by column. A query
// takes one repeatable-read snapshot, walks the rows' small metadata newest
// first, decodes what it must (level counters answer for rows that lie wholly
// in the range; text is read only where text is searched), keeps the best
// limit+offset+1 keys, and loads whole lines only for the page itself. The
// total is exact. A stream is read by position, without a gap.
//
// # Tenancy
//
// Three roles without login, one pool each: agg_api reads one organisation and
// environment, agg_ingest writes the organisations of its transaction,
// agg_maint makes and drops partitions. Row-level security is forced on every
// table of records; the organisation is a setting of the transaction, and a
// missing setting is an error. Nobody has a right on a partition. Directory
// tables (keys, tokens, nodes) are reached through functions alone. Open
// refuses a database where any of this is not so.
//
// # Failures
//
// Every call has a deadline. What the database refuses as data (SQLSTATE class
// 22, 23 or 54) is a telemetry.Failure with code Unprocessable; a database that
// is away, slow or full is Unavailable, and the next call tries again: nothing
// here needs a restart. An Unavailable Commit may have been committed: sent
// again, its frames are duplicates, and readers by position find them.
package store
