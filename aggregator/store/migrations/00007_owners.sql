-- Whose lines a chunk holds, where they are too many to list. The previous
-- release writes chunks without, which deny nobody.

-- +goose Up

alter table log_chunk add column owners bytea;
alter table log_chunk alter column owners set storage main;
