// Package spoolfaults kills and cuts the power of a program that writes a spool,
// on a real file system, and holds what is found again against what had been
// accepted.
//
//	life (a process, or a loop in this one)      oracle (outlives it)
//	  open ▸ append n ▸ … ── accepted n ───────▶ the highest n
//	         offer ───────── offered frame ────▶ a receiver: takes the next sequence,
//	         ack, save, evict                      knows repeats by their mark
//	  ✂ killed, or the power goes
//	  open ▸ …                                     (some lives later)
//	  open ▸ offer all ▸ Oracle.Finish ──────────▶ every append once, or in a tombstone that counts it
//
// Kills: by strace at the n-th write, fsync, rename, unlink or open of a thread.
// Power cuts: the shutdown ioctl of ext4 on a loop mount, in a mount namespace of
// its own, at the n-th call of the spool, before or after it; the kernel then
// drops whatever was not flushed, data, journal and names.
//
// What was accepted is only what was told before the fault: what races with it is
// no evidence.
package spoolfaults
