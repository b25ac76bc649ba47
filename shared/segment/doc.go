// Package segment is the column codec for log lines: the body of a log frame
// on the node's disk and on the wire, the parts of a hot row and of a chunk in
// the store. A line is encoded once, where it was read; everything after that
// moves and cuts encoded columns.
//
// # Layout, version 1
//
//	segment := head column…
//	head    := version(1) lines minTime maxTime-minTime levelCounts[4] rawBytes
//	           origins{ provider stream source agent session user sandbox }
//	           columns{ id encodedLength }
//	column  := encoding rawLength data
//
// Numbers are unsigned varints (minTime zigzag, microseconds since 1970);
// strings are length and bytes. encoding is 0x10 (version 1, plain) or 0x11
// (version 1, zstd). A column whose lines are all empty is left out.
//
//	time      zigzag varint deltas, the first from minTime
//	flags     one byte a line: level in bits 0-1, inferred bit 2, truncated bit 3
//	origin    varint index into the head's dictionary of origins
//	message   lengths, then bytes
//	metadata  lengths, then bytes (JSON objects; 0: none)
//	trace     lengths, then bytes of the trace id and of the span id in turn
//
// Origins are a dictionary of who and where, so that a filter by session,
// agent, user, provider, sandbox, source or stream is decided once per origin.
// Small segments (under 2 KiB) are not compressed: a lone line travels at once
// and zstd would only add to it.
//
// # Promises
//
//   - Whatever the bytes say, decoding fails with ErrCorrupt or allocates at most
//     MaxAllocation; it never panics. (Fuzzed.)
//   - What Writer encoded decodes to equal entries, in order. (Property test.)
//   - Select finds exactly what telemetry.LogFilter.Match finds. (Property test.)
//   - Every version ever written stays readable: testdata holds one of each.
package segment
