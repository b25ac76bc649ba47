// Package docker reads a Docker engine: what its containers print, and what
// happens to them. It is a source.Source.
//
//	engine
//	──────
//	/events ──────▶ drain ─────▶ control ────events─────▶ teller ─────▶ Sink
//	                never waits  inspect, compare,        exits first
//	                             identify │
//	                                      ▼
//	containers/ ──▶ watcher ──────▶ sandboxes ──────────▶ reader ─────▶ Sink
//	                opens a log     pinned files, marks   one loop, a turn
//	                when created    where runs ended      of 256 KiB each
//	/logs ────────▶ follower, only where there is no file ────────────▶ Sink
//	control groups, pidfds ──────▶ meter, every few seconds ──────────▶ Sink
//
// Logs are read from the json files that the engine writes, not through its
// API, which costs 25 to 40 times the CPU and loses lines when a file rotates
// under load. Each file is opened when it is created and held until it has been
// read to its end, so neither rotation nor `docker run --rm` can take away what
// was written. The API is the fallback for other drivers, remote engines and
// unreadable files.
//
// A sandbox goes this way:
//
//	          directory or event           inspect, config.v2.json or event
//	(unknown) ─────────────────▶ found ─────────────────────────────▶ read
//	                              │ pins files                          │ die: exit event with last
//	                              │ reads nothing yet                   │ words, told at once; a mark
//	                              │                                     ▼ at the log's end
//	                              │          start again             finishing
//	                              │        read ◀───────────────────────┤ read to the mark, partial
//	                              ▼                                     ▼ lines flushed; destroyed
//	                           ignored (excluded by Config)         forgotten
//
// The package promises:
//
//   - Every line that the engine wrote to a json file is emitted exactly once
//     before the sink's durable cut and again after it, in order per stream,
//     whatever the moment agentd stops; what is known to be missing (a file
//     rotated or truncated unread, a record that makes no sense) is a gap.
//   - A position names a file by the hash of its first record, because inodes
//     are used again, and carries the hash of the bytes before the offset,
//     because files are truncated.
//   - The exit of a container is told as soon as the engine says die, with its
//     last words: the end of both streams, read from the end of the log, although
//     the reader may be gigabytes behind. Events of one sandbox keep their order
//     among each other, and wait for no line; only its destruction is told after
//     its last line.
//   - What a container used is measured at the moment its first process ends,
//     before the engine removes its control group.
//   - Commands in a container (docker exec) are told with their exit code and
//     duration; its health checks are counted, not told.
//   - The engine's event stream is always drained: a slow reader would delay
//     every call that other people make to their engine. Events that were
//     missed are found by comparing with the engine's list and marked inferred.
//   - The engine may be absent, stop and come back; the source says so once
//     and goes on trying.
//   - ByAddress, ByPID and ByID name the container behind a caller of this node,
//     or nobody, and never another one.
//   - Memory is bounded: one read buffer, 256 KiB for each half-read long line,
//     and a bounded number of events waiting for a blocked sink. The tails of last
//     words are read when they are told, one at a time.
//
// It does not promise lines that the engine itself lost, nor the output of
// `docker exec`, which no log holds, nor log files that rotated away or were
// removed while agentd was not running.
package docker
