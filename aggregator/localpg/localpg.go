package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Options say where the private PostgreSQL lives and how it runs.
type Options struct {
	// Dir holds everything of this server and nothing else. It is made if missing.
	Dir string
	// Log receives this package's messages and PostgreSQL's own, line by line.
	Log hclog.Logger
	// User is whom PostgreSQL runs as when the parent is root and Dir does not
	// already belong to somebody else; "postgres" if empty.
	User string
	// BinDir holds initdb and postgres; looked for if empty.
	BinDir string
	// Settings are PostgreSQL settings that go before this package's choice.
	Settings map[string]string
	// NoSync gives up surviving a crash of the machine, not of a process: only for tests.
	NoSync bool
}

// Server is a running private PostgreSQL. Its methods may be called from any goroutine.
type Server struct {
	log      hclog.Logger
	layout   *layout
	user     account
	postgres string   // the program
	args     []string // of the program
	lock     *dirLock
	dsn      string

	pid     atomic.Int64
	lost    chan error         // see Wait
	stop    context.CancelFunc // ends the life of the supervisor
	hurry   chan struct{}      // closed when Stop's context ended: no more patience
	hurried sync.Once
	done    chan struct{} // closed when the supervisor has ended and everything is released
	stopErr error         // of the supervisor, to be read after done
}

// Start brings up the private PostgreSQL in o.Dir, making its cluster the first
// time, and returns when it answers. ctx bounds only the start; Stop ends the server.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil || o.Dir == "" {
		return nil, errors.Join(fmt.Errorf("private PostgreSQL: bad directory %q", o.Dir), err)
	}
	if err := checkSettings(o.Settings); err != nil {
		return nil, err
	}
	user, err := prepareDir(dir, o.User)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	s := &Server{
		log: o.Log, user: user, lock: lock,
		lost: make(chan error, 1), hurry: make(chan struct{}), done: make(chan struct{}),
	}
	if err := s.prepare(ctx, dir, o); err != nil {
		s.release()
		return nil, err
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// prepare does what needs no running server: directories, programs, cluster, arguments.
func (s *Server) prepare(ctx context.Context, dir string, o Options) error {
	var err error
	if s.layout, err = newLayout(dir, s.user); err != nil {
		return err
	}
	bin, err := findBinaries(ctx, o.BinDir, s.layout, s.user)
	if err != nil {
		return err
	}
	if err := s.makeCluster(ctx, bin, o.NoSync); err != nil {
		return err
	}
	s.postgres = bin.postgres
	s.args = s.arguments(ctx, o)
	s.dsn = s.layout.dsn(database)
	return nil
}

// begin starts the supervisor and waits for its first success.
func (s *Server) begin(ctx context.Context) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	first := make(chan error, 1)
	go s.supervise(life, first)

	var err error
	select {
	case err = <-first:
	case <-ctx.Done():
		err = fmt.Errorf("start the private PostgreSQL in %s: %w", s.layout.dir, context.Cause(ctx))
	}
	if err == nil {
		err = s.lock.publish(s.dsn)
	}
	if err != nil {
		return errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return nil
}

// DSN is how to connect as the owner of the database; it stays the same for the
// life of the Server, whatever happens to the postmaster.
func (s *Server) DSN() string { return s.dsn }

// PID is the postmaster's process id, 0 while there is none.
func (s *Server) PID() int { return int(s.pid.Load()) }

// Wait gives one error when the server is lost for good because the files of its
// cluster are gone, and is closed when the Server has stopped. Everything else is
// repaired by starting PostgreSQL again.
func (s *Server) Wait() <-chan error { return s.lost }

// Stop ends the server with a fast shutdown: sessions are cut, everything is
// written. When that takes longer than 30 s or than ctx allows, the server is
// ended at once, which costs nothing but a recovery at the next start. It returns
// when no process is left, and may be called again.
func (s *Server) Stop(ctx context.Context) error {
	s.stop()
	select {
	case <-s.done:
	case <-ctx.Done():
		s.hurried.Do(func() { close(s.hurry) })
		<-s.done
	}
	return s.stopErr
}

// release gives the directory back.
func (s *Server) release() {
	if s.layout != nil {
		s.layout.close()
	}
	s.lock.unlock()
}

// pause waits for d or until ctx ends, and says whether it was d.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// rounded is a duration for people, also in a JSON log.
func rounded(d time.Duration) string { return d.Round(time.Millisecond).String() }

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}
