package store

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/theazo/observability/shared/telemetry"
)

// DefaultRetention is how long records are kept when Options says nothing.
const DefaultRetention = 30 * 24 * time.Hour

// Options of a Store.
type Options struct {
	DSN        string // of a migrated database; its login user is a member of the three roles
	Log        hclog.Logger
	Registerer prometheus.Registerer // nil: metrics are kept to ourselves
	Retention  time.Duration         // of class 0 and of everything but lines; zero: DefaultRetention

	// RetentionClasses says how long lines of organisations of other classes are
	// kept: class (1 to MaxRetentionClass) to time.
	RetentionClasses map[int]time.Duration
	Compaction       Compaction

	// ErasureKey is the secret of what stays of erased subjects; without it
	// erasures hide what they are asked to, but are never done.
	ErasureKey ErasureKey

	QueryMemory int64         // bytes that all queries together may decode at a time; zero: DefaultQueryMemory
	CountBudget time.Duration // processor time for one total that no counter answers; zero: DefaultCountBudget
}

// Store is the database of one installation. It is safe for concurrent use.
type Store struct {
	log       hclog.Logger
	retention time.Duration
	metrics   *metrics

	api, ingest, maint *pgxpool.Pool

	appName    string // of our connections, without releaseMark
	owner      string // of leases
	classes    map[int16]time.Duration
	days       dayCover
	compaction Compaction
	compactor  *compactor

	scans   chan struct{} // one place per query that reads lines
	shareMu sync.Mutex
	shares  map[telemetry.OrgID]*scanShare // of the organisations whose queries wait or run

	memory      *semaphore.Weighted // what queries decode
	memorySize  int64
	countBudget time.Duration

	erasing erasing
	spans   spanCache
	used    usedKeys
	reports reports
}

const (
	roleAPI    = "agg_api"
	roleIngest = "agg_ingest"
	roleMaint  = "agg_maint"

	schema = "theazo"
)

// Open connects, checks that the database is what this release and its
// promises need, and makes the partitions of the next hours.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	s := &Store{log: o.Log, retention: o.Retention, scans: make(chan struct{}, max(4, 2*runtime.GOMAXPROCS(0))), shares: map[telemetry.OrgID]*scanShare{}}
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	if s.retention <= 0 {
		s.retention = DefaultRetention
	}
	s.erasing = newErasing(o.ErasureKey)
	s.boundQueries(o.QueryMemory, o.CountBudget)
	if err := s.setClasses(o.RetentionClasses); err != nil {
		return nil, err
	}
	if s.appName, err = applicationName(o.DSN); err != nil {
		return nil, err
	}
	s.owner, s.compaction = newOwner(), o.Compaction.withDefaults()
	s.compactor = newCompactor(s, max(1, s.compaction.Workers))
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	// Custom plans prune partitions when they are made, for a query's own bounds.
	if s.api, err = openPool(ctx, o.DSN, roleAPI, 16, map[string]string{
		"statement_timeout": "30s", "idle_in_transaction_session_timeout": "90s", "plan_cache_mode": "force_custom_plan",
	}); err != nil {
		return nil, err
	}
	// A commit is durable when it is acknowledged, whatever the server's default.
	// Its statements look rows up by key, whatever their arrays hold: a plan made
	// for the arrays at hand costs ten times what it plans.
	if s.ingest, err = openPool(ctx, o.DSN, roleIngest, 8, map[string]string{
		"statement_timeout": "15s", "idle_in_transaction_session_timeout": "15s", "lock_timeout": "10s", "synchronous_commit": "on", "plan_cache_mode": "force_generic_plan",
	}); err != nil {
		return nil, err
	}
	// One for each worker, the erasures, the steps of maintain, leases, and
	// StreamHeads, which must not wait for any of them.
	if s.maint, err = openPool(ctx, o.DSN, roleMaint, int32(4+min(s.compactor.workers, 64)), map[string]string{ //nolint:gosec // at most 68
		"statement_timeout": "60s", "idle_in_transaction_session_timeout": "30s",
	}); err != nil {
		return nil, err
	}
	if err := check(ctx, s.maint); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(o.Registerer, s); err != nil {
		return nil, err
	}
	switch err := s.makePartitions(ctx, time.Now()); {
	case isCode(err, lockNotAvailable): // a long query of another aggregator; the default partition takes what comes
		s.log.Warn("partitions could not be made yet; Run tries again", "error", err)
	case err != nil:
		return nil, fmt.Errorf("make the partitions of the next hours: %w", err)
	}
	switch err := s.makeChunkPartitions(ctx, time.Now()); {
	case isCode(err, lockNotAvailable):
		s.log.Warn("partitions of chunks could not be made yet; Run tries again", "error", err)
	case err != nil:
		return nil, err
	}
	return s, nil
}

// openPool opens connections that act as one role.
func openPool(ctx context.Context, dsn, role string, size int32, settings map[string]string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("database DSN: %w", err)
	}
	cfg.MaxConns = size
	cfg.MaxConnIdleTime = 5 * time.Minute
	cfg.ConnConfig.ConnectTimeout = shortTimeout
	sessionSettings(cfg.ConnConfig, settings)
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "set role "+role)
		if isCode(err, insufficientPrivilege) {
			return fmt.Errorf("the login user %q is not a member of role %s; as a superuser run: grant %s to %q: %w",
				cfg.ConnConfig.User, role, role, cfg.ConnConfig.User, err)
		}
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the pool of %s: %w", role, err)
	}
	return pool, nil
}

// sessionSettings pins what a session must not take from the server's or the
// user's defaults.
func sessionSettings(c *pgx.ConnConfig, settings map[string]string) {
	p := c.RuntimeParams
	p["search_path"] = schema
	p["timezone"] = "UTC"
	p["jit"] = "off"
	p["application_name"] = markedName(p["application_name"])
	maps.Copy(p, settings)
}

// Close closes all connections. Calls still running fail.
func (s *Store) Close() {
	for _, p := range []*pgxpool.Pool{s.api, s.ingest, s.maint} {
		if p != nil {
			p.Close()
		}
	}
	s.metrics.unregister()
}

// Ping reports whether the database takes commits: it is there and not a
// standby.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	var standby bool
	if err := s.ingest.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&standby); err != nil {
		return failure(ctx, "ping the database", err)
	}
	if standby {
		return telemetry.Failf(telemetry.Unavailable, "The database is a standby: point the DSN at the primary.")
	}
	return nil
}

// inScope runs fn in a read-only snapshot of one organisation and environment.
func (s *Store) inScope(ctx context.Context, what string, scope telemetry.Scope, fn func(ctx context.Context, conn *pgx.Conn) error) error {
	begin, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	conn, err := s.api.Acquire(begin)
	if err != nil {
		return failure(ctx, what, err)
	}
	defer conn.Release() // drops the connection if the transaction is still open
	var q pgx.Batch
	q.Queue("begin isolation level repeatable read read only")
	// Before the snapshot is taken: a hot partition whose rows this snapshot needs
	// is not dropped before the end of the transaction.
	q.Queue("lock table only log_hot in access share mode")
	q.Queue("select set_config('app.org', $1, true), set_config('app.env', $2, true)", string(scope.Org), envText(scope.Env))
	if err := conn.SendBatch(begin, &q).Close(); err != nil {
		return failure(ctx, what, err)
	}
	err = fn(ctx, conn.Conn())
	rollback(ctx, conn.Conn())
	return failure(ctx, what, err)
}

func envText(e telemetry.Environment) string { return string(rune('0' + e)) }

// rollback ends a transaction that wrote nothing, even when its caller has
// gone.
func rollback(ctx context.Context, conn *pgx.Conn) {
	if conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortTimeout)
	defer cancel()
	_, _ = conn.Exec(ctx, "rollback") // the pool drops a connection that is not idle
}

// one runs a query that returns at most one row of scalars.
func one(ctx context.Context, pool *pgxpool.Pool, what string, to []any, sql string, args ...any) (found bool, err error) {
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	err = pool.QueryRow(call, sql, args...).Scan(to...)
	if noRows(err) {
		return false, nil
	}
	return err == nil, failure(ctx, what, err)
}

// exec runs a statement for its effect.
func exec(ctx context.Context, pool *pgxpool.Pool, what, sql string, args ...any) error {
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	_, err := pool.Exec(call, sql, args...)
	return failure(ctx, what, err)
}
