package store

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
)

// Distribute spreads the tables of records over the nodes of a migrated Citus
// database by organisation; the directory stays on the coordinator. It may be
// called again after later migrations. It is never done by itself: a database
// that merely has the extension is left as it is.
func Distribute(ctx context.Context, dsn string, log hclog.Logger) error {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("database DSN: %w", err)
	}
	cfg.ConnectTimeout = shortTimeout
	sessionSettings(cfg, map[string]string{"statement_timeout": "0", "lock_timeout": "60s"})
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var installed bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_extension where extname = 'citus')").Scan(&installed); err != nil {
		return fmt.Errorf("look for the extension: %w", err)
	}
	if !installed {
		return fmt.Errorf("database %q has no extension citus: as a superuser run: create extension citus", cfg.Database)
	}
	for _, table := range tenantTables {
		var done bool
		if err := conn.QueryRow(ctx, "select exists (select from pg_dist_partition where logicalrelid = $1::text::regclass)", table).Scan(&done); err != nil {
			return fmt.Errorf("look at table %s: %w", table, err)
		}
		if done {
			continue
		}
		// Together: what a transaction changes of one organisation is on one node.
		with := tenantTables[0]
		if table == with {
			with = "none"
		}
		if _, err := conn.Exec(ctx, "select create_distributed_table($1::text::regclass, 'org', colocate_with => $2)", table, with); err != nil {
			return fmt.Errorf("distribute table %s: %w", table, err)
		}
		log.Info("distributed by organisation", "table", table)
	}
	return nil
}
