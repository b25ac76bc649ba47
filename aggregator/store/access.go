package store

import (
	"context"
	"crypto/subtle"
	"slices"
	"time"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// Authenticate returns who holds an API key. An unknown id costs the same
// comparison as a wrong secret.
func (s *Store) Authenticate(ctx context.Context, keyID string, h ids.Hash) (telemetry.Principal, error) {
	p := telemetry.Principal{KeyID: keyID}
	var stored []byte
	var env int16
	var usable bool
	found, err := one(ctx, s.api, "look up an API key", []any{&stored, &p.Org, &env, &p.KeyName, &p.Permissions, &usable},
		"select hash, org, env, name, permissions, usable from find_api_key($1)", keyID)
	if err != nil {
		return telemetry.Principal{}, err
	}
	if !found {
		stored = make([]byte, len(h))
	}
	if subtle.ConstantTimeCompare(stored, h[:]) != 1 || !found || !usable {
		return telemetry.Principal{}, telemetry.Failf(telemetry.Unauthorized, "The API key is not valid: it is unknown, revoked or expired.")
	}
	p.Env = telemetry.Environment(env) //nolint:gosec // 0 or 1
	s.used.note(keyID, time.Now())
	return p, nil
}

// CreateWebSession makes a sign-in session of the principal's key. It ends when
// it was idle for so long, or with its key.
func (s *Store) CreateWebSession(ctx context.Context, p telemetry.Principal, h ids.Hash, idle time.Duration) error {
	return exec(ctx, s.api, "create a web session", "select create_web_session($1, $2, $3)", h[:], p.KeyID, idle)
}

// WebSession returns whose session it is, and goes on with it.
func (s *Store) WebSession(ctx context.Context, h ids.Hash) (telemetry.Principal, error) {
	var p telemetry.Principal
	var env int16
	found, err := one(ctx, s.api, "look up a web session", []any{&p.KeyID, &p.Org, &env, &p.KeyName, &p.Permissions},
		"select key_id, org, env, name, permissions from use_web_session($1)", h[:])
	if err == nil && !found {
		err = telemetry.Failf(telemetry.Unauthorized, "The session has ended; sign in again.")
	}
	if err != nil {
		return telemetry.Principal{}, err
	}
	p.Env = telemetry.Environment(env) //nolint:gosec // 0 or 1
	return p, nil
}

// DeleteWebSession ends a session; none is no error.
func (s *Store) DeleteWebSession(ctx context.Context, h ids.Hash) error {
	return exec(ctx, s.api, "delete a web session", "select delete_web_session($1)", h[:])
}

// CreateStreamToken makes a token for the URL of a stream, with the
// principal's limits. It is valid until it was idle for so long, at most
// longest, and no longer than its key.
func (s *Store) CreateStreamToken(ctx context.Context, p telemetry.Principal, h ids.Hash, idle, longest time.Duration) (time.Time, error) {
	var expires time.Time
	_, err := one(ctx, s.api, "create a stream token", []any{&expires}, "select create_stream_token($1, $2, $3, $4, $5, $6)",
		h[:], p.KeyID, string(p.OnlyAgent), string(p.OnlySession), idle, longest)
	return expires.UTC(), err
}

// StreamToken returns who may read with the token: streams only, and no more
// than logs.
func (s *Store) StreamToken(ctx context.Context, h ids.Hash) (telemetry.Principal, error) {
	p := telemetry.Principal{StreamOnly: true}
	var env int16
	found, err := one(ctx, s.api, "look up a stream token", []any{&p.KeyID, &p.Org, &env, &p.KeyName, &p.Permissions, &p.OnlyAgent, &p.OnlySession},
		"select key_id, org, env, name, permissions, agent, session from use_stream_token($1)", h[:])
	if err == nil && !found {
		err = telemetry.Failf(telemetry.Unauthorized, "The stream token is unknown or has expired; ask for a new one.")
	}
	if err != nil {
		return telemetry.Principal{}, err
	}
	p.Env = telemetry.Environment(env) //nolint:gosec // 0 or 1
	p.Permissions = slices.DeleteFunc(p.Permissions, func(x telemetry.Permission) bool { return x != telemetry.LogsRead })
	return p, nil
}
