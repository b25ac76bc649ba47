// Package sandbox is the node's local endpoint: where the programs inside
// sandboxes say things themselves, beside what they print. It speaks the
// protocol of the published client theazo/sandbox (THEAZO_ENDPOINT) and
// OpenTelemetry's (OTLP: logs, traces and metrics, by HTTP and gRPC), and takes
// the output of exec sessions from agentd-exec.
//
//	                 who is it?              is there room?
//	sandbox ──HTTP──▶ bind ──────▶ decode ──▶ queue of the sandbox ──▶ Sink
//	            address, socket   1 MiB,      1 MiB, 4,096 records,
//	            peer or token     depth 32    rates: else 429 and a gap
//
// # Promises
//
//   - Nobody speaks for another. A sender is the container that its source
//     address belongs to, or that its process is in (unix socket), or whom the
//     token in the path of its THEAZO_ENDPOINT names (/t/TOKEN/v1/sandbox/…).
//     An agentId or sessionId in a body is a claim: one that is not the
//     sender's is refused and counted. What a proxy says of a sender
//     (X-Forwarded-For) means nothing, and pages in a browser, which name their
//     Origin, are turned away: a page that an agent looks at is not the agent.
//   - A sandbox is never slowed: requests are answered once they are queued,
//     with 202. When its queue is full or it is above its rates it gets 429 with
//     Retry-After, at once; what a client that does not try again lost is
//     counted, and told as a gap record.
//   - OTLP's senders are told what was refused and why (partial success), and
//     when to try again (Retry-After, RetryInfo), which they do by themselves.
//   - Sandboxes do not wait for one another: each has its queue and its own
//     goroutine towards the sink.
//   - Memory is bounded: by bytes per request, queue and node, by connections
//     per sender and in all, by the depth of JSON and what a compressed body
//     may become.
//   - What was queued and not yet durable when agentd was killed is lost (it
//     cannot be read again). The next start says so: one gap record for each
//     sandbox that was speaking then.
//   - Exec sessions lose nothing that agentd-exec still has: see package
//     execstream. A session that was cut off goes on where the last durable
//     batch ended, over restarts and kills of agentd.
//
// On a network of containers the source address is as good as the network: a
// container with CAP_NET_RAW can take its neighbour's. Sandboxes that trust each
// other that little get tokens, or the unix socket.
package sandbox
