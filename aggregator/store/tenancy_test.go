package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/telemetry"
)

// readByIngest are those of tenantTables that commits read, too.
var readByIngest = []string{"agent", "ingest_mark", "session", "span", "stream_counter"}

var tenantTables = []string{"agent", "event", "gap", "ingest_mark", "log_chunk", "log_damaged", "log_hot", "metric_point", "model_call", "quarantine", "session", "span", "stream_counter"}

// twoTenants fills every table of records for two organisations and both
// environments.
func twoTenants(t *testing.T) *storetest.Database {
	t.Helper()
	db := storetest.New(t)
	s := db.Open(t)
	for _, org := range []telemetry.OrgID{"org_a", "org_b"} {
		for _, env := range []telemetry.Environment{telemetry.Live, telemetry.Test} {
			sp := newSpool(telemetry.Scope{Org: org, Env: env}, "nod_1", uint64(env)+1)
			bad := sp.numbered(t, "agt_a", 0, 2, time.Now())
			bad.Quarantine = "test"
			origin := telemetry.Origin{Agent: "agt_a"}
			records := sp.frame(telemetry.LaneEvents, 4)
			records.Records = telemetry.Records{
				Events:     []telemetry.Event{{Type: telemetry.SandboxStarted, Timestamp: time.Now(), Origin: origin}},
				Spans:      []telemetry.Span{{Trace: "trc_1", ID: "spn_1", Start: time.Now(), Origin: origin}},
				ModelCalls: []telemetry.ModelCall{{Timestamp: time.Now(), Origin: origin}},
				Metrics:    []telemetry.MetricPoint{{Name: "m", Timestamp: time.Now(), Origin: origin}},
			}
			mustCommit(t, s, bad, sp.numbered(t, "agt_a", 0, 2, time.Now()), records)
		}
	}
	sql(t, db, `insert into log_chunk select org, env, 0, (now() at time zone 'UTC')::date, 1, 2, 2, 0, 0, 2, 0, 9, now(), now(), now(), now(), false, '', '', null, null, '', '', '', '', '', '', '', '', '', ''
from stream_counter`)
	return db
}

// as runs fn in a transaction of a role, with settings; it is rolled back.
func as(t *testing.T, conn *pgx.Conn, role string, settings map[string]string, fn func(tx pgx.Tx)) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context()) //nolint:errcheck // an aborted transaction is what many cases want
	if _, err := tx.Exec(t.Context(), "set local role "+role); err != nil {
		t.Fatal(err)
	}
	for k, v := range settings {
		if _, err := tx.Exec(t.Context(), "select set_config($1, $2, true)", k, v); err != nil {
			t.Fatal(err)
		}
	}
	fn(tx)
}

func refused(t *testing.T, tx pgx.Tx, codes, sql string) {
	t.Helper()
	_, err := tx.Exec(t.Context(), sql)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || !strings.Contains(codes, pg.Code) {
		t.Errorf("%s: want SQLSTATE %s, got %v", sql, codes, err)
	}
}

func TestARoleSeesItsOrganisationAndNothingElse(t *testing.T) {
	t.Parallel()
	db := twoTenants(t)
	conn := db.Connect(t)
	for _, table := range []string{"agent", "event", "gap", "log_chunk", "log_hot", "metric_point", "model_call", "session", "span", "stream_counter"} {
		as(t, conn, "agg_api", map[string]string{"app.org": "org_a", "app.env": "0"}, func(tx pgx.Tx) {
			var mine, others int
			if err := tx.QueryRow(t.Context(), "select count(*) filter (where org = 'org_a' and env = 0), count(*) filter (where org <> 'org_a' or env <> 0) from "+table).Scan(&mine, &others); err != nil {
				t.Fatal(err)
			}
			if mine == 0 || others != 0 {
				t.Errorf("%s: %d own rows, %d of others", table, mine, others)
			}
		})
		as(t, conn, "agg_api", map[string]string{"app.org": "org_nobody", "app.env": "0"}, func(tx pgx.Tx) {
			var n int
			if err := tx.QueryRow(t.Context(), "select count(*) from "+table).Scan(&n); err != nil || n != 0 {
				t.Errorf("%s: a foreign organisation sees %d rows: %v", table, n, err)
			}
		})
	}
	as(t, conn, "agg_api", map[string]string{"app.org": "org_a", "app.env": "0"}, func(tx pgx.Tx) {
		var mine, others int
		if err := tx.QueryRow(t.Context(), "select count(*) filter (where org = 'org_a'), count(*) filter (where org <> 'org_a') from ingest_mark").Scan(&mine, &others); err != nil || mine == 0 || others != 0 {
			t.Errorf("ingest_mark: %d own rows, %d of others: %v", mine, others, err)
		}
	})
}

func TestAMissingSettingIsAnError(t *testing.T) {
	t.Parallel()
	db := twoTenants(t)
	const missing = "42704 22P02" // unrecognised parameter; or the empty text that a finished transaction left
	for _, table := range tenantTables {
		for _, warm := range []bool{false, true} {
			conn := db.Connect(t) // a session that never knew the setting
			roles := map[string]map[string]string{"agg_ingest": {"app.orgs": `{"org_a": 1}`}, "agg_api": {"app.org": "org_a", "app.env": "0"}}
			for role, settings := range roles {
				if role == "agg_api" && (table == "quarantine" || table == "log_damaged") || role == "agg_ingest" && !slices.Contains(readByIngest, table) {
					continue
				}
				if warm {
					as(t, conn, role, settings, func(tx pgx.Tx) {
						if _, err := tx.Exec(t.Context(), "select count(*) from "+table); err != nil {
							t.Fatal(err)
						}
					})
				}
				as(t, conn, role, nil, func(tx pgx.Tx) { refused(t, tx, missing, "select * from "+table) })
			}
			as(t, conn, "agg_ingest", nil, func(tx pgx.Tx) {
				refused(t, tx, missing, "insert into stream_counter values ('org_a', 0, 9, 9) on conflict do nothing")
			})
		}
	}
}

func TestARoleWritesItsOrganisationsAndNothingElse(t *testing.T) {
	t.Parallel()
	db := twoTenants(t)
	conn := db.Connect(t)
	const denied = "42501"
	api := map[string]string{"app.org": "org_a", "app.env": "0"}
	ingest := map[string]string{"app.orgs": `{"org_a": 1}`}
	for _, table := range tenantTables {
		for _, sql := range []string{"delete from " + table, "update " + table + " set org = 'org_a'", "truncate " + table, "insert into " + table + " (org) values ('org_a')"} {
			as(t, conn, "agg_api", api, func(tx pgx.Tx) { refused(t, tx, denied, sql) })
		}
		as(t, conn, "agg_ingest", ingest, func(tx pgx.Tx) { refused(t, tx, denied, "delete from "+table) })
		as(t, conn, "agg_ingest", ingest, func(tx pgx.Tx) { refused(t, tx, "42501 0A000", "copy "+table+" from program 'true'") })
		as(t, conn, "agg_maint", nil, func(tx pgx.Tx) { refused(t, tx, denied, "update "+table+" set org = 'org_a'") })
	}
	for _, sql := range []string{
		"insert into stream_counter values ('org_b', 0, 100, 0)",
		"insert into stream_counter values ('org_b', 0, 100, 0) on conflict (org, env) do update set next = 100",
		"update stream_counter set org = 'org_b'",
		"insert into session (org, env, id, \"user\", status, created_at) values ('org_b', 0, 'ses_x', '', 0, now())",
		"insert into ingest_mark values ('org_b', 'nod_9', 1, 0, 1)",
		"insert into model_call (org) values ('org_b')",
		"insert into metric_point (org) values ('org_b')",
		"insert into span (org, env, trace, id) values ('org_b', 0, 'trc_1', 'spn_1') on conflict (org, env, trace, id) do update set name = 'mine'",
		"update span set org = 'org_b'",
	} {
		as(t, conn, "agg_ingest", ingest, func(tx pgx.Tx) { refused(t, tx, denied, sql) })
	}
	as(t, conn, "agg_ingest", ingest, func(tx pgx.Tx) {
		tag, err := tx.Exec(t.Context(), "update stream_counter set next = next where org = 'org_b'")
		if err != nil || tag.RowsAffected() != 0 {
			t.Errorf("foreign counters updated: %s %v", tag, err)
		}
	})
	as(t, conn, "agg_ingest", ingest, func(tx pgx.Tx) { refused(t, tx, "0A000", "copy stream_counter (org, env, next, ahead) from stdin") })
}

func TestPartitionsAndTheDirectoryAreOutOfReach(t *testing.T) {
	t.Parallel()
	db := twoTenants(t)
	conn := db.Connect(t)
	rows, err := conn.Query(t.Context(), "select inhrelid::regclass::text from pg_inherits where inhparent = 'log_hot'::regclass")
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 3 {
		t.Fatalf("partitions %v: %v", tables, err)
	}
	tables = append(tables, "log_chunk_default", "api_key", "join_token", "lease", "node", "node_report", "organisation", "setting", "stream_token", "web_session", "goose_db_version")
	for _, role := range []string{"agg_api", "agg_ingest", "agg_maint"} {
		for _, table := range tables {
			for _, sql := range []string{"select * from %s", "delete from %s", "copy %s to stdout", "drop table %s"} {
				as(t, conn, role, map[string]string{"app.org": "org_a", "app.env": "0", "app.orgs": `{"org_a": 1}`}, func(tx pgx.Tx) {
					refused(t, tx, "42501", fmt.Sprintf(sql, table))
				})
			}
		}
		as(t, conn, role, nil, func(tx pgx.Tx) { refused(t, tx, "42501", "create table theazo.mine (a int)") })
		as(t, conn, role, nil, func(tx pgx.Tx) { refused(t, tx, "42501", "alter table log_hot disable row level security") })
	}
	as(t, conn, "agg_api", nil, func(tx pgx.Tx) { refused(t, tx, "42501", "select join_node('', null, '', '', '', '', null)") })
	as(t, conn, "agg_ingest", nil, func(tx pgx.Tx) { refused(t, tx, "42501", "select find_api_key('x')") })
	as(t, conn, "agg_maint", nil, func(tx pgx.Tx) { refused(t, tx, "42501", "select use_web_session('')") })
	as(t, conn, "agg_maint", nil, func(tx pgx.Tx) { refused(t, tx, "42501", "update stream_counter set next = 1") })
	as(t, conn, "agg_api", nil, func(tx pgx.Tx) { refused(t, tx, "42501", "select drop_compacted_partition('')") })
	as(t, conn, "agg_ingest", nil, func(tx pgx.Tx) { refused(t, tx, "42501", "select take_leases('{x}', 'me', '1 s')") })
}

// The check at the start is only worth something if it sees each of these.
func TestOpenRefusesADatabaseThatDoesNotKeepTenantsApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ damage, says string }{
		"security off":     {"alter table gap disable row level security", "row-level security is not forced on gap"},
		"not forced":       {"alter table log_hot no force row level security", "row-level security is not forced on log_hot"},
		"policy for all":   {"create policy leak on agent using (true)", "policy for others than its role: leak"},
		"policy gone":      {"drop policy api on event", "table event has no policy for agg_api"},
		"partition grant":  {"grant select on log_hot_default to agg_api", "role agg_api has a right on log_hot_default"},
		"column grant":     {"grant select (hash) on api_key to agg_ingest", "role agg_ingest has a right on api_key"},
		"public grant":     {"grant select on node to public", "role agg_maint has a right on node"},
		"open function":    {"grant execute on function find_api_key(text) to public", "function find_api_key is open to everybody"},
		"search path":      {"alter function find_node(text) reset search_path", "function find_node has no search_path"},
		"partition policy": {"alter table log_hot_default disable row level security", "row-level security is off on partition log_hot_default"},
		"chunks in reach":  {"alter table log_chunk no force row level security", "row-level security is not forced on log_chunk"},
		"chunk partition":  {"grant select on log_chunk_default to agg_api", "role agg_api has a right on log_chunk_default"},
		"table gone":       {"drop table quarantine", "table quarantine is missing"},
		"unguarded table":  {"create table theazo.extra (org text); grant select on theazo.extra to agg_api", "role agg_api has a right on extra"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := storetest.New(t)
			if _, err := db.Connect(t).Exec(t.Context(), c.damage); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(t.Context(), store.Options{DSN: db.DSN})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v\ndoes not say: %s", err, c.says)
			}
		})
	}
}

func TestADatabaseThatWasNotMigratedIsRefusedWithAdvice(t *testing.T) {
	t.Parallel()
	_, err := store.Open(t.Context(), store.Options{DSN: storetest.NewEmpty(t).DSN})
	if err == nil || !strings.Contains(err.Error(), "aggregator migrate") {
		t.Fatal(err)
	}
}
