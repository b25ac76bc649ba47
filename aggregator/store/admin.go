package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// Admin does an operator's work as the DSN's own user. Not safe for concurrent
// use.
type Admin struct{ conn *pgx.Conn }

// OpenAdmin connects to a migrated database.
func OpenAdmin(ctx context.Context, dsn string) (*Admin, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("database DSN: %w", err)
	}
	cfg.ConnectTimeout = shortTimeout
	sessionSettings(cfg, map[string]string{"statement_timeout": "10s"})
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return &Admin{conn: conn}, nil
}

// Close closes the connection.
func (a *Admin) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), shortTimeout)
	defer cancel()
	_ = a.conn.Close(ctx) // nothing is open on it
}

// APIKey is what is known of a key; its secret is not.
type APIKey struct {
	ID          string
	Org         telemetry.OrgID
	Env         telemetry.Environment
	Name        string
	Permissions []telemetry.Permission
	CreatedAt   time.Time
	ExpiresAt   time.Time // zero: never
	LastUsedAt  time.Time
	RevokedAt   time.Time
}

// Limits of join tokens.
const (
	MaxJoinTTL  = 24 * time.Hour
	MaxJoinUses = 10_000
)

const maxName = 200 // bytes

// CreateOrganisation makes an organisation and returns its id.
func (a *Admin) CreateOrganisation(ctx context.Context, name string, mode telemetry.Mode) (telemetry.OrgID, error) {
	switch mode {
	case telemetry.FullPlatform, telemetry.BYOIPrimitives, telemetry.InfraOnly:
	default:
		return "", telemetry.Failf(telemetry.InvalidRequest, "There is no mode %.40q: use %s, %s or %s.", mode, telemetry.FullPlatform, telemetry.BYOIPrimitives, telemetry.InfraOnly)
	}
	if err := checkName("organisation", name); err != nil {
		return "", err
	}
	id := telemetry.OrgID(ids.New("org"))
	err := a.exec(ctx, "create the organisation", "insert into organisation (id, name, mode, billing_mode, created_at) values ($1, $2, $3, $4, now())",
		string(id), name, string(mode), string(telemetry.Managed))
	return id, err
}

// Organisations lists all organisations, oldest first.
func (a *Admin) Organisations(ctx context.Context) ([]telemetry.Organisation, error) {
	return adminRows(ctx, a, "list organisations", func(row pgx.CollectableRow) (o telemetry.Organisation, err error) {
		err = row.Scan(&o.ID, &o.Name, &o.Mode, &o.BillingMode)
		return o, err
	}, "select id, name, mode, billing_mode from organisation order by created_at, id")
}

// CreateAPIKey makes a key and returns its text, which is not kept. A zero
// expires is never.
func (a *Admin) CreateAPIKey(ctx context.Context, org telemetry.OrgID, env telemetry.Environment, name string, permissions []telemetry.Permission, expires time.Time) (string, error) {
	if err := checkName("key", name); err != nil {
		return "", err
	}
	if len(permissions) == 0 {
		return "", telemetry.Failf(telemetry.InvalidRequest, "Give the key at least one permission.")
	}
	for _, p := range permissions {
		if err := telemetry.CheckID(string(p)); err != nil {
			return "", telemetry.Failf(telemetry.InvalidRequest, "Permission %.40q %v.", p, err)
		}
	}
	if err := a.organisationExists(ctx, org); err != nil {
		return "", err
	}
	id, key := ids.NewAPIKey(env)
	h := ids.HashOf(key)
	err := a.exec(ctx, "create the API key", "insert into api_key (id, org, env, name, permissions, hash, created_at, expires_at) values ($1, $2, $3, $4, $5, $6, now(), $7)",
		id, string(org), int16(env), name, texts(permissions), h[:], nullTime(expires))
	if err != nil {
		return "", err
	}
	return key, nil
}

// APIKeys lists the keys of an organisation, oldest first.
func (a *Admin) APIKeys(ctx context.Context, org telemetry.OrgID) ([]APIKey, error) {
	return adminRows(ctx, a, "list API keys", func(row pgx.CollectableRow) (APIKey, error) {
		var k APIKey
		var env int16
		var expires, used, revoked *time.Time
		err := row.Scan(&k.ID, &k.Org, &env, &k.Name, &k.Permissions, &k.CreatedAt, &expires, &used, &revoked)
		k.Env, k.CreatedAt = telemetry.Environment(env), k.CreatedAt.UTC() //nolint:gosec // 0 or 1
		k.ExpiresAt, k.LastUsedAt, k.RevokedAt = timeOrZero(expires), timeOrZero(used), timeOrZero(revoked)
		return k, err
	}, "select id, org, env, name, permissions, created_at, expires_at, last_used_at, revoked_at from api_key where org = $1 order by created_at, id", string(org))
}

// RevokeAPIKey ends a key, its web sessions and its stream tokens.
func (a *Admin) RevokeAPIKey(ctx context.Context, id string) error {
	return a.mustChange(ctx, "revoke API key "+id, "There is no API key "+id+".", "update api_key set revoked_at = coalesce(revoked_at, now()) where id = $1", id)
}

// CreateJoinToken makes a token with which nodes enrol, for an organisation or
// ("") for the platform, and returns its text, which is not kept. Given a node
// name, only a node of that name may use it.
func (a *Admin) CreateJoinToken(ctx context.Context, org telemetry.OrgID, authority ids.Hash, ttl time.Duration, uses int, nodeName string) (string, error) {
	return a.CreateJoinTokenFrom(ctx, org, authority, ttl, uses, nodeName, netip.Prefix{})
}

// CreateJoinTokenFrom is CreateJoinToken for nodes of one network.
func (a *Admin) CreateJoinTokenFrom(ctx context.Context, org telemetry.OrgID, authority ids.Hash, ttl time.Duration, uses int, nodeName string, from netip.Prefix) (string, error) {
	switch {
	case ttl <= 0 || ttl > MaxJoinTTL:
		return "", telemetry.Failf(telemetry.InvalidRequest, "A join token is valid for more than 0 and at most %s.", MaxJoinTTL)
	case uses < 1 || uses > MaxJoinUses:
		return "", telemetry.Failf(telemetry.InvalidRequest, "A join token has 1 to %d uses.", MaxJoinUses)
	}
	if org != "" {
		if err := a.organisationExists(ctx, org); err != nil {
			return "", err
		}
	}
	var allowed *netip.Prefix
	if from.IsValid() {
		allowed = &from
	}
	token := ids.NewJoinToken(authority)
	h := ids.HashOf(token)
	err := a.exec(ctx, "create the join token", "insert into join_token (hash, org, node_name, allowed, uses, created_at, expires_at) values ($1, $2, $3, $4, $5, now(), now() + $6::interval)",
		h[:], string(org), cleanText(nodeName), allowed, uses, ttl)
	if err != nil {
		return "", err
	}
	return token, nil
}

// NodesAll lists all nodes, oldest first.
func (a *Admin) NodesAll(ctx context.Context) ([]telemetry.Node, error) {
	return adminRows(ctx, a, "list nodes", scanNode, "select "+nodeColumns+" from node order by created_at, id")
}

// RevokeNode ends a node's certificates.
func (a *Admin) RevokeNode(ctx context.Context, id telemetry.NodeID) error {
	return a.mustChange(ctx, "revoke node "+string(id), "There is no node "+string(id)+".",
		"update node set revoked_at = coalesce(revoked_at, now()), revoked_reason = case when revoked_at is null then 'revoked by an operator' else revoked_reason end where id = $1", string(id))
}

// SetAuthority is Store.SetAuthority.
func (a *Admin) SetAuthority(ctx context.Context, fingerprint ids.Hash) error {
	var inForce string
	if err := a.conn.QueryRow(ctx, "select set_authority($1)", hexText(fingerprint)).Scan(&inForce); err != nil {
		return failure(ctx, "record the certificate authority", err)
	}
	return sameAuthority(fingerprint, inForce)
}

func hexText(h ids.Hash) string { return hex.EncodeToString(h[:]) }

func sameAuthority(fingerprint ids.Hash, inForce string) error {
	if inForce == hexText(fingerprint) {
		return nil
	}
	return telemetry.Failf(telemetry.Conflict, "This database belongs to the certificate authority %.12s…, ours is %.12s…: nodes enrolled with the one do not trust the other. "+
		"Copy the authority's directory from the aggregator that was here first.", inForce, hexText(fingerprint))
}

func checkName(what, name string) error {
	if name == "" || len(name) > maxName || cleanText(name) != name {
		return telemetry.Failf(telemetry.InvalidRequest, "Give the %s a name of 1 to %d bytes of text.", what, maxName)
	}
	return nil
}

func (a *Admin) organisationExists(ctx context.Context, org telemetry.OrgID) error {
	var known bool
	if err := a.conn.QueryRow(ctx, "select known_organisation($1)", string(org)).Scan(&known); err != nil {
		return failure(ctx, "look up organisation "+string(org), err)
	}
	if !known {
		return telemetry.Failf(telemetry.NotFound, "There is no organisation %s.", org)
	}
	return nil
}

func (a *Admin) exec(ctx context.Context, what, sql string, args ...any) error {
	_, err := a.conn.Exec(ctx, sql, args...)
	return failure(ctx, what, err)
}

func (a *Admin) mustChange(ctx context.Context, what, missing, sql string, args ...any) error {
	tag, err := a.conn.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() == 0 {
		return &telemetry.Failure{Code: telemetry.NotFound, Message: missing}
	}
	return failure(ctx, what, err)
}

func adminRows[T any](ctx context.Context, a *Admin, what string, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	rows, err := a.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, failure(ctx, what, err)
	}
	list, err := pgx.CollectRows(rows, scan)
	return list, failure(ctx, what, err)
}
