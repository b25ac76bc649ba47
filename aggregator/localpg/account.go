package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// account is whom PostgreSQL runs as. It refuses root, so a root parent drops to
// another user for it.
type account struct {
	uid, gid int
	name     string
	drop     bool // the parent is root
}

// chooseAccount decides by what is there: an existing cluster or directory that
// belongs to a user keeps this user, so that the service and root's commands
// beside it use the same files.
func chooseAccount(dir, wanted string) (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid(), name: userName(os.Geteuid())}, nil
	}
	for _, path := range []string{filepath.Join(dir, clusterName), dir} {
		uid, gid, err := owner(path)
		if err == nil && uid != 0 {
			return account{uid: uid, gid: gid, name: userName(uid), drop: true}, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return account{}, err
		}
	}
	if wanted == "" {
		wanted = "postgres"
	}
	u, err := user.Lookup(wanted)
	if err != nil {
		return account{}, fmt.Errorf("PostgreSQL refuses to run as root, and there is no user %q to run it as: %w (useradd --system %s, or name another user)", wanted, err, wanted)
	}
	a := account{name: wanted, drop: true}
	if a.uid, err = strconv.Atoi(u.Uid); err == nil {
		a.gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil || a.uid == 0 {
		return account{}, errors.Join(fmt.Errorf("PostgreSQL cannot run as user %q (uid %s): name an unprivileged user", wanted, u.Uid), err)
	}
	return a, nil
}

// process gives the attributes of a child that runs as the account: in a process
// group of its own, so that Ctrl-C in a terminal reaches only the parent, and with
// a signal at the death of the parent. That signal follows the creating *thread*:
// the caller holds runtime.LockOSThread for the life of the child.
func (a account) process(orphaned syscall.Signal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: orphaned}
	if a.drop {
		attr.Credential = a.credential()
	}
	return attr
}

func (a account) credential() *syscall.Credential {
	return &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)} //nolint:gosec // Both come from the kernel or the user database.
}

// mayEnter says whether the account can reach path from the root of the file
// system, by the mode bits of its parents; one that only an access list opens
// counts as closed, which costs nothing (see layout.entry).
func (a account) mayEnter(path string) (bool, error) {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return false, fmt.Errorf("look at the parents of %s: %w", path, err)
		}
		st := info.Sys().(*syscall.Stat_t)
		bit := fs.FileMode(0o001)
		switch {
		case int(st.Uid) == a.uid:
			bit = 0o100
		case int(st.Gid) == a.gid:
			bit = 0o010
		}
		if info.Mode()&bit == 0 {
			return false, nil
		}
		if dir == filepath.Dir(dir) {
			return true, nil
		}
	}
}

// stat is os.Stat with the account's rights where root's do not suffice: in a
// container, root may not look into the processes of others (CAP_SYS_PTRACE).
func (a account) stat(path string) (os.FileInfo, error) {
	info, err := os.Stat(path)
	if !a.drop || !errors.Is(err, fs.ErrPermission) {
		return info, err
	}
	runtime.LockOSThread() // The identity for file access is the thread's.
	defer runtime.UnlockOSThread()
	defer func() { _, _ = unix.SetfsuidRetUid(0); _, _ = unix.SetfsgidRetGid(0) }()
	_, _ = unix.SetfsgidRetGid(a.gid)
	_, _ = unix.SetfsuidRetUid(a.uid)
	return os.Stat(path)
}

// environment is all that PostgreSQL sees of the parent's: no secrets, no PG…
// variables, messages in English so that their level can be read. What glibc's
// malloc gets is kept for the next commit, whose arrays are as large, up to
// these bounds a connection: a tenth of a commit was spent on clearing pages.
func environment() []string {
	const keep = "33554432"
	return []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "TZ=UTC",
		"MALLOC_MMAP_THRESHOLD_=" + keep, "MALLOC_TRIM_THRESHOLD_=" + keep, "MALLOC_TOP_PAD_=4194304",
	}
}

func owner(path string) (uid, gid int, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, 0, fmt.Errorf("look at the owner: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid), nil
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(uid)
}
