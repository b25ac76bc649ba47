package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// FS is all that a spool asks of a file system: one directory. Tests put one
// under it that loses power, fills up and fails.
type FS interface {
	// Create makes a file, or empties the one that is there.
	Create(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// Edit opens a file for writing as it is, and makes it where it is missing.
	Edit(name string) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	List() ([]string, error)
	// SyncDir makes earlier creations, renames and removals durable.
	SyncDir() error
	// Space says how many bytes may still be written, of how many there are.
	Space() (free, total int64, err error)
	// Lock keeps other processes out until it is closed.
	Lock() (io.Closer, error)
	Close() error
}

// File is one file of an FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Size() (int64, error)
}

const (
	dirMode  = 0o700
	fileMode = 0o600
	lockName = "lock"
)

// directory is the FS that a node uses. os.Root keeps every name inside it.
type directory struct {
	root *os.Root
	path string
}

// Directory is the FS of a directory on disk, for a test that stands in between.
func Directory(path string) (FS, error) {
	d, err := openDirectory(path)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// openDirectory makes the directory where it is missing, durably.
func openDirectory(path string) (*directory, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(path, dirMode); err != nil {
			return nil, fmt.Errorf("make the spool's directory: %w", err)
		}
		if err := syncDirectory(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the spool's directory: %w", err)
	}
	return &directory{root: root, path: path}, nil
}

func syncDirectory(path string) error {
	d, err := os.Open(path) //nolint:gosec // the directory that the operator configured
	if err != nil {
		return fmt.Errorf("open directory to flush it: %w", err)
	}
	return closing(d, d.Sync())
}

// closing closes c and joins its error to err.
func closing(c io.Closer, err error) error { return errors.Join(err, c.Close()) }

func (d *directory) Create(name string) (File, error) {
	return asFile(d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode))
}

func (d *directory) Open(name string) (File, error) { return asFile(d.root.Open(name)) }

func (d *directory) Edit(name string) (File, error) {
	return asFile(d.root.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode))
}

func asFile(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d *directory) Rename(from, to string) error { return d.root.Rename(from, to) }
func (d *directory) Remove(name string) error     { return d.root.Remove(name) }
func (d *directory) Close() error                 { return d.root.Close() }

func (d *directory) List() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, closing(f, err)
}

func (d *directory) SyncDir() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return closing(f, f.Sync())
}

// Space asks for what a process without privileges may use.
func (d *directory) Space() (free, total int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.path, &st); err != nil {
		return 0, 0, fmt.Errorf("ask for the space left in %s: %w", d.path, err)
	}
	block := int64(st.Bsize)                                       //nolint:unconvert // another type on other systems
	return int64(st.Bavail) * block, int64(st.Blocks) * block, nil //nolint:gosec // far below 2^63
}

// Lock takes the flock; the file's content names its holder for a person. The
// kernel drops the lock with the process, however it ends.
func (d *directory) Lock() (io.Closer, error) {
	f, err := d.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("open the spool's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0) // a hint for the message; an unreadable one is no other failure
		err = closing(f, err)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is held by process %s; stop it, or give this one another state directory: %w",
				ErrLocked, d.path, pidIn(holder[:n]), err)
		}
		return nil, fmt.Errorf("lock %s: %w", d.path, err)
	}
	// Only a hint for the next one's message: a full disk must not keep a spool
	// from opening.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return f, nil
}

func pidIn(b []byte) string {
	word := strings.TrimSpace(string(b))
	if _, err := strconv.Atoi(word); err != nil {
		return "(unknown)"
	}
	return word
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
