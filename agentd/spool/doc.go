// Package spool is a crash-safe queue of opaque frames on a node's disk. It
// knows bytes and the plain header that it needs to order them: organisation,
// lane, class and how many records a frame counts.
//
//	Append(drafts, positions) ──▶ one unit, one write, one fsync ──▶ Next ──▶ sent ──▶ Ack
//	        │ no room                      │                          ▲        │
//	        ▼                              ▼                          └────────┘
//	others give way ──────▶ tombstone  segment file ─────────────▶ Reset, Rewind: unsent again
//	                                       │ every frame acknowledged or gone        │ most of them
//	                                       ▼                                         ▼
//	                        cursor saved (fsync) ──▶ file unlinked, or replaced by a copy of the rest
//
// # Promises
//
//   - What Append returned nil for is on disk: frames and positions together,
//     both lanes together, or nothing of it. A frame is offered to Next only
//     after its fsync, so a sequence number never names two contents.
//   - Sequences are gapless per (epoch, organisation, lane), from 1. Every Open
//     begins a new epoch; frames that were not acknowledged keep theirs.
//   - Next offers the events lane before the logs lane, organisations in turn,
//     and each organisation's frames in sequence order, old epochs first.
//   - Open never refuses a damaged spool. A torn tail (an Append that had not
//     returned) is cut, with its positions. Damage anywhere else costs the frames
//     that it touches and no others; in their place Next offers a tombstone
//     with the exact number of missing records, the same one at every Open until
//     it is acknowledged. No damaged byte is ever offered: every body is checked
//     again when it is read.
//   - A file is unlinked or replaced only after a cursor is durable that knows
//     all that goes with it: acknowledgements, tombstones, positions.
//   - After a failed write or fsync a file is never written again: it is cut at
//     its last good offset and the same bytes go to a new file.
//   - Files never take more than Options.Budget (the cursor aside, and a budget
//     that was larger before), copies in the making included; each frame counts for
//     at least 1 KiB of it, which bounds the index in memory.
//   - A frame that gave way leaves a tombstone with its sequences; neighbours
//     become one. It is durable before its room is used again.
//   - A disk without space costs nothing but time: Append says ErrFull, and
//     acknowledgements still free files.
//
// # Who gives way
//
// When there is no room, files of which half is dead (acknowledged) are copied
// without it first; so an organisation that is throttled pins no more than its
// own frames. Then frames give way:
//
//	bulk logs ▶ normal logs ▶ important logs ▶ metrics ▶ lifecycle events (never within their reserve, 5 %)
//
// In this order, of each the oldest first, those that are on their way last. A
// log frame that arrives takes part, as the youngest: where all that is here is
// worth more, it is appended as a tombstone. But no organisation that has less
// than its share (the budget by the number of organisations that have frames)
// loses anything while another has more than its own.
//
// Who must wait instead: log frames while one organisation's frames are the
// only ones, up to Options.EvictAfter since room was last missed and nothing was
// acknowledged: their source keeps them meanwhile, so reading may pause. Beside
// other organisations nobody waits, because one's pause would be all others'.
// Frames of the events lane, appended by themselves, never wait.
//
// Below Options.Floor of free space the budget is what was used by then, and
// grows again with the space.
//
// Not promised: positions in a damaged trailer fall back to the last good ones
// (their source repeats lines, it loses none); a damaged cursor (two slots, two
// copies in each) means that acknowledged frames of files still there are offered
// again, which receivers recognise by epoch and sequence, that what gave way is
// told as damaged, and positions of files that are gone are lost (repeats). A
// frame that gave way while on its way may have been taken: the receiver knows.
//
// # Files
//
// All numbers are little endian. One directory, mode 0700, files 0600:
//
//	00000000000000000042-9f86d081884c7d65.seg   first append in it, epoch
//	cursor.0, cursor.1                          what is acknowledged, what is gone, positions; in turn
//	lock                                        flock of the one process that writes
//
// Both lanes share the files: an Append that touches both is then one unit
// under one fsync, and its positions cannot become durable without all that
// they cover. (With a file per lane a crash between two fsyncs would repeat or
// lose one lane's part.) The lanes part in the index, where order is decided.
//
//	file  := header(64) block…
//	header:= magic(8) version(1) 0… epoch(8) first append(8) begun(8) 0… crc(4)
//	block := magic(4) version(1) kind(1) flags(1) lane(1) class(1) orgLength(1) 0(2)
//	         bodyLength(4) append(8) first(8) count(4) bodyCRC(4) previous(4) headCRC(4)
//	         org body padding to 8 bytes
//
// kind is a frame, or the trailer that ends each append and holds its positions
// and the places of its frames; flags mark the first and the last block of an
// append, the test environment, tombstones, and blocks that were moved here from
// another file, which have no trailer any more. headCRC covers
// the head and org, bodyCRC the body and the padding (CRC32C), and both start
// from a seed made of the file's name, so that a stale block of another file is
// never taken for one of this. previous is the headCRC of the block before.
// The file's header repeats its name: damage to it costs nothing. A block is found
// again after damage by its magic at the next multiple of 8.
//
// Which append was accepted, at Open:
//
//	                     next file's name, cursor's cuts
//	moved from another file                         ──▶ accepted: of two alike one counts
//	append ≥ first of the next file, or after a cut ──▶ void: its write failed and was made good elsewhere
//	append ≤ cursor, or followed by another append  ──▶ accepted: what is missing of it is damage, and counted
//	the very last one: all blocks whole and chained ──▶ accepted
//	                   else                         ──▶ torn: it had not returned; cut
package spool
