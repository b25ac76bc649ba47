package execclient

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	copyBytes = 64 << 10
	// heldBytes is what is still read when the command has ended and something
	// that it started holds the pipe: all that a pipe can hold. heldQuiet is how
	// long it may be silent then.
	heldBytes = 1 << 20
	heldQuiet = 20 * time.Millisecond
)

// outputs is what the command writes to: pipes, or a terminal of its own.
type outputs struct {
	from   [2]*os.File // our ends; the second is nil where a terminal has both streams
	to     [2]*os.File // the command's
	stdin  *os.File
	master *os.File // of the command's terminal, or nil
	ours   *terminal
}

// newOutputs makes pipes, and a terminal where our stdout is one.
func newOutputs() (*outputs, error) {
	o := &outputs{stdin: os.Stdin}
	if isTerminal(os.Stdout) {
		if err := o.openTerminal(); err == nil {
			if isTerminal(os.Stderr) {
				return o, nil
			}
			o.from[stderr], o.to[stderr], err = os.Pipe()
			return o, err
		}
	}
	for i := range o.from {
		var err error
		if o.from[i], o.to[i], err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *outputs) terminal() bool { return o.master != nil }

// sharesTerminal reports whether the command has our terminal, whose keys
// signal it as they signal us.
func (o *outputs) sharesTerminal() bool { return !o.terminal() && inForeground() }

// files are the command's descriptors.
func (o *outputs) files() []*os.File {
	second := o.to[stderr]
	if second == nil {
		second = o.to[stdout]
	}
	return []*os.File{o.stdin, o.to[stdout], second}
}

// attributes put the command into a session of its own where it has a terminal
// of its own.
func (o *outputs) attributes() *syscall.SysProcAttr {
	if o.terminal() {
		return &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	}
	return nil
}

// started closes the command's ends, which it has its own of.
func (o *outputs) started() {
	for _, f := range o.to {
		if f != nil {
			_ = f.Close()
		}
	}
}

// copy passes on what the command writes. The returned function, called when
// the command has ended, waits for the rest.
func (o *outputs) copy(r *recorder) (finish func()) {
	if o.master != nil && o.stdin != os.Stdin {
		go func() { _, _ = io.Copy(o.master, os.Stdin) }() // ends with the process
	}
	own := [2]*os.File{os.Stdout, os.Stderr}
	var wg sync.WaitGroup
	for i, from := range o.from {
		if from != nil {
			wg.Go(func() { copyStream(from, own[i], func(b []byte) { r.add(i, b) }) })
		}
	}
	return func() {
		for _, from := range o.from {
			if from != nil {
				_ = from.SetReadDeadline(time.Now()) // a read may be waiting for ever
			}
		}
		wg.Wait()
	}
}

// copyStream passes on until the stream ends; once its deadline has passed, it
// passes on what is there. When whoever reads our output leaves, the command
// learns of it as it would without us: its pipe is closed.
func copyStream(from, to *os.File, record func([]byte)) {
	defer func() { _ = from.Close() }()
	buf := make([]byte, copyBytes)
	read := from.Read
	held, left := false, heldBytes
	for left > 0 {
		n, err := read(buf)
		if n > 0 {
			record(buf[:n])
			if _, e := to.Write(buf[:n]); errors.Is(e, syscall.EPIPE) {
				return
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			held, read = true, func(b []byte) (int, error) { return readNow(from, b) }
		case err != nil || n == 0:
			return
		case held:
			left -= n
		}
	}
}

// readNow reads what is there, or what comes within heldQuiet. It asks the
// kernel first and the clock second: however late it runs, what lies in the
// pipe is read.
func readNow(from *os.File, b []byte) (n int, err error) {
	raw, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	for try := range 2 {
		if try > 0 {
			<-time.After(heldQuiet)
		}
		var errno error
		if err := raw.Control(func(fd uintptr) { n, errno = syscall.Read(int(fd), b) }); err != nil {
			return 0, err
		}
		if !errors.Is(errno, syscall.EAGAIN) && !errors.Is(errno, syscall.EINTR) {
			return max(n, 0), errno
		}
	}
	return 0, io.EOF
}
