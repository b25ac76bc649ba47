-- A quota of its own for an organisation.

-- +goose Up

alter table organisation
  add column quota_bytes bigint check (quota_bytes > 0),     -- encoded bytes a second; null: the configuration's
  add column quota_records bigint check (quota_records > 0); -- records a second; null: likewise

-- The organisations that have one.
-- +goose StatementBegin
create function organisation_quotas() returns table (org text, bytes bigint, records bigint)
language sql stable security definer set search_path = theazo, pg_temp as $$
  select id, coalesce(quota_bytes, 0), coalesce(quota_records, 0) from organisation
  where quota_bytes is not null or quota_records is not null
$$;
-- +goose StatementEnd

revoke execute on function organisation_quotas() from public;
grant execute on function organisation_quotas() to agg_ingest;
