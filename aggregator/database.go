package aggregator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/aggregator/ingest"
	"github.com/theazo/observability/aggregator/localpg"
	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/shared/telemetry"
)

// stopDatabase bounds the stop of the private PostgreSQL.
const stopDatabase = 20 * time.Second

// database is where the data is: a DSN, and the private server behind it
// where we keep one.
type database struct {
	dsn    string
	server *localpg.Server
}

// openDatabase returns the configured database, or starts the private one.
func openDatabase(ctx context.Context, cfg *Config, log hclog.Logger) (*database, error) {
	if cfg.Database.DSN != "" {
		return &database{dsn: cfg.Database.DSN}, nil
	}
	if err := makeDataDir(cfg); err != nil {
		return nil, err
	}
	server, err := localpg.Start(ctx, cfg.privateDatabase(log))
	if err != nil {
		return nil, err
	}
	return &database{dsn: server.DSN(), server: server}, nil
}

// lost yields an error when the private server's files are gone: nothing that
// a restart of it could mend. It never does where a DSN is configured.
func (d *database) lost() <-chan error {
	if d.server == nil {
		return nil
	}
	return d.server.Wait()
}

func (d *database) close() error {
	if d.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopDatabase)
	defer cancel()
	return d.server.Stop(ctx)
}

// makeDataDir makes the data directory. The service user of PostgreSQL passes
// through it; what is inside is closed to others.
func makeDataDir(cfg *Config) error {
	if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil { //nolint:gosec // see above
		return fmt.Errorf("data_dir: %w", err)
	}
	return nil
}

func (c *Config) privateDatabase(log hclog.Logger) localpg.Options {
	return localpg.Options{Dir: filepath.Join(c.DataDir, "postgres"), User: c.Database.ServiceUser, BinDir: c.Database.BinDir, Log: log.Named("postgres")}
}

// borrowDatabase returns the DSN for a command: the configured one, that of a
// running aggregator's private server, or one started for the command alone.
func borrowDatabase(ctx context.Context, cfg *Config, log hclog.Logger) (dsn string, giveBack func() error, err error) {
	if cfg.Database.DSN != "" {
		return cfg.Database.DSN, func() error { return nil }, nil
	}
	if err := makeDataDir(cfg); err != nil {
		return "", nil, err
	}
	dsn, stop, err := localpg.Borrow(ctx, cfg.privateDatabase(log))
	return dsn, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopDatabase)
		defer cancel()
		return stop(ctx)
	}, err
}

// Migrate brings the schema of the configured database up to date.
func Migrate(ctx context.Context, cfg Config, log hclog.Logger) error {
	dsn, giveBack, err := borrowDatabase(ctx, &cfg, log)
	if err != nil {
		return err
	}
	return errors.Join(store.Migrate(ctx, dsn, log), giveBack())
}

// needDatabase refuses a data_dir in which no database was ever made.
func (c *Config) needDatabase(log hclog.Logger) error {
	if private := c.privateDatabase(log).Dir; c.Database.DSN == "" {
		if _, err := os.Stat(private); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no database in data_dir %s: give the -config or -data_dir of your aggregator, or start it first (aggregator serve)", c.DataDir)
		}
	}
	return nil
}

// Admin is what the commands of an operator work with. It speaks to the
// database directly, so it works beside a running aggregator and without one.
type Admin struct {
	*store.Admin
	giveBack     func() error
	authorityDir string
}

// OpenAdmin opens the configured database: that of a running aggregator where
// one runs, else it starts the private one for as long as the command takes.
// It makes none: in a mistyped directory that would be a second, empty world.
func OpenAdmin(ctx context.Context, cfg Config, log hclog.Logger) (*Admin, error) {
	if err := cfg.needDatabase(log); err != nil {
		return nil, err
	}
	dsn, giveBack, err := borrowDatabase(ctx, &cfg, log)
	if err != nil {
		return nil, err
	}
	a := &Admin{giveBack: giveBack, authorityDir: cfg.authorityDir()}
	if err := a.open(ctx, dsn, log); err != nil {
		return nil, errors.Join(err, giveBack())
	}
	return a, nil
}

func (a *Admin) open(ctx context.Context, dsn string, log hclog.Logger) error {
	if err := store.Migrate(ctx, dsn, log); err != nil {
		return err
	}
	var err error
	a.Admin, err = store.OpenAdmin(ctx, dsn)
	return err
}

// CreateJoinToken makes a token with which nodes of org enrol; without an org
// they are nodes of the platform. It names the authority in authority_dir,
// which must be the one that the database belongs to.
func (a *Admin) CreateJoinToken(ctx context.Context, org telemetry.OrgID, ttl time.Duration, uses int, nodeName string) (string, error) {
	authority, err := ingest.OpenAuthority(a.authorityDir)
	if err != nil {
		return "", fmt.Errorf("certificate authority in %s: %w", a.authorityDir, err)
	}
	if err := a.SetAuthority(ctx, authority.Fingerprint()); err != nil {
		return "", fmt.Errorf("certificate authority in %s: %w", a.authorityDir, err)
	}
	return a.Admin.CreateJoinToken(ctx, org, authority.Fingerprint(), ttl, uses, nodeName)
}

// Close closes what OpenAdmin opened.
func (a *Admin) Close() error {
	a.Admin.Close()
	return a.giveBack()
}
