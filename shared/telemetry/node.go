package telemetry

import "time"

// NodeIdentity is what a node's certificate says of it.
type NodeIdentity struct {
	ID  NodeID
	Org OrgID // the one organisation of a BYOI node; empty: a platform node, which may name organisations
}

// Platform reports whether the node may name the organisation of a frame.
func (n NodeIdentity) Platform() bool { return n.Org == "" }

// Node is what the aggregator knows of a host with agentd.
type Node struct {
	ID            NodeID    `json:"id"`
	Org           OrgID     `json:"organisationId,omitempty"` // empty: a platform node
	Name          string    `json:"name"`
	Machine       string    `json:"machineId,omitempty"`
	Version       string    `json:"version,omitempty"`
	Generation    int64     `json:"generation"` // of its certificate; a renewal with an old one locks the node
	CertificateTo time.Time `json:"certificateExpiresAt,omitzero"`
	CreatedAt     time.Time `json:"createdAt"`
	LastSeenAt    time.Time `json:"lastSeenAt,omitzero"`
	RevokedAt     time.Time `json:"revokedAt,omitzero"`
}
