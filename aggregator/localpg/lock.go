package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another process owns the directory.
var ErrInUse = errors.New("the directory of the private PostgreSQL is in use")

// dirLock is the right to run a server in a directory. It is a lock of the open
// file description, so the kernel gives it back whatever way the owner ends, and
// looking at it takes nothing from anybody.
type dirLock struct{ file *os.File }

func lockDir(ctx context.Context, dir string) (*dirLock, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the private PostgreSQL: %w (run this as root or as the owner of %s)", err, dir)
	}
	if err = acquire(ctx, f); err == nil {
		err = giveToOwnerOf(dir, f)
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &dirLock{file: f}, nil
}

// acquire takes the lock, or names its owner. A process that has just been killed
// while it started a child lends the lock to this child until its exec: an owner
// that is dead is given a second to let go.
func acquire(ctx context.Context, f *os.File) error {
	for begun := time.Now(); ; {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return err
		}
		pid, _ := readLock(f)
		alive := pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
		if alive || time.Since(begun) > time.Second || !pause(ctx, 10*time.Millisecond) {
			return fmt.Errorf("%w: another aggregator (pid %d) uses it; stop it or choose another directory", ErrInUse, pid)
		}
	}
}

// giveToOwnerOf lets the owner of dir open a file that root made in it.
func giveToOwnerOf(dir string, f *os.File) error {
	uid, gid, err := owner(dir)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	return f.Chown(uid, gid)
}

// publish tells FindRunning how to connect.
func (l *dirLock) publish(dsn string) error {
	if _, err := l.file.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("publish the DSN: %w", err)
	}
	if _, err := l.file.WriteString(dsn + "\n"); err != nil {
		return fmt.Errorf("publish the DSN in %s: %w", l.file.Name(), err)
	}
	return nil
}

func (l *dirLock) unlock() {
	_ = l.file.Truncate(0) // Only what a held lock says counts; this is for people who look.
	// Not by closing alone: a child between fork and exec has the file open, too.
	_ = unix.FcntlFlock(l.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
	_ = l.file.Close()
}

// readLock reads the owner's pid and DSN; the DSN is empty while it is starting.
func readLock(f *os.File) (pid int, dsn string) {
	data := make([]byte, 4096)
	n, _ := f.ReadAt(data, 0)
	first, rest, _ := strings.Cut(string(data[:n]), "\n")
	pid, _ = strconv.Atoi(first)
	dsn, _, whole := strings.Cut(rest, "\n")
	if !whole {
		dsn = ""
	}
	return pid, dsn
}

// FindRunning gives the DSN of the server that a running process owns in dir; not
// ok means that there is none, that it is still starting, or that this user may
// not look.
func FindRunning(dir string) (dsn string, ok bool) {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return "", false
	}
	defer f.Close()
	state := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &state); err != nil || state.Type == unix.F_UNLCK {
		return "", false
	}
	_, dsn = readLock(f)
	return dsn, dsn != ""
}

// Borrow gives the DSN of the server in o.Dir to a command: that of a running
// aggregator, or else of one that is started for the command and ended by
// giveBack, which must be called in either case.
func Borrow(ctx context.Context, o Options) (dsn string, giveBack func(context.Context) error, err error) {
	for {
		if dsn, ok := FindRunning(o.Dir); ok {
			return dsn, func(context.Context) error { return nil }, nil
		}
		s, err := Start(ctx, o)
		if err == nil {
			return s.DSN(), s.Stop, nil
		}
		// The owner may be starting, or ending: ask again until ctx says otherwise.
		if !errors.Is(err, ErrInUse) || !pause(ctx, 50*time.Millisecond) {
			return "", nil, err
		}
	}
}
