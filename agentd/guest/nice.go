package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// stepBack lowers the priority of all threads for processors and disks.
// Threads that come later inherit it from these.
func stepBack(proc string, nice int) error {
	threads, err := os.ReadDir(filepath.Join(proc, "self", "task"))
	if err != nil {
		return fmt.Errorf("list our threads: %w", err)
	}
	var errs []error
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
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
