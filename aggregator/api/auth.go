package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

const (
	// sessionIdle is how long a sign-in lasts without a request.
	sessionIdle = 12 * time.Hour
	// tokenIdle and tokenMost bound a stream token: an EventSource reconnects
	// with the same URL, so it must live a while after its last use.
	tokenIdle = 5 * time.Minute
	tokenMost = 12 * time.Hour
)

// credential is what a caller showed; it is asked again while a stream lasts.
type credential struct {
	kind credentialKind
	text string
}

type credentialKind uint8

const (
	noCredential credentialKind = iota
	bearer                      // Authorization: Bearer th_…
	cookie                      // the dashboard's session
	inURL                       // ?token= or a WebSocket sub-protocol: th_… or thz_…
)

var errNoCredential = telemetry.Failf(telemetry.Unauthorized, "This call needs a credential: send Authorization: Bearer th_live_… (or th_test_…), or sign in.")

// credentialOf finds the caller's credential: the header, then the cookie,
// then, for streams, what browsers can put into a URL.
func (c *call) credentialOf() credential {
	if auth := c.r.Header.Get("Authorization"); auth != "" {
		scheme, token, _ := strings.Cut(auth, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			token = ""
		}
		return credential{kind: bearer, text: strings.TrimSpace(token)}
	}
	if c.stream {
		// A token names what it opens, so it goes before a cookie that happens
		// to be there.
		if token := c.query.Get("token"); token != "" {
			return credential{kind: inURL, text: token}
		}
		if token := offeredToken(c.r); token != "" {
			return credential{kind: inURL, text: token}
		}
	}
	if ck, err := c.r.Cookie(c.cookieName()); err == nil {
		return credential{kind: cookie, text: ck.Value}
	}
	return credential{}
}

// authenticate finds the principal and checks the route's permission.
func (c *call) authenticate(rt *route) error {
	if rt.need == public {
		return nil
	}
	c.credential = c.credentialOf()
	if c.credential.kind == noCredential && rt.stream && wantsV1(c.r) {
		return nil // the socket's first message brings it
	}
	who, err := c.api.principal(c.r.Context(), c.credential)
	if err != nil {
		return err
	}
	c.who = who
	return permit(&who, rt.need)
}

func permit(who *telemetry.Principal, need permission) error {
	if need == signedIn || who.May(need) {
		return nil
	}
	return telemetry.Failf(telemetry.Forbidden, "This key does not have the permission %s: use one that has it.", need)
}

// principal asks the store who a credential is.
func (a *API) principal(ctx context.Context, cr credential) (telemetry.Principal, error) {
	switch {
	case cr.kind == noCredential:
		return telemetry.Principal{}, errNoCredential
	case cr.kind == cookie:
		if len(cr.text) > 200 || !strings.HasPrefix(cr.text, "thc_") {
			return telemetry.Principal{}, telemetry.Failf(telemetry.Unauthorized, "The session has ended: sign in again.")
		}
		return a.Store.WebSession(ctx, ids.HashOf(cr.text))
	case cr.kind == inURL && strings.HasPrefix(cr.text, "thz_"):
		if err := ids.CheckStreamToken(cr.text); err != nil {
			return telemetry.Principal{}, badCredential("token", err)
		}
		return a.Store.StreamToken(ctx, ids.HashOf(cr.text))
	}
	who, err := a.byKey(ctx, cr.text)
	if cr.kind == inURL && err == nil {
		// URLs end up in histories and logs of others: there a key can do no
		// more than read logs.
		who.StreamOnly = true
		who.Permissions = only(telemetry.LogsRead, &who)
	}
	return who, err
}

// only is the permission where the principal has it, else nothing.
func only(what telemetry.Permission, who *telemetry.Principal) []telemetry.Permission {
	if who.May(what) {
		return []telemetry.Permission{what}
	}
	return nil
}

func (a *API) byKey(ctx context.Context, key string) (telemetry.Principal, error) {
	id, _, err := ids.ParseAPIKey(key)
	if err != nil {
		return telemetry.Principal{}, badCredential("API key", err)
	}
	return a.Store.Authenticate(ctx, id, ids.HashOf(key))
}

// badCredential is a 401 that is found without asking the database.
func badCredential(what string, err error) error {
	return telemetry.Failf(telemetry.Unauthorized, "The %s %v.", what, err)
}

// https reports whether the browser speaks TLS with us or our proxy.
func (c *call) https() bool {
	return c.r.TLS != nil || c.api.TLSProxy && c.r.Header.Get("X-Forwarded-Proto") == "https"
}

// cookieName is __Host- where the browser lets us: such a cookie cannot be
// set by a neighbour's subdomain.
func (c *call) cookieName() string {
	if c.https() {
		return "__Host-theazo_session"
	}
	return "theazo_session"
}

func (c *call) setCookie(value string, age time.Duration) {
	ck := &http.Cookie{ //nolint:gosec // Secure wherever the connection is: over plain http, on localhost, browsers refuse such cookies
		Name: c.cookieName(), Value: value, Path: "/", HttpOnly: true, Secure: c.https(),
		SameSite: http.SameSiteLaxMode, MaxAge: int(age.Seconds()),
	}
	if value == "" {
		ck.MaxAge = -1
	}
	http.SetCookie(c.out, ck)
}
