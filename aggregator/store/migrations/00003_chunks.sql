-- Lines at rest: chunks, which the compactor makes of hot rows.
--
-- An aggregator of the previous release may run beside: it goes on to write and
-- read hot rows. They are compacted, but no partition of them is dropped while
-- one is connected, so that it finds every line.

-- +goose Up

-- Every hot row of the stream at a position below compacted is in chunks.
-- hot_rows, hot_raw and hot_since tell how much waits and since when, so that
-- nobody has to count; what an older aggregator commits is missing in them.
alter table stream_counter
  add column compacted bigint not null default 0,
  add column hot_rows bigint not null default 0,
  add column hot_raw bigint not null default 0,
  add column hot_since timestamptz; -- null: nothing waits, or nobody knows

-- How long lines are kept: the class has its days in the configuration, and an
-- organisation may have a shorter time of its own.
alter table organisation
  add column retention_class smallint not null default 0 check (retention_class between 0 and 99),
  add column retention interval check (retention >= interval '1 hour');

-- What one aggregator does at a time. Leases save work; nothing is wrong if two
-- hold the same one.
create table lease (
  name  text primary key,
  owner text not null,
  until timestamptz not null
) with (fillfactor = 50);

-- Up to 4,096 lines of one organisation, environment, retention class and day,
-- sorted by (session, agent, time, position), in columns as in log_hot.
create table log_chunk (
  org        text not null,
  env        smallint not null,
  class      smallint not null,
  day        date not null,          -- of its lines' timestamps, kept within [arrival - 30 days, arrival + 10 minutes]
  id         bigint not null,        -- the lowest position of its lines; unique in (org, env)
  last       bigint not null,        -- the highest
  n          integer not null,
  l0         integer not null,
  l1         integer not null,
  l2         integer not null,
  l3         integer not null,
  raw        bigint not null,
  t0         timestamptz not null,   -- of the lines' own timestamps
  t1         timestamptz not null,
  recv0      timestamptz not null,   -- of their arrival
  recv1      timestamptz not null,
  odd        boolean not null,       -- day is not that of every line's own timestamp
  session_lo text collate "C" not null,
  session_hi text collate "C" not null,
  agents     text[],                 -- null: too many to list
  sessions   text[],
  counts     bytea not null,         -- lines by level and five minutes
  bloom      bytea not null,
  head       bytea not null,
  c_time     bytea not null,
  c_flags    bytea not null,
  c_origin   bytea not null,
  c_message  bytea not null,
  c_metadata bytea not null,
  c_trace    bytea not null,
  c_place    bytea not null,         -- position, node, epoch, sequence and arrival of each line
  primary key (org, env, class, day, id)
) partition by range (class, day);
-- See log_hot. Of an external column that is not compressed, substring() reads
-- the piece that it needs: one slice of a bloom.
alter table log_chunk
  alter column counts set storage main,
  alter column bloom set storage external,
  alter column head set storage external,
  alter column c_time set storage external,
  alter column c_flags set storage external,
  alter column c_origin set storage external,
  alter column c_message set storage external,
  alter column c_metadata set storage external,
  alter column c_trace set storage external,
  alter column c_place set storage external;
-- With id, so that the newest come in order; and so that the chunks of a stretch
-- of positions are found in the index.
create index log_chunk_t1 on log_chunk (org, env, t1, id);
create index log_chunk_last on log_chunk (org, env, last, id);
-- For days that no partition was made for yet.
create table log_chunk_default partition of log_chunk default;
alter table log_chunk_default enable row level security;

-- Hot rows that cannot be read: their lines are a gap, their bytes are here, as
-- far as there are any.
create table log_damaged (
  org        text not null,
  env        smallint not null,
  pos        bigint not null,
  n          integer not null,
  recv_at    timestamptz not null,
  reason     text not null,
  head       bytea,
  c_time     bytea,
  c_flags    bytea,
  c_origin   bytea,
  c_message  bytea,
  c_metadata bytea,
  c_trace    bytea,
  primary key (org, env, pos)
);

-- Rights ---------------------------------------------------------------------

-- +goose StatementBegin
do $$
declare
  t text;
begin
  foreach t in array array['log_chunk', 'log_damaged'] loop
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

grant select on log_chunk to agg_api;
grant select, insert, delete on log_chunk to agg_maint;
grant select, insert, delete on log_damaged to agg_maint;
grant select on log_hot, stream_counter to agg_maint;
grant update (compacted, hot_rows, hot_raw, hot_since) on stream_counter to agg_maint;
grant insert on gap to agg_maint;

-- Functions ------------------------------------------------------------------

-- The names of which the owner holds the lease now, for ttl from now on.
-- +goose StatementBegin
create function take_leases(names text[], owner_ text, ttl interval) returns setof text
language plpgsql security definer set search_path = theazo, pg_temp as $$
declare
  t timestamptz := clock_timestamp();
begin
  return query
    insert into lease as l (name, owner, until) select distinct u.name, owner_, t + ttl from unnest(names) u (name) order by 1
    on conflict (name) do update set owner = excluded.owner, until = excluded.until where l.owner = excluded.owner or l.until < t
    returning l.name;
end
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function release_leases(names text[], owner_ text) returns void
language sql security definer set search_path = theazo, pg_temp as $$
  delete from lease where name = any (names) and owner = owner_
$$;
-- +goose StatementEnd

-- The organisations whose lines are not simply of class 0.
-- +goose StatementBegin
create function log_retentions() returns table (org text, class smallint, keep interval)
language sql stable security definer set search_path = theazo, pg_temp as $$
  select id, retention_class, retention from organisation where retention_class <> 0 or retention is not null order by id
$$;
-- +goose StatementEnd

-- Makes the hot partitions [lo, hi), as make_log_partition does, under one lock.
-- +goose StatementBegin
create function make_log_partitions(los timestamptz[], his timestamptz[]) returns integer
language plpgsql security definer set search_path = theazo, pg_temp as $$
declare
  made integer := 0;
begin
  for i in 1 .. cardinality(los) loop
    if make_log_partition(los[i], his[i]) then
      made := made + 1;
    end if;
  end loop;
  return made;
end
$$;
-- +goose StatementEnd

-- Drops one hot partition if every row in it is in chunks.
--
-- A commit that is late may be about to write into it: the share lock waits for
-- that and keeps others out of this partition alone while it is looked through.
-- Only then is log_hot itself locked, and for no longer than the drop takes. A
-- reader locks log_hot before it takes its snapshot, so that a drop waits for
-- every reader that may still need the rows. Whatever cannot be locked at once
-- is tried again later.
-- +goose StatementBegin
create function drop_compacted_partition(part text) returns boolean
language plpgsql security definer set search_path = theazo, pg_temp as $$
declare
  waiting boolean;
begin
  perform pg_advisory_xact_lock(hashtext('theazo.log_hot partitions'));
  perform set_config('lock_timeout', '50ms', true);
  if not exists (select from log_partitions() p where p.name = part) then
    return false;
  end if;
  execute format('lock table only %I in share mode', part);
  execute format('select exists (select from %I h left join stream_counter s on s.org = h.org and s.env = h.env where s.compacted is null or h.pos >= s.compacted)', part)
    into waiting;
  if waiting then
    return false;
  end if;
  lock table only log_hot in access exclusive mode;
  execute format('drop table %I', part);
  return true;
end
$$;
-- +goose StatementEnd

-- Rows that no hot partition was made for, once they are in chunks.
-- +goose StatementBegin
create function purge_compacted_default() returns bigint
language sql security definer set search_path = theazo, pg_temp as $$
  with gone as (
    delete from log_hot_default h using stream_counter s where s.org = h.org and s.env = h.env and h.pos < s.compacted returning 1
  ) select count(*) from gone
$$;
-- +goose StatementEnd

-- Partitions of log_chunk, the default apart.
-- +goose StatementBegin
create function chunk_partitions() returns table (name text, class smallint, day date)
language sql stable security definer set search_path = theazo, pg_temp set timezone = 'UTC' set datestyle = 'ISO' as $$
  select c.relname::text, m[1]::smallint, m[2]::date
  from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    cross join lateral regexp_match(pg_get_expr(c.relpartbound, c.oid), $r$FROM \('?([0-9]+)'?, '([^']+)'\) TO$r$) m
  where i.inhparent = 'theazo.log_chunk'::regclass and m is not null
  order by 2, 3
$$;
-- +goose StatementEnd

-- Makes the partitions of some days and takes what waits for them in the
-- default partition.
-- +goose StatementBegin
create function make_chunk_partitions(class_ smallint, days date[]) returns integer
language plpgsql security definer set search_path = theazo, pg_temp set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
  d date;
  part text;
  made integer := 0;
begin
  perform pg_advisory_xact_lock(hashtext('theazo.log_chunk partitions'));
  -- While it waits for a long query, all other queries wait behind it.
  perform set_config('lock_timeout', '500ms', true);
  foreach d in array days loop
    part := format('log_chunk_%s_%s', class_, to_char(d, 'YYYYMMDD'));
    if exists (select from chunk_partitions() p where p.class = class_ and p.day = d) then
      continue;
    end if;
    if not exists (select from log_chunk_default where class = class_ and day = d) then
      execute format('create table %I partition of log_chunk for values from (%L, %L) to (%L, %L)', part, class_, d, class_, d + 1);
    else
      execute format('create table %I (like log_chunk including all)', part);
      lock table log_chunk_default in access exclusive mode;
      execute format('with moved as (delete from log_chunk_default where class = %L and day = %L returning *) insert into %I select * from moved', class_, d, part);
      execute format('alter table log_chunk attach partition %I for values from (%L, %L) to (%L, %L)', part, class_, d, class_, d + 1);
    end if;
    execute format('alter table %I enable row level security', part);
    made := made + 1;
  end loop;
  return made;
end
$$;
-- +goose StatementEnd

-- Drops one partition of chunks, if it is of a class and of a day before.
-- +goose StatementBegin
create function drop_chunk_partition(part text, class_ smallint, before date) returns boolean
language plpgsql security definer set search_path = theazo, pg_temp as $$
begin
  perform pg_advisory_xact_lock(hashtext('theazo.log_chunk partitions'));
  perform set_config('lock_timeout', '200ms', true);
  if not exists (select from chunk_partitions() p where p.name = part and p.class = class_ and p.day < before) then
    return false;
  end if;
  execute format('drop table %I', part);
  return true;
end
$$;
-- +goose StatementEnd

revoke execute on function take_leases(text[], text, interval), release_leases(text[], text), log_retentions(),
  make_log_partitions(timestamptz[], timestamptz[]), drop_compacted_partition(text), purge_compacted_default(),
  chunk_partitions(), make_chunk_partitions(smallint, date[]), drop_chunk_partition(text, smallint, date) from public;
grant execute on function take_leases(text[], text, interval), release_leases(text[], text), log_retentions(),
  make_log_partitions(timestamptz[], timestamptz[]), drop_compacted_partition(text), purge_compacted_default(),
  chunk_partitions(), make_chunk_partitions(smallint, date[]), drop_chunk_partition(text, smallint, date) to agg_maint;
