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
// # The life of a line
//
//	Commit ──▶ log_hot ───────── unit ─────────▶ log_chunk ────── merge ─────▶ log_chunk ──▶ gone
//	           one row a flush   65,536 lines    4,096 lines or   small ones   fewer,        the day's partition
//	           and stream;       or 10 minutes   1 MiB, sorted    of a day     larger        is dropped, or the
//	           5 min partitions                                                              organisation's part deleted
//
//	pos   1 ············ compacted ············ next
//	      in chunks      │ in hot rows          │ not given out yet
//
// stream_counter.compacted is the fence: every line at a lower position is in
// chunks, every other one in hot rows. Positions are handed out under the
// counter's lock and become visible in their order, so no commit ever adds a
// line below the fence. A reader takes the fence, the hot rows from it on and
// the chunks from one snapshot: it sees each line once.
//
// A unit is the next hot rows of one stream. They are read, decoded, sorted by
// day, owner, time and position, and encoded anew with no lock held. Owners are
// sessions and agents, in an order that keeps the lines of either in few chunks
// (unit_order.go). A chunk lists whose lines it has, or, where these are too many,
// has a small bloom of them, so that the database passes over all others.
// Then one short transaction inserts the chunks and moves the fence, if it is
// still where it was when reading began; otherwise somebody else was first, and
// nothing changes. A merge deletes small chunks of one day and inserts larger
// ones, if all of them are still there. So:
//
//   - whatever dies, and however many aggregators do the same at once, no line is
//     lost or doubled. Leases save work; nothing rests on them. These transactions
//     need no flush: a server that forgets one still has what it replaced.
//   - each due stream has one unit a round, those that waited longest first: a
//     flood gets no more turns than others.
//   - a row that cannot be decoded or written is narrowed down to, moved to
//     log_damaged, counted, and told as a gap at its position; what follows it
//     goes on. Other failures leave the stream alone for a growing time.
//   - the compactor holds one unit per worker: up to 16 MiB as stored, 24 MiB
//     decoded and the chunks made of them, about 60 MiB at worst.
//
// Nothing is deleted from log_hot. A partition is dropped when no row in it is
// beyond its stream's fence, looked at under a lock that keeps writers of that
// partition out. A reader locks log_hot before it takes its snapshot, so a drop
// waits for all who may still need the rows; it gives up after 50 ms and comes
// again. While an aggregator of a release before chunks is connected (releaseMark)
// nothing is dropped, so that it finds all lines.
//
// The day of a line is that of its timestamp, at most 10 minutes after its arrival,
// so that no clock makes partitions of other centuries; of one that is more than
// 30 days old when it comes it is the arrival's, so that it is kept as long as
// its neighbours. The timestamp itself is never changed. A chunk lies in one day and
// in the retention class that its organisation had when it was compacted. A day
// ends with its class; an organisation may end its own lines earlier. A class
// that the configuration does not name is kept as long as the longest.
//
// # Reading
//
// A row of log_hot joins the segments of one flush, column by column; a chunk
// joins blocks in the same way. A query takes one repeatable-read snapshot, walks
// the small metadata of rows and chunks newest first, decodes what it must (level
// counters answer for what lies wholly in the range; text is read only where text
// is searched, and a bloom does not rule it out), keeps the best limit+offset+1
// keys, and loads whole lines only for the page itself: of chunks, the blocks that
// hold them. A stream is read by position, without a gap.
//
// # Erasure
//
// Erase names a user, session or agent and a time. Its transaction locks the
// counter as commits do, so every snapshot and commit from then on knows of it
// (stream_counter.erasures counts what happened, exclusions remember it). Every
// reader leaves out lines that it covers (scan.choose), and believes no counter
// of a row that may hold some (exclusions.mayHold). A job deletes plain rows,
// waits until all lines from before are in chunks and their hot partitions are
// dropped, and puts chunks without the lines in the place of those with some:
// under the counter's lock, if the chunk is still what was read. When a look at
// everything finds nothing, the subject is replaced by its keyed hash, the proof
// is chained to the audit log, and chunks below the fence are clean. Late records
// are committed, never shown, and taken out every hour. (erase.go has the states.)
//
// # Tenancy
//
// Three roles without login, one pool each: agg_api reads one organisation and
// environment, agg_ingest writes the organisations of its transaction,
// agg_maint compacts, makes and drops partitions. Row-level security is forced on every
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
