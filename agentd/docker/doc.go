// Package docker reads a Docker engine: what its containers print, and what
// happens to them. It is a source.Source.
//
//	engine                                                      Sink
//	───────                                                      ▲
//	/events ──▶ drain ──queue──▶ control ──pending events──┐     │
//	             never waits     inspect, reconcile,       ▼     │
//	                             identity                sandboxes ──▶ reader
//	containers/ ─▶ watcher ──────────────pinned files──────▲     one loop, a turn
//	 inotify       opens a log the moment it is created          of 256 KiB each
//	/logs ──────▶ follower (only where there is no file) ────────▶ Sink
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
//	                              │ pins files                          │ die: a mark at the
//	                              │ reads nothing yet                   ▼ file's end
//	                              │                                  finishing
//	                              │          start again                │ read to the mark, partial
//	                              │        read ◀───────────────────────┤ lines flushed, exit event
//	                              ▼                                     ▼ destroyed and read
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
//   - The exit of a container is emitted after its last line.
//   - The engine's event stream is always drained: a slow reader would delay
//     every call that other people make to their engine. Events that were
//     missed are found by comparing with the engine's list and marked inferred.
//   - The engine may be absent, stop and come back; the source says so once
//     and goes on trying.
//   - Memory is bounded: one read buffer, 256 KiB for each half-read long line,
//     and a bounded number of events waiting for a blocked sink.
//
// It does not promise lines that the engine itself lost, nor the output of
// `docker exec`, which no log holds, nor log files that rotated away or were
// removed while agentd was not running.
package docker
