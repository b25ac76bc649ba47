// Package live hands every committed record to the views that are open, in
// commit order, whichever replica committed it.
//
// The truth is the log in the database, ordered by each organisation's
// counter; Publish is only a hint that saves reading it. Per scope that
// somebody watches there is one tailer. It holds the position up to which
// everything was handed out:
//
//	Publish ──> inbox ──> tailer ──> index ──> view (one per distinct filter) ──> queue of each reader
//	  poll ────────────────┘ │ a hint that continues the position exactly goes out at once;
//	                         v otherwise, and when a poll says so, it reads
//	                        log
//
// One poll, four times a second, asks for the heads of all watched scopes by
// one statement: what other replicas committed is found by it. The index knows
// views by the agents, sessions, sandboxes, users, nodes or levels that they
// ask for, so that a line is held only against filters that it can match, and
// once against each. A line is encoded when the first view takes it, for all.
//
// A reader is in one of three states:
//
//	          Subscribe after a cursor
//	                   │
//	                   v    reached the tailer's position
//	┌────────────── history ───────────────┐   (checked under its lock,
//	│ patience over    ^                   │    so nothing falls between)
//	│ (Missed)         │ drained soon      v
//	│                behind <───────────  live <── Subscribe from now
//	│                  │    queue full     ^
//	└──────────────────┴───────────────────┘
//	          drained late (Missed)
//
// A burst larger than a queue is no reason to lose lines: a reader that drains
// its queue within its patience catches up from the log at its own pace. One
// that stays behind longer is told what it missed and goes on with what is new.
//
// Promises:
//
//   - Publish never waits for a reader, a database or an encoder.
//   - A reader gets each matching record after its start exactly once and in
//     position order, or a Missed that covers it.
//   - A reader holds at most Options.Queue bytes here, or one chunk (64 KiB and
//     a line) where that is more, and as much in the batch that it took. Readers
//     share encoded lines, whatever their filters.
//   - What is published together wakes a reader once.
//   - A filtered, quiet reader costs no memory and no time, and still moves its cursor.
package live
