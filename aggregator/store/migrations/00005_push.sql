-- Records pushed without agentd: what an Idempotency-Key stands for. The
-- previous release does not know the table, and does not need to.

-- +goose Up

-- The marks of epoch say what of the request is committed. Both go together
-- when the key has not been used for a week (store.purgeKeys): unlike a spool,
-- a client is not to come back after that.
create table idempotency_key (
  org   text not null,
  env   smallint not null,
  hash  bytea not null,  -- SHA-256 of the key
  epoch bigint not null, -- of the request's frames: 64 random bits
  body  bytea not null,  -- SHA-256 of the request
  at    timestamptz not null, -- last used
  primary key (org, env, hash)
);
create index idempotency_key_at on idempotency_key using brin (at);
alter table idempotency_key enable row level security;
alter table idempotency_key force row level security;
create policy api on idempotency_key to agg_api
  using (org = current_setting('app.org') and env = current_setting('app.env')::smallint)
  with check (org = current_setting('app.org') and env = current_setting('app.env')::smallint);
create policy ingest on idempotency_key to agg_ingest
  using ((select current_setting('app.orgs')::jsonb) ? org)
  with check ((select current_setting('app.orgs')::jsonb) ? org);
create policy maint on idempotency_key to agg_maint using (true) with check (true);
grant select, insert, update (at) on idempotency_key to agg_ingest;
grant select, delete on idempotency_key, ingest_mark to agg_maint;
