package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/telemetry"
)

func TestTheAuditLogNamesWhatWasChanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage string
		at     int64
		says   string
	}{
		"nothing":        {"select", 0, ""},
		"an entry":       {"update audit set actor = 'nobody' where seq = 3", 3, "was changed"},
		"a time":         {"update audit set at = at + interval '1 microsecond' where seq = 1", 1, "was changed"},
		"a hash":         {"update audit set hash = sha256(hash) where seq = 4", 4, "was changed"},
		"an entry gone":  {"delete from audit where seq = 2", 2, "is missing"},
		"the first gone": {"delete from audit where seq = 1", 1, "is missing"},
		"the end gone":   {"delete from audit where seq > 4", 5, "cut off"},
		"all gone":       {"delete from audit", 5, "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := storetest.New(t)
			s, admin := db.Open(t), db.Admin(t)
			scope := telemetry.Scope{Org: db.Organisation(t)}
			for i := range 5 {
				mustErase(t, s, scope, telemetry.EraseAgent, fmt.Sprintf("agt_%d", i), time.Time{})
			}
			before, err := admin.VerifyAudit(t.Context(), scope.Org, nil)
			if err != nil || before.Fault != nil || before.Entries != 5 {
				t.Fatalf("%+v: %v", before, err)
			}
			sql(t, db, c.damage)
			after, err := admin.VerifyAudit(t.Context(), scope.Org, &store.Chained{Seq: 5, Hash: before.Head})
			switch {
			case err != nil:
				t.Fatal(err)
			case c.at == 0 && after != before:
				t.Errorf("%+v, before %+v", after, before)
			case c.at > 0 && (after.Fault == nil || after.Fault.Seq != c.at || !strings.Contains(after.Fault.What, c.says)):
				t.Errorf("%+v %+v", after, after.Fault)
			}
			if r, err := admin.VerifyAudit(t.Context(), scope.Org, &store.Chained{Seq: 5, Hash: strings.Repeat("0", 64)}); err != nil || r.Fault == nil {
				t.Errorf("another log is taken for this one: %+v %v", r, err)
			}
		})
	}
}

// Who acts at the same time gets entries one behind the other.
func TestTheAuditLogStaysAChainUnderConcurrency(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	stores := []*store.Store{db.Open(t), db.Open(t)}
	org := db.Organisation(t)
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			for n := range 5 {
				_, err := stores[i%2].Erase(t.Context(), telemetry.Scope{Org: org, Env: telemetry.Environment(i / 2)},
					telemetry.ErasureRequest{Kind: telemetry.EraseAgent, Subject: fmt.Sprintf("agt_%d_%d", i, n), By: "test"})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if r, err := db.Admin(t).VerifyAudit(t.Context(), org, nil); err != nil || r.Fault != nil || r.Entries != 20 {
		t.Fatalf("%+v: %v", r, err)
	}
}

func TestErasuresAndTheAuditLogAreKeptApartAndAppendOnly(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	for _, org := range []telemetry.OrgID{"org_a", "org_b"} {
		for _, env := range []telemetry.Environment{telemetry.Live, telemetry.Test} {
			mustErase(t, s, telemetry.Scope{Org: org, Env: env}, telemetry.EraseUser, "eve", time.Time{})
		}
	}
	conn := db.Connect(t)
	const denied, missing = "42501", "42704 22P02"
	api := map[string]string{"app.org": "org_a", "app.env": "0"}
	ingest := map[string]string{"app.orgs": `{"org_a": 1}`}
	count := func(role string, settings map[string]string, query string) (n int) {
		as(t, conn, role, settings, func(tx pgx.Tx) {
			if err := tx.QueryRow(t.Context(), query).Scan(&n); err != nil {
				t.Error(err)
			}
		})
		return n
	}
	if n := count("agg_api", api, "select count(*) from erasure"); n != 1 {
		t.Errorf("agg_api sees %d erasures", n)
	}
	if n := count("agg_api", api, "select count(*) from audit where org = 'org_a'"); n != 2 {
		t.Errorf("agg_api sees %d audit entries", n)
	}
	for _, table := range []string{"erasure", "audit"} {
		if n := count("agg_api", api, "select count(*) from "+table+" where org <> 'org_a'"); n != 0 {
			t.Errorf("agg_api sees %d foreign rows of %s", n, table)
		}
		if n := count("agg_ingest", ingest, "select count(*) from "+table+" where org <> 'org_a'"); n != 0 {
			t.Errorf("agg_ingest sees %d foreign rows of %s", n, table)
		}
		as(t, conn, "agg_api", nil, func(tx pgx.Tx) { refused(t, tx, missing, "select * from "+table) })
		as(t, conn, "agg_ingest", nil, func(tx pgx.Tx) { refused(t, tx, missing, "select * from "+table) })
		for _, role := range []string{"agg_api", "agg_ingest", "agg_maint"} {
			settings := map[string]string{"app.org": "org_a", "app.env": "0", "app.orgs": `{"org_a": 1}`}
			for _, statement := range []string{"delete from %s", "truncate %s", "update %s set org = 'org_b'", "update %s set at = now()"} {
				as(t, conn, role, settings, func(tx pgx.Tx) { refused(t, tx, denied+" 42703", fmt.Sprintf(statement, table)) })
			}
		}
	}
	as(t, conn, "agg_api", api, func(tx pgx.Tx) {
		refused(t, tx, denied, "insert into audit values ('org_a', 9, now(), '', '', '', '', '')")
	})
	as(t, conn, "agg_ingest", ingest, func(tx pgx.Tx) {
		refused(t, tx, denied, "insert into audit values ('org_b', 9, now(), '', '', '', '', '')")
	})
	as(t, conn, "agg_maint", nil, func(tx pgx.Tx) { refused(t, tx, denied, "update erasure set until = now()") })
	as(t, conn, "agg_maint", nil, func(tx pgx.Tx) { refused(t, tx, denied, "update audit set hash = ''") })
}
