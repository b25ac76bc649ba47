package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Cost is what a process and its descendants have used.
type Cost struct {
	CPU     time.Duration // user and system, ended children included
	PeakRSS int64         // bytes, of the process itself
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
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(kb)[0], 10, 64)
			c.PeakRSS = n << 10
		}
	}
	for _, child := range children(pid) {
		if sub, err := CostOf(child); err == nil { // it may just have ended
			ticks += int64(sub.CPU / clockTick)
		}
	}
	c.CPU = time.Duration(ticks) * clockTick
	return c, nil
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
