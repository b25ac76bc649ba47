// Package uplink is agentd's end of the path to the aggregator: it enrols the
// node, keeps its certificate fresh, and sends the frames of a queue over one
// mutually authenticated gRPC stream.
//
//	             join token                   2/3 of its life
//	no identity ────────────► identity.pem ◄───────────────── Renew
//	                               │
//	          ┌────────────────────▼───────────┐  pause with full jitter, next address
//	          │ connect ─ Hello ─ Welcome      │◄──────────────────────┐
//	          └────────────────────┬───────────┘                       │
//	                               ▼ Queue.Reset                       │
//	          ┌────────────────────────────────┐  stream ends, silence │
//	          │ Queue.Next ─ window ─► Frame   ├───────────────────────┘
//	          │ Queue.Ack      ◄────── Ack     │
//	          │ wait, Rewind   ◄────── Throttle│
//	          │ Queue.Rewind   ◄────── Rewind  │
//	          └────────────────────────────────┘
//
// # Promises
//
//   - A frame leaves the queue when an aggregator has acknowledged it, and not
//     before. After a broken connection everything that is not acknowledged is
//     sent again, as it lies in the queue; the aggregator's marks make repeats harmless.
//   - An organisation that is told to wait delays no other: it is skipped, what
//     it had on its way no longer counts, and no organisation can fill the window alone.
//   - Nothing is ever given up: attempts go on with growing pauses, over all
//     addresses in turn.
//   - The join token is sent only to a server of the authority that the token
//     names; after that the node trusts that authority and no other. The key is
//     made here, again at each renewal, and never leaves the state directory.
//     Whenever the machine dies, identity.pem is whole: the old one or the new.
//   - No rule reads the wall clock, except when to renew.
package uplink
