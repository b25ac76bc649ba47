package docker

import (
	"context"
	"strconv"

	"golang.org/x/sys/unix"
)

// arm has the kernel wake s when its newest log grows. It returns false when
// that was so already, or cannot be.
func (w *watcher) arm(s *sandbox) bool {
	f, newer := s.tail.current()
	if f == nil || newer {
		return newer
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.armed != nil && s.armed != f {
		w.disarmLocked(s)
	}
	if f.watch != 0 {
		return false
	}
	// By descriptor: the name may mean another file by now.
	wd, err := w.add(w.idle, "/proc/self/fd/"+strconv.Itoa(int(f.f.Fd())), unix.IN_MODIFY|unix.IN_ONESHOT)
	if err != nil {
		if w.f != nil && !w.closed {
			w.refuse(err)
		}
		return false
	}
	f.watch, s.armed = wd, f
	w.logs[wd] = idleLog{s: s, f: f}
	return true
}

// runIdle wakes the sandboxes of logs that have grown while the reader is idle,
// until the watcher closes.
func (w *watcher) runIdle(ctx context.Context) {
	buf := make([]byte, inotifyBytes)
	for {
		n, err := w.idle.Read(buf)
		if err != nil {
			return // closed
		}
		w.takeIdle(buf[:n])
		select {
		case <-w.quiet:
		case <-ctx.Done():
			return
		}
	}
}

// awake wakes the sandboxes of logs that have grown, without waiting.
func (w *watcher) awake() {
	w.mu.Lock()
	closed := w.f == nil || w.closed
	w.mu.Unlock()
	if closed {
		return
	}
	conn, err := w.idle.SyscallConn()
	if err != nil {
		return
	}
	if w.woken == nil {
		w.woken = make([]byte, inotifyBytes)
	}
	n := 0
	_ = conn.Control(func(fd uintptr) { n, err = unix.Read(int(fd), w.woken) }) // closed: nothing to wake
	if err == nil && n > 0 {
		w.takeIdle(w.woken[:n])
	}
}

// asleep says that the reader waits to be woken.
func (w *watcher) asleep() {
	select {
	case w.quiet <- struct{}{}:
	default:
	}
}

// takeIdle handles events of idle logs, of which each has one at most.
func (w *watcher) takeIdle(buf []byte) {
	for e := range fileEvents(buf) {
		switch {
		case e.mask&unix.IN_Q_OVERFLOW != 0:
			w.lookAtAll()
		case e.mask&(unix.IN_MODIFY|unix.IN_IGNORED) != 0:
			w.grown(e.wd)
		}
	}
}

// grown wakes the sandbox of a log whose watch has fired or has ended.
func (w *watcher) grown(wd int32) {
	w.mu.Lock()
	l, ok := w.logs[wd]
	if ok {
		delete(w.logs, wd)
		l.f.watch = 0
	}
	w.mu.Unlock()
	if ok {
		w.wake(l.s)
	}
}
