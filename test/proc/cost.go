package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Cost is what a process and its descendants have used.
type Cost struct {
	CPU     time.Duration // user and system, ended children included
	RSS     int64         // bytes, of the process itself
	PeakRSS int64         // bytes, of the process itself
	Written int64         // bytes sent to disks and not taken back, of the process itself
}

// clockTick is the unit of times in /proc: USER_HZ, 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// CostOf reads /proc. Descendants that have ended count where their parent
// has waited for them.
func CostOf(pid int) (Cost, error) {
	var c Cost
	ticks, err := ticksOf(pid)
	if err != nil {
		return c, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return c, err
	}
	c.RSS, c.PeakRSS = field(status, "VmRSS:")<<10, field(status, "VmHWM:")<<10
	if io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil { // only the owner and root may
		c.Written = field(io, "write_bytes:") - field(io, "cancelled_write_bytes:")
	}
	for _, child := range children(pid) {
		if sub, err := CostOf(child); err == nil { // it may just have ended
			ticks += int64(sub.CPU / clockTick)
		}
	}
	c.CPU = time.Duration(ticks) * clockTick
	return c, nil
}

// field is the number behind a name at the begin of a line; 0 where there is none.
func field(text []byte, name string) int64 {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return n
		}
	}
	return 0
}

// ticksOf is utime, stime, cutime and cstime.
func ticksOf(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; fields count from behind it.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var sum int64
	for _, f := range fields[11:15] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		sum += n
	}
	return sum, nil
}

func children(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var list []int
	for _, f := range files {
		b, err := os.ReadFile(f) //nolint:gosec // under /proc
		if err != nil {
			continue // the thread has ended
		}
		for text := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(text); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// Signal sends a signal to a process and all its descendants, parents first:
// what is stopped that way makes no new ones.
func Signal(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil {
		return fmt.Errorf("signal %d: %w", pid, err)
	}
	for _, child := range children(pid) {
		if err := Signal(child, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}
