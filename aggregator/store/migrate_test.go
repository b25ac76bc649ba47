package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

func TestSeveralAggregatorsMigrateAtOnce(t *testing.T) {
	t.Parallel()
	db := storetest.NewEmpty(t)
	var g errgroup.Group
	for range 4 {
		g.Go(func() error { return store.Migrate(t.Context(), db.DSN, hclog.NewNullLogger()) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context(), db.DSN, hclog.NewNullLogger()); err != nil {
		t.Fatal(err)
	}
	db.Open(t)
}

// asUser makes a login user with the attributes, gives it the database, and
// returns the DSN with which it connects.
func asUser(t *testing.T, db *storetest.Database, user, attributes string) string {
	t.Helper()
	conn := db.Connect(t)
	cfg, err := pgx.ParseConfig(db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"create role " + user + " login " + attributes, "alter database " + cfg.Database + " owner to " + user} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Replace(db.DSN, "user="+cfg.User, "user="+user, 1)
}

// A managed PostgreSQL gives no superuser: owning the database and making
// roles is enough for all there is to do.
func TestThePlainOwnerOfADatabaseCanDoEverything(t *testing.T) {
	t.Parallel()
	db := storetest.NewEmpty(t)
	dsn := asUser(t, db, "plain_owner", "createrole")
	// The roles exist already, made by another: the owner must be let in, as on a server of several installations.
	sql(t, db, "grant agg_api, agg_ingest, agg_maint to plain_owner")
	if err := store.Migrate(t.Context(), dsn, hclog.NewNullLogger()); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{DSN: dsn, Log: storetest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	owned := &storetest.Database{DSN: dsn}
	org := owned.Organisation(t)
	id, key := makeKey(t, owned, org, telemetry.LogsRead)
	p, err := s.Authenticate(t.Context(), id, ids.HashOf(key))
	code(t, err, "")
	sp := newSpool(p.Scope, "nod_1", 1)
	mustCommit(t, s, sp.numbered(t, "agt_a", 0, 10, time.Now()))
	checkStream(t.Context(), t, s, p.Scope, 1, 10)
	future := time.Now().Add(50 * time.Hour)
	f := sp.numbered(t, "agt_a", 10, 10, future)
	f.ReceivedAt = future
	mustCommit(t, s, f)
	if err := s.MakePartitions(t.Context(), future); err != nil { // takes a row from the default partition
		t.Fatal(err)
	}
	if err := s.DropPartitions(t.Context(), future.Add(store.DefaultRetention+100*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWhoMayNotMigrateIsToldWhatToDo(t *testing.T) {
	t.Parallel()
	db := storetest.NewEmpty(t)
	dsn := asUser(t, db, "poor_owner", "")
	err := store.Migrate(t.Context(), dsn, hclog.NewNullLogger())
	if err == nil || !strings.Contains(err.Error(), `grant agg_api to "poor_owner"`) {
		t.Fatalf("want advice, got %v", err)
	}
	migrated := storetest.New(t)
	stranger := asUser(t, migrated, "stranger", "")
	_, err = store.Open(t.Context(), store.Options{DSN: stranger})
	if err == nil || !strings.Contains(err.Error(), `grant agg_`) {
		t.Fatalf("want advice, got %v", err)
	}
	if err := store.Migrate(t.Context(), "host=/nowhere user=x dbname=y", hclog.NewNullLogger()); err == nil {
		t.Fatal("migrated nothing")
	}
	if _, err := store.Open(t.Context(), store.Options{DSN: "not a dsn \x00"}); err == nil {
		t.Fatal("opened nothing")
	}
}
