package telemetry

import "slices"

// Permission is one right of an API key (product.md 5.5 names them scopes;
// Scope is taken here by organisation and environment).
type Permission string

// The permissions that this release checks.
const (
	LogsRead    Permission = "logs:read"
	LogsWrite   Permission = "logs:write"   // send log entries, without agentd
	TracesWrite Permission = "traces:write" // send spans and metric points, without agentd
	NodesRead   Permission = "nodes:read"
	KeysAdmin   Permission = "keys:admin"
	DataErase   Permission = "data:erase"
)

// AllPermissions is what a key gets that was made without a choice: all but
// DataErase, whose use cannot be undone.
var AllPermissions = []Permission{LogsRead, LogsWrite, TracesWrite, NodesRead, KeysAdmin}

// Principal is who makes an API call. Its organisation comes from its
// credential and from nothing else.
type Principal struct {
	Scope
	KeyID       string
	KeyName     string
	Permissions []Permission

	// A stream token's limits; zero: none. What lies outside answers 404.
	OnlyAgent   AgentID
	OnlySession SessionID
	StreamOnly  bool // accepted on streaming endpoints only
}

// May reports whether the principal has the permission.
func (p *Principal) May(what Permission) bool { return slices.Contains(p.Permissions, what) }
