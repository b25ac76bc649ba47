package localpg

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
)

const deadline = 2 * time.Minute // of everything that a test waits for

// empty are cheap options for a directory that does not exist yet.
func empty(t *testing.T) Options {
	t.Helper()
	return Options{
		Dir:      filepath.Join(t.TempDir(), "pg"),
		Log:      testLog(t),
		Settings: map[string]string{"shared_buffers": "16MB"},
		NoSync:   true,
	}
}

// Stopped servers whose cluster holds one table, for the tests to use again: making
// one takes longer than all that most tests do. TestMain removes clusters.
var (
	clusters = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "localpg-clusters-") })
	idle     = make(chan string, 100)
)

// options are cheap ones for a directory with such a cluster.
func options(t *testing.T) Options {
	t.Helper()
	o := empty(t)
	select {
	case o.Dir = <-idle:
	default:
		root, err := clusters()
		if err != nil {
			t.Fatal(err)
		}
		if o.Dir, err = os.MkdirTemp(root, ""); err != nil { //nolint:usetesting // It outlives this test.
			t.Fatal(err)
		}
		s := start(t, o)
		makeKept(t, s.DSN())
		stop(t, s)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			idle <- o.Dir
		}
	})
	return o
}

func makeKept(t *testing.T, dsn string) {
	t.Helper()
	if err := query(within(t), dsn, "create table kept as select 7 as n"); err != nil {
		t.Fatal(err)
	}
}

// checkKept looks for what the template's table holds.
func checkKept(t *testing.T, dsn string) {
	t.Helper()
	if n := value(t, dsn, "select n::text from kept"); n != "7" {
		t.Errorf("kept %s, want 7", n)
	}
}

func testLog(t *testing.T) hclog.Logger {
	t.Helper()
	w := &testWriter{t: t}
	t.Cleanup(w.end)
	return hclog.New(&hclog.LoggerOptions{Name: "localpg", Level: hclog.Debug, Output: w})
}

// testWriter logs to a test until its end.
type testWriter struct {
	mu    sync.Mutex
	t     *testing.T
	ended bool
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func (w *testWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), deadline)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	begun := time.Now()
	s, err := Start(within(t), o)
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
	if err := s.Stop(within(t)); err != nil {
		t.Errorf("Stop: %v", err)
	}
	t.Logf("stop took %v", time.Since(begun))
}

// value returns the one value that sql selects, as text.
func value(t *testing.T, dsn, sql string) string {
	t.Helper()
	ctx := within(t)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(ctx)
	var v string
	if err := conn.QueryRow(ctx, sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// until waits for a condition that other processes bring about.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx := within(t)
	for !condition() {
		if !pause(ctx, 5*time.Millisecond) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

// noProcessIn checks that no PostgreSQL is left in a directory. A process that has
// been killed may be seen for a moment.
func noProcessIn(t *testing.T, dir string) {
	t.Helper()
	user, err := chooseAccount(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{user: user}
	for _, name := range []string{clusterName, unfinished} {
		until(t, "no process in "+name, func() bool {
			pids, err := s.occupants(filepath.Join(dir, name))
			return err == nil && len(pids) == 0
		})
	}
}

func TestStartTwiceKeepsData(t *testing.T) {
	t.Parallel()
	o := empty(t)
	s := start(t, o)
	makeKept(t, s.DSN())
	stop(t, s)
	noProcessIn(t, o.Dir)
	if s.PID() != 0 {
		t.Errorf("PID after Stop is %d, want 0", s.PID())
	}
	again := start(t, o)
	if again.DSN() != s.DSN() {
		t.Errorf("DSN %s, before %s", again.DSN(), s.DSN())
	}
	checkKept(t, again.DSN())
}

func TestSettings(t *testing.T) {
	t.Parallel()
	o := empty(t)
	o.NoSync = false
	o.Settings = map[string]string{"shared_buffers": "24MB", "work_mem": "5MB"}
	s := start(t, o)
	for name, want := range map[string]string{
		"shared_buffers": "24MB", "work_mem": "5MB", // asked for
		"jit": "off", "max_connections": "100", "checkpoint_timeout": "15min", // chosen
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on", // safe
		"listen_addresses": "", "unix_socket_permissions": "0700", // closed
		"server_encoding": "UTF8", "lc_collate": "C", "TimeZone": "UTC",
	} {
		if got := value(t, s.DSN(), "select current_setting('"+name+"')"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := value(t, s.DSN(), "select current_database() || ' of ' || current_user"); got != "theazo of theazo" {
		t.Errorf("connected to %s", got)
	}
	// The best compression that these binaries have.
	can := value(t, s.DSN(), "select ('lz4' = any(enumvals))::text from pg_settings where name = 'default_toast_compression'")
	if got := value(t, s.DSN(), "show default_toast_compression"); (got == "lz4") != (can == "true") {
		t.Errorf("default_toast_compression is %s; lz4 possible: %s", got, can)
	}
	for _, path := range []string{clusterName, runName} {
		if info, err := os.Stat(filepath.Join(o.Dir, path)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want mode 0700", path, info.Mode(), err)
		}
	}
}

func TestBadSettings(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]string{"listen_addresses": "*", "Port": "1", "a b": "x", "work_mem": "1\x00"} {
		o := empty(t)
		o.Settings = map[string]string{name: v}
		if s, err := Start(within(t), o); err == nil {
			stop(t, s)
			t.Errorf("setting %q=%q was accepted", name, v)
		} else if !strings.Contains(err.Error(), strings.ToLower(name)) && !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %q: %v", name, err)
		}
	}
}

func TestRefusedSettingIsQuoted(t *testing.T) {
	t.Parallel()
	o := empty(t)
	o.Settings = map[string]string{"work_mem": "a lot"}
	s, err := Start(within(t), o)
	if err == nil {
		stop(t, s)
		t.Fatal("started")
	}
	if !strings.Contains(err.Error(), `invalid value for parameter "work_mem"`) {
		t.Errorf("PostgreSQL's own words are missing: %v", err)
	}
	noProcessIn(t, o.Dir)
	o.Settings = map[string]string{"shared_buffers": "16MB"}
	start(t, o) // Everything was released.
}

func TestAwkwardPaths(t *testing.T) {
	t.Parallel()
	o := options(t)
	home, parents := o.Dir, filepath.Join(t.TempDir(), "with parents")
	if err := os.Mkdir(parents, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		short bool // the socket needs another place
	}{
		{strings.Repeat("long", 30), true},
		{"a,b", true},
		{`it's "quoted" %20 \ ü+`, false},
	} {
		o.Dir = filepath.Join(parents, c.name)
		if err := os.Rename(home, o.Dir); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s := start(t, o)
			checkKept(t, s.DSN())
			run := s.layout.run
			if s.layout.tempRun != c.short {
				t.Errorf("%s: socket in %s", o.Dir, run)
			}
			stop(t, s)
			if _, err := os.Lstat(run); c.short && err == nil {
				t.Errorf("%s was left behind", run)
			}
		}
		if err := os.Rename(o.Dir, home); err != nil {
			t.Fatal(err)
		}
	}
}

// A killed owner's short directory is found by its link and used again.
func TestShortSocketDirectoryIsUsedAgain(t *testing.T) {
	t.Parallel()
	o := options(t)
	home := o.Dir
	o.Dir = filepath.Join(t.TempDir(), "a,b")
	if err := os.Rename(home, o.Dir); err != nil {
		t.Fatal(err)
	}
	p := startParent(t, o.Dir, nil)
	p.kill9(t)
	s := start(t, o)
	if s.DSN() != p.dsn {
		t.Errorf("DSN %s, before %s", s.DSN(), p.dsn)
	}
	stop(t, s)
	if err := os.Rename(o.Dir, home); err != nil {
		t.Fatal(err)
	}
}

func TestOneOwner(t *testing.T) {
	t.Parallel()
	o := options(t)
	if dsn, ok := FindRunning(o.Dir); ok {
		t.Errorf("found %s before anything ran", dsn)
	}
	s := start(t, o)
	_, err := Start(within(t), o)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("second Start: %v, want ErrInUse with the owner's pid", err)
	}
	if dsn, ok := FindRunning(o.Dir); !ok || dsn != s.DSN() {
		t.Errorf("FindRunning: %q, %v", dsn, ok)
	}
	dsn, giveBack, err := Borrow(within(t), o)
	if err != nil || dsn != s.DSN() {
		t.Fatalf("Borrow: %q, %v", dsn, err)
	}
	if err := giveBack(within(t)); err != nil {
		t.Errorf("give back: %v", err)
	}
	if got := value(t, s.DSN(), "select 'still here'"); got != "still here" {
		t.Errorf("after giving back: %q", got)
	}
	stop(t, s)
	if dsn, ok := FindRunning(o.Dir); ok {
		t.Errorf("found %s after Stop", dsn)
	}
}

func TestBorrowStartsForTheCommand(t *testing.T) {
	t.Parallel()
	o := options(t)
	dsn, giveBack, err := Borrow(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := value(t, dsn, "select 'ok'"); got != "ok" {
		t.Errorf("answer %q", got)
	}
	if err := giveBack(within(t)); err != nil {
		t.Errorf("give back: %v", err)
	}
	noProcessIn(t, o.Dir)
}

func TestRefusedDirectories(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(dir string) error
		want    string
	}{
		"others' files":  {func(dir string) error { return os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600) }, `holds "notes.txt"`},
		"not a cluster":  {func(dir string) error { return os.Mkdir(filepath.Join(dir, clusterName), 0o700) }, "no PG_VERSION"},
		"older version":  {func(dir string) error { return writeVersion(dir, "9\n") }, "made by PostgreSQL 9 and no other version"},
		"broken version": {func(dir string) error { return writeVersion(dir, "\x00\x00") }, "not a major version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := empty(t)
			if err := os.MkdirAll(o.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := c.prepare(o.Dir); err != nil {
				t.Fatal(err)
			}
			s, err := Start(within(t), o)
			if err == nil {
				stop(t, s)
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q in it", err, c.want)
			}
		})
	}
}

func writeVersion(dir, version string) error {
	return errors.Join(
		os.Mkdir(filepath.Join(dir, clusterName), 0o700),
		os.WriteFile(filepath.Join(dir, clusterName, "PG_VERSION"), []byte(version), 0o600))
}

func TestNoBinaries(t *testing.T) {
	t.Parallel()
	o := empty(t)
	o.BinDir = t.TempDir()
	if s, err := Start(within(t), o); err == nil {
		stop(t, s)
		t.Error("started without programs")
	} else if !strings.Contains(err.Error(), o.BinDir) {
		t.Errorf("the error does not name the directory: %v", err)
	}
}

func TestHalfMadeClusterIsMadeAnew(t *testing.T) {
	t.Parallel()
	o := empty(t)
	half := filepath.Join(o.Dir, unfinished, "base", "1")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Dir, unfinished, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, o)
	if got := value(t, s.DSN(), "select 'ok'"); got != "ok" {
		t.Errorf("answer %q", got)
	}
	if _, err := os.Lstat(filepath.Join(o.Dir, unfinished)); err == nil {
		t.Error("the half-made cluster is still there")
	}
}

func TestInterruptedStart(t *testing.T) {
	t.Parallel()
	o := empty(t)
	for _, after := range []time.Duration{0, 20 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond, time.Second} {
		ctx, cancel := context.WithTimeout(within(t), after)
		s, err := Start(ctx, o)
		cancel()
		switch {
		case err == nil:
			t.Logf("interrupted after %v: had started", after)
			stop(t, s)
		case !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("interrupted after %v: %v", after, err)
		default:
			t.Logf("interrupted after %v: %v", after, err)
		}
		noProcessIn(t, o.Dir)
	}
	start(t, o)
}
