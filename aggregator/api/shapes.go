package api

import (
	"github.com/theazo/observability/shared/telemetry"
)

// The shapes of answers: telemetry's structs with every time in one format.

type gapJSON struct {
	telemetry.Gap
	Since      telemetry.Timestamp `json:"since,omitzero"`
	Until      telemetry.Timestamp `json:"until,omitzero"`
	ObservedAt telemetry.Timestamp `json:"observedAt,omitzero"`
}

func shapeGap(g *telemetry.Gap) gapJSON {
	return gapJSON{Gap: *g, Since: telemetry.Timestamp(g.Since), Until: telemetry.Timestamp(g.Until), ObservedAt: telemetry.Timestamp(g.ObservedAt)}
}

type agentJSON struct {
	telemetry.Agent
	CreatedAt  telemetry.Timestamp `json:"createdAt"`
	FirstLogAt telemetry.Timestamp `json:"firstLogAt,omitzero"`
	LastLogAt  telemetry.Timestamp `json:"lastLogAt,omitzero"`
}

func shapeAgent(a *telemetry.Agent) agentJSON {
	return agentJSON{Agent: *a, CreatedAt: telemetry.Timestamp(a.CreatedAt), FirstLogAt: telemetry.Timestamp(a.FirstLogAt), LastLogAt: telemetry.Timestamp(a.LastLogAt)}
}

type eventJSON struct {
	telemetry.Event
	Timestamp telemetry.Timestamp `json:"timestamp"`
}

func shapeEvent(e *telemetry.StoredEvent) eventJSON {
	return eventJSON{Event: e.Event, Timestamp: telemetry.Timestamp(e.Event.Timestamp)}
}

type sessionJSON struct {
	telemetry.Session
	CreatedAt  telemetry.Timestamp `json:"createdAt"`
	FirstLogAt telemetry.Timestamp `json:"firstLogAt,omitzero"`
	LastLogAt  telemetry.Timestamp `json:"lastLogAt,omitzero"`
}

func shapeSession(s *telemetry.Session) sessionJSON {
	return sessionJSON{Session: *s, CreatedAt: telemetry.Timestamp(s.CreatedAt), FirstLogAt: telemetry.Timestamp(s.FirstLogAt), LastLogAt: telemetry.Timestamp(s.LastLogAt)}
}

type nodeJSON struct {
	telemetry.Node
	CertificateTo telemetry.Timestamp `json:"certificateExpiresAt,omitzero"`
	CreatedAt     telemetry.Timestamp `json:"createdAt"`
	LastSeenAt    telemetry.Timestamp `json:"lastSeenAt,omitzero"`
	RevokedAt     telemetry.Timestamp `json:"revokedAt,omitzero"`
}

func shapeNode(n *telemetry.Node) nodeJSON {
	return nodeJSON{
		Node: *n, CertificateTo: telemetry.Timestamp(n.CertificateTo), CreatedAt: telemetry.Timestamp(n.CreatedAt),
		LastSeenAt: telemetry.Timestamp(n.LastSeenAt), RevokedAt: telemetry.Timestamp(n.RevokedAt),
	}
}

// page is a list that goes on.
type page[T any] struct {
	Data    []T     `json:"data"`
	HasMore bool    `json:"hasMore"`
	Cursor  *string `json:"cursor"`
}

// shapeAll shapes a list; an empty one is [], never null.
func shapeAll[T, J any](list []T, shape func(*T) J) []J {
	out := make([]J, len(list))
	for i := range list {
		out[i] = shape(&list[i])
	}
	return out
}
