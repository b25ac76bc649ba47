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
// Logs are read from the files that the engine writes, not through its API, which
// costs 25 to 40 times the CPU and loses lines when a file rotates under load.
// Each file is opened when it is created and held until it has been read to its
// end, so neither rotation nor `docker run --rm` can take away what was written.
// The API is the fallback for remote engines, unreadable files and drivers of
// which the engine keeps no copy (journald).
//
//	driver                      file below the container's directory        records
//	json-file                   <id>-json.log, .1, .2.gz …                  JSON lines
//	local                       local-logs/container.log, .1.gz …           protobuf frames
//	others, the engine's cache  container-cached.log, .1 …                  the same; a gap says
//	                                                                        that lines may lack
//	none, or a cache that is    no file                                     a gap says so
//	switched off
//
// A log that is being written is looked at in rounds, fifty a second; a log that
// was idle wakes the reader, which then reads at once.
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
//   - Every line that the engine wrote to a file is emitted exactly once
//     before the sink's durable cut and again after it, in order per stream,
//     whatever the moment agentd stops; what is known to be missing (a file
//     rotated or truncated unread, a record that makes no sense) is a gap.
//   - A position names a file by the hash of its first record, because inodes
//     are used again, and carries the hash of the bytes before the offset,
//     because files are truncated. In a compressed file it counts the plain text.
//   - A source that ends reads what is deleted to its end, for 3 s, and leaves
//     what is open to the next one (Config.Keeper), so that a container that ends
//     and is removed while agentd is restarted loses nothing.
//   - What is held of one log after the engine has deleted it is bounded
//     (Config.MaxHeldFiles, MaxHeldBytes): past half of that it is read first, past
//     it the oldest file is given up with a gap that says how many bytes it had.
//     All log files together leave descriptors of the process to others.
//   - A line that is cut says how long it was.
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
//     every call that other people make to their engine. A busy engine loses an
//     event now and then all the same. What was missed is found by comparing with
//     the engine's list once a minute, and a removal by its directory that is gone;
//     it is marked inferred.
//   - The engine may be absent, stop and come back; the source says so once
//     and goes on trying. Logs that were known before are read meanwhile.
//   - ByAddress, ByPID and ByID name the container behind a caller of this node,
//     or nobody, and never another one.
//   - Memory is bounded: one read buffer, 256 KiB for each half-read long line,
//     and a bounded number of events waiting for a blocked sink. The tails of last
//     words are read when they are told, one at a time.
//
// It does not promise lines that the engine itself lost (its cache of another
// driver drops them silently), nor the output of `docker exec`, which no log holds,
// nor log files that rotated away or were removed while agentd was not running
// and nobody kept them.
package docker
