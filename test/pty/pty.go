// Package pty opens terminals for tests of programs that behave differently in
// one.
package pty

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Open returns both sides of a new terminal of a size: who holds the master is
// the person in front of it.
func Open(rows, columns uint16) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	var number int
	err = control(master, func(fd int) error {
		var e error
		number, e = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return errors.Join(e, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0), resize(fd, rows, columns))
	})
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}

// Resize gives the terminal another size, as its window does.
func Resize(master *os.File, rows, columns uint16) error {
	return control(master, func(fd int) error { return resize(fd, rows, columns) })
}

func resize(fd int, rows, columns uint16) error {
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
}

func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = raw.Control(func(fd uintptr) { callErr = call(int(fd)) })
	return errors.Join(err, callErr)
}
