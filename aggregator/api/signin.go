package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// maxBody bounds the JSON that a caller sends.
const maxBody = 64 << 10

// body reads the one JSON object of a request, and nothing that is not known.
func (c *call) body(to any) error {
	// A form of another site could send text/plain, never this.
	if kind, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return statusError{telemetry.Failf(telemetry.InvalidRequest, "Send the body as Content-Type: application/json."), http.StatusUnsupportedMediaType}
	}
	// A body that drips in would hold its connection for ever. A reader without
	// deadlines is no connection.
	control := http.NewResponseController(c.out)
	_ = control.SetReadDeadline(time.Now().Add(c.api.WriteTimeout))
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	d := json.NewDecoder(http.MaxBytesReader(c.out, c.r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(to)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("more follows the JSON object")
		}
	}
	var large *http.MaxBytesError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &large):
		return statusError{telemetry.Failf(telemetry.InvalidRequest, "The body is larger than %d bytes.", maxBody), http.StatusRequestEntityTooLarge}
	case errors.As(err, &kind) && kind.Field != "":
		return badBody(kind.Field, "cannot be a "+kind.Value)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return badBody(clip(strings.Trim(name, `"`), 64), "is not known here")
	}
	// The text of the error could repeat a credential: it is not shown.
	return telemetry.Failf(telemetry.InvalidRequest, "The body is not one JSON object.")
}

// badBody is a 422 that names a field.
func badBody(field, detail string) error {
	f := telemetry.Failf(telemetry.Unprocessable, "Field %s %s.", field, detail)
	f.Fields = []telemetry.FieldError{{Field: field, Detail: detail}}
	return f
}

func (c *call) signIn() error {
	var in struct {
		APIKey string `json:"apiKey"`
	}
	if err := c.body(&in); err != nil {
		return err
	}
	who, err := c.api.byKey(c.r.Context(), in.APIKey)
	if err != nil {
		return err
	}
	c.who = who
	value := ids.NewSessionToken()
	if err := c.api.Store.CreateWebSession(c.r.Context(), who, ids.HashOf(value), sessionIdle); err != nil {
		return fmt.Errorf("api: sign in: %w", err)
	}
	// The browser keeps the cookie for the longest; the store ends it when it
	// was idle.
	c.setCookie(value, 30*24*time.Hour)
	c.out.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *call) signOut() error {
	if ck, err := c.r.Cookie(c.cookieName()); err == nil {
		if err := c.api.Store.DeleteWebSession(c.r.Context(), ids.HashOf(ck.Value)); err != nil {
			return fmt.Errorf("api: sign out: %w", err)
		}
	}
	c.setCookie("", 0)
	c.out.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *call) createStreamToken() error {
	var in struct {
		Agent   *string `json:"agentId"`
		Session *string `json:"sessionId"`
		TTL     *int64  `json:"ttlSeconds"`
	}
	if err := c.body(&in); err != nil {
		return err
	}
	who := c.who
	who.StreamOnly, who.Permissions = true, []telemetry.Permission{telemetry.LogsRead}
	most := tokenMost
	switch {
	case in.TTL == nil:
	case *in.TTL < 1 || *in.TTL > int64(tokenMost/time.Second):
		return badBody("ttlSeconds", fmt.Sprintf("must be from 1 to %d", int64(tokenMost/time.Second)))
	default:
		most = time.Duration(*in.TTL) * time.Second
	}
	switch {
	case in.Agent != nil && in.Session != nil:
		return badBody("sessionId", "cannot stand beside agentId: a token is for one of them, or for all logs")
	case in.Agent != nil:
		found, err := c.agent(*in.Agent)
		if err != nil {
			return err
		}
		who.OnlyAgent = found.ID
	case in.Session != nil:
		found, err := c.session(*in.Session)
		if err != nil {
			return err
		}
		who.OnlySession = found.ID
	}
	token := ids.NewStreamToken()
	expires, err := c.api.Store.CreateStreamToken(c.r.Context(), who, ids.HashOf(token), min(tokenIdle, most), most)
	if err != nil {
		return fmt.Errorf("api: create a stream token: %w", err)
	}
	c.json(http.StatusOK, struct {
		Token     string              `json:"token"`
		ExpiresAt telemetry.Timestamp `json:"expiresAt"`
	}{token, telemetry.Timestamp(expires)})
	return nil
}
