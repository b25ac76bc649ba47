package localpg

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
)

const helperDir = "LOCALPG_TEST_DIR"

func helper() int { return 0 }

// options are cheap ones in a fresh directory.
func options(t *testing.T) Options {
	t.Helper()
	return Options{
		Dir:      t.TempDir() + "/pg",
		Log:      testLog(t),
		Settings: map[string]string{"shared_buffers": "16MB"},
		NoSync:   true,
	}
}

func testLog(t *testing.T) hclog.Logger {
	t.Helper()
	return hclog.New(&hclog.LoggerOptions{Name: "localpg", Level: hclog.Debug, Output: testWriter{t}})
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p[:len(p)-1]))
	return len(p), nil
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	begun := time.Now()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Logf("start took %v", time.Since(begun))
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	begun := time.Now()
	if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Errorf("Stop: %v", err)
	}
	t.Logf("stop took %v", time.Since(begun))
}

// ask1 returns the one value that sql selects.
func ask1[T any](t *testing.T, dsn, sql string) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var v T
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestFirstAndSecondStart(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := start(t, o)
	exec1(t, s.DSN(), "create table kept as select 7 as n")
	stop(t, s)
	s = start(t, o)
	if n := ask1[int](t, s.DSN(), "select n from kept"); n != 7 {
		t.Errorf("after a restart: %d, want 7", n)
	}
}

func exec1(t *testing.T, dsn, sql string) {
	t.Helper()
	if err := query(t.Context(), dsn, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
