package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/aggregator/localpg"
	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/proc"
	"github.com/theazo/observability/test/stack"
)

// server is an aggregator, and a connection to its private PostgreSQL as its owner.
type server struct {
	*stack.Aggregator
	dsn        string
	conn       *pgx.Conn
	postmaster int
}

func (s *server) start(ctx context.Context) (err error) {
	if err := s.Start(ctx); err != nil {
		return err
	}
	var ok bool
	if s.dsn, ok = localpg.FindRunning(filepath.Join(s.Dir, "postgres")); !ok {
		return errors.New("the aggregator's PostgreSQL is not found")
	}
	if s.postmaster, err = s.PostgresPID(); err != nil {
		return err
	}
	cfg, err := pgx.ParseConfig(s.dsn)
	if err != nil {
		return err
	}
	cfg.RuntimeParams["search_path"] = "theazo"
	s.conn, err = pgx.ConnectConfig(ctx, cfg)
	return err
}

// restart starts it again, with other settings.
func (s *server) restart(ctx context.Context, env []string) error {
	if err := s.stop(); err != nil {
		return err
	}
	s.Env = env
	return s.start(ctx)
}

func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(s.conn.Close(ctx), s.Stop(time.Minute))
}

// tenants makes organisations, with a key each.
func (s *server) tenants(ctx context.Context, n int) ([]stack.Tenant, error) {
	a, err := store.OpenAdmin(ctx, s.dsn)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	list := make([]stack.Tenant, n)
	for i := range list {
		name := fmt.Sprintf("tenant %d", i)
		org, err := a.CreateOrganisation(ctx, name, telemetry.FullPlatform)
		if err != nil {
			return nil, err
		}
		key, err := a.CreateAPIKey(ctx, org, telemetry.Live, name, telemetry.AllPermissions, time.Time{})
		if err != nil {
			return nil, err
		}
		list[i] = stack.Tenant{Org: string(org), Key: key}
	}
	return list, nil
}

type costs struct{ aggregator, postgres proc.Cost }

// costs of the aggregator without the PostgreSQL that is its child, and of that.
func (s *server) costs() (costs, error) {
	all, err := proc.CostOf(s.PID())
	if err != nil {
		return costs{}, err
	}
	pg, err := proc.CostOf(s.postmaster)
	all.CPU -= pg.CPU
	return costs{all, pg}, err
}

// since is what was used since an earlier look, in CPU seconds.
func (c costs) since(before costs) (aggregator, postgres float64) {
	return (c.aggregator.CPU - before.aggregator.CPU).Seconds(), (c.postgres.CPU - before.postgres.CPU).Seconds()
}

// scalar asks the database for one number.
func (s *server) scalar(ctx context.Context, sql string) (n int64, err error) {
	err = s.conn.QueryRow(ctx, sql).Scan(&n)
	return n, err
}

// size is what a table and its partitions take on disk, indexes and TOAST included.
func (s *server) size(ctx context.Context, table string) (int64, error) {
	return s.scalar(ctx, "select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint from pg_partition_tree('theazo."+table+"') where isleaf")
}

// written is how much went into the write-ahead log so far, in bytes.
func (s *server) written(ctx context.Context) (int64, error) {
	return s.scalar(ctx, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
}
