package docker

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

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
	f      *os.File
	id     fileID
	format format
	zip    *inflater // nil: it is not compressed
	seq    int       // place in the chain of rotated files, growing
	watch  int32     // of the wake-up for new lines; 0: none
	lost   lost      // what was given up before it
	budget *budget   // which it counts against; nil: none

	mu    sync.Mutex
	print string // hash of the first record; empty until there is one
}

// openLog opens a file for reading without waiting for anybody and without
// taking a lock. It refuses what is not a regular file.
func openLog(path string, how format, zipped bool) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	l, err := newLogFile(f, how, zipped)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func newLogFile(f *os.File, how format, zipped bool) (*logFile, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", f.Name())
	}
	l := &logFile{f: f, format: how, id: fileID{device: uint64(st.Dev), inode: st.Ino}} //nolint:unconvert // Dev is 32 bits wide on some platforms
	if zipped {
		l.zip = &inflater{f: f}
	}
	return l, nil
}

// stat returns the file's size, and whether no directory names it any more.
func (l *logFile) stat() (size int64, deleted bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(l.f.Fd()), &st); err != nil {
		return 0, false, fmt.Errorf("stat %s: %w", l.f.Name(), err)
	}
	return st.Size, st.Nlink == 0, nil
}

// size is not that of the plain text, which nobody knows of a compressed file.
func (l *logFile) size() (int64, error) {
	size, _, err := l.stat()
	return size, err
}

// readAt reads the plain text. Only one goroutine may read a file.
func (l *logFile) readAt(buf []byte, off int64) (int, error) {
	if l.zip != nil {
		return l.zip.readAt(buf, off)
	}
	return l.f.ReadAt(buf, off)
}

// available is readAt without the second call with which io.ReaderAt makes sure
// of the end: a log is looked at again anyway. It returns 0 at the end.
func (l *logFile) available(buf []byte, off int64) (int, error) {
	if l.zip != nil {
		return l.zip.readAt(buf, off)
	}
	for {
		n, err := unix.Pread(int(l.f.Fd()), buf, off)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// fingerprint returns the hash of the file's first record, or nothing while
// there is none. The record holds its time in nanoseconds, so that only the
// pieces of one long line can be alike; among equals the inode decides.
func (l *logFile) fingerprint() (string, error) {
	first := l.known()
	if first != "" {
		return first, nil
	}
	if l.zip != nil {
		defer l.zip.close()
	}
	for _, size := range []int{1 << 10, printBytes} { // most records are short
		buf := make([]byte, size)
		n, err := l.readAt(buf, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			if l.zip != nil {
				return "", nil // broken: the reader tells when it comes to it
			}
			return "", fmt.Errorf("read %s: %w", l.f.Name(), err)
		}
		if first = fingerprintOf(l.format, buf[:n]); first != "" {
			l.is(first)
			break
		}
	}
	return first, nil
}

// known is the fingerprint as far as it was looked for.
func (l *logFile) known() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.print
}

// is notes the fingerprint.
func (l *logFile) is(first string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.print = first
}

// fingerprintOf is fingerprint of a file that begins with head.
func fingerprintOf(how format, head []byte) string {
	head = head[:min(len(head), printBytes)]
	end := -1
	switch how {
	case jsonLines:
		end = bytes.IndexByte(head, '\n')
	case localFrames:
		_, size, state := cutFrame(head)
		if state == frameBroken {
			size = beforeBytes // whatever it is
		}
		if size > 0 && size <= len(head) {
			end = size
		}
	}
	if end >= 0 {
		head = head[:end]
	} else if len(head) < printBytes {
		return ""
	}
	return hashOf(head)
}

// before returns the bytes before an offset, at most beforeBytes.
func (l *logFile) before(offset int64) ([]byte, error) {
	n := min(offset, beforeBytes)
	buf := make([]byte, n)
	if m, err := l.readAt(buf, offset-n); err != nil && m < len(buf) {
		return nil, fmt.Errorf("read %s: %w", l.f.Name(), err)
	}
	return buf, nil
}

// close lets go of the file. Nothing was written to it.
func (l *logFile) close() {
	_ = l.f.Close()
	l.budget.give()
}

func hashOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}
