package store_test

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

var anywhere = netip.MustParseAddr("192.0.2.7")

func TestOfParallelJoinsAsManySucceedAsTheTokenHasUses(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	org := db.Organisation(t)
	for _, uses := range []int{1, 3} {
		token, err := db.Admin(t).CreateJoinToken(t.Context(), org, ids.Hash{}, time.Minute, uses, "")
		code(t, err, "")
		var joined atomic.Int32
		var g errgroup.Group
		for range 40 {
			g.Go(func() error {
				n, err := s.Join(t.Context(), ids.HashOf(token), anywhere, telemetry.Node{Name: "host", Machine: "m"})
				switch {
				case err == nil && n.Org == org && n.ID != "" && n.Generation == 1:
					joined.Add(1)
				case telemetry.CodeOf(err) != telemetry.Unauthorized:
					t.Errorf("%+v %v", n, err)
				}
				return nil
			})
		}
		_ = g.Wait() // they return nil
		if int(joined.Load()) != uses {
			t.Errorf("%d joined with a token of %d uses", joined.Load(), uses)
		}
	}
}

func TestAJoinTokenIsBoundToItsNameNetworkAndTime(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, admin := db.Open(t), db.Admin(t)
	named, err := admin.CreateJoinToken(t.Context(), "", ids.Hash{}, time.Minute, 9, "web-1")
	code(t, err, "")
	_, err = s.Join(t.Context(), ids.HashOf(named), anywhere, telemetry.Node{Name: "web-2"})
	code(t, err, telemetry.Unauthorized)
	n, err := s.Join(t.Context(), ids.HashOf(named), anywhere, telemetry.Node{Name: "web-1"})
	code(t, err, "")
	if n.Org != "" || n.Name != "web-1" {
		t.Fatalf("%+v", n)
	}
	near, err := admin.CreateJoinTokenFrom(t.Context(), "", ids.Hash{}, time.Minute, 9, "", netip.MustParsePrefix("10.1.0.0/16"))
	code(t, err, "")
	_, err = s.Join(t.Context(), ids.HashOf(near), anywhere, telemetry.Node{Name: "a"})
	code(t, err, telemetry.Unauthorized)
	_, err = s.Join(t.Context(), ids.HashOf(near), netip.MustParseAddr("::ffff:10.1.2.3"), telemetry.Node{Name: "a"})
	code(t, err, "")
	sql(t, db, "update join_token set expires_at = now()")
	_, err = s.Join(t.Context(), ids.HashOf(near), netip.MustParseAddr("10.1.2.3"), telemetry.Node{Name: "a"})
	code(t, err, telemetry.Unauthorized)
}

func TestRenewalsMoveTheGenerationAndAnOldOneLocks(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, admin := db.Open(t), db.Admin(t)
	org := db.Organisation(t)
	token, err := admin.CreateJoinToken(t.Context(), org, ids.Hash{}, time.Minute, 2, "")
	code(t, err, "")
	notAfter := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	n, err := s.Join(t.Context(), ids.HashOf(token), anywhere, telemetry.Node{Name: "host", Version: "v1", CertificateTo: notAfter})
	code(t, err, "")
	renew := func(generation, want int64, failure telemetry.Code) {
		t.Helper()
		got, err := s.Renew(t.Context(), n.ID, generation, notAfter)
		code(t, err, failure)
		if got != want {
			t.Fatalf("renewal of %d gives %d, want %d", generation, got, want)
		}
	}
	renew(1, 2, "")
	sql(t, db, "update node set renewed_at = now() + interval '1 hour'") // however slow this machine is
	renew(1, 2, "")                                                      // by another connection at the same moment
	renew(2, 3, "")
	_, err = s.Renew(t.Context(), "nod_none", 1, notAfter)
	code(t, err, telemetry.NotFound)

	code(t, s.Seen(t.Context(), n.ID, "v2", notAfter), "")
	got, err := s.Node(t.Context(), n.ID)
	code(t, err, "")
	if got.Generation != 3 || got.Version != "v2" || !got.LastSeenAt.Equal(notAfter) || !got.CertificateTo.Equal(notAfter) || got.Org != org {
		t.Fatalf("%+v", got)
	}
	sql(t, db, "update node set renewed_at = now() - interval '1 hour'")
	renew(2, 0, telemetry.Conflict)
	renew(3, 0, telemetry.Conflict) // locked, whoever asks
	revoked, err := s.Revoked(t.Context(), []telemetry.NodeID{n.ID, "nod_none"})
	code(t, err, "")
	slices.Sort(revoked)
	if len(revoked) != 2 {
		t.Fatalf("revoked %v", revoked)
	}
}

func TestNodesAreListedToTheirOrganisationOnly(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, admin := db.Open(t), db.Admin(t)
	a, b := db.Organisation(t), db.Organisation(t)
	var joined []telemetry.NodeID
	for _, org := range []telemetry.OrgID{a, a, b, ""} {
		token, err := admin.CreateJoinToken(t.Context(), org, ids.Hash{}, time.Minute, 1, "")
		code(t, err, "")
		n, err := s.Join(t.Context(), ids.HashOf(token), anywhere, telemetry.Node{Name: "x"})
		code(t, err, "")
		joined = append(joined, n.ID)
	}
	for org, want := range map[telemetry.OrgID]int{a: 2, b: 1, "": 0, "org_none": 0} {
		list, err := s.Nodes(t.Context(), telemetry.Scope{Org: org})
		if err != nil || len(list) != want {
			t.Errorf("%q: %d nodes, want %d: %v", org, len(list), want, err)
		}
	}
	all, err := admin.NodesAll(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatalf("%d nodes: %v", len(all), err)
	}
	code(t, admin.RevokeNode(t.Context(), joined[0]), "")
	code(t, admin.RevokeNode(t.Context(), "nod_none"), telemetry.NotFound)
	revoked, err := s.Revoked(t.Context(), joined)
	if err != nil || len(revoked) != 1 || revoked[0] != joined[0] {
		t.Fatalf("revoked %v: %v", revoked, err)
	}
	_, err = s.Node(t.Context(), "nod_none")
	code(t, err, telemetry.NotFound)
}
