package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// exits says when processes end, some milliseconds before the engine does. It
// holds one descriptor for each, and waits for all of them in one place. Where
// the kernel cannot (before Linux 5.3), or no more descriptors are to be had,
// nothing is said.
type exits struct {
	log   hclog.Logger
	ended func(id string, p process)
	f     *os.File // of epoll; nil: not to be had
	most  int

	mu     sync.Mutex
	byFD   map[int32]exit
	fds    map[process]int32
	closed bool
}

// exit is one process that is waited for.
type exit struct {
	id string // of its container
	p  process
}

func newExits(log hclog.Logger, ended func(id string, p process)) *exits {
	e := &exits{log: log, ended: ended, byFD: map[int32]exit{}, fds: map[process]int32{}}
	// Log files need descriptors more.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		e.most = int(min(limit.Cur/4, 1<<20))
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that the runtime waits for it
	}
	if err != nil {
		log.Debug("the ends of containers are only known from the engine", "error", err)
		return e
	}
	e.f = os.NewFile(uintptr(fd), "epoll")
	return e
}

// add waits for a process.
func (e *exits) add(p process, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.f == nil || e.closed || p.pid == 0 || len(e.byFD) >= e.most {
		return
	}
	if _, ok := e.fds[p]; ok {
		return
	}
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return // it has ended, or the kernel is too old
	}
	if p.gone() || e.control(unix.EPOLL_CTL_ADD, fd) != nil {
		_ = unix.Close(fd) // it was another process's by then
		return
	}
	e.byFD[int32(fd)], e.fds[p] = exit{id: id, p: p}, int32(fd) //nolint:gosec // a descriptor
}

// control calls epoll_ctl. The caller holds mu.
func (e *exits) control(op, fd int) error {
	conn, err := e.f.SyscallConn()
	if err != nil {
		return err
	}
	var ctlErr error
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)} //nolint:gosec // a descriptor
	err = conn.Control(func(epoll uintptr) { ctlErr = unix.EpollCtl(int(epoll), op, fd, &event) })
	return errors.Join(err, ctlErr)
}

// remove waits no longer.
func (e *exits) remove(p process) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if fd, ok := e.fds[p]; ok {
		e.removeLocked(fd, p)
	}
}

func (e *exits) removeLocked(fd int32, p process) {
	delete(e.fds, p)
	delete(e.byFD, fd)
	_ = unix.Close(int(fd)) // which also ends the waiting
}

// run says what ends until ctx ends.
func (e *exits) run(ctx context.Context) error {
	if e.f == nil {
		return nil
	}
	defer e.close()
	stop := context.AfterFunc(ctx, e.close)
	defer stop()
	conn, err := e.f.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for containers to end: %w", err)
	}
	var events [64]unix.EpollEvent
	for {
		n := 0
		err := conn.Read(func(fd uintptr) bool {
			var waitErr error
			n, waitErr = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || waitErr != nil && !errors.Is(waitErr, unix.EINTR)
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil || n <= 0 {
			return fmt.Errorf("wait for containers to end: %w", errors.Join(err, unix.EBADF))
		}
		for _, event := range events[:n] {
			e.mu.Lock()
			x, ok := e.byFD[event.Fd]
			if ok {
				e.removeLocked(event.Fd, x.p)
			}
			e.mu.Unlock()
			if ok {
				e.ended(x.id, x.p)
			}
		}
	}
}

// close lets go of everything.
func (e *exits) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.f == nil {
		return
	}
	e.closed = true
	for fd, x := range e.byFD {
		e.removeLocked(fd, x.p)
	}
	e.f.Close()
}
