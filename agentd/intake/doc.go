// Package intake turns what sources read into frames: it puts stack traces
// together, cleans each line, finds its level and structure, takes out what must
// not leave, and cuts frames that the spool makes durable together with the
// sources' positions.
//
//	                 ends within a trace
//	Emit ──▶ lines ──────────────────────▶ hold (≤ 200 ms behind the last line, ≤ 1 s)
//	  ▲        │                             │ whole batches, with their positions
//	  │        ▼                             ▼
//	  │      logs lane:  collecting ──▶ cut ──▶ flushing ──▶ encode ──▶ Room ─▶ Queue.Append (one fsync)
//	  │                   (the next one collects meanwhile)               │ ▲
//	  │                                                      overtaken by │ │
//	  ├────▶ records ──▶ events lane:  collecting ──▶ cut ──▶ flushing ───┴─▶ Queue.Append
//	  │
//	  └── blocks while 640 KiB of its organisation and lane are not durable (a pipe: 256 KiB)
//
// # Promises
//
//   - Order: the lines of one sandbox leave in the order in which they were
//     emitted, so every stream keeps its source's order.
//   - Positions are appended together with all that they cover, never before it,
//     and what is appended is covered: a crash loses and repeats nothing that its
//     source can read again. So a batch that ends within a stack trace waits as a
//     whole, and not only the lines of the trace.
//   - Records emitted without lines (the exit of a sandbox, spans, metric points)
//     never wait for lines, not even for room in a full buffer; only a position
//     that waiting lines have too makes them wait. Records emitted with lines go
//     with them.
//   - Before Append has returned, at most 640 KiB (256 KiB of what
//     its source could not read again) and one batch of each organisation,
//     environment and lane, 32 MiB of each lane, and 4 MiB in holds are in memory;
//     Emit blocks.
//   - A lone line is cut within 4 ms, and at once where its source says that the
//     round is over in which it was read (of one that never says so, within 1 s);
//     while more arrive, a cut waits at
//     most Config.MaxDelay, 640 KiB or 4,096 lines. Under pressure debug and info
//     lines wait longer, up to eight times; a warning takes all with it at once.
//   - Run flushes what was emitted before it returns.
//   - Nothing is left out silently: what is sampled is told by a gap record, which
//     survives a crash as a position; all else that is changed is counted.
//
// # Classes and fair shares
//
// A sandbox's fair share is what the node takes in (averaged over 10 s), divided
// evenly between the organisations that write, and for each between its sandboxes
// that do. Who writes 1.25 times that and over 16 KiB a second is above it, until
// it writes less than it. In each cut the lines of sandboxes above their share
// have frames of their own, of class Bulk; a warning or error makes a frame
// important, and a bulk frame soon ends behind one. Metric points have frames of
// class Normal; every other record is important.
//
// While Config.Pressure is above 0.9, one in ten debug and info lines of sandboxes
// above their share is kept; a gap record tells of the rest, at most one in 10 s
// for each sandbox.
//
// # What happens to a line
//
// Bytes that are not UTF-8 become U+FFFD (one for each run of them), NUL
// becomes U+2400 (the picture of a NUL), terminal escape sequences and carriage
// returns at the end go, and more than telemetry.MaxMessage bytes are cut at a
// rune boundary, marked, and counted in the metadata ("originalBytes"). The
// timestamp stays the source's, in microseconds; of a joined message, the first
// line's.
//
// The exact bytes, line break included, are kept as "raw" in the metadata, in
// base64, where they were not UTF-8 or held a NUL; where Config.KeepRaw asks for
// more; and of a line whose source asks for it, where the message and a line break
// are not the same bytes. They are kept up to 42 KiB, and never where something was
// redacted.
//
// The lines of a stack trace are one message: Python, Java, .NET, Go, Node, Ruby
// and Rust, with chained causes, and the line of the logger that printed it. A
// private key in PEM form is one message too, so that it is redacted as one.
//
// A level counts as stated in these forms, and is info and marked inferred
// otherwise (a joined trace without one: error, inferred; that a line came by
// stderr says nothing):
//
//	{"level":"warn"} {"severity":"ERROR"} {"lvl":50}   JSON, with the numbers of pino and bunyan
//	level=warn  lvl=eror  severity=info                logfmt, from the line's beginning on
//	E1122 07:00:00.000000 …                            klog, glog
//	2026-11-22 07:00:00,123 - app - ERROR - …          a word in capitals, behind a time or at the beginning
//	[warn] …   error: …   <debug> …   [core:error]     in brackets, or leading and with a colon
//
// Words of a sentence before it ("no ERROR found") end the search; testdata holds
// the corpus.
//
// A line that is one JSON object with a text under "msg" or "message" is taken
// apart: that text is the message, the level and well-formed trace and span ids
// are lifted, the rest stays as metadata as it was written. So is a line of
// logfmt, whose values are texts. A level that says more than ours does ("fatal",
// "notice") stays in the metadata too. Where the rest is over 64 KiB or nested
// deeper than 32, the line stays plain text. Every other such line stays as it is,
// its level lifted all the same.
//
// What the Redactor finds is replaced in every text of every record. The record
// says which rules found how much ("redacted" in its metadata or attributes), and
// nothing of the value.
package intake
