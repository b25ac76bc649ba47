package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/aggregator/store"
)

const templateName = "template_migrated"

// server is the throw-away PostgreSQL of this test binary.
type server struct {
	dir    string
	cmd    *exec.Cmd
	exited chan struct{}
	log    bytes.Buffer // read after exited
}

var (
	serverOnce sync.Once
	theServer  *server
	errServer  error
)

// startServer starts the server at the first call. Without PostgreSQL's
// binaries the test fails and says what to install: it is not skipped.
func startServer(tb testing.TB) *server {
	tb.Helper()
	serverOnce.Do(func() { theServer, errServer = newServer() })
	if errServer != nil {
		tb.Fatalf("start a PostgreSQL for tests: %v", errServer)
	}
	return theServer
}

func stopServer() error {
	if theServer == nil {
		return nil
	}
	return theServer.stop()
}

func newServer() (_ *server, err error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "storetest")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, exited: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	credential, err := serviceUser(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "storetest", "-E", "UTF8", "--locale=C", "-A", "trust", "-N")
	initdb.Dir, initdb.SysProcAttr = dir, &syscall.SysProcAttr{Credential: credential}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := s.run(filepath.Join(bin, "postgres"), data, credential); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	if err := s.exec(ctx, "create database "+templateName); err != nil {
		return nil, err
	}
	return s, store.Migrate(ctx, s.dsn(templateName), hclog.NewNullLogger())
}

// run starts postgres, which gets a quick-stop signal when this process dies.
// The kernel ties that to the thread that started it, so one is kept for it.
func (s *server) run(postgres, data string, credential *syscall.Credential) error {
	s.cmd = exec.Command(postgres, "-D", data, "-c", "listen_addresses=", "-c", "unix_socket_directories="+s.dir, //nolint:noctx // it outlives the test that starts it; stop ends it
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200", "-c", "shared_buffers=64MB",
		"-c", "autovacuum_naptime=10s", "-c", "wal_compression=on", "-c", "max_wal_size=2GB", "-c", "log_min_messages=fatal",
		"-c", "shared_preload_libraries="+preload)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGQUIT, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait() // stop looks at the log, not at the status of a killed server
		}
		close(s.exited)
		// The goroutine ends locked: its thread goes with it.
	}()
	return <-started
}

func (s *server) ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.exec(ctx, "select 1")
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("postgres ended: %s", s.log.String())
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %w", err)
		case <-tick.C:
		}
	}
}

func (s *server) stop() error {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // nothing is worth a clean stop; gone already is good
		select {
		case <-s.exited:
		case <-time.After(30 * time.Second):
			return fmt.Errorf("postgres (pid %d) does not stop", s.cmd.Process.Pid)
		}
	}
	return os.RemoveAll(s.dir)
}

func (s *server) dsn(database string) string {
	return fmt.Sprintf("host=%s user=storetest dbname=%s", s.dir, database)
}

func (s *server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.dsn("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql)
	return err
}

func (s *server) admin(tb testing.TB, sql string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	if err := s.exec(ctx, sql); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

// binaries finds the newest PostgreSQL of the machine.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	slices.SortFunc(found, func(a, b string) int { return major(a) - major(b) })
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("no PostgreSQL binaries found: install the postgresql package")
	}
	return filepath.Dir(path), nil
}

func major(initdb string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	if err != nil {
		return 0
	}
	return n
}

// serviceUser is who runs PostgreSQL, which refuses root.
func serviceUser(dir string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil //nolint:nilnil // no credential: as who we are
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, fmt.Errorf("PostgreSQL refuses root, and there is no user postgres or nobody: %w", err)
		}
	}
	uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(errUID, errGID); err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}
