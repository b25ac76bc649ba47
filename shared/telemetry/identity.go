package telemetry

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// OrgID is an organisation's id, org_…. Ids are named types, so that none is
// taken for another. Agent and session ids are chosen by the orchestrator
// (opaque, up to MaxIDLength of [A-Za-z0-9_.:-]), unique per organisation.
type OrgID string

// NodeID is the id of a host with agentd, nod_….
type NodeID string

// AgentID is the id of one agent run, agt_….
type AgentID string

// SessionID is the id of a session, ses_….
type SessionID string

// UserID is the tenant's own end user: any UTF-8 without NUL.
type UserID string

// SandboxID is the provider's id of a container, machine or sandbox.
type SandboxID string

// TraceID is the id of a trace, trc_….
type TraceID string

// SpanID is the id of a span, spn_….
type SpanID string

// LogID is the id of a log entry, log_….
type LogID string

// Longest accepted ids, in bytes.
const (
	MaxIDLength   = 128
	MaxUserLength = 256
)

// CheckID returns an error unless s is a public id: 1 to MaxIDLength bytes of
// [A-Za-z0-9_.:-].
func CheckID(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > MaxIDLength {
		return fmt.Errorf("is longer than %d characters", MaxIDLength)
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == ':' || c == '-' {
			continue
		}
		return errors.New("holds a character other than A-Z a-z 0-9 _ . : -")
	}
	return nil
}

// CheckUser returns an error unless s can be a user id: 1 to MaxUserLength
// bytes of UTF-8 without NUL.
func CheckUser(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > MaxUserLength:
		return fmt.Errorf("is longer than %d bytes", MaxUserLength)
	case !utf8.ValidString(s):
		return errors.New("is not valid UTF-8")
	}
	for i := range len(s) {
		if s[i] == 0 {
			return errors.New("holds a NUL character")
		}
	}
	return nil
}

// Environment parts an organisation's data: test data is never billed and
// fires no live webhook.
type Environment uint8

// The environments. The numbers are stored and sent: never renumber.
const (
	Live Environment = 0
	Test Environment = 1
)

var environments = words[Environment]{kind: "environment", names: []string{"live", "test"}}

func (e Environment) String() string                { return environments.name(e) }
func (e Environment) MarshalText() ([]byte, error)  { return environments.marshal(e) }
func (e *Environment) UnmarshalText(b []byte) error { return environments.unmarshal(b, e) }

// ParseEnvironment reads "live" or "test".
func ParseEnvironment(s string) (Environment, error) { return environments.parse(s) }

// Scope is the part of the data that one principal, frame or row belongs to.
type Scope struct {
	Org OrgID
	Env Environment
}

func (s Scope) String() string { return string(s.Org) + "/" + s.Env.String() }

// Quota is what one organisation may send, all its nodes and keys together, to
// one aggregator. Above it only that organisation is throttled.
type Quota struct {
	BytesPerSecond   int64 // encoded; 0: as everybody
	RecordsPerSecond int64 // 0: as everybody
}
