-- What agents say beside lines: spans, model calls, metric points, last words.
-- And the aggregator's side of the ledger.

-- +goose Up

-- What became of the sequences up to counted: counted = base + visible +
-- quarantined + lost. base is what was committed before this row was counted;
-- what lies between counted and seq was committed by an aggregator that does not
-- count, before this migration or beside it, and goes to base with the next
-- commit. (First of all tables, as in every commit: or each would wait for the
-- other.)
alter table ingest_mark
  add column counted bigint not null default 0,
  add column base bigint not null default 0,
  add column visible bigint not null default 0,
  add column quarantined bigint not null default 0,
  add column lost bigint not null default 0;

-- JSON objects of nodes are text: what a node wrote is kept as it is, and no
-- escape or number in it can make the database refuse a whole commit.
alter table event
  add column last_words text, -- a telemetry.LastWords as JSON
  add column content text;
alter table event alter column last_words set storage external;

-- A span that still runs is replaced by the same span when it has ended.
create table span (
  org        text not null,
  env        smallint not null,
  trace      text not null,
  id         text not null,
  parent     text not null,
  name       text not null,
  kind       smallint not null,
  start_at   timestamptz not null,
  end_at     timestamptz, -- null: it runs
  status     smallint not null,
  error      text not null,
  scope      text not null,
  agent      text not null,
  session    text not null,
  "user"     text not null,
  provider   smallint not null,
  sandbox    text not null,
  source     smallint not null,
  node       text not null,
  recv_at    timestamptz not null,
  attributes text,
  resource   text,
  events     text,
  links      text,
  primary key (org, env, trace, id)
);
create index span_agent on span (org, env, agent, start_at);
create index span_recv on span using brin (recv_at);

create table model_call (
  org           text not null,
  env           smallint not null,
  node          text not null,
  epoch         bigint not null,
  seq           bigint not null,
  recv_at       timestamptz not null,
  at            timestamptz not null,
  agent         text not null,
  session       text not null,
  "user"        text not null,
  provider      smallint not null,
  sandbox       text not null,
  model         text not null,
  vendor        text not null,
  trace         text not null,
  span          text not null,
  tokens_in     bigint not null,
  tokens_out    bigint not null,
  cache_read    bigint not null,
  cache_write   bigint not null,
  cost_nanos    bigint, -- as the agent said, in billionths of the currency's unit
  cost_currency text,
  metadata      text,
  primary key (org, env, node, epoch, seq)
);
create index model_call_agent on model_call (org, env, agent, at);
create index model_call_recv on model_call using brin (recv_at);

create table metric_point (
  org        text not null,
  env        smallint not null,
  node       text not null,
  epoch      bigint not null,
  seq        bigint not null,
  recv_at    timestamptz not null,
  name       text not null,
  unit       text not null,
  kind       smallint not null,
  at         timestamptz not null,
  start_at   timestamptz,
  agent      text not null,
  session    text not null,
  "user"     text not null,
  provider   smallint not null,
  sandbox    text not null,
  value      double precision not null,
  histogram  text, -- a telemetry.Histogram as JSON
  attributes text,
  primary key (org, env, node, epoch, seq)
);
create index metric_point_name on metric_point (org, env, name, at);
create index metric_point_recv on metric_point using brin (recv_at);

-- +goose StatementBegin
do $$
declare
  t text;
begin
  foreach t in array array['span', 'model_call', 'metric_point'] loop
    execute format('alter table %I enable row level security', t);
    execute format('alter table %I force row level security', t);
    execute format($p$create policy api on %I to agg_api
      using (org = current_setting('app.org') and env = current_setting('app.env')::smallint)
      with check (org = current_setting('app.org') and env = current_setting('app.env')::smallint)$p$, t);
    execute format($p$create policy ingest on %I to agg_ingest
      using ((select current_setting('app.orgs')::jsonb) ? org)
      with check ((select current_setting('app.orgs')::jsonb) ? org)$p$, t);
    execute format('create policy maint on %I to agg_maint using (true) with check (true)', t);
  end loop;
end
$$;
-- +goose StatementEnd

grant select on span, model_call, metric_point to agg_api;
grant select, insert, update on span to agg_ingest;
grant insert on model_call, metric_point to agg_ingest;
grant select, delete on span, model_call, metric_point to agg_maint;

-- Ledger ---------------------------------------------------------------------

-- Marks have no environment. It is read all the same, because a finished
-- transaction leaves empty settings behind: an empty number is an error, an empty
-- organisation would be "none".
create policy api on ingest_mark to agg_api using (org = current_setting('app.org') || repeat('', current_setting('app.env')::int));
grant select on ingest_mark to agg_api;

-- The last report of each node, as JSON (telemetry.NodeReport).
create table node_report (
  node        text primary key references node (id) on delete cascade,
  reported_at timestamptz not null,
  report      text not null
) with (fillfactor = 70);

-- +goose StatementBegin
create function nodes_reported(nodes text[], ats timestamptz[], reports text[]) returns void
language sql security definer set search_path = theazo, pg_temp as $$
  insert into node_report (node, reported_at, report)
    select u.node, u.at, u.report from unnest(nodes, ats, reports) u (node, at, report) join node n on n.id = u.node order by u.node
  on conflict (node) do update set reported_at = excluded.reported_at, report = excluded.report
    where node_report.reported_at <= excluded.reported_at;
  update node n set last_seen_at = u.at from unnest(nodes, ats) u (id, at) where n.id = u.id and (n.last_seen_at is null or n.last_seen_at < u.at)
$$;
-- +goose StatementEnd

-- The report of a node that is the organisation's own or of the platform.
-- +goose StatementBegin
create function node_report_for(org_id text, node_id text) returns table (own boolean, reported_at timestamptz, report text)
language sql stable security definer set search_path = theazo, pg_temp as $$
  select n.org = org_id, r.reported_at, r.report
  from node n left join node_report r on r.node = n.id
  where n.id = node_id and n.org in (org_id, '') and org_id <> ''
$$;
-- +goose StatementEnd

revoke execute on function nodes_reported(text[], timestamptz[], text[]), node_report_for(text, text) from public;
grant execute on function nodes_reported(text[], timestamptz[], text[]) to agg_maint;
grant execute on function node_report_for(text, text) to agg_api;
