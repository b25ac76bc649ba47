-- Erasure of one user's, session's or agent's records, and the audit log.
--
-- An aggregator of the previous release does not know erasures: it shows what
-- they hide, until they are done.

-- +goose Up

-- Counts what happened to the stream's erasures: one was asked for, one is
-- done. A reader that knows a number knows the rows of table erasure.
alter table stream_counter add column erasures bigint not null default 0;

create table erasure (
  org           text not null,
  env           smallint not null check (env in (0, 1)),
  number        bigint not null,   -- stream_counter.erasures after it was asked for
  id            text not null,
  kind          smallint not null check (kind between 0 and 2), -- of a user, session, agent
  subject       text,              -- null once done: this row would be the personal datum itself
  hash          bytea,             -- keyed hash of it; null until done
  key_id        bytea,             -- tells which key that was
  until         timestamptz not null,
  reason        text not null,
  requested_by  text not null,
  requested_at  timestamptz not null,
  fence         bigint not null,   -- records committed before it have lower positions
  status        smallint not null default 0 check (status between 0 and 2),
  started_at    timestamptz,
  done_at       timestamptz,
  lines         bigint not null default 0,
  chunks        bigint not null default 0,
  events        bigint not null default 0,
  spans         bigint not null default 0,
  model_calls   bigint not null default 0,
  metric_points bigint not null default 0,
  gaps          bigint not null default 0,
  agents        bigint not null default 0,
  sessions      bigint not null default 0,
  looked_at     bigint not null default 0, -- lines, by the check
  digest        bytea,
  audit_seq     bigint,
  clean_to      bigint not null default 0, -- lines at lower positions were looked at: none is left
  swept_at      timestamptz,               -- when late records were last looked for
  primary key (org, env, number),
  check ((status = 2) = (subject is null) and (status = 2) = (hash is not null))
);
create unique index erasure_id on erasure (org, env, id);
create index erasure_open on erasure (org, env, requested_at) where status < 2;

-- Who did what. Each entry's hash covers the one before, so that a change of an
-- old entry is found; roles add and read.
create table audit (
  org    text not null,
  seq    bigint not null,
  at     timestamptz not null,
  actor  text not null,
  action text not null,
  target text not null,
  detail text not null,
  hash   bytea not null,
  primary key (org, seq)
);

-- +goose StatementBegin
do $$
declare
  t text;
begin
  foreach t in array array['erasure', 'audit'] loop
    execute format('alter table %I enable row level security', t);
    execute format('alter table %I force row level security', t);
    execute format($p$create policy ingest on %I to agg_ingest
      using ((select current_setting('app.orgs')::jsonb) ? org)
      with check ((select current_setting('app.orgs')::jsonb) ? org)$p$, t);
    execute format('create policy maint on %I to agg_maint using (true) with check (true)', t);
  end loop;
end
$$;
-- +goose StatementEnd
create policy api on erasure to agg_api
  using (org = current_setting('app.org') and env = current_setting('app.env')::smallint)
  with check (org = current_setting('app.org') and env = current_setting('app.env')::smallint);
-- The log has no environment; it is read all the same, as for ingest_mark.
create policy api on audit to agg_api using (org = current_setting('app.org') || repeat('', current_setting('app.env')::int));

grant select on erasure, audit to agg_api;
grant select, insert on erasure, audit to agg_ingest;
grant select on erasure to agg_maint;
grant update (subject, hash, key_id, status, started_at, done_at, lines, chunks, events, spans, model_calls, metric_points, gaps, agents, sessions,
  looked_at, digest, audit_seq, clean_to, swept_at) on erasure to agg_maint;
grant select, insert on audit to agg_maint;
grant update (erasures) on stream_counter to agg_maint;
-- A row of an agent or session goes, or loses what it says of an erased user or session.
grant select, delete on agent, session to agg_maint;
grant update (session, "user", first_line, last_line) on agent to agg_maint;
grant update ("user", first_line, last_line) on session to agg_maint;
