package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// oldest is the first release of PostgreSQL that we run on.
const oldest = 14

// Migrate brings the schema up to date. Several may run at once: one works,
// the others wait. The DSN's user is a superuser, or owns the database and may
// create roles (or finds them made and granted to it).
func Migrate(ctx context.Context, dsn string, log hclog.Logger) error {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("database DSN: %w", err)
	}
	cfg.ConnectTimeout = shortTimeout
	sessionSettings(cfg, map[string]string{"statement_timeout": "0", "lock_timeout": "60s"})
	if err := prepareDatabase(ctx, cfg); err != nil {
		return err
	}
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return fmt.Errorf("embedded migrations: %w", err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockID), lock.WithLockTimeout(1, 120), lock.WithUnlockTimeout(1, 5))
	if err != nil {
		return fmt.Errorf("migration lock: %w", err)
	}
	db := stdlib.OpenDB(*cfg)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	began := time.Now()
	results, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	for _, r := range results {
		log.Info("migrated", "migration", r.Source.Path, "took", r.Duration.Round(time.Millisecond).String())
	}
	log.Debug("schema is up to date", "took", time.Since(began).Round(time.Millisecond).String())
	return nil
}

// lockID keeps migrations of several aggregators apart.
const lockID = 7_216_905_213

// prepareDatabase checks the release and makes schema and roles.
func prepareDatabase(ctx context.Context, cfg *pgx.ConnConfig) error {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := checkRelease(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1)", lockID+1); err != nil {
		return fmt.Errorf("wait for another migration: %w", err)
	}
	if _, err := conn.Exec(ctx, "create schema if not exists "+schema); err != nil {
		return fmt.Errorf("create schema %s; as the database's owner run: grant create on database %q to %q: %w", schema, cfg.Database, cfg.User, err)
	}
	for _, role := range []string{roleAPI, roleIngest, roleMaint} {
		if err := makeRole(ctx, conn, role); err != nil {
			return err
		}
	}
	return nil
}

type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func checkRelease(ctx context.Context, c rowQuerier) error {
	var version int
	if err := c.QueryRow(ctx, "select current_setting('server_version_num')::int / 10000").Scan(&version); err != nil {
		return fmt.Errorf("ask the database for its release: %w", err)
	}
	if version < oldest {
		return fmt.Errorf("the database is PostgreSQL %d: %d or newer is needed", version, oldest)
	}
	return nil
}

// makeRole creates a role where it is absent and lets the login user take it.
// Roles belong to the whole server, so another database's migration may have
// made it, even in this moment.
func makeRole(ctx context.Context, conn *pgx.Conn, role string) error {
	advice := func(err error) error {
		return fmt.Errorf("role %s: %w; as a superuser run: create role %s nologin; grant %s to %q", role, err, role, role, conn.Config().User)
	}
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_roles where rolname = $1)", role).Scan(&exists); err != nil {
		return fmt.Errorf("role %s: %w", role, err)
	}
	if !exists {
		_, err := conn.Exec(ctx, "create role "+role+" nologin nosuperuser nobypassrls nocreatedb nocreaterole noreplication")
		if err != nil && !isCode(err, duplicateObject) && !isCode(err, uniqueViolation) {
			return advice(err)
		}
	}
	if _, err := conn.Exec(ctx, "set role "+role); err == nil {
		_, err = conn.Exec(ctx, "reset role")
		return err
	}
	// Raced with another database's migration, the grant may be there already.
	if _, err := conn.Exec(ctx, "grant "+role+" to current_user"); err != nil && !isCode(err, uniqueViolation) {
		return advice(err)
	}
	if _, err := conn.Exec(ctx, "set role "+role); err != nil {
		return advice(err)
	}
	_, err := conn.Exec(ctx, "reset role")
	return err
}

func noRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
