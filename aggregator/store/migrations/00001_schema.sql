-- The first schema: tenants, what they may do, and their records.
--
-- Every table of tenants' records leads each key with org, holds env, and is
-- under forced row-level security from here on. The directory (organisations,
-- nodes, credentials) is read before an organisation is known: no role has a
-- right on it, and what the roles may ask goes through the SECURITY DEFINER
-- functions below. The roles themselves are made by Migrate, which can say what
-- is missing where the login user may not.

-- +goose Up

-- Directory ------------------------------------------------------------------

create table setting (
  name  text primary key,
  value text not null
);
-- A restore from a backup gives positions out a second time: it gets a new epoch.
insert into setting (name, value) values ('stream_epoch', '1');

create table organisation (
  id           text primary key,
  name         text not null,
  mode         text not null check (mode in ('full_platform', 'byoi_primitives', 'infra_only')),
  billing_mode text not null check (billing_mode in ('managed', 'byoi_compute', 'byoi_models', 'byoi_both')),
  created_at   timestamptz not null
);

create table node (
  id             text primary key,
  org            text not null, -- '': a node of the platform
  name           text not null,
  machine        text not null,
  version        text not null,
  generation     bigint not null,
  renewed_at     timestamptz not null,
  certificate_to timestamptz,
  created_at     timestamptz not null,
  last_seen_at   timestamptz,
  revoked_at     timestamptz,
  revoked_reason text not null default ''
);
create index node_org on node (org, created_at);

create table join_token (
  hash       bytea primary key,
  org        text not null, -- '': for nodes of the platform
  node_name  text not null, -- '': any
  allowed    inet,          -- null: from anywhere
  uses       integer not null,
  used       integer not null default 0,
  created_at timestamptz not null,
  expires_at timestamptz not null
);

create table api_key (
  id           text primary key,
  org          text not null,
  env          smallint not null check (env in (0, 1)),
  name         text not null,
  permissions  text[] not null,
  hash         bytea not null,
  created_at   timestamptz not null,
  expires_at   timestamptz,
  last_used_at timestamptz,
  revoked_at   timestamptz
);
create index api_key_org on api_key (org, created_at);

create table web_session (
  hash       bytea primary key,
  key_id     text not null references api_key (id) on delete cascade,
  idle       interval not null,
  created_at timestamptz not null,
  used_at    timestamptz not null
);

create table stream_token (
  hash       bytea primary key,
  key_id     text not null references api_key (id) on delete cascade,
  agent      text not null, -- '': not bound to one
  session    text not null,
  idle       interval not null,
  created_at timestamptz not null,
  used_at    timestamptz not null,
  until      timestamptz not null
);

-- Records --------------------------------------------------------------------

-- What was committed of each sequence; kept for ever. One epoch serves both
-- environments, so env is no part of it.
create table ingest_mark (
  org   text not null,
  node  text not null,
  epoch bigint not null, -- the 64 bits of the spool's epoch
  lane  smallint not null,
  seq   bigint not null,
  primary key (org, node, epoch, lane)
) with (fillfactor = 50);

-- The position that the next record of a stream gets. ahead is how far a
-- timestamp was ever ahead of its arrival, in microseconds: a query for lines
-- since T need not look at what arrived before T - ahead.
create table stream_counter (
  org   text not null,
  env   smallint not null check (env in (0, 1)),
  next  bigint not null,
  ahead bigint not null,
  primary key (org, env)
) with (fillfactor = 50);

-- Log lines: one row holds the lines of one organisation and flush, in columns
-- (shared/segment), at the positions [pos, pos + n).
create table log_hot (
  org        text not null,
  env        smallint not null,
  pos        bigint not null,
  n          integer not null,
  recv_at    timestamptz not null,
  t0         timestamptz not null,
  t1         timestamptz not null,
  l0         integer not null,
  l1         integer not null,
  l2         integer not null,
  l3         integer not null,
  raw        bigint not null,
  agents     text[], -- null: too many to list
  sessions   text[],
  head       bytea not null,
  c_time     bytea not null,
  c_flags    bytea not null,
  c_origin   bytea not null,
  c_message  bytea not null,
  c_metadata bytea not null,
  c_trace    bytea not null
) partition by range (recv_at);
-- Kept outside the row as they are, so that a query reads the columns it needs
-- and no more; they are compressed already. Set before partitions exist, which
-- inherit it.
alter table log_hot
  alter column head set storage external,
  alter column c_time set storage external,
  alter column c_flags set storage external,
  alter column c_origin set storage external,
  alter column c_message set storage external,
  alter column c_metadata set storage external,
  alter column c_trace set storage external;
create index log_hot_pos on log_hot (org, env, pos);
create index log_hot_t1 on log_hot (org, env, t1);
-- For rows that no partition was made for: a clock that jumped.
create table log_hot_default partition of log_hot default;
alter table log_hot_default enable row level security;

create table gap (
  org       text not null,
  env       smallint not null,
  pos       bigint not null,
  recv_at   timestamptz not null,
  node      text not null,
  lane      smallint not null,
  epoch     bigint not null,
  reason    text not null,
  count     bigint not null,
  bytes     bigint not null,
  since     timestamptz,
  until     timestamptz,
  first_seq bigint not null,
  last_seq  bigint not null,
  agent     text not null,
  session   text not null,
  sandbox   text not null,
  detail    text not null,
  primary key (org, env, pos)
);
create index gap_time on gap (org, env, recv_at);

create table event (
  org        text not null,
  env        smallint not null,
  node       text not null,
  epoch      bigint not null,
  seq        bigint not null,
  recv_at    timestamptz not null,
  type       text not null,
  at         timestamptz not null,
  agent      text not null,
  session    text not null,
  "user"     text not null,
  provider   smallint not null,
  sandbox    text not null,
  exit_code  integer,
  reason     text not null,
  inferred   boolean not null,
  attributes jsonb not null,
  primary key (org, env, node, epoch, seq)
);
create index event_agent on event (org, env, agent, at);
create index event_recv on event using brin (recv_at);

-- Frames that the aggregator could not take, byte for byte.
create table quarantine (
  org       text not null,
  env       smallint not null,
  node      text not null,
  epoch     bigint not null,
  lane      smallint not null,
  first_seq bigint not null,
  count     bigint not null,
  recv_at   timestamptz not null,
  reason    text not null,
  body      bytea not null,
  primary key (org, env, node, epoch, lane, first_seq)
);
alter table quarantine alter column body set storage external;

create table agent (
  org        text not null,
  env        smallint not null,
  id         text not null,
  session    text not null,
  "user"     text not null,
  provider   smallint not null,
  sandbox    text not null,
  node       text not null,
  status     smallint not null,
  status_at  timestamptz, -- of the event that says so; null: lines only
  created_at timestamptz not null,
  first_line timestamptz, -- of its lines, exact to store.spanSlack; null: none yet
  last_line  timestamptz,
  primary key (org, env, id)
) with (fillfactor = 70);
create index agent_created on agent (org, env, created_at, id);
create index agent_session on agent (org, env, session, created_at, id);

create table session (
  org        text not null,
  env        smallint not null,
  id         text not null,
  "user"     text not null,
  status     smallint not null,
  metadata   jsonb,
  created_at timestamptz not null,
  first_line timestamptz,
  last_line  timestamptz,
  primary key (org, env, id)
) with (fillfactor = 70);
create index session_created on session (org, env, created_at, id);

-- Rights ---------------------------------------------------------------------

-- +goose StatementBegin
do $$
declare
  t text;
begin
  foreach t in array array['ingest_mark', 'stream_counter', 'log_hot', 'gap', 'event', 'quarantine', 'agent', 'session'] loop
    execute format('alter table %I enable row level security', t);
    execute format('alter table %I force row level security', t);
    -- A setting that is missing is an error, never "all rows" and never "none".
    if t <> 'ingest_mark' then
      execute format($p$create policy api on %I to agg_api
        using (org = current_setting('app.org') and env = current_setting('app.env')::smallint)
        with check (org = current_setting('app.org') and env = current_setting('app.env')::smallint)$p$, t);
    end if;
    -- The organisations are the keys of an object, which the select makes once
    -- for a statement and each row looks up by bisection. ("org = any" of an
    -- array costs the square of their number, and the planner takes it for a way
    -- to search an index.)
    execute format($p$create policy ingest on %I to agg_ingest
      using ((select current_setting('app.orgs')::jsonb) ? org)
      with check ((select current_setting('app.orgs')::jsonb) ? org)$p$, t);
    execute format('create policy maint on %I to agg_maint using (true) with check (true)', t);
  end loop;
end
$$;
-- +goose StatementEnd

grant usage on schema theazo to agg_api, agg_ingest, agg_maint;
grant select on stream_counter, log_hot, gap, event, agent, session to agg_api;
grant select, insert, update on ingest_mark, stream_counter, agent, session to agg_ingest;
grant insert on log_hot, gap, event, quarantine to agg_ingest;
grant select, delete on gap, event, quarantine to agg_maint;

-- Functions ------------------------------------------------------------------

-- +goose StatementBegin
create function stream_epoch() returns bigint
language sql stable security definer set search_path = theazo, pg_temp as $$
  select value::bigint from setting where name = 'stream_epoch'
$$;
-- +goose StatementEnd

-- The first authority stays; the answer is the one in force.
-- +goose StatementBegin
create function set_authority(fingerprint text) returns text
language plpgsql security definer set search_path = theazo, pg_temp as $$
begin
  insert into setting (name, value) values ('authority', fingerprint) on conflict (name) do nothing;
  return (select value from setting where name = 'authority');
end
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function known_organisation(org_id text) returns boolean
language sql stable security definer set search_path = theazo, pg_temp as $$
  select exists (select from organisation where id = org_id)
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function find_organisation(org_id text) returns setof organisation
language sql stable security definer set search_path = theazo, pg_temp as $$
  select * from organisation where id = org_id
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function nodes_of(org_id text) returns setof node
language sql stable security definer set search_path = theazo, pg_temp as $$
  select * from node where org = org_id and org_id <> '' order by created_at, id
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function find_node(node_id text) returns setof node
language sql stable security definer set search_path = theazo, pg_temp as $$
  select * from node where id = node_id
$$;
-- +goose StatementEnd

-- One statement takes the token's use, so that of parallel joins exactly as
-- many succeed as the token has uses.
-- +goose StatementBegin
create function join_node(token bytea, address inet, node_id text, node_name_ text, machine_ text, version_ text, valid_to timestamptz)
returns setof node
language plpgsql security definer set search_path = theazo, pg_temp as $$
declare
  t join_token;
begin
  update join_token set used = used + 1
    where hash = token and used < uses and expires_at > now() and (allowed is null or address <<= allowed)
      and (node_name = '' or node_name = node_name_)
    returning * into t;
  if not found then
    return;
  end if;
  return query
    insert into node (id, org, name, machine, version, generation, renewed_at, certificate_to, created_at)
    values (node_id, t.org, node_name_, machine_, version_, 1, now(), valid_to, now())
    returning *;
end
$$;
-- +goose StatementEnd

-- A renewal with an old generation means two holders of one key: the node is
-- locked. The generation just replaced is accepted for ten seconds more: two
-- connections of one node may be the first to use its new certificate.
-- +goose StatementBegin
create function renew_node(node_id text, presented bigint, valid_to timestamptz, out outcome text, out current bigint)
language plpgsql security definer set search_path = theazo, pg_temp as $$
declare
  n node;
begin
  select * into n from node where id = node_id for update;
  if not found then
    outcome := 'unknown';
  elsif n.revoked_at is not null then
    outcome := 'revoked';
  elsif presented = n.generation then
    outcome := 'renewed';
    current := n.generation + 1;
    update node set generation = n.generation + 1, renewed_at = now(), certificate_to = valid_to where id = node_id;
  elsif presented = n.generation - 1 and n.renewed_at > now() - interval '10 seconds' then
    outcome := 'renewed';
    current := n.generation;
    update node set certificate_to = valid_to where id = node_id;
  else
    outcome := 'locked';
    update node set revoked_at = now(), revoked_reason = 'a renewal presented an old generation: the key is in two places' where id = node_id;
  end if;
end
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function node_seen(node_id text, version_ text, seen timestamptz) returns void
language sql security definer set search_path = theazo, pg_temp as $$
  update node set version = version_, last_seen_at = greatest(last_seen_at, seen)
  where id = node_id and (version <> version_ or last_seen_at is null or last_seen_at < seen)
$$;
-- +goose StatementEnd

-- Nodes that nobody knows count as revoked.
-- +goose StatementBegin
create function revoked_nodes(node_ids text[]) returns setof text
language sql stable security definer set search_path = theazo, pg_temp as $$
  select u.id from unnest(node_ids) u (id) left join node n on n.id = u.id where n.id is null or n.revoked_at is not null
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function find_api_key(key_id text)
returns table (hash bytea, org text, env smallint, name text, permissions text[], usable boolean)
language sql stable security definer set search_path = theazo, pg_temp as $$
  select k.hash, k.org, k.env, k.name, k.permissions, k.revoked_at is null and (k.expires_at is null or k.expires_at > now())
  from api_key k where k.id = key_id
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function touch_api_keys(ids text[], ats timestamptz[]) returns void
language sql security definer set search_path = theazo, pg_temp as $$
  update api_key k set last_used_at = u.at
  from unnest(ids, ats) u (id, at) where k.id = u.id and (k.last_used_at is null or k.last_used_at < u.at)
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function create_web_session(token bytea, key text, idle_ interval) returns void
language sql security definer set search_path = theazo, pg_temp as $$
  insert into web_session (hash, key_id, idle, created_at, used_at) values (token, key, idle_, now(), now())
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function use_web_session(token bytea)
returns table (key_id text, org text, env smallint, name text, permissions text[])
language sql security definer set search_path = theazo, pg_temp as $$
  update web_session set used_at = now()
    where hash = token and used_at + idle > now() and used_at < now() - interval '1 minute';
  select k.id, k.org, k.env, k.name, k.permissions
    from web_session s join api_key k on k.id = s.key_id
    where s.hash = token and s.used_at + s.idle > now() and k.revoked_at is null and (k.expires_at is null or k.expires_at > now());
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function delete_web_session(token bytea) returns void
language sql security definer set search_path = theazo, pg_temp as $$
  delete from web_session where hash = token
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function create_stream_token(token bytea, key text, agent_ text, session_ text, idle_ interval, longest interval) returns timestamptz
language sql security definer set search_path = theazo, pg_temp as $$
  insert into stream_token (hash, key_id, agent, session, idle, created_at, used_at, until)
  values (token, key, agent_, session_, idle_, now(), now(), now() + longest)
  returning least(used_at + idle, until)
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function use_stream_token(token bytea)
returns table (key_id text, org text, env smallint, name text, permissions text[], agent text, session text)
language sql security definer set search_path = theazo, pg_temp as $$
  update stream_token set used_at = now()
    where hash = token and used_at + idle > now() and until > now() and used_at < now() - least(idle / 10, interval '15 seconds');
  select k.id, k.org, k.env, k.name, k.permissions, s.agent, s.session
    from stream_token s join api_key k on k.id = s.key_id
    where s.hash = token and s.used_at + s.idle > now() and s.until > now()
      and k.revoked_at is null and (k.expires_at is null or k.expires_at > now());
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function purge_credentials() returns void
language sql security definer set search_path = theazo, pg_temp as $$
  delete from web_session where used_at + idle < now();
  delete from stream_token where used_at + idle < now() or until < now();
  delete from join_token where expires_at < now() - interval '7 days';
$$;
-- +goose StatementEnd

-- Partitions of log_hot, the default apart.
-- +goose StatementBegin
create function log_partitions() returns table (name text, lo timestamptz, hi timestamptz)
language sql stable security definer set search_path = theazo, pg_temp set timezone = 'UTC' set datestyle = 'ISO' as $$
  select c.relname::text, m[1]::timestamptz, m[2]::timestamptz
  from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    cross join lateral regexp_match(pg_get_expr(c.relpartbound, c.oid), $r$FROM \('([^']+)'\) TO \('([^']+)'\)$r$) m
  where i.inhparent = 'theazo.log_hot'::regclass and m is not null
  order by 2
$$;
-- +goose StatementEnd

-- Makes the partition [lo, hi) unless another covers part of it, and takes
-- rows that wait for it in the default partition.
-- +goose StatementBegin
create function make_log_partition(lo_ timestamptz, hi_ timestamptz) returns boolean
language plpgsql security definer set search_path = theazo, pg_temp set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
  part text := 'log_hot_' || to_char(lo_, 'YYYYMMDDHH24MI');
begin
  perform pg_advisory_xact_lock(hashtext('theazo.log_hot partitions'));
  -- While it waits for a long query, all other queries wait behind it.
  perform set_config('lock_timeout', '500ms', true);
  if exists (select from log_partitions() p where p.lo < hi_ and p.hi > lo_) then
    return false;
  end if;
  if not exists (select from log_hot_default where recv_at >= lo_ and recv_at < hi_) then
    execute format('create table %I partition of log_hot for values from (%L) to (%L)', part, lo_, hi_);
  else
    execute format('create table %I (like log_hot including all)', part);
    lock table log_hot_default in access exclusive mode;
    execute format('with moved as (delete from log_hot_default where recv_at >= %L and recv_at < %L returning *) insert into %I select * from moved', lo_, hi_, part);
    execute format('alter table log_hot attach partition %I for values from (%L) to (%L)', part, lo_, hi_);
  end if;
  execute format('alter table %I enable row level security', part);
  return true;
end
$$;
-- +goose StatementEnd

-- Drops one partition, if all of it is older than the given time.
-- +goose StatementBegin
create function drop_log_partition(part text, older_than timestamptz) returns boolean
language plpgsql security definer set search_path = theazo, pg_temp as $$
begin
  perform pg_advisory_xact_lock(hashtext('theazo.log_hot partitions'));
  perform set_config('lock_timeout', '200ms', true);
  if not exists (select from log_partitions() p where p.name = part and p.hi <= older_than) then
    return false;
  end if;
  execute format('drop table %I', part);
  return true;
end
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function purge_log_default(older_than timestamptz) returns bigint
language sql security definer set search_path = theazo, pg_temp as $$
  with gone as (delete from log_hot_default where recv_at < older_than returning 1) select count(*) from gone
$$;
-- +goose StatementEnd

revoke execute on all functions in schema theazo from public;
grant execute on function stream_epoch(), find_organisation(text), nodes_of(text), find_api_key(text), create_web_session(bytea, text, interval),
  use_web_session(bytea), delete_web_session(bytea), create_stream_token(bytea, text, text, text, interval, interval), use_stream_token(bytea) to agg_api;
grant execute on function known_organisation(text), find_node(text), join_node(bytea, inet, text, text, text, text, timestamptz),
  renew_node(text, bigint, timestamptz), node_seen(text, text, timestamptz), revoked_nodes(text[]) to agg_ingest;
grant execute on function set_authority(text), touch_api_keys(text[], timestamptz[]), purge_credentials(), log_partitions(),
  make_log_partition(timestamptz, timestamptz), drop_log_partition(text, timestamptz), purge_log_default(timestamptz) to agg_maint;
