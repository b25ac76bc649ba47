package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// code fails the test unless err is a Failure with the code; "" wants none.
func code(t *testing.T, err error, want telemetry.Code) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || telemetry.CodeOf(err) != want) {
		t.Fatalf("want %q, got %v", want, err)
	}
}

// sql changes the database behind the store's back.
func sql(t *testing.T, db *storetest.Database, text string) {
	t.Helper()
	if _, err := db.Connect(t).Exec(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

func makeKey(t *testing.T, db *storetest.Database, org telemetry.OrgID, permissions ...telemetry.Permission) (id, key string) {
	t.Helper()
	key, err := db.Admin(t).CreateAPIKey(t.Context(), org, telemetry.Test, "ci", permissions, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	id, env, err := ids.ParseAPIKey(key)
	if err != nil || env != telemetry.Test {
		t.Fatal(env, err)
	}
	return id, key
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, admin := db.Open(t), db.Admin(t)
	org := db.Organisation(t)
	id, key := makeKey(t, db, org, telemetry.LogsRead, telemetry.NodesRead)
	p, err := s.Authenticate(t.Context(), id, ids.HashOf(key))
	code(t, err, "")
	want := telemetry.Principal{Scope: telemetry.Scope{Org: org, Env: telemetry.Test}, KeyID: id, KeyName: "ci", Permissions: []telemetry.Permission{telemetry.LogsRead, telemetry.NodesRead}}
	if d := cmp.Diff(want, p); d != "" {
		t.Fatal(d)
	}
	_, err = s.Authenticate(t.Context(), id, ids.HashOf(key+"x"))
	code(t, err, telemetry.Unauthorized)
	_, err = s.Authenticate(t.Context(), "000000000000", ids.Hash{})
	code(t, err, telemetry.Unauthorized)

	other, otherKey := makeKey(t, db, org, telemetry.LogsRead)
	sql(t, db, "update api_key set expires_at = now() - interval '1 second' where id = '"+other+"'")
	_, err = s.Authenticate(t.Context(), other, ids.HashOf(otherKey))
	code(t, err, telemetry.Unauthorized)

	code(t, admin.RevokeAPIKey(t.Context(), id), "")
	code(t, admin.RevokeAPIKey(t.Context(), id), "")
	code(t, admin.RevokeAPIKey(t.Context(), "nobody"), telemetry.NotFound)
	_, err = s.Authenticate(t.Context(), id, ids.HashOf(key))
	code(t, err, telemetry.Unauthorized)
	keys, err := admin.APIKeys(t.Context(), org)
	code(t, err, "")
	if len(keys) != 2 || keys[0].RevokedAt.IsZero() || keys[0].ID != id || !keys[1].RevokedAt.IsZero() || keys[1].ExpiresAt.IsZero() {
		t.Fatalf("%+v", keys)
	}
}

func TestNoSecretIsInTheDatabase(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	org := db.Organisation(t)
	id, key := makeKey(t, db, org, telemetry.LogsRead)
	token, err := db.Admin(t).CreateJoinToken(t.Context(), org, ids.Hash{}, time.Minute, 1, "")
	code(t, err, "")
	p := telemetry.Principal{KeyID: id}
	session, stream := ids.NewSessionToken(), ids.NewStreamToken()
	code(t, s.CreateWebSession(t.Context(), p, ids.HashOf(session), time.Hour), "")
	_, err = s.CreateStreamToken(t.Context(), p, ids.HashOf(stream), time.Hour, time.Hour)
	code(t, err, "")
	var dump string
	if err := db.Connect(t).QueryRow(t.Context(), `select concat((select string_agg(k::text, '') from api_key k), (select string_agg(j::text, '') from join_token j),
		(select string_agg(w::text, '') from web_session w), (select string_agg(x::text, '') from stream_token x))`).Scan(&dump); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{key, token, session, stream} {
		if strings.Contains(dump, secret) || strings.Contains(dump, secret[len(secret)-30:]) {
			t.Errorf("%.8s… is in the database", secret)
		}
	}
}

func TestWebSessions(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	id, key := makeKey(t, db, db.Organisation(t), telemetry.LogsRead)
	p, err := s.Authenticate(t.Context(), id, ids.HashOf(key))
	code(t, err, "")
	h := ids.HashOf("one")
	code(t, s.CreateWebSession(t.Context(), p, h, time.Hour), "")
	got, err := s.WebSession(t.Context(), h)
	code(t, err, "")
	if d := cmp.Diff(p, got); d != "" {
		t.Fatal(d)
	}
	_, err = s.WebSession(t.Context(), ids.HashOf("none"))
	code(t, err, telemetry.Unauthorized)

	// In use it goes on; idle it ends.
	sql(t, db, "update web_session set used_at = now() - interval '50 minutes'")
	_, err = s.WebSession(t.Context(), h)
	code(t, err, "")
	var idle time.Duration
	if err := db.Connect(t).QueryRow(t.Context(), "select now() - used_at from web_session").Scan(&idle); err != nil || idle > 30*time.Minute {
		t.Fatalf("use did not prolong the session: idle %s %v", idle, err)
	}
	sql(t, db, "update web_session set used_at = now() - interval '61 minutes'")
	_, err = s.WebSession(t.Context(), h)
	code(t, err, telemetry.Unauthorized)

	code(t, s.CreateWebSession(t.Context(), p, ids.HashOf("two"), time.Hour), "")
	code(t, s.DeleteWebSession(t.Context(), ids.HashOf("two")), "")
	_, err = s.WebSession(t.Context(), ids.HashOf("two"))
	code(t, err, telemetry.Unauthorized)

	code(t, s.CreateWebSession(t.Context(), p, ids.HashOf("three"), time.Hour), "")
	code(t, db.Admin(t).RevokeAPIKey(t.Context(), id), "")
	_, err = s.WebSession(t.Context(), ids.HashOf("three"))
	code(t, err, telemetry.Unauthorized)
}

func TestStreamTokens(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	id, _ := makeKey(t, db, db.Organisation(t), telemetry.LogsRead, telemetry.KeysAdmin)
	h := ids.HashOf("one")
	expires, err := s.CreateStreamToken(t.Context(), telemetry.Principal{KeyID: id, OnlyAgent: "agt_a", OnlySession: "ses_a"}, h, 5*time.Minute, 12*time.Hour)
	code(t, err, "")
	if left := time.Until(expires); left < 2*time.Minute || left > 6*time.Minute {
		t.Fatalf("expires in %s", left)
	}
	p, err := s.StreamToken(t.Context(), h)
	code(t, err, "")
	if !p.StreamOnly || p.OnlyAgent != "agt_a" || p.OnlySession != "ses_a" || !slices.Equal(p.Permissions, []telemetry.Permission{telemetry.LogsRead}) || p.KeyID != id || p.Env != telemetry.Test {
		t.Fatalf("%+v", p)
	}
	sql(t, db, "update stream_token set used_at = now() - interval '4 minutes'")
	_, err = s.StreamToken(t.Context(), h)
	code(t, err, "")
	sql(t, db, "update stream_token set until = now()")
	_, err = s.StreamToken(t.Context(), h)
	code(t, err, telemetry.Unauthorized)
	sql(t, db, "update stream_token set until = now() + interval '1 hour', used_at = now() - interval '6 minutes'")
	_, err = s.StreamToken(t.Context(), h)
	code(t, err, telemetry.Unauthorized)
}

func TestOrganisationsAndWhatAnOperatorMayNotMake(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, admin := db.Open(t), db.Admin(t)
	org, err := admin.CreateOrganisation(t.Context(), "Acme", telemetry.BYOIPrimitives)
	code(t, err, "")
	o, err := s.Organisation(t.Context(), telemetry.Scope{Org: org})
	code(t, err, "")
	want := telemetry.Organisation{ID: org, Name: "Acme", Mode: telemetry.BYOIPrimitives, BillingMode: telemetry.Managed}
	if d := cmp.Diff(want, o); d != "" {
		t.Fatal(d)
	}
	list, err := admin.Organisations(t.Context())
	code(t, err, "")
	if d := cmp.Diff([]telemetry.Organisation{want}, list); d != "" {
		t.Fatal(d)
	}
	_, err = s.Organisation(t.Context(), telemetry.Scope{Org: "org_none"})
	code(t, err, telemetry.NotFound)
	for org, want := range map[telemetry.OrgID]bool{org: true, "org_none": false, "": false} {
		known, err := s.KnownOrganisation(t.Context(), org)
		if err != nil || known != want {
			t.Errorf("%q known: %v %v", org, known, err)
		}
	}

	_, err = admin.CreateOrganisation(t.Context(), "", telemetry.FullPlatform)
	code(t, err, telemetry.InvalidRequest)
	_, err = admin.CreateOrganisation(t.Context(), "a\x00", telemetry.FullPlatform)
	code(t, err, telemetry.InvalidRequest)
	_, err = admin.CreateOrganisation(t.Context(), "a", "half_platform")
	code(t, err, telemetry.InvalidRequest)
	_, err = admin.CreateAPIKey(t.Context(), "org_none", telemetry.Live, "k", telemetry.AllPermissions, time.Time{})
	code(t, err, telemetry.NotFound)
	_, err = admin.CreateAPIKey(t.Context(), org, telemetry.Live, "k", nil, time.Time{})
	code(t, err, telemetry.InvalidRequest)
	_, err = admin.CreateAPIKey(t.Context(), org, telemetry.Live, "k", []telemetry.Permission{"a b"}, time.Time{})
	code(t, err, telemetry.InvalidRequest)
	_, err = admin.CreateJoinToken(t.Context(), "org_none", ids.Hash{}, time.Minute, 1, "")
	code(t, err, telemetry.NotFound)
	_, err = admin.CreateJoinToken(t.Context(), org, ids.Hash{}, store.MaxJoinTTL+1, 1, "")
	code(t, err, telemetry.InvalidRequest)
	_, err = admin.CreateJoinToken(t.Context(), org, ids.Hash{}, time.Minute, 0, "")
	code(t, err, telemetry.InvalidRequest)
}

func TestTheFirstAuthorityStays(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s, admin := db.Open(t), db.Admin(t)
	first, other := ids.HashOf("first"), ids.HashOf("other")
	code(t, s.SetAuthority(t.Context(), first), "")
	code(t, admin.SetAuthority(t.Context(), first), "")
	code(t, s.SetAuthority(t.Context(), other), telemetry.Conflict)
	code(t, admin.SetAuthority(t.Context(), other), telemetry.Conflict)
	code(t, s.SetAuthority(t.Context(), first), "")
}
