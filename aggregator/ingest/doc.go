// Package ingest is the aggregator's end of the path from nodes: the
// certificate authority, the enrolment server, and the server that takes frames.
//
//	                  ┌──────────── enrolment port: TLS, join token ────────────┐
//	node without ─────► Enroll: token ─► Nodes.Join ─► certificate of 24 hours  │
//	certificate       └─────────────────────────────────────────────────────────┘
//	                  ┌──────────── ingest port: mutual TLS 1.3 ────────────────┐
//	node ─── Hello ───► certificate ─► not revoked ─► generation ─► Welcome     │
//	     ─── Frame ───► organisation ─► quota ─► check ─► queue ─► Committer    │
//	     ◄── Ack ─────┤                                              │          │
//	                  └──────────────────────────────────────────────┼──────────┘
//	                                                                 └─► Publish
//
// A frame's way and every answer to it:
//
//	          header breaks the contract, or names a foreign organisation
//	received ──────────────────────────────────────────────────► stream ends
//	   │ unknown organisation, over quota, no memory
//	   ├──────────────────────────────► Throttle (what lies behind it is skipped)
//	   │ body cannot be read                    store refuses the data
//	   ├──────────────► quarantined ─┐ ┌──────────────── bisected
//	   ▼                             ▼ ▼
//	 queued ─────────────────────► commit ──► Ack (committed, duplicate)
//	                                 │  └───► Rewind (frames before it are missing)
//	                                 └ store away: again and again, with growing pauses
//
// # Promises
//
//   - A frame is acknowledged after its transaction has committed, never before.
//     A frame that is refused or lost on the way is sent again by its node; one that
//     is sent twice is recognised by the store's marks.
//   - The organisation of a frame is the certificate's word. Only nodes whose
//     certificate says platform name one in the header, and only one that exists.
//   - Frames of one organisation, epoch and lane are committed in order. Those of
//     different organisations do not wait for each other: quota, memory and holes
//     are kept per organisation, and a batch that fails is split.
//   - A frame whose body cannot be decoded or stored goes to quarantine, is
//     acknowledged, and delays nothing behind it.
//   - Memory is bounded per organisation and in all, whatever the database does;
//     whatever a body says, decoding it is bounded too.
//   - A revoked node is cut off within RevokedEvery and one look-up, a stream
//     ends when its certificate expires, and a copied certificate locks the node
//     at the next renewal (see admit).
//   - At the end what was taken is committed and acknowledged, within StopTimeout.
package ingest
