package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/theazo/observability/shared/retry"
)

const (
	firstPause = 50 * time.Millisecond // before the next attempt
	lastPause  = 5 * time.Second
	settled    = time.Minute // up for so long, an end is the first again
)

// postmaster is one run of PostgreSQL.
type postmaster struct {
	cmd        *exec.Cmd
	output     *os.File      // our end of its standard error
	complaints tail          // in its output
	read       chan struct{} // closed when all output is read
	exited     chan struct{} // closed when it is reaped; then err is how it ended
	err        error
}

// supervise keeps PostgreSQL running until ctx, the life of the server, ends.
// first gets the outcome of the first attempt, which is not repeated.
func (s *Server) supervise(ctx context.Context, first chan<- error) {
	runtime.LockOSThread() // See account.process.
	defer runtime.UnlockOSThread()
	defer close(s.done)
	defer close(s.lost)
	defer s.release()

	p, err := s.launch(ctx)
	first <- err
	if err != nil {
		return
	}
	pauses := retry.Backoff{Min: firstPause, Max: lastPause}
	for {
		if err == nil {
			if !s.watch(ctx, p, &pauses) {
				return
			}
		} else if ctx.Err() == nil {
			s.log.Error("PostgreSQL did not start, trying again", "error", err)
		}
		if _, err := os.Stat(filepath.Join(s.layout.cluster, "PG_VERSION")); errors.Is(err, fs.ErrNotExist) {
			s.lost <- fmt.Errorf("the cluster of the private PostgreSQL is gone: %w (restore it, or start anew in an empty directory)", err)
			return
		}
		if !pause(ctx, pauses.Next()) {
			return
		}
		p, err = s.launch(ctx)
	}
}

// watch waits until p ends by itself, or ends it at the end of ctx and returns false.
func (s *Server) watch(ctx context.Context, p *postmaster, pauses *retry.Backoff) bool {
	up := time.Now()
	select {
	case <-ctx.Done():
		s.stopErr = s.shutdown(ctx, p)
		return false
	case <-p.exited:
	}
	s.reap(p)
	s.log.Error("PostgreSQL ended by itself, starting it again", "reason", p.ended())
	if time.Since(up) > settled {
		pauses.Reset()
	}
	return true
}

// launch starts PostgreSQL and waits until it answers. After an error no process is left.
func (s *Server) launch(ctx context.Context) (*postmaster, error) {
	begun := time.Now()
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	p, err := s.spawn(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.awaitAnswer(ctx, p); err != nil {
		return nil, errors.Join(err, s.shutdown(ctx, p))
	}
	s.log.Info("PostgreSQL is ready", "pid", p.cmd.Process.Pid, "elapsed", rounded(time.Since(begun)), "socket", s.layout.socket())
	return p, nil
}

// spawn starts the program. It runs on the supervisor's thread.
func (s *Server) spawn(ctx context.Context) (*postmaster, error) {
	output, input, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	// No context ends it: how to stop a database is shutdown's to know.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.postgres, s.args...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = "/", environment(), s.layout.files()
	cmd.Stderr = input
	// An orphan stops by itself: SIGINT is a fast shutdown.
	cmd.SysProcAttr = s.user.process(syscall.SIGINT)
	err = cmd.Start()
	input.Close()
	if err != nil {
		output.Close()
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	p := &postmaster{cmd: cmd, output: output, read: make(chan struct{}), exited: make(chan struct{})}
	s.pid.Store(int64(cmd.Process.Pid))
	go func() {
		defer close(p.read)
		forward(s.log, p.output, &p.complaints)
	}()
	go func() {
		defer close(p.exited)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// awaitAnswer returns when a query has been answered. A recovery may take minutes
// and is awaited as long as ctx allows.
func (s *Server) awaitAnswer(ctx context.Context, p *postmaster) error {
	begun, reported := time.Now(), time.Now()
	for wait := 5 * time.Millisecond; ; wait = min(wait*3/2, 20*time.Millisecond) {
		err := s.ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			<-p.read
			return fmt.Errorf("PostgreSQL ended while starting: %w", p.ended())
		default:
		}
		if time.Since(reported) > lastWords {
			reported = time.Now()
			s.log.Info("still waiting for PostgreSQL to answer", "error", err, "waited", rounded(time.Since(begun)))
		}
		if !pause(ctx, wait) {
			return errors.Join(fmt.Errorf("wait for PostgreSQL to answer: %w", context.Cause(ctx)), err)
		}
	}
}

// ask connects and queries, and makes the database when only that is missing.
func (s *Server) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // A stopped process accepts and says nothing.
	defer cancel()
	err := query(ctx, s.dsn, "select 1")
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Code == "3D000" {
		return query(ctx, s.layout.dsn("postgres"), "create database "+database)
	}
	return err
}

func query(ctx context.Context, dsn, sql string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connect to the private PostgreSQL: %w", err)
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// shutdown ends p: fast, then at once, then by force. It is called when ctx has
// ended, and takes nothing but values from it.
func (s *Server) shutdown(ctx context.Context, p *postmaster) error {
	defer s.reap(p)
	steps := []struct {
		signal syscall.Signal
		after  time.Duration
		hurry  <-chan struct{}
	}{
		{signal: syscall.SIGINT, after: patience, hurry: s.hurry},
		{signal: syscall.SIGQUIT, after: lastWords},
	}
	for i, step := range steps {
		_ = p.cmd.Process.Signal(step.signal) // Gone already is as good.
		select {
		case <-p.exited:
			return nil
		case <-step.hurry:
		case <-time.After(step.after):
		}
		s.log.Warn("PostgreSQL does not stop, insisting", "pid", p.cmd.Process.Pid, "step", i+1)
	}
	// Every backend is in a process group of its own: find them by their directory.
	_ = p.cmd.Process.Kill()
	<-p.exited
	return errors.Join(
		fmt.Errorf("PostgreSQL (pid %d) had to be killed; it will recover at the next start", p.cmd.Process.Pid),
		s.evict(context.WithoutCancel(ctx), s.layout.cluster, bySignal(syscall.SIGKILL)))
}

// reap gives back what belongs to a run whose process has ended. Backends of a
// killed postmaster may still hold its output: they are not waited for here.
func (s *Server) reap(p *postmaster) {
	<-p.exited
	s.pid.Store(0)
	_ = p.output.SetReadDeadline(time.Now().Add(time.Second))
	<-p.read
	_ = p.output.Close()
}

// ended says how and why, when exited and read are closed.
func (p *postmaster) ended() error {
	how := p.err
	if how == nil {
		how = errors.New("exit status 0")
	}
	if why := p.complaints.String(); why != "" {
		how = fmt.Errorf("%w: %s", how, why)
	}
	return how
}
