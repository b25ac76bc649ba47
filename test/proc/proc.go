// Package proc runs programs of this project as real processes: for `make run`,
// the benchmarks and the end-to-end tests. A process has a group of its own, so
// that Ctrl-C in a terminal reaches its starter alone; its output goes to a log
// file, whose end every error shows.
package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Options of a process.
type Options struct {
	Name string   // for messages and the log file
	Argv []string // program and arguments
	Env  []string // added to our own environment
	Dir  string   // of the log file, NAME.log, which is appended to

	// EndsWithUs asks the process to end (SIGTERM) when we have ended without
	// stopping it, even by kill -9.
	EndsWithUs bool
}

// Process is a running, or ended, program.
type Process struct {
	Name string
	Log  string // path of its log file
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts a program. It goes on until it ends or is stopped: no context
// ends it.
func Start(o Options) (*Process, error) {
	p := &Process{Name: o.Name, Log: filepath.Join(o.Dir, o.Name+".log"), done: make(chan struct{})}
	f, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(o.Argv[0], o.Argv[1:]...) //nolint:gosec,noctx // our own programs, which outlive any context
	p.cmd.Env = append(os.Environ(), o.Env...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if o.EndsWithUs {
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	}
	err = p.cmd.Start()
	_ = f.Close() // the process has its own
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how it ended, after Done.
func (p *Process) Err() error { return p.err }

// Kill ends the process at once, as kill -9 does, and waits for its end. Only
// the process itself: what its children do then is part of what is tested.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may just have ended
	<-p.done
}

// Stop asks the process to end (SIGTERM) and kills it when limit has passed.
// It returns an error unless the process ended with exit code 0.
func (p *Process) Stop(limit time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	select {
	case <-p.done:
	case <-time.After(limit):
		p.Kill()
		return fmt.Errorf("%s did not stop in %s and was killed; the end of %s:\n%s", p.Name, limit, p.Log, p.Tail())
	}
	if p.err != nil {
		return fmt.Errorf("%s ended with %w; the end of %s:\n%s", p.Name, p.err, p.Log, p.Tail())
	}
	return nil
}

// Tail is the end of the log.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "    " + strings.Join(lines[max(0, len(lines)-15):], "\n    ")
}

// Await polls check until it returns nil. It fails when the process ends,
// limit has passed or ctx ends, with what check said last and the end of the log.
func (p *Process) Await(ctx context.Context, limit time.Duration, check func() error) error {
	err := Poll(ctx, limit, p.done, check)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w; the end of %s:\n%s", p.Name, err, p.Log, p.Tail())
	}
	return err
}

// Poll polls check every 10 ms until it returns nil, limit has passed, ctx
// ends, or end (which may be nil) is closed.
func Poll(ctx context.Context, limit time.Duration, end <-chan struct{}, check func() error) error {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-end:
			return errors.Join(errors.New("it ended"), err)
		case <-timeout.C:
			return fmt.Errorf("not within %s: %w", limit, err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}
