package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/theazo/observability/test/proc"
)

// runLock is .run/lock: one devrun at a time, since a second one would write
// its own ports into .run/env and find the data in use. It names its holder
// and the holder's children, one pid a line, for the one that comes after a
// kill -9: the children end with their parent, but not at once.
type runLock struct{ file *os.File }

// takeLock takes the lock and returns the children that a killed holder left.
func takeLock(path string) (*runLock, []int, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // our own file
	if err != nil {
		return nil, nil, err
	}
	pids := pidsIn(path)
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil, fmt.Errorf("lock %s: %w", path, err)
		}
		holder := "somebody"
		if len(pids) > 0 {
			holder = "process " + strconv.Itoa(pids[0])
		}
		return nil, nil, fmt.Errorf("`make run` is running here already (%s holds %s): use that one, or stop it first", holder, path)
	}
	l := &runLock{file: f}
	if err := l.file.Truncate(0); err != nil {
		return nil, nil, err
	}
	return l, pids[min(1, len(pids)):], l.add(os.Getpid())
}

func pidsIn(path string) []int {
	var pids []int
	b, _ := os.ReadFile(path) //nolint:gosec // our own file; what cannot be read names nobody
	for line := range strings.Lines(string(b)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// add notes a process that must have ended before the next start.
func (l *runLock) add(pid int) error {
	if _, err := l.file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	_, err := fmt.Fprintln(l.file, pid)
	return err
}

// release is for a clean end: nobody has to be waited for.
func (l *runLock) release() {
	if l == nil {
		return
	}
	_ = l.file.Truncate(0)
	_ = l.file.Close()
}

// awaitEnd waits for what a killed devrun left behind. Whoever does not end
// is named by the start that it makes fail.
func (d *devrun) awaitEnd(ctx context.Context, pids []int) {
	alive := func() error {
		for _, pid := range pids {
			if !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				return fmt.Errorf("process %d is still there", pid)
			}
		}
		return nil
	}
	if alive() == nil {
		return
	}
	_ = d.step("what the last start left behind stops", func() error { return proc.Poll(ctx, 45*time.Second, nil, alive) })
}
