// Package push takes records that come without agentd: a CI step, a serverless
// function or a collector POSTs them with an API key. They become the same
// frames that nodes send, and take the same way into the store.
//
//	body ─ memory ─ inflate ─ decode, clean ─ frames ─┬─ Idempotency-Key: claim its epoch
//	                             │                    └─ none: epoch 0, the submitter numbers them
//	                             └─ what is refused, line by line
//	                                                   └─► Submit: quota, check, commit, publish ─► answer
//
// Promises:
//
//   - The answer follows the commit. An error means that nothing is known to be
//     stored; with an Idempotency-Key the same request can be sent again, for a
//     week, and stores nothing twice. The same key with another body is refused.
//   - The organisation and environment are the key's; a body cannot name them.
//   - One bad line costs that line, and is told by its number.
//   - Every input is taken as hostile. A body has at most MaxBody bytes, also
//     inflated, and MaxRecords records; all bodies together take at most
//     maxHeld, one organisation half of what the others leave.
//   - What is stored is as what agentd sends: UTF-8 without NUL or terminal escape
//     sequences, JSON objects in one line, cut at the same sizes. Nothing is
//     redacted: that happens on nodes, before data leaves them.
package push
