package guest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// host is where the kernel tells about itself.
type host struct{ proc, cgroup string }

// Stalls are shares of time in per cent, averaged over ten seconds: of any
// work waiting for a processor, and of all work at once waiting for disks or
// for memory.
type Stalls struct {
	CPU    float64 `json:"cpu"`
	IO     float64 `json:"io"`
	Memory float64 `json:"memory"`
}

// pressure makes one number of them.
func (s Stalls) pressure() float64 {
	ramp := func(x, from, to, most float64) float64 {
		return most * min(1, max(0, (x-from)/(to-from)))
	}
	return max(ramp(s.CPU, 50, 95, 0.8), ramp(s.IO, 20, 70, 0.8), ramp(s.Memory, 5, 30, 1))
}

// stalls reads PSI. A unit with ProcSubset=pid does not see /proc/pressure,
// but the same files at the root of the cgroups.
func (h host) stalls() (s Stalls, ok bool) {
	for _, x := range []struct {
		resource, kind string
		to             *float64
	}{{"cpu", "some", &s.CPU}, {"io", "full", &s.IO}, {"memory", "full", &s.Memory}} {
		text, err := os.ReadFile(filepath.Join(h.proc, "pressure", x.resource))
		if err != nil {
			text, err = os.ReadFile(filepath.Join(h.cgroup, x.resource+".pressure"))
		}
		if err != nil {
			continue // too old, switched off (psi=0), or hidden
		}
		if v, found := average(text, x.kind); found {
			*x.to, ok = v, true
		}
	}
	return s, ok
}

// average finds avg10 in the line of a kind:
//
//	some avg10=1.23 avg60=0.50 avg300=0.10 total=12345
func average(text []byte, kind string) (float64, bool) {
	for line := range bytes.Lines(text) {
		rest, ok := bytes.CutPrefix(line, []byte(kind+" avg10="))
		if !ok {
			continue
		}
		number, _, _ := bytes.Cut(rest, []byte(" "))
		v, err := strconv.ParseFloat(string(number), 64)
		return v, err == nil && v >= 0 && v <= 100
	}
	return 0, false
}

// resident returns this process's resident memory in bytes, 0 where the
// kernel does not tell.
func (h host) resident() int64 {
	text, err := os.ReadFile(filepath.Join(h.proc, "self", "statm"))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// memoryLimit returns the lowest limit of memory of the cgroups that this
// process is in, and which one has it; 0 where there is none.
func (h host) memoryLimit() (limit int64, where string) {
	text, err := os.ReadFile(filepath.Join(h.proc, "self", "cgroup"))
	if err != nil {
		return 0, ""
	}
	for line := range strings.Lines(string(text)) {
		// 0::/system.slice/agentd.service, or 4:memory:/docker/… of version 1
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		root, files := h.cgroup, []string{"memory.max", "memory.high"}
		switch parts[1] {
		case "":
		case "memory":
			root, files = filepath.Join(h.cgroup, "memory"), []string{"memory.limit_in_bytes"}
		default:
			continue
		}
		// Every cgroup above has its say. In a container the path may be the
		// host's, of which only the root is seen.
		for dir := filepath.Clean("/" + parts[2]); ; dir = filepath.Dir(dir) {
			for _, name := range files {
				if v := readLimit(filepath.Join(root, dir, name)); v > 0 && (limit == 0 || v < limit) {
					limit, where = v, dir
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit, where
}

// noLimit is near what version 1 says where there is none.
const noLimit = 1 << 60

func readLimit(path string) int64 {
	text, err := os.ReadFile(path) //nolint:gosec // below the root of the cgroups
	if err != nil {
		return 0
	}
	v, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is no number
	if err != nil || v >= noLimit {
		return 0
	}
	return v
}

// hysteresis lets a number rise at once and fall only when it has been lower
// for some looks in a row, and then to the highest of them.
type hysteresis struct {
	level, highest float64
	lower          int
}

const (
	fallAfter = 5   // looks: 15 seconds
	slack     = 0.1 // what is lower by less is not lower
)

func (h *hysteresis) next(raw float64) float64 {
	if raw > h.level-slack && raw > 0 {
		h.level, h.lower, h.highest = max(raw, h.level), 0, 0
		return h.level
	}
	h.lower++
	h.highest = max(h.highest, raw)
	if h.lower >= fallAfter {
		h.level, h.lower, h.highest = h.highest, 0, 0
	}
	return h.level
}
