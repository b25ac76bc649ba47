package execclient

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// terminal is our own terminal, while it is raw.
type terminal struct {
	fd  uintptr
	was syscall.Termios
}

type windowSize struct{ rows, columns, width, height uint16 }

func ioctl(fd, request uintptr, to unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(to)); errno != 0 {
		return errno
	}
	return nil
}

// fdOf is a file's descriptor; unlike File.Fd it leaves the file as it is.
func fdOf(f *os.File) (fd uintptr) {
	raw, err := f.SyscallConn()
	if err != nil {
		return ^uintptr(0)
	}
	_ = raw.Control(func(n uintptr) { fd = n }) // a closed file has no descriptor
	return fd
}

func isTerminal(f *os.File) bool {
	var t syscall.Termios
	return ioctl(fdOf(f), syscall.TCGETS, unsafe.Pointer(&t)) == nil //nolint:gosec // an ioctl needs it
}

// inForeground reports whether we have a terminal that sends its signals to
// our process group.
func inForeground() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	var group int32
	err = ioctl(fdOf(f), syscall.TIOCGPGRP, unsafe.Pointer(&group)) //nolint:gosec // an ioctl needs it
	return err == nil && int(group) == syscall.Getpgrp()
}

// openTerminal gives the command a terminal of its own with the settings and
// the size of ours, and makes ours raw: the command's does what ours did.
func (o *outputs) openTerminal() error {
	fd := fdOf(os.Stdout)
	if isTerminal(os.Stdin) {
		fd = fdOf(os.Stdin)
	}
	ours := &terminal{fd: fd}
	if err := ioctl(fd, syscall.TCGETS, unsafe.Pointer(&ours.was)); err != nil { //nolint:gosec // an ioctl needs it
		return err
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	slave, err := openSlave(master, &ours.was)
	if err != nil {
		_ = master.Close()
		return err
	}
	o.master, o.ours = master, ours
	o.from[stdout], o.to[stdout] = master, slave
	o.resize()
	raw := ours.was
	raw.Oflag &^= syscall.OPOST
	if isTerminal(os.Stdin) {
		o.stdin = slave
		raw.Iflag &^= syscall.IGNBRK | syscall.BRKINT | syscall.PARMRK | syscall.ISTRIP | syscall.INLCR | syscall.IGNCR | syscall.ICRNL | syscall.IXON
		raw.Lflag &^= syscall.ECHO | syscall.ECHONL | syscall.ICANON | syscall.ISIG | syscall.IEXTEN
		raw.Cflag = raw.Cflag&^(syscall.CSIZE|syscall.PARENB) | syscall.CS8
		raw.Cc[syscall.VMIN], raw.Cc[syscall.VTIME] = 1, 0
	}
	return ioctl(fd, syscall.TCSETS, unsafe.Pointer(&raw)) //nolint:gosec // an ioctl needs it
}

func openSlave(master *os.File, settings *syscall.Termios) (*os.File, error) {
	var unlocked, number int32
	fd := fdOf(master)
	if err := ioctl(fd, syscall.TIOCSPTLCK, unsafe.Pointer(&unlocked)); err != nil { //nolint:gosec // an ioctl needs it
		return nil, err
	}
	if err := ioctl(fd, syscall.TIOCGPTN, unsafe.Pointer(&number)); err != nil { //nolint:gosec // an ioctl needs it
		return nil, err
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := ioctl(fdOf(slave), syscall.TCSETS, unsafe.Pointer(settings)); err != nil { //nolint:gosec // an ioctl needs it
		_ = slave.Close()
		return nil, err
	}
	return slave, nil
}

// resize gives the command's terminal the size of ours.
func (o *outputs) resize() {
	if o.master == nil {
		return
	}
	var size windowSize
	if ioctl(fdOf(os.Stdout), syscall.TIOCGWINSZ, unsafe.Pointer(&size)) == nil { //nolint:gosec // an ioctl needs it
		_ = ioctl(fdOf(o.master), syscall.TIOCSWINSZ, unsafe.Pointer(&size)) //nolint:gosec // an ioctl needs it
	}
}

// restore gives our terminal back as it was.
func (o *outputs) restore() {
	if o.ours != nil {
		_ = ioctl(o.ours.fd, syscall.TCSETS, unsafe.Pointer(&o.ours.was)) //nolint:gosec // an ioctl needs it
	}
}
