package agentd

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ownGroup puts a child into a process group of its own, which signals are
// passed on to. Where we are in the foreground of a terminal the child is put
// there instead: its keys are the child's.
func ownGroup() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if group, err := unix.IoctlGetInt(int(os.Stdin.Fd()), unix.TIOCGPGRP); err == nil && group == unix.Getpgrp() {
		attr.Foreground, attr.Ctty = true, int(os.Stdin.Fd())
	}
	return attr
}

// takeTerminal puts us back into the foreground, so that an interrupt reaches
// us while the last records are being sent.
func takeTerminal() {
	fd := int(os.Stdin.Fd())
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || group == unix.Getpgrp() {
		return
	}
	signal.Ignore(syscall.SIGTTOU) // which one in the background gets for it
	defer signal.Reset(syscall.SIGTTOU)
	_ = unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, unix.Getpgrp()) // somebody else's terminal stays theirs
}

func signalGroup(p *os.Process, s os.Signal) {
	if n, ok := s.(syscall.Signal); ok {
		_ = syscall.Kill(-p.Pid, n) // it may just have ended
	}
}

// reapAgain is when to look again while the child's own end is still to be
// seen by who waits for it.
const reapAgain = 10 * time.Millisecond

// adoptOrphans has processes that lose their parents become ours; before the
// child starts, whose first act may be to leave some.
func (c *Command) adoptOrphans() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		c.Log.Debug("orphans go to another process", "error", err)
	}
}

// reap waits for orphans that became ours, until the returned function is
// called. It leaves the child to who waits for it.
func (c *Command) reap(child int) (stop func()) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		again := time.NewTimer(0)
		defer again.Stop()
		for {
			select {
			case <-ended:
			case <-again.C:
			case <-end:
				return
			}
			if reapOrphans(child) {
				again.Reset(reapAgain)
			}
		}
	})
	return func() {
		signal.Stop(ended)
		close(end)
		wg.Wait()
		reapOrphans(child)
	}
}

// reapOrphans waits for all that have ended. It reports whether the child is
// in the way: it has ended, and hides who ended after it.
func reapOrphans(child int) (again bool) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		pid := pidOf(&info)
		switch {
		case err != nil || pid == 0:
			return false
		case pid == child:
			return true
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, unix.WNOHANG, nil); err != nil {
			return false
		}
	}
}

// pidOf is si_pid, which follows three numbers, aligned as pointers are.
func pidOf(info *unix.Siginfo) int {
	const word = unsafe.Sizeof(uintptr(0))
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), (3*4+word-1)/word*word))) //nolint:gosec // the kernel's layout
}
