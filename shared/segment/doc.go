// Package segment is the column codec for log lines: the body of a log frame
// on the node's disk and on the wire, the parts of a hot row and of a chunk in
// the store. A line is encoded once, where it was read, and once more when its
// row becomes part of a chunk; everything else moves and cuts encoded columns.
//
//	entries ──Writer──▶ segment ──Join──▶ row ──Split──▶ parts ──Lines──▶ entries
//	                                       │                 │
//	                  lines of many rows, sorted             │ Select, Count
//	                                       ▼                 │
//	                                  ChunkWriter ──▶ Chunk ─┘  (+ Places, Counts, Bloom)
//
// # A segment, version 1
//
//	segment := head column…
//	head    := version(1) lines minTime maxTime-minTime levelCounts[4] rawBytes
//	           origins{ provider stream source agent session user sandbox }
//	           columns{ id encodedLength }
//	column  := encoding rawLength data
//
// Numbers are unsigned varints (minTime zigzag, microseconds since 1970);
// strings are length and bytes. encoding is 0x10 (version 1, plain), 0x11
// (version 1, zstd) or, for times, 0x20 (version 2). A column whose lines are
// all empty is left out.
//
//	time      zigzag varint deltas, the first from minTime
//	          version 2: scale, first-minTime, values: deltas in units of scale
//	flags     one byte a line: level in bits 0-1, inferred bit 2, truncated bit 3
//	origin    varint index into the head's dictionary of origins
//	message   lengths, then bytes
//	metadata  lengths, then bytes (JSON objects; 0: none)
//	trace     lengths, then bytes of the trace id and of the span id in turn
//
//	values := length column(class…) bits
//
// A class is the bit length of a value, 0x80 added where it is negative; the
// bits are those below the highest, packed.
//
// Origins are a dictionary of who and where, so that a filter by session,
// agent, user, provider, sandbox, source or stream is decided once per origin.
// Small segments (under 2 KiB) are not compressed: a lone line travels at once
// and zstd would only add to it. Writer writes version 1 of times, which every
// aggregator reads; only chunks have version 2.
//
// # A chunk
//
// A chunk is a row whose parts, its blocks, are segments of 512 lines (or
// 256 KiB) that decode alone. Its head is compressed (row.go, version 2). With
// blocks of 1,024 lines a chunk is 1.5 % smaller, and a page of a few lines of
// many chunks costs twice as much. A block says where it lies in the columns, so that it
// can be read alone. Lines are sorted by what queries ask for, so
// what a hot row says once of a whole segment is said of each line:
//
//	places := version(1) length column(sources{ node epoch(8 bytes) } runs{ position source seq observed })
//	          blocks{ lines length } values…
//	counts := version(1) buckets{ (distance<<4 | levels) count… }
//	bloom  := slices of 64 bytes, version(1)
//	owners := bits, of the sessions or agents that are too many to list (owner.go)
//
// Values of places are the positions, each as the difference from the line
// before. A position leads to its run, and the run to node, epoch, sequence
// and observed time.
//
// A bloom holds parts of messages: tokens.go says which. All bits of a token
// are in one slice, which it finds from the token's hash and the number of slices:
// a reader in SQL fetches 64 bytes per chunk and token. Ten bits a token,
// six of them set. About one in a hundred tokens that are absent are not denied.
//
// What it takes, of 119-byte messages with a random id and three numbers each
// (BenchmarkChunkEncode): message 28.0, bloom 4.0, time 1.9, places 1.7,
// flags 0.3, head, counts and origin 0.3: 36.2 bytes a line.
//
// # Searching
//
// Select decides by the head what it can, then by the small columns, then by
// traces, texts and conditions, and decodes a column when it is first needed.
// A text is looked for in all messages of a block at once. What it finds is what
// telemetry.LogFilter.Match finds. A reader keeps one Lines and goes from block to
// block by Reset, which uses all memory again.
//
// # Promises
//
//   - Whatever the bytes say, decoding fails with ErrCorrupt or allocates at most
//     MaxAllocation; it never panics. (Fuzzed.)
//   - What Writer and ChunkWriter encoded decodes to equal entries and places, in
//     order. (Property tests.)
//   - Select finds exactly what telemetry.LogFilter.Match finds, and Count as many.
//     (Property tests.)
//   - A bloom never denies a text that a message holds. (Property test.)
//   - Every version ever written stays readable: testdata holds one of each.
package segment
