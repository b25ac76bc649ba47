// Package intake turns what sources read into frames: it completes and cleans
// each line, finds its level and structure, and cuts frames that the spool
// makes durable together with the sources' positions.
//
//	Emit ──▶ collecting batch ──▶ cut ──▶ flushing batch ──▶ encode ──▶ Queue.Append (one fsync)
//	  ▲           │  (the next one collects meanwhile)                        │
//	  └───────────┴── blocks while 640 KiB of its organisation are not durable┘
//
// # Promises
//
//   - Order: the lines of one organisation and environment leave in the order in
//     which they were emitted, so every stream keeps its source's order. Frames
//     are cut in order of arrival, and the class of a frame is the highest that
//     a line in it has; splitting classes into frames of their own would let two
//     lines of one stream pass each other.
//   - Positions are appended together with the lines that they cover, or after
//     them, never before.
//   - Before Append has returned, at most 640 KiB and one batch of each
//     organisation and environment, and 32 MiB in all, are held; Emit blocks.
//   - A lone line is cut at once; while more arrive, a cut waits at most
//     Config.MaxDelay, 640 KiB or 4,096 lines.
//   - Run flushes what was emitted before it returns.
//
// # What happens to a line
//
// Bytes that are not UTF-8 become U+FFFD (one for each run of them), NUL
// becomes U+2400 (the picture of a NUL), and more than telemetry.MaxMessage
// bytes are cut at a rune boundary and marked. The timestamp stays the source's,
// in microseconds.
//
// A level counts as stated in these forms, and is info and marked inferred
// otherwise (that a line came by stderr says nothing):
//
//	{"level":"warn"} {"severity":"ERROR"} {"lvl":50}   JSON, with the numbers of pino and bunyan
//	level=warn  lvl=eror  severity=info                logfmt
//	E1122 07:00:00.000000 …                            klog
//	2026-11-22 07:00:00,123 - app - ERROR - …          a word in capitals near the beginning
//	[warn] …   error: …   <debug> …                    in brackets, or leading and with a colon
//
// A line that is one JSON object with a text under "msg" or "message" is taken
// apart: that text is the message, the level and well-formed trace and span ids
// are lifted, the rest stays as metadata as it was written. Where the rest is over
// 64 KiB or nested deeper than 32, the line stays plain text. Every other JSON line
// stays as it is, its level lifted all the same.
package intake
