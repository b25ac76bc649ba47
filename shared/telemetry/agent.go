package telemetry

import (
	"encoding/json"
	"time"
)

// AgentStatus is where an agent stands in its life.
type AgentStatus uint8

// The states. The numbers are stored: never renumber.
const (
	AgentBooting AgentStatus = iota
	AgentReady
	AgentRunning
	AgentPaused
	AgentCompleted
	AgentFailed
)

var agentStatuses = words[AgentStatus]{kind: "status", names: []string{"booting", "ready", "running", "paused", "completed", "failed"}}

func (s AgentStatus) String() string                { return agentStatuses.name(s) }
func (s AgentStatus) MarshalText() ([]byte, error)  { return agentStatuses.marshal(s) }
func (s *AgentStatus) UnmarshalText(b []byte) error { return agentStatuses.unmarshal(b, s) }

// ParseAgentStatus reads a documented status word.
func ParseAgentStatus(s string) (AgentStatus, error) { return agentStatuses.parse(s) }

// Agent is what observability knows of one agent run.
type Agent struct {
	ID         AgentID     `json:"id"`
	Session    SessionID   `json:"sessionId,omitempty"`
	User       UserID      `json:"userId,omitempty"`
	Status     AgentStatus `json:"status"`
	Provider   Provider    `json:"provider,omitempty"`
	Sandbox    SandboxID   `json:"sandboxId,omitempty"`
	Node       NodeID      `json:"nodeId,omitempty"`
	CreatedAt  time.Time   `json:"createdAt"`
	FirstLogAt time.Time   `json:"firstLogAt,omitzero"`
	LastLogAt  time.Time   `json:"lastLogAt,omitzero"`
}

// SessionStatus is where a session stands.
type SessionStatus uint8

// The states. The numbers are stored: never renumber.
const (
	SessionActive SessionStatus = iota
	SessionPaused
	SessionTerminated
)

var sessionStatuses = words[SessionStatus]{kind: "status", names: []string{"active", "paused", "terminated"}}

func (s SessionStatus) String() string                { return sessionStatuses.name(s) }
func (s SessionStatus) MarshalText() ([]byte, error)  { return sessionStatuses.marshal(s) }
func (s *SessionStatus) UnmarshalText(b []byte) error { return sessionStatuses.unmarshal(b, s) }

// ParseSessionStatus reads a documented status word.
func ParseSessionStatus(s string) (SessionStatus, error) { return sessionStatuses.parse(s) }

// Session is what observability knows of one session.
type Session struct {
	ID         SessionID       `json:"id"`
	User       UserID          `json:"userId,omitempty"`
	Status     SessionStatus   `json:"status"`
	Env        Environment     `json:"environment"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
	CreatedAt  time.Time       `json:"createdAt"`
	FirstLogAt time.Time       `json:"firstLogAt,omitzero"`
	LastLogAt  time.Time       `json:"lastLogAt,omitzero"`
}

// Listing asks for one page of agents or sessions, newest first.
type Listing struct {
	Session SessionID // agents only; zero: all
	Status  *uint8    // number of an AgentStatus or SessionStatus; nil: all
	Limit   int
	After   *ListingKey
}

// ListingKey is the place of an agent or session in a listing.
type ListingKey struct {
	CreatedAt time.Time
	ID        string
}
