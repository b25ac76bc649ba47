package telemetry

import (
	"encoding/json"
	"time"
)

// Level of a log entry.
type Level uint8

// The levels, least important first. The numbers are stored and sent: never renumber.
const (
	Debug Level = iota
	Info
	Warn
	Error
	NumLevels = 4
)

var levels = words[Level]{kind: "level", names: []string{"debug", "info", "warn", "error"}}

func (l Level) String() string                { return levels.name(l) }
func (l Level) MarshalText() ([]byte, error)  { return levels.marshal(l) }
func (l *Level) UnmarshalText(b []byte) error { return levels.unmarshal(b, l) }

// ParseLevel reads "debug", "info", "warn" or "error".
func ParseLevel(s string) (Level, error) { return levels.parse(s) }

// LogSource says who wrote a log entry.
type LogSource uint8

// The sources. The numbers are stored and sent: never renumber.
const (
	SourceAgent LogSource = iota
	SourceSystem
	SourceProvider
	SourceModel
)

var logSources = words[LogSource]{kind: "source", names: []string{"agent", "system", "provider", "model"}}

func (s LogSource) String() string                { return logSources.name(s) }
func (s LogSource) MarshalText() ([]byte, error)  { return logSources.marshal(s) }
func (s *LogSource) UnmarshalText(b []byte) error { return logSources.unmarshal(b, s) }

// ParseLogSource reads "agent", "system", "provider" or "model".
func ParseLogSource(s string) (LogSource, error) { return logSources.parse(s) }

// Stream is the channel of the sandbox that an entry came by.
type Stream uint8

// The streams. The numbers are stored and sent: never renumber.
const (
	NoStream Stream = iota // structured entries, which came by no stream
	Stdout
	Stderr
)

var streams = words[Stream]{kind: "stream", names: []string{"", "stdout", "stderr"}}

func (s Stream) String() string                { return streams.name(s) }
func (s Stream) MarshalText() ([]byte, error)  { return streams.marshal(s) }
func (s *Stream) UnmarshalText(b []byte) error { return streams.unmarshal(b, s) }

// ParseStream reads "stdout" or "stderr".
func ParseStream(s string) (Stream, error) { return streams.parse(s) }

// Provider of sandboxes.
type Provider uint8

// The providers. The numbers are stored and sent: never renumber.
const (
	NoProvider Provider = iota // a process of the host itself (agentd exec)
	Docker
	Fly
	E2B
)

var providers = words[Provider]{kind: "provider", names: []string{"", "docker", "fly", "e2b"}}

func (p Provider) String() string                { return providers.name(p) }
func (p Provider) MarshalText() ([]byte, error)  { return providers.marshal(p) }
func (p *Provider) UnmarshalText(b []byte) error { return providers.unmarshal(b, p) }

// ParseProvider reads "docker", "fly" or "e2b".
func ParseProvider(s string) (Provider, error) { return providers.parse(s) }

// Largest parts of a log entry, in bytes. Intake cuts longer messages at a
// rune boundary and drops longer metadata; both are marked and counted.
const (
	MaxMessage  = 256 << 10
	MaxMetadata = 64 << 10
)

// Origin is what all lines of one stream of one sandbox share: who wrote them
// and where. It is comparable, so that codecs and caches can key on it.
type Origin struct {
	Agent    AgentID   `json:"agentId"`
	Session  SessionID `json:"sessionId,omitempty"`
	User     UserID    `json:"userId,omitempty"`
	Provider Provider  `json:"provider,omitempty"`
	Sandbox  SandboxID `json:"sandboxId,omitempty"`
	Stream   Stream    `json:"stream,omitempty"`
	Source   LogSource `json:"source"`
}

// LogEntry is one log line after re-assembly: the struct that sources emit,
// intake completes, the store returns and the API prints.
type LogEntry struct {
	// ID is derived from time, node, epoch and sequence when an entry is read
	// from the store; on a node it is empty.
	ID        LogID     `json:"id,omitempty"`
	Timestamp time.Time `json:"timestamp"` // the source's own, UTC, microseconds
	Level     Level     `json:"level"`
	Origin
	Message  string          `json:"message"`
	Metadata json.RawMessage `json:"metadata,omitempty"` // a JSON object, or nil
	Trace    TraceID         `json:"traceId,omitempty"`
	Span     SpanID          `json:"spanId,omitempty"`

	// LevelInferred says that no level was stated and Level is a guess.
	LevelInferred bool `json:"levelInferred,omitempty"`
	// Truncated says that the message was longer than MaxMessage.
	Truncated bool `json:"truncated,omitempty"`

	Node       NodeID    `json:"nodeId,omitempty"`    // set by the aggregator
	Seq        uint64    `json:"seq,omitempty"`       // of (epoch, organisation, logs lane); set by the spool
	ObservedAt time.Time `json:"observedAt,omitzero"` // when the aggregator took it
	Cursor     string    `json:"cursor,omitempty"`    // streams only: position to resume after
	Position   int64     `json:"-"`                   // the organisation's stream counter
}
