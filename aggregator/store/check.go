package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// tenantTables hold records of tenants. Their rows are seen through a policy.
var tenantTables = []string{"agent", "audit", "erasure", "event", "gap", "idempotency_key", "ingest_mark", "log_chunk", "log_damaged", "log_hot", "metric_point", "model_call", "quarantine", "session", "span", "stream_counter"}

// directoryTables are read before an organisation is known: no role has a
// right on them.
var directoryTables = []string{"api_key", "join_token", "lease", "node", "node_report", "organisation", "setting", "stream_token", "web_session"}

// check refuses a database that does not keep tenants apart as promised:
// every violation is named.
func check(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, maintTimeout)
	defer cancel()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer conn.Release()
	if err := checkRelease(ctx, conn); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, violations, tenantTables, directoryTables, []string{roleAPI, roleIngest, roleMaint}, schema)
	if err != nil {
		return fmt.Errorf("check the database: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("check the database: %w", err)
	}
	if len(found) > 0 {
		return errors.New("the database is not what this release needs (run `aggregator migrate`; rights changed by hand must be put back): " + strings.Join(found, "; "))
	}
	return nil
}

// violations names what is wrong, one row each. $1 tenant tables, $2 directory
// tables, $3 roles, $4 schema.
const violations = `
with c as (
  select c.oid, c.relname::text as name, c.relkind, c.relispartition, c.relrowsecurity, c.relforcerowsecurity
  from pg_class c where c.relnamespace = (select oid from pg_namespace where nspname = $4) and c.relkind in ('r', 'p')
), r as (
  select oid, rolname::text as name, rolsuper, rolbypassrls, rolcanlogin, rolcreaterole, rolcreatedb from pg_roles where rolname = any ($3)
)
select 'table ' || t || ' is missing' from unnest($1::text[] || $2::text[]) t where not exists (select from c where c.name = t)
union all
select 'row-level security is not forced on ' || name from c where name = any ($1) and not (relrowsecurity and relforcerowsecurity)
union all
select 'row-level security is off on partition ' || name from c where relispartition and not relrowsecurity
union all
select 'table ' || c.name || ' has no policy for ' || r.name from c cross join r
  where c.name = any ($1)
    and not exists (select from pg_policy p where p.polrelid = c.oid and r.oid = any (p.polroles))
union all
select 'table ' || c.name || ' has a policy for others than its role: ' || p.polname from c join pg_policy p on p.polrelid = c.oid
  where cardinality(p.polroles) <> 1 or not p.polroles <@ (select array_agg(oid) from r)
union all
select 'role ' || u || ' is missing' from unnest($3::text[]) u where not exists (select from r where r.name = u)
union all
select 'role ' || name || ' has attributes that it must not have' from r where rolsuper or rolbypassrls or rolcanlogin or rolcreaterole or rolcreatedb
union all
select 'role ' || r.name || ' owns table ' || c.name from c join pg_class k on k.oid = c.oid join r on k.relowner = r.oid
union all
select 'role ' || r.name || ' has a right on ' || c.name from c cross join r
  where (c.relispartition or c.name = any ($2) or not c.relforcerowsecurity) -- of tables of a newer release, too
    and (has_table_privilege(r.oid, c.oid, 'select, insert, update, delete, truncate, references, trigger') or has_any_column_privilege(r.oid, c.oid, 'select, insert, update'))
union all
select 'function ' || p.proname || ' is open to everybody' from pg_proc p
  where p.pronamespace = (select oid from pg_namespace where nspname = $4)
    and (p.proacl is null or exists (select from aclexplode(p.proacl) a where a.grantee = 0))
union all
select 'function ' || p.proname || ' has no search_path of its own' from pg_proc p
  where p.pronamespace = (select oid from pg_namespace where nspname = $4) and p.prosecdef
    and not coalesce(p.proconfig::text like '%search_path=%', false)
order by 1`
