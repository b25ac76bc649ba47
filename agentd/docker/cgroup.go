package docker

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a container has used since its start. A value that is not known
// is negative.
type usage struct {
	at             time.Time
	cpu, throttled time.Duration
	memory         int64 // without the page cache
	limit, peak    int64
	read, written  int64 // of disks
	rx, tx         int64 // of networks
	pids           int64
	killed         int64 // processes killed because memory ran out
}

const unknown = -1

func noUsage(at time.Time) usage {
	return usage{
		at: at, cpu: unknown, throttled: unknown, memory: unknown, limit: unknown, peak: unknown,
		read: unknown, written: unknown, rx: unknown, tx: unknown, pids: unknown, killed: unknown,
	}
}

// mounts says where this host's control groups can be read: version 1 has a file
// system for each controller, version 2 one for all.
type mounts struct {
	unified    mount
	controller map[string]mount
}

// mount is a file system of control groups, and which of them is its root.
type mount struct{ path, root string }

// readMounts reads /proc/self/mountinfo.
func readMounts() (mounts, error) {
	m := mounts{controller: map[string]mount{}}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return m, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 36 25 0:31 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
		before, after, ok := strings.Cut(lines.Text(), " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if !ok || len(where) < 5 || len(what) < 3 {
			continue
		}
		at := mount{path: where[4], root: where[3]}
		switch what[0] {
		case "cgroup2":
			m.unified = at
		case "cgroup":
			for option := range strings.SplitSeq(what[2], ",") {
				m.controller[option] = at
			}
		}
	}
	return m, lines.Err()
}

// group is where the files of a container's control group are. Of version 2 only
// unified is set.
type group struct {
	unified                           string
	cpu, cpuacct, memory, blkio, pids string
	net                               string // of its first process
}

// groupOf finds the control group of a container by its first process.
func groupOf(m *mounts, pid int, id string) (group, bool) {
	all, err := hierarchies(pid)
	if err != nil {
		return group{}, false
	}
	g := group{net: "/proc/" + strconv.Itoa(pid) + "/net/dev"}
	place := map[string]*string{
		"cpu": &g.cpu, "cpuacct": &g.cpuacct, "memory": &g.memory, "blkio": &g.blkio, "pids": &g.pids,
	}
	for _, h := range all {
		if !strings.Contains(h.name, id) {
			continue
		}
		if h.controllers == "" && m.unified.path != "" {
			if dir := m.unified.dir(h.name); exists(filepath.Join(dir, "memory.current")) {
				g.unified = dir
			}
		}
		for controller := range strings.SplitSeq(h.controllers, ",") {
			if to := place[controller]; to != nil {
				if at, ok := m.controller[controller]; ok {
					*to = at.dir(h.name)
				}
			}
		}
	}
	return g, g.unified != "" || exists(filepath.Join(g.memory, "memory.usage_in_bytes"))
}

// dir returns where a group's files are.
func (m mount) dir(name string) string {
	return filepath.Join(m.path, strings.TrimPrefix(name, strings.TrimSuffix(m.root, "/")))
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil
}

// kernelFiles reads files that the kernel makes up, with as few system calls and
// as little memory as can be: some ten for each container every few seconds.
type kernelFiles struct{ buf []byte }

// read returns what a file holds, until the next read; nothing where it cannot
// be read.
func (k *kernelFiles) read(dir, name string) []byte {
	if dir == "" {
		return nil
	}
	if k.buf == nil {
		k.buf = make([]byte, maxSmall)
	}
	path := dir
	if name != "" {
		path += "/" + name
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	total := 0
	for total < len(k.buf) {
		n, err := unix.Read(fd, k.buf[total:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		total += n
	}
	return k.buf[:total]
}

// number reads a file that holds one number.
func (k *kernelFiles) number(dir, name string) int64 {
	return integer(bytes.TrimSpace(k.read(dir, name)))
}

// integer returns unknown for what is no number, such as "max".
func integer(b []byte) int64 {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || n < 0 {
		return unknown
	}
	return n
}

// field finds the number after a name at the beginning of a line.
func field(b []byte, name string) int64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok && len(rest) > 0 && rest[0] == ' ' {
			return integer(bytes.TrimSpace(rest))
		}
	}
	return unknown
}

// usageOf reads a container's usage. What has ended leaves no files, so all that
// is not known is negative.
func (k *kernelFiles) usageOf(g *group, at time.Time) usage {
	u := noUsage(at)
	if g.unified != "" {
		k.unified(g, &u)
	} else {
		k.separate(g, &u)
	}
	u.rx, u.tx = networkBytes(k.read(g.net, ""))
	return u
}

// unified reads version 2.
func (k *kernelFiles) unified(g *group, u *usage) {
	cpu := k.read(g.unified, "cpu.stat")
	u.cpu, u.throttled = micros(field(cpu, "usage_usec")), micros(field(cpu, "throttled_usec"))
	u.memory = k.number(g.unified, "memory.current")
	u.uncached(field(k.read(g.unified, "memory.stat"), "inactive_file"))
	u.limit = k.number(g.unified, "memory.max")
	u.peak = k.number(g.unified, "memory.peak") // since Linux 5.19
	u.killed = field(k.read(g.unified, "memory.events"), "oom_kill")
	u.pids = k.number(g.unified, "pids.current")
	u.read, u.written = diskBytes(k.read(g.unified, "io.stat"))
}

// noLimit is what version 1 says where there is no limit, rounded down to pages.
const noLimit = 1 << 62

// separate reads version 1.
func (k *kernelFiles) separate(g *group, u *usage) {
	u.cpu = nanos(k.number(g.cpuacct, "cpuacct.usage"))
	u.throttled = nanos(field(k.read(g.cpu, "cpu.stat"), "throttled_time"))
	u.memory = k.number(g.memory, "memory.usage_in_bytes")
	u.uncached(field(k.read(g.memory, "memory.stat"), "total_inactive_file"))
	if u.limit = k.number(g.memory, "memory.limit_in_bytes"); u.limit >= noLimit {
		u.limit = unknown
	}
	u.peak = k.number(g.memory, "memory.max_usage_in_bytes")
	u.killed = field(k.read(g.memory, "memory.oom_control"), "oom_kill")
	u.pids = k.number(g.pids, "pids.current")
	disks := k.read(g.blkio, "blkio.throttle.io_service_bytes_recursive")
	if len(disks) == 0 {
		disks = k.read(g.blkio, "blkio.throttle.io_service_bytes")
	}
	u.read, u.written = throttledBytes(disks)
}

// uncached takes the page cache that can be given back off the memory used, as
// `docker stats` does.
func (u *usage) uncached(cache int64) {
	if u.memory > cache && cache > 0 {
		u.memory -= cache
	}
}

func micros(n int64) time.Duration {
	if n < 0 {
		return unknown
	}
	return time.Duration(n) * time.Microsecond
}

func nanos(n int64) time.Duration { return time.Duration(n) }

// diskBytes reads lines of io.stat: 8:0 rbytes=1 wbytes=2 rios=3.
func diskBytes(b []byte) (read, written int64) {
	if b == nil {
		return unknown, unknown
	}
	for f := range bytes.FieldsSeq(b) {
		if n, ok := bytes.CutPrefix(f, []byte("rbytes=")); ok {
			read += max(integer(n), 0)
		} else if n, ok := bytes.CutPrefix(f, []byte("wbytes=")); ok {
			written += max(integer(n), 0)
		}
	}
	return read, written
}

// throttledBytes reads version 1's lines: 8:0 Read 1.
func throttledBytes(b []byte) (read, written int64) {
	if b == nil {
		return unknown, unknown
	}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) != 3 {
			continue
		}
		switch string(f[1]) {
		case "Read":
			read += max(integer(f[2]), 0)
		case "Write":
			written += max(integer(f[2]), 0)
		}
	}
	return read, written
}

// networkBytes reads /proc/PID/net/dev, without the loopback.
func networkBytes(b []byte) (rx, tx int64) {
	if b == nil {
		return unknown, unknown
	}
	const txField = 8
	found := false
	for line := range bytes.Lines(b) {
		name, rest, ok := bytes.Cut(line, []byte{':'})
		if !ok || string(bytes.TrimSpace(name)) == "lo" {
			continue
		}
		if f := bytes.Fields(rest); len(f) > txField {
			rx, tx, found = rx+max(integer(f[0]), 0), tx+max(integer(f[txField]), 0), true
		}
	}
	if !found {
		return unknown, unknown // it has no network
	}
	return rx, tx
}
