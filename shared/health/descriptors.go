package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Descriptors keeps open files by name for whoever comes next: a part of this
// process that is started anew, or the next process of this service where systemd
// runs it and its unit has FileDescriptorStoreMax.
//
//	a part ends ──Put──▶ Descriptors ──Take──▶ the part is started anew
//	                       │      ▲
//	              HandOver ▼      │ Inherit, at the next start
//	                    systemd's store
//
// What systemd hands over it forgets at once: a process that is killed takes such
// files with it.
type Descriptors struct {
	mu    sync.Mutex
	names []string // in the order of Put
	files map[string]*os.File
}

// storeDefault is how many descriptors systemd is given where it does not say
// how many it takes (before version 254).
const storeDefault = 1024

// maxName is the longest name that systemd takes.
const maxName = 255

// Inherit returns what an earlier process of this service handed over. An error
// says that some of it could not be taken; the rest is there. The environment
// variables that tell of it are removed, so that no child sees them.
func Inherit(ctx context.Context) (*Descriptors, error) {
	d := &Descriptors{files: map[string]*os.File{}}
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return d, nil
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return d, err
		}
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1<<20 {
		return d, fmt.Errorf("LISTEN_FDS is %.20q, which is no number of descriptors", count)
	}
	named := strings.Split(names, ":")
	var errs []error
	for i := range n {
		const first = 3 // SD_LISTEN_FDS_START
		fd := first + i
		unix.CloseOnExec(fd)
		name := "unknown"
		if i < len(named) {
			name = named[i]
		}
		f := os.NewFile(uintptr(fd), name)
		if f == nil || !d.put(name, f) {
			errs = append(errs, fmt.Errorf("descriptor %d (%.80q) was handed over twice or is none", fd, name))
			if f != nil {
				_ = f.Close() // nothing was written
			}
			continue
		}
		errs = append(errs, Notify(ctx, "FDSTOREREMOVE=1\nFDNAME="+name))
	}
	return d, errors.Join(errs...)
}

// Put takes over an open file. Of those that are handed over, the first ones put
// have the best chance. A file whose name is taken, or is none that systemd
// takes, is closed.
func (d *Descriptors) Put(name string, f *os.File) {
	if !storable(name) || !d.put(name, f) {
		_ = f.Close() // nothing was written
	}
}

func (d *Descriptors) put(name string, f *os.File) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files[name] != nil {
		return false
	}
	if d.files == nil {
		d.files = map[string]*os.File{}
	}
	d.files[name] = f
	d.names = append(d.names, name)
	return true
}

// storable reports whether systemd takes a name.
func storable(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return true
}

// Take removes and returns the files whose names begin with prefix. They are the
// caller's to close.
func (d *Descriptors) Take(prefix string) map[string]*os.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := map[string]*os.File{}
	kept := d.names[:0]
	for _, name := range d.names {
		if strings.HasPrefix(name, prefix) {
			taken[name] = d.files[name]
			delete(d.files, name)
		} else {
			kept = append(kept, name)
		}
	}
	d.names = kept
	return taken
}

// HandOver gives the files to systemd for the next process, as many as it takes,
// and closes all of them. It returns how many it gave; elsewhere it gives none.
func (d *Descriptors) HandOver(ctx context.Context) (given int, err error) {
	d.mu.Lock()
	names, files := d.names, d.files
	d.names, d.files = nil, nil
	d.mu.Unlock()
	defer func() {
		for _, f := range files {
			_ = f.Close() // nothing was written
		}
	}()
	address := notifyAddress()
	if address == "" || len(names) == 0 {
		return 0, nil
	}
	most := storeDefault
	if n, err := strconv.Atoi(os.Getenv("FDSTORE")); err == nil {
		most = n
	}
	conn, err := dialNotify(ctx, address)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetWriteDeadline(deadline); err != nil {
			return 0, err
		}
	}
	for _, name := range names[:min(len(names), max(most, 0))] {
		// FDPOLL=0: systemd cannot wait for events of a regular file.
		state := "FDSTORE=1\nFDPOLL=0\nFDNAME=" + name
		rights := unix.UnixRights(int(files[name].Fd()))
		if err := send(conn, []byte(state), rights); err != nil {
			return given, fmt.Errorf("hand %s over to systemd: %w", name, err)
		}
		given++
	}
	return given, nil
}

// send writes one message with its rights; net's own way takes none on a
// connected socket.
func send(conn *net.UnixConn, state, rights []byte) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendmsg(int(fd), state, rights, nil, 0)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	return errors.Join(err, sendErr)
}

func dialNotify(ctx context.Context, address string) (*net.UnixConn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unixgram", address)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
