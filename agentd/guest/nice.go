package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// threads are the ids of our threads. What is set for all of them, later ones
// inherit.
func threads(proc string) ([]int, error) {
	names, err := os.ReadDir(filepath.Join(proc, "self", "task"))
	if err != nil {
		return nil, fmt.Errorf("list our threads: %w", err)
	}
	ids := make([]int, 0, len(names))
	for _, n := range names {
		if id, err := strconv.Atoi(n.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// stepBack lowers the priority of all threads for processors and disks.
func stepBack(proc string, nice int) error {
	ids, err := threads(proc)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		if err := errors.Join(unix.Setpriority(unix.PRIO_PROCESS, id, nice), lowerDisk(id, nice)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("thread %d: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// lowerDisk sets a thread's priority for disks within the class "best effort",
// 0 to 7, as the kernel derives it from a niceness.
func lowerDisk(thread, nice int) error {
	const (
		whoProcess = 1
		bestEffort = 2
		classShift = 13
	)
	priority := bestEffort<<classShift | (nice+20)/5
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(thread), uintptr(priority)); errno != 0 {
		return fmt.Errorf("ioprio_set: %w", errno)
	}
	return nil
}

// beLax lets the kernel wake all threads so much later than they asked for, and
// so together with others. It takes CAP_SYS_NICE: the Go runtime has threads
// already that cannot be told to do it for themselves.
func beLax(proc string, slack time.Duration) error {
	ids, err := threads(proc)
	if err != nil {
		return err
	}
	for _, id := range ids {
		err := os.WriteFile(filepath.Join(proc, strconv.Itoa(id), "timerslack_ns"), strconv.AppendInt(nil, int64(slack), 10), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("thread %d: %w", id, err)
		}
	}
	return nil
}
