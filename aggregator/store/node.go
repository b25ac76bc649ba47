package store

import (
	"context"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// KnownOrganisation reports whether there is such an organisation.
func (s *Store) KnownOrganisation(ctx context.Context, org telemetry.OrgID) (bool, error) {
	var known bool
	_, err := one(ctx, s.ingest, "look up organisation "+string(org), []any{&known}, "select known_organisation($1)", string(org))
	return known, err
}

// Join takes one use of a join token for a new node and returns it with its
// id, organisation and generation. Of parallel joins exactly as many succeed
// as the token has uses.
func (s *Store) Join(ctx context.Context, token ids.Hash, from netip.Addr, n telemetry.Node) (telemetry.Node, error) {
	n.ID = telemetry.NodeID(ids.New("nod"))
	joined, found, err := s.oneNode(ctx, "join a node", "select "+nodeColumns+" from join_node($1, $2, $3, $4, $5, $6, $7)",
		token[:], from.Unmap().WithZone(""), string(n.ID), cleanText(n.Name), cleanText(n.Machine), cleanText(n.Version), nullTime(n.CertificateTo))
	if err == nil && !found {
		err = telemetry.Failf(telemetry.Unauthorized, "The join token is not valid here: it is unknown, used up, expired, or bound to another node name or address. Make a new one with `aggregator node token`.")
	}
	return joined, err
}

// Node returns a node.
func (s *Store) Node(ctx context.Context, id telemetry.NodeID) (telemetry.Node, error) {
	n, found, err := s.oneNode(ctx, "look up node "+string(id), "select "+nodeColumns+" from find_node($1)", string(id))
	if err == nil && !found {
		err = telemetry.Failf(telemetry.NotFound, "There is no node %s.", id)
	}
	return n, err
}

// Renew moves a node to the next generation of its certificate. An old
// generation locks the node, because its key is in two places; the one just
// replaced may be told a second time by who came at the same moment.
func (s *Store) Renew(ctx context.Context, id telemetry.NodeID, generation int64, notAfter time.Time) (int64, error) {
	var outcome string
	var next *int64
	if _, err := one(ctx, s.ingest, "renew node "+string(id), []any{&outcome, &next}, "select outcome, current from renew_node($1, $2, $3)", string(id), generation, clampTime(notAfter)); err != nil {
		return 0, err
	}
	switch outcome {
	case "renewed":
		return *next, nil
	case "unknown":
		return 0, telemetry.Failf(telemetry.NotFound, "There is no node %s.", id)
	case "locked":
		s.log.Error("a node presented an old certificate generation and is locked: its key is in two places", "node", string(id), "generation", generation)
	}
	return 0, telemetry.Failf(telemetry.Conflict, "Node %s is locked or revoked; enrol the host again with a new join token.", id)
}

// Seen notes a node's version and that it was connected.
func (s *Store) Seen(ctx context.Context, id telemetry.NodeID, version string, at time.Time) error {
	return exec(ctx, s.ingest, "note that node "+string(id)+" was seen", "select node_seen($1, $2, $3)", string(id), cleanText(version), clampTime(at))
}

// Revoked returns those of the nodes that are revoked or not known.
func (s *Store) Revoked(ctx context.Context, nodes []telemetry.NodeID) ([]telemetry.NodeID, error) {
	if len(nodes) == 0 {
		return nil, nil
	}
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	rows, err := s.ingest.Query(call, "select id from revoked_nodes($1) id", texts(nodes))
	if err != nil {
		return nil, failure(ctx, "look for revoked nodes", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[telemetry.NodeID])
	return list, failure(ctx, "look for revoked nodes", err)
}

// Nodes lists the organisation's own nodes, oldest first.
func (s *Store) Nodes(ctx context.Context, scope telemetry.Scope) ([]telemetry.Node, error) {
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	rows, err := s.api.Query(call, "select "+nodeColumns+" from nodes_of($1)", string(scope.Org))
	if err != nil {
		return nil, failure(ctx, "list nodes", err)
	}
	list, err := pgx.CollectRows(rows, scanNode)
	return list, failure(ctx, "list nodes", err)
}

// SetAuthority records the certificate authority of this installation. The
// first one stays: nodes were enrolled to trust it.
func (s *Store) SetAuthority(ctx context.Context, fingerprint ids.Hash) error {
	var inForce string
	if _, err := one(ctx, s.maint, "record the certificate authority", []any{&inForce}, "select set_authority($1)", hexText(fingerprint)); err != nil {
		return err
	}
	return sameAuthority(fingerprint, inForce)
}

const nodeColumns = "id, org, name, machine, version, generation, certificate_to, created_at, last_seen_at, revoked_at"

func scanNode(row pgx.CollectableRow) (telemetry.Node, error) {
	var n telemetry.Node
	var certificateTo, lastSeen, revoked *time.Time
	err := row.Scan(&n.ID, &n.Org, &n.Name, &n.Machine, &n.Version, &n.Generation, &certificateTo, &n.CreatedAt, &lastSeen, &revoked)
	n.CreatedAt = n.CreatedAt.UTC()
	n.CertificateTo, n.LastSeenAt, n.RevokedAt = timeOrZero(certificateTo), timeOrZero(lastSeen), timeOrZero(revoked)
	return n, err
}

func (s *Store) oneNode(ctx context.Context, what, sql string, args ...any) (n telemetry.Node, found bool, err error) {
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	rows, err := s.ingest.Query(call, sql, args...)
	if err != nil {
		return n, false, failure(ctx, what, err)
	}
	n, err = pgx.CollectOneRow(rows, scanNode)
	if noRows(err) {
		return telemetry.Node{}, false, nil
	}
	return n, err == nil, failure(ctx, what, err)
}
