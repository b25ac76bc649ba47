// Package storetest gives tests a real PostgreSQL: one throw-away server for a
// test binary, one fresh and migrated database for each test.
//
// A test binary calls Main from its TestMain:
//
//	func TestMain(m *testing.M) { storetest.Main(m) }
//
// The server keeps nothing safe (fsync is off) and dies with the test binary.
package storetest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/shared/telemetry"
)

// Main runs the tests of a binary and exits. It fails it when goroutines are
// left, and stops the server that New started.
func Main(m *testing.M) {
	code := m.Run()
	if err := stopServer(); err != nil {
		fmt.Fprintln(os.Stderr, "storetest:", err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "storetest: goroutines are left:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Database is a migrated database of one test.
type Database struct {
	DSN string // of a superuser
}

var databases atomic.Int64

// New makes a database for the test. It goes with the server.
func New(tb testing.TB) *Database {
	tb.Helper()
	s := startServer(tb)
	name := fmt.Sprintf("test_%d", databases.Add(1))
	s.admin(tb, "create database "+name+" template "+templateName)
	return &Database{DSN: s.dsn(name)}
}

// NewEmpty makes a database without a schema.
func NewEmpty(tb testing.TB) *Database {
	tb.Helper()
	s := startServer(tb)
	name := fmt.Sprintf("test_%d", databases.Add(1))
	s.admin(tb, "create database "+name)
	return &Database{DSN: s.dsn(name)}
}

// Open opens a store on the database and closes it with the test.
func (d *Database) Open(tb testing.TB) *store.Store {
	tb.Helper()
	s, err := store.Open(tb.Context(), store.Options{DSN: d.DSN, Log: Log(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Admin opens the operator's side of the database.
func (d *Database) Admin(tb testing.TB) *store.Admin {
	tb.Helper()
	a, err := store.OpenAdmin(tb.Context(), d.DSN)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(a.Close)
	return a
}

// Organisation makes an organisation and returns its id.
func (d *Database) Organisation(tb testing.TB) telemetry.OrgID {
	tb.Helper()
	org, err := d.Admin(tb).CreateOrganisation(tb.Context(), "Org "+tb.Name(), telemetry.FullPlatform)
	if err != nil {
		tb.Fatal(err)
	}
	return org
}

// Connect opens a connection of its own, as the superuser.
func (d *Database) Connect(tb testing.TB) *pgx.Conn {
	tb.Helper()
	cfg, err := pgx.ParseConfig(d.DSN)
	if err != nil {
		tb.Fatal(err)
	}
	cfg.RuntimeParams["search_path"] = "theazo"
	conn, err := pgx.ConnectConfig(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the test is over
	})
	return conn
}

// Log writes to the test's log until the test ends.
func Log(tb testing.TB) hclog.Logger {
	tb.Helper()
	w := &testWriter{tb: tb}
	tb.Cleanup(w.end)
	return hclog.New(&hclog.LoggerOptions{Name: "store", Level: hclog.Debug, Output: w})
}

type testWriter struct {
	mu sync.Mutex
	tb testing.TB
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tb != nil {
		w.tb.Log(strings.TrimRight(string(b), "\n"))
	}
	return len(b), nil
}

func (w *testWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tb = nil
}
