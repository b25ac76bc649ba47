package docker

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Sizes of what is hashed to know a file, and a place in it, again.
const (
	printBytes  = blockBytes // of a file's first record
	beforeBytes = 256        // before an offset
)

// fileID tells open files apart. It means nothing for a closed file: its inode
// is used again at once.
type fileID struct{ device, inode uint64 }

// logFile is one file of a log, open until it has been read to its end.
type logFile struct {
	f     *os.File
	id    fileID
	seq   int    // place in the chain of rotated files, growing
	print string // hash of the first record; empty until there is one
	watch int32  // of the wake-up for new lines; 0: none
}

// openLog opens a file for reading without waiting for anybody and without
// taking a lock. It refuses what is not a regular file.
func openLog(path string) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(fmt.Errorf("stat %s: %w", path, err), f.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.Join(fmt.Errorf("%s is not a regular file", path), f.Close())
	}
	return &logFile{f: f, id: fileID{device: uint64(st.Dev), inode: st.Ino}}, nil //nolint:unconvert // Dev is 32 bits wide on some platforms
}

func (l *logFile) size() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(l.f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", l.f.Name(), err)
	}
	return st.Size, nil
}

// fingerprint returns the hash of the file's first record, or nothing while
// there is none. The record ends with its time in nanoseconds, so that only the
// pieces of one long line can be alike; among equals the inode decides.
func (l *logFile) fingerprint() (string, error) {
	if l.print != "" {
		return l.print, nil
	}
	for _, size := range []int{1 << 10, printBytes} { // most records are short
		buf := make([]byte, size)
		n, err := l.f.ReadAt(buf, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read %s: %w", l.f.Name(), err)
		}
		if l.print = fingerprintOf(buf[:n]); l.print != "" {
			break
		}
	}
	return l.print, nil
}

// fingerprintOf is fingerprint of a file that begins with head.
func fingerprintOf(head []byte) string {
	head = head[:min(len(head), printBytes)]
	if i := bytes.IndexByte(head, '\n'); i >= 0 {
		head = head[:i]
	} else if len(head) < printBytes {
		return ""
	}
	return hashOf(head)
}

// before returns the bytes before an offset, at most beforeBytes.
func (l *logFile) before(offset int64) ([]byte, error) {
	n := min(offset, beforeBytes)
	buf := make([]byte, n)
	if _, err := l.f.ReadAt(buf, offset-n); err != nil {
		return nil, fmt.Errorf("read %s: %w", l.f.Name(), err)
	}
	return buf, nil
}

func (l *logFile) close() { _ = l.f.Close() } // nothing was written

func hashOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}
