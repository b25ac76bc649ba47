package api

import (
	"fmt"
	"net/http"

	"github.com/theazo/observability/shared/telemetry"
)

// meJSON is the answer of GET /v1/me.
type meJSON struct {
	Organisation struct {
		ID   telemetry.OrgID `json:"id"`
		Name string          `json:"name"`
		Mode telemetry.Mode  `json:"mode"`
	} `json:"organisation"`
	Environment telemetry.Environment `json:"environment"`
	Key         struct {
		ID          string                 `json:"id"`
		Name        string                 `json:"name"`
		Permissions []telemetry.Permission `json:"permissions"`
	} `json:"key"`
}

func (c *call) me() error {
	o, err := c.api.Store.Organisation(c.r.Context(), c.who.Scope)
	if err != nil {
		return fmt.Errorf("api: organisation: %w", err)
	}
	var m meJSON
	m.Organisation.ID, m.Organisation.Name, m.Organisation.Mode = o.ID, o.Name, o.Mode
	m.Environment = c.who.Env
	m.Key.ID, m.Key.Name, m.Key.Permissions = c.who.KeyID, c.who.KeyName, append([]telemetry.Permission{}, c.who.Permissions...)
	c.json(http.StatusOK, m)
	return nil
}

// listing reads the parameters that lists share; status is nil for lists
// whose entries have none.
func (p *params) listing(status func(string) (uint8, error)) telemetry.Listing {
	l := telemetry.Listing{Limit: p.number("limit", telemetry.DefaultLimit, 1, telemetry.MaxLimit, "")}
	if text, given := p.one("status"); given && status != nil {
		n, err := status(text)
		if err != nil {
			p.fail("status", "is not valid: %v", err)
		}
		l.Status = &n
	}
	if text, given := p.one("cursor"); given {
		after, err := parseListCursor(text)
		if err != nil {
			p.fail("cursor", "%v", err)
		}
		l.After = after
	}
	return l
}

func (c *call) listAgents() error {
	p := params{values: c.query}
	l := p.listing(func(s string) (uint8, error) { n, err := telemetry.ParseAgentStatus(s); return uint8(n), err })
	if text, given := p.one("sessionId"); given {
		if err := telemetry.CheckID(text); err != nil {
			p.fail("sessionId", "%v", err)
		}
		l.Session = telemetry.SessionID(text)
	}
	if err := p.err(); err != nil {
		return err
	}
	found, more, err := c.api.Store.Agents(c.r.Context(), c.who.Scope, l)
	if err != nil {
		return fmt.Errorf("api: list agents: %w", err)
	}
	answer := page[agentJSON]{Data: shapeAll(found, shapeAgent), HasMore: more}
	if n := len(found); more && n > 0 {
		text := listCursor(telemetry.ListingKey{CreatedAt: found[n-1].CreatedAt, ID: string(found[n-1].ID)})
		answer.Cursor = &text
	}
	c.json(http.StatusOK, answer)
	return nil
}

// listEvents lists what happened to an agent, its last words among it.
func (c *call) listEvents() error {
	p := params{values: c.query}
	l := p.listing(nil)
	if err := p.err(); err != nil {
		return err
	}
	agent, err := c.agent(c.r.PathValue("id"))
	if err != nil {
		return err
	}
	found, more, err := c.api.Store.Events(c.r.Context(), c.who.Scope, agent.ID, l)
	if err != nil {
		return fmt.Errorf("api: list events: %w", err)
	}
	answer := page[eventJSON]{Data: shapeAll(found, shapeEvent), HasMore: more}
	if n := len(found); more && n > 0 {
		text := listCursor(telemetry.ListingKey{CreatedAt: found[n-1].Event.Timestamp, ID: found[n-1].Place})
		answer.Cursor = &text
	}
	c.json(http.StatusOK, answer)
	return nil
}

func (c *call) listSessions() error {
	p := params{values: c.query}
	l := p.listing(func(s string) (uint8, error) { n, err := telemetry.ParseSessionStatus(s); return uint8(n), err })
	if err := p.err(); err != nil {
		return err
	}
	found, more, err := c.api.Store.Sessions(c.r.Context(), c.who.Scope, l)
	if err != nil {
		return fmt.Errorf("api: list sessions: %w", err)
	}
	answer := page[sessionJSON]{Data: shapeAll(found, shapeSession), HasMore: more}
	if n := len(found); more && n > 0 {
		text := listCursor(telemetry.ListingKey{CreatedAt: found[n-1].CreatedAt, ID: string(found[n-1].ID)})
		answer.Cursor = &text
	}
	c.json(http.StatusOK, answer)
	return nil
}

// notHere is the one answer for ids that are not the caller's to see, whether
// they are another organisation's or nobody's.
func notHere(kind, id string) error {
	return telemetry.Failf(telemetry.NotFound, "There is no %s %s here.", kind, clip(id, telemetry.MaxIDLength))
}

// agent finds an agent of the caller's scope.
func (c *call) agent(id string) (telemetry.Agent, error) {
	if telemetry.CheckID(id) != nil {
		return telemetry.Agent{}, notHere("agent", id)
	}
	found, err := c.api.Store.Agent(c.r.Context(), c.who.Scope, telemetry.AgentID(id))
	if telemetry.CodeOf(err) == telemetry.NotFound && err != nil {
		return found, notHere("agent", id)
	}
	if err != nil {
		return found, fmt.Errorf("api: agent %s: %w", id, err)
	}
	return found, nil
}

// session finds a session of the caller's scope.
func (c *call) session(id string) (telemetry.Session, error) {
	if telemetry.CheckID(id) != nil {
		return telemetry.Session{}, notHere("session", id)
	}
	found, err := c.api.Store.Session(c.r.Context(), c.who.Scope, telemetry.SessionID(id))
	if err != nil && telemetry.CodeOf(err) == telemetry.NotFound {
		return found, notHere("session", id)
	}
	if err != nil {
		return found, fmt.Errorf("api: session %s: %w", id, err)
	}
	return found, nil
}

func (c *call) getAgent() error {
	found, err := c.agent(c.r.PathValue("id"))
	if err != nil {
		return err
	}
	c.json(http.StatusOK, shapeAgent(&found))
	return nil
}

func (c *call) getSession() error {
	found, err := c.session(c.r.PathValue("id"))
	if err != nil {
		return err
	}
	c.json(http.StatusOK, shapeSession(&found))
	return nil
}

func (c *call) listNodes() error {
	found, err := c.api.Store.Nodes(c.r.Context(), c.who.Scope)
	if err != nil {
		return fmt.Errorf("api: list nodes: %w", err)
	}
	c.json(http.StatusOK, page[nodeJSON]{Data: shapeAll(found, shapeNode)})
	return nil
}

// nodeLedger answers with what became of every record that a node numbered.
func (c *call) nodeLedger() error {
	id := telemetry.NodeID(c.r.PathValue("id"))
	if err := telemetry.CheckID(string(id)); err != nil {
		return telemetry.Failf(telemetry.NotFound, "There is no node %.128q.", id)
	}
	l, err := c.api.Store.Ledger(c.r.Context(), c.who.Scope, id)
	if err != nil {
		return fmt.Errorf("api: read a ledger: %w", err)
	}
	if l.Entries == nil {
		l.Entries = []telemetry.LedgerEntry{}
	}
	if l.Lanes == nil {
		l.Lanes = []telemetry.LedgerEntry{}
	}
	if l.Report != nil {
		l.Report.Sequences = nil // they are in the entries
	}
	c.json(http.StatusOK, l)
	return nil
}
