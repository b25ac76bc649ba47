package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/theazo/observability/shared/telemetry"
)

// Erasures takes records of one user, session or agent out, for ever.
type Erasures interface {
	// Erase excludes the records from every answer, from its return on.
	Erase(ctx context.Context, scope telemetry.Scope, req telemetry.ErasureRequest) (telemetry.Erasure, error)
	// Erasures lists them, newest first, from before an id on where it is not empty.
	Erasures(ctx context.Context, scope telemetry.Scope, before string, limit int) (page []telemetry.Erasure, more bool, err error)
	Erasure(ctx context.Context, scope telemetry.Scope, id string) (telemetry.Erasure, error)
}

type erasureJSON struct {
	telemetry.Erasure
	Until       telemetry.Timestamp `json:"until"`
	RequestedAt telemetry.Timestamp `json:"requestedAt"`
	StartedAt   telemetry.Timestamp `json:"startedAt,omitzero"`
	Proof       *proofJSON          `json:"proof,omitempty"`
}

type proofJSON struct {
	telemetry.ErasureProof
	DoneAt telemetry.Timestamp `json:"doneAt"`
}

func shapeErasure(e *telemetry.Erasure) erasureJSON {
	j := erasureJSON{
		Erasure: *e, Until: telemetry.Timestamp(e.Until), RequestedAt: telemetry.Timestamp(e.RequestedAt), StartedAt: telemetry.Timestamp(e.StartedAt),
	}
	if e.Proof != nil {
		j.Proof = &proofJSON{ErasureProof: *e.Proof, DoneAt: telemetry.Timestamp(e.Proof.DoneAt)}
	}
	return j
}

// erase answers POST /v1/erasures.
func (c *call) erase() error {
	var in struct {
		User    *string `json:"userId"`
		Session *string `json:"sessionId"`
		Agent   *string `json:"agentId"`
		Until   string  `json:"until"`
		Reason  string  `json:"reason"`
	}
	if err := c.body(&in); err != nil {
		return err
	}
	req := telemetry.ErasureRequest{Reason: in.Reason, By: "key_" + c.who.KeyID}
	given := 0
	for _, subject := range []struct {
		id    *string
		kind  telemetry.ErasureKind
		field string
		check func(string) error
	}{
		{in.User, telemetry.EraseUser, "userId", telemetry.CheckUser},
		{in.Session, telemetry.EraseSession, "sessionId", telemetry.CheckID},
		{in.Agent, telemetry.EraseAgent, "agentId", telemetry.CheckID},
	} {
		if subject.id == nil {
			continue
		}
		if err := subject.check(*subject.id); err != nil {
			return badBody(subject.field, err.Error())
		}
		req.Kind, req.Subject = subject.kind, *subject.id
		given++
	}
	if given != 1 {
		return badBody("userId", "is one of userId, sessionId and agentId: give exactly one of them")
	}
	if len(in.Reason) > telemetry.MaxReason {
		return badBody("reason", fmt.Sprintf("is longer than %d bytes", telemetry.MaxReason))
	}
	if in.Until != "" {
		until, err := parseTime(in.Until, c.started)
		if err != nil {
			return badBody("until", err.Error())
		}
		req.Until = until
	}
	e, err := c.api.Store.Erase(c.r.Context(), c.who.Scope, req)
	if err != nil {
		return fmt.Errorf("api: erase: %w", err)
	}
	c.out.Header().Set("Location", "/v1/erasures/"+e.ID)
	c.json(http.StatusAccepted, shapeErasure(&e))
	return nil
}

// listErasures answers GET /v1/erasures.
func (c *call) listErasures() error {
	p := params{values: c.query}
	l := p.listing(nil)
	if err := p.err(); err != nil {
		return err
	}
	before := ""
	if l.After != nil {
		before = l.After.ID
	}
	found, more, err := c.api.Store.Erasures(c.r.Context(), c.who.Scope, before, l.Limit)
	if err != nil {
		return fmt.Errorf("api: list erasures: %w", err)
	}
	answer := page[erasureJSON]{Data: shapeAll(found, shapeErasure), HasMore: more}
	if n := len(found); more && n > 0 {
		text := listCursor(telemetry.ListingKey{CreatedAt: found[n-1].RequestedAt, ID: found[n-1].ID})
		answer.Cursor = &text
	}
	c.json(http.StatusOK, answer)
	return nil
}

// getErasure answers GET /v1/erasures/{id}.
func (c *call) getErasure() error {
	id := c.r.PathValue("id")
	if telemetry.CheckID(id) != nil {
		return notHere("erasure", id)
	}
	e, err := c.api.Store.Erasure(c.r.Context(), c.who.Scope, id)
	if err != nil {
		if telemetry.CodeOf(err) == telemetry.NotFound {
			return notHere("erasure", id)
		}
		return fmt.Errorf("api: erasure %s: %w", id, err)
	}
	c.json(http.StatusOK, shapeErasure(&e))
	return nil
}
