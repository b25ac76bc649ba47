// Package ids makes and reads the ids and secrets of the product.
//
//   - Random ids: org_, nod_, key_, req_, … and 20 characters (100 bits).
//   - A log entry's id, derived from what the entry is: its time, agent, node,
//     epoch and sequence. It is the same wherever the entry is read from, and
//     holds what a reader needs to find it again.
//   - Credentials: API keys, join tokens and stream tokens. Each holds 256 random
//     bits; only its SHA-256 is stored. A checksum in the text turns typing
//     errors away before a database is asked, and lets scanners find leaked ones.
package ids
