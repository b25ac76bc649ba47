package telemetry

import (
	"encoding/json"
	"time"
)

// Lane of a frame: events are never queued behind logs.
type Lane uint8

// The lanes. The numbers are stored and sent: never renumber.
const (
	LaneLogs Lane = iota
	LaneEvents
	NumLanes = 2
)

var lanes = words[Lane]{kind: "lane", names: []string{"logs", "events"}}

func (l Lane) String() string { return lanes.name(l) }

// Class says in which order a full spool gives frames up: Bulk first.
type Class uint8

// The classes. The numbers are stored and sent: never renumber.
const (
	Bulk      Class = iota // debug and info of streams above their fair share
	Normal                 // other debug and info
	Important              // warn, error, last words, and all of the events lane
)

var classes = words[Class]{kind: "class", names: []string{"bulk", "normal", "important"}}

func (c Class) String() string { return classes.name(c) }

// EventType names a step in the life of a sandbox or agent.
type EventType string

// The lifecycle events that sources emit.
const (
	SandboxCreated   EventType = "sandbox.created"
	SandboxStarted   EventType = "sandbox.started"
	SandboxPaused    EventType = "sandbox.paused"
	SandboxResumed   EventType = "sandbox.resumed"
	SandboxExited    EventType = "sandbox.exited"
	SandboxOOM       EventType = "sandbox.oom"
	SandboxKilled    EventType = "sandbox.killed" // a signal was sent
	SandboxDestroyed EventType = "sandbox.destroyed"
	SandboxHealth    EventType = "sandbox.health"
	ExecStarted      EventType = "exec.started"
	ExecExited       EventType = "exec.exited"
	// What an agent says of itself, by the sandbox client.
	AgentProgress EventType = "agent.progress"
	AgentComplete EventType = "agent.complete"
)

// Event is a lifecycle event of one sandbox.
type Event struct {
	Type       EventType         `json:"type"`
	Timestamp  time.Time         `json:"timestamp"` // the provider's own, UTC
	Origin                       // Stream is NoStream, Source is SourceProvider
	ExitCode   *int              `json:"exitCode,omitempty"`   // exited events, where known
	Reason     string            `json:"reason,omitempty"`     // "oom", "killed", "error", …: why it ended
	Inferred   bool              `json:"inferred,omitempty"`   // found by reconciling, not told by the provider
	Attributes map[string]string `json:"attributes,omitempty"` // image, name, exec command, …
	LastWords  *LastWords        `json:"lastWords,omitempty"`  // exited events, where known
	// Content is what the agent handed over with agent.progress or
	// agent.complete: a JSON object of at most MaxMetadata bytes, or nil.
	Content json.RawMessage `json:"content,omitempty"`
	Node    NodeID          `json:"nodeId,omitempty"` // set by the aggregator
}

// StoredEvent is an event and its place among those of the same time.
type StoredEvent struct {
	Event
	Place string `json:"-"`
}

// MaxTail is how much of each stream LastWords holds, in bytes.
const MaxTail = 64 << 10

// LastWords is what is known of a sandbox's end. It travels with the exit
// event, ahead of any backlog of lines.
type LastWords struct {
	Signal      string        `json:"signal,omitempty"` // that ended it, such as SIGKILL
	OOMKilled   bool          `json:"oomKilled,omitempty"`
	Duration    time.Duration `json:"durationNanos,omitempty"`   // from its start to its end
	MemoryPeak  int64         `json:"memoryPeakBytes,omitempty"` // 0: not known
	CPUTime     time.Duration `json:"cpuNanos,omitempty"`        // 0: not known
	ImageDigest string        `json:"imageDigest,omitempty"`
	// Stdout and Stderr end with the last byte that was written, and begin at a
	// line where that keeps most of MaxTail; Omitted bytes came before.
	Stdout        string `json:"stdout,omitempty"`
	Stderr        string `json:"stderr,omitempty"`
	StdoutOmitted int64  `json:"stdoutOmittedBytes,omitempty"`
	StderrOmitted int64  `json:"stderrOmittedBytes,omitempty"`
}

// Records are the records of the events lane, by kind. In a frame they have
// their sequences in this order.
type Records struct {
	Events     []Event
	Spans      []Span
	ModelCalls []ModelCall
	Metrics    []MetricPoint
	Gaps       []Gap
}

// Len is how many there are.
func (r *Records) Len() int {
	return len(r.Events) + len(r.Spans) + len(r.ModelCalls) + len(r.Metrics) + len(r.Gaps)
}

// GapReason says why records are missing.
type GapReason string

// The reasons that agentd and the aggregator give. A reader must accept others.
const (
	GapCorrupt      GapReason = "corrupt"      // damaged frames of the spool
	GapEvicted      GapReason = "evicted"      // the disk budget was used up
	GapRotated      GapReason = "rotated"      // the source rotated before it was read
	GapTruncated    GapReason = "truncated"    // the source file shrank below what was read
	GapUncleanStop  GapReason = "unclean_stop" // a source that cannot be read again, at a crash
	GapUnreadable   GapReason = "unreadable"   // the source refused, or its data made no sense
	GapForgotten    GapReason = "forgotten"    // acknowledged, given up by the node, and asked for again
	GapQuarantined  GapReason = "quarantined"  // the aggregator could not take the frame
	GapSampled      GapReason = "sampled"      // a stream above its fair share, while the node was under pressure
	GapRefused      GapReason = "refused"      // over a quota of the node's local endpoint
	GapSlowReader   GapReason = "slow_reader"  // live streams only: this client was too slow
	GapUnknownCount           = -1             // Gap.Count where nobody can know
)

// Gap says what is missing, how much and why. It is a record like any other,
// takes a position in its organisation's stream, and is shown where the
// missing lines would be.
type Gap struct {
	Reason   GapReason `json:"reason"`
	Count    int64     `json:"count"` // records; GapUnknownCount where nobody can know
	Bytes    int64     `json:"bytes,omitempty"`
	Since    time.Time `json:"since,omitzero"` // time bounds, where known
	Until    time.Time `json:"until,omitzero"`
	FirstSeq uint64    `json:"firstSeq,omitempty"` // range in (epoch, organisation, lane), where there is one
	LastSeq  uint64    `json:"lastSeq,omitempty"`
	Agent    AgentID   `json:"agentId,omitempty"` // where it concerns one sandbox
	Session  SessionID `json:"sessionId,omitempty"`
	Sandbox  SandboxID `json:"sandboxId,omitempty"`
	Detail   string    `json:"detail,omitempty"` // one plain sentence for a person
	Node     NodeID    `json:"nodeId,omitempty"` // set by the aggregator

	ObservedAt time.Time `json:"observedAt,omitzero"` // when the aggregator took it
	Cursor     string    `json:"cursor,omitempty"`    // streams only
	Position   int64     `json:"-"`
}
