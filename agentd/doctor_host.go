package agentd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/health"
)

// ownerOfSocket returns the process that listens on a unix socket.
func ownerOfSocket(ctx context.Context, path string) (pid int, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%s is no unix socket", path)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return int(cred.Pid), nil
}

func fetchStatus(ctx context.Context, stateDir string) (*Status, error) {
	b, err := FetchStatus(ctx, stateDir, "status")
	if err != nil {
		return nil, err
	}
	s := new(Status)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("its status: %w", err)
	}
	return s, nil
}

// stateDirectory looks at whom the directory belongs to and whether it can be
// written.
func (x *examination) stateDirectory() {
	const check = "state directory"
	dir := x.cfg.StateDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.add(health.Note, check, dir+" does not exist; the first start makes it", "")
		return
	case err != nil:
		x.add(health.Fail, check, capital(err.Error())+": agentd does not start", "Let agentd's user enter it, or run the doctor as that user")
		return
	case !info.IsDir():
		x.add(health.Fail, check, dir+" is no directory: agentd does not start", "Move it away, or set state_dir")
		return
	}
	owner, name := ownerOf(info)
	text := fmt.Sprintf("%s of %s, mode %04o", dir, name, info.Mode().Perm())
	if info.Mode().Perm()&0o077 != 0 {
		x.add(health.Warn, check, text+": others on this host can look at the node's buffer", "Close it: chmod 0700 "+dir)
		return
	}
	if me := os.Geteuid(); me != owner {
		x.add(health.Note, check, text+"; you are another user, so that rights are not checked as agentd has them", "Run it as that user: runuser -u "+name+" -- agentd doctor …")
		return
	}
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		x.add(health.Fail, check, capital(err.Error())+": nothing can be kept until it is acknowledged, agentd does not start", "Mend the rights or the mount of "+dir)
		return
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
	x.add(health.OK, check, text, "")
}

func ownerOf(info fs.FileInfo) (uid int, name string) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return os.Geteuid(), "?"
	}
	uid = int(st.Uid)
	name = strconv.Itoa(uid)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return uid, name
}

// nearest returns the directory, or the nearest one above it that exists.
func nearest(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// How much of a file system must stay free for others, as the buffer has it
// where buffer.floor does not say it.
const (
	floorShare = 20 // a twentieth, 5 %
	floorLeast = 512 << 20
	floorMost  = 4 // a quarter, of a small one
)

// disk looks at room, kind and speed of the file system of the buffer.
func (x *examination) disk() {
	dir := nearest(x.cfg.StateDir)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		x.add(health.Fail, "disk", dir+": "+err.Error(), "")
		return
	}
	x.room(&st)
	x.fileSystem(dir, &st)
	x.fsync(dir)
}

func (x *examination) room(st *unix.Statfs_t) {
	const check = "disk space"
	block := uint64(st.Bsize)                                    //nolint:gosec // a block's size is positive
	size, free := int64(st.Blocks*block), int64(st.Bavail*block) //nolint:gosec // no disk has 8 EiB
	floor := int64(x.cfg.Buffer.Floor)
	if floor == 0 {
		floor = min(max(size/floorShare, floorLeast), size/floorMost)
	}
	budget := int64(x.cfg.Buffer.Budget)
	used := int64(0)
	if x.running != nil {
		used = x.running.Buffer.Disk
	}
	room := max(0, free-floor)
	detail := fmt.Sprintf("%s free of %s, of which %s are left to others; the buffer has %s of its %s",
		megabytes(free), megabytes(size), megabytes(floor), megabytes(used), megabytes(budget))
	mend := fmt.Sprintf("Free some space, move state_dir to a larger disk, or lower buffer.budget to what there is (%s)", megabytes(used+room))
	switch {
	case room == 0:
		x.add(health.Fail, check, detail+": nothing more is buffered; while the aggregator is away lines are lost once the engine rotates its files", mend)
	case room < budget-used:
		x.add(health.Warn, check, fmt.Sprintf("%s: only %s more can be buffered, so that an outage is survived for a shorter time (%s at 50 kB/s of compressed lines)",
			detail, megabytes(room), (time.Duration(room/50_000)*time.Second).Round(time.Minute)), mend)
	case st.Files > 0 && st.Ffree < 1000:
		x.add(health.Warn, check, fmt.Sprintf("%d inodes are free: no file of the buffer can be made once there are none", st.Ffree), "Remove small files")
	default:
		x.add(health.OK, check, detail, "")
	}
}

func megabytes(n int64) string {
	if n >= 10<<30 {
		return config.Size(n >> 30 << 30).String()
	}
	return config.Size(n >> 20 << 20).String()
}

// kinds of file systems by their number in statfs(2).
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs", unix.SMB2_SUPER_MAGIC: "smb", unix.CIFS_SUPER_MAGIC: "cifs",
	unix.FUSE_SUPER_MAGIC: "fuse", unix.F2FS_SUPER_MAGIC: "f2fs", 0x2fc12fc1: "zfs",
}

func (x *examination) fileSystem(dir string, st *unix.Statfs_t) {
	const check = "file system"
	kind, known := fileSystems[int64(st.Type)] //nolint:unconvert // narrower on some machines
	if !known {
		kind = fmt.Sprintf("%#x", st.Type)
	}
	text := kind + " below " + dir
	switch kind {
	case "tmpfs", "ramfs":
		x.add(health.Warn, check, text+" is memory: a reboot loses what is not acknowledged, and the node's key", "Set state_dir to a directory on a disk")
	case "overlay":
		x.add(health.Warn, check, text+" belongs to a container: what is not acknowledged and the node's key are lost with it", "Mount a volume at state_dir")
	case "nfs", "smb", "cifs", "fuse":
		x.add(health.Warn, check, text+" is not this machine's: agentd stands still when the server does, and a full fsync is not certain", "Set state_dir to a local disk")
	default:
		x.add(health.OK, check, text, "")
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		x.add(health.Fail, check, text+" is mounted read-only: agentd does not start", "Remount it, and look at why (dmesg)")
	}
}

// How long an fsync may take: each batch of lines waits for one.
const (
	fsyncTries = 16
	slowFsync  = 50 * time.Millisecond
	fsyncLimit = 3 * time.Second
)

// fsync measures what each batch of lines waits for.
func (x *examination) fsync(dir string) {
	const check = "disk speed"
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		x.add(health.Note, check, "Not measured: "+err.Error(), "")
		return
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	block := bytes.Repeat([]byte("doctor\n"), 64<<10/7)
	var took []time.Duration
	for start := time.Now(); len(took) < fsyncTries && time.Since(start) < fsyncLimit; {
		before := time.Now()
		if _, err = f.Write(block); err == nil {
			err = unix.Fdatasync(int(f.Fd()))
		}
		if err != nil {
			x.add(health.Fail, check, "A write of 64 KiB to "+dir+": "+err.Error(), "Look at the disk (dmesg, df)")
			return
		}
		took = append(took, time.Since(before))
	}
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	text := fmt.Sprintf("64 KiB are on disk in %s, at worst %s", median.Round(10*time.Microsecond), worst.Round(10*time.Microsecond))
	if median > slowFsync {
		x.add(health.Warn, check, text+": lines become visible that much later, nothing is lost", "Move state_dir to a faster disk")
		return
	}
	x.add(health.OK, check, text, "")
}

// skewToWarn is from where on times of lines are misleading.
const skewToWarn = 5 * time.Second

// clock compares with the aggregator's clock where that is known, and asks
// the kernel whether somebody keeps ours right.
func (x *examination) clock() {
	const check = "clock"
	kept := "It is kept by a time service"
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err != nil {
		kept = "Whether it is kept right is not known"
	} else if state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		kept = "It is not kept by any time service"
	}
	const mend = "Run chrony, systemd-timesyncd or another time service"
	switch {
	case x.identity != nil && time.Until(x.identity.NotBefore) > time.Minute:
		x.add(health.Fail, check, fmt.Sprintf("%s is before this node's certificate (%s): it is wrong, and the aggregator cannot be trusted",
			time.Now().UTC().Format(time.RFC3339), x.identity.NotBefore.Format(time.RFC3339)), mend)
	case x.running != nil && x.running.Uplink.Connected && x.running.Uplink.ClockSkew.Abs() > skewToWarn:
		x.add(health.Warn, check, fmt.Sprintf("%s off the aggregator's: order and times of lines of several hosts mislead, though nothing is lost. %s", x.running.Uplink.ClockSkew, kept), mend)
	case x.running != nil && x.running.Uplink.Connected:
		x.add(health.OK, check, fmt.Sprintf("%s off the aggregator's. %s", x.running.Uplink.ClockSkew, kept), "")
	case strings.Contains(kept, "not kept"):
		x.add(health.Note, check, kept+"; compared with the aggregator's as soon as agentd is connected", mend)
	default:
		x.add(health.OK, check, kept+"; compared with the aggregator's as soon as agentd is connected", "")
	}
}

// fewDescriptors is too few where each log file of each container is one.
const fewDescriptors = 4096

// descriptors looks at the limit of the agentd that runs, or at our own.
func (x *examination) descriptors() {
	const check = "open files"
	if x.pid == 0 && x.cfg.Docker.Enabled {
		return // the Docker source's checks tell more
	}
	limit, used, whose := int64(0), -1, "This shell's limit"
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err == nil {
		limit = int64(min(r.Max, 1<<40)) // Go raises the soft limit to the hard one at start
	}
	if x.pid > 0 {
		dir := filepath.Join("/proc", strconv.Itoa(x.pid))
		if n, err := openFilesLimit(filepath.Join(dir, "limits")); err == nil {
			limit, whose = n, "Agentd's limit"
		}
		if entries, err := os.ReadDir(filepath.Join(dir, "fd")); err == nil {
			used = len(entries)
		}
	}
	text := fmt.Sprintf("%s is %d", whose, limit)
	if used >= 0 {
		text += fmt.Sprintf(", %d are open", used)
	}
	const mend = "Raise LimitNOFILE= of the unit (65536), or the limit of what starts agentd"
	switch {
	case used > 0 && int64(used) > limit*8/10:
		x.add(health.Warn, check, text+": log files of further containers cannot be opened, their lines are lost when these are removed", mend)
	case limit < fewDescriptors:
		x.add(health.Warn, check, text+": each log file of each container takes one, and those beyond are not read", mend)
	default:
		x.add(health.OK, check, text, "")
	}
}

// openFilesLimit reads the soft limit out of /proc/PID/limits.
func openFilesLimit(path string) (int64, error) {
	f, err := os.Open(path) //nolint:gosec // of /proc
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "Max open files"); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				return strconv.ParseInt(fields[0], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("%s has no line for open files", path)
}

// files looks at logs that are read without an engine.
func (x *examination) files() {
	const check = "log files"
	for _, pattern := range x.cfg.Files {
		names, err := filepath.Glob(pattern)
		if err != nil {
			continue // the configuration's check said so
		}
		if len(names) == 0 {
			x.add(health.Note, check, pattern+" names no file now", "")
			continue
		}
		closed := 0
		for _, n := range names {
			f, err := os.Open(n) //nolint:gosec // the operator named it
			if err != nil {
				closed++
				continue
			}
			_ = f.Close()
		}
		text := fmt.Sprintf("%s names %d files", pattern, len(names))
		if closed > 0 {
			x.add(health.Warn, check, fmt.Sprintf("%s, of which %d cannot be read by you: their lines are not collected if agentd cannot either", text, closed),
				"Give agentd's user the right to read them")
			continue
		}
		x.add(health.OK, check, text, "")
	}
}
