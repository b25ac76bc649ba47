package spoolfaults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/agentd/spool"
)

// cutterEnv makes a program that calls Main the one that mounts a file system
// and cuts its power, in a mount namespace of its own: another process that held
// the mount would keep the dead file system alive.
const cutterEnv = "SPOOLFAULTS_CUTTER"

// Cuts says how many power cuts of one file system to make.
type Cuts struct {
	Dir   string // for the image and the mount
	Cuts  int
	Lives int // cuts of one spool, before all of it is judged
	Seed  uint64
	// WithoutFsync leaves out every flush of a file: the defect that shows
	// whether these cuts find anything.
	WithoutFsync bool
}

// Run makes the cuts in a child process.
func (c *Cuts) Run(ctx context.Context) (*Sweep, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	task, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self) //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), cutterEnv+"="+string(task))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("power cuts: %w: %s", err, complaint.String())
	}
	var s Sweep
	return &s, json.Unmarshal(out.Bytes(), &s)
}

// cutHere is Run's child.
func cutHere(task string) error {
	var c Cuts
	if err := json.Unmarshal([]byte(task), &c); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	var s Sweep
	if err := c.run(context.Background(), &s); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(&s)
}

func (c *Cuts) run(ctx context.Context, into *Sweep) error {
	m := &machine{image: filepath.Join(c.Dir, "image"), mount: filepath.Join(c.Dir, "mount")}
	if err := m.format(ctx); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(c.Seed, 1)) //nolint:gosec // a seed makes it the same again
	for number := 0; into.Faults < c.Cuts; number++ {
		dir := filepath.Join(m.mount, fmt.Sprintf("spool%d", number))
		o := NewOracle()
		for range c.Lives {
			if err := m.cut(ctx, dir, o, 1+random.IntN(150+1350*random.IntN(2)), random.IntN(2) == 0, c.WithoutFsync, into); err != nil {
				return err
			}
		}
		if err := m.start(ctx); err != nil {
			return err
		}
		v, err := judge(ctx, nil, dir, o)
		if err == nil {
			err = os.RemoveAll(dir)
		}
		if err = errors.Join(err, m.stop()); err != nil {
			return err
		}
		into.add(v)
	}
	return nil
}

// machine is an ext4 file system in a file.
type machine struct{ image, mount string }

func (m *machine) format(ctx context.Context) error {
	f, err := os.Create(m.image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(48<<20), f.Close(), os.MkdirAll(m.mount, 0o700)); err != nil {
		return err
	}
	return command(ctx, "mkfs.ext4", "-q", "-F", m.image)
}

func (m *machine) start(ctx context.Context) error {
	return command(ctx, "mount", "-o", "loop", m.image, m.mount)
}

func (m *machine) stop() error {
	if err := unix.Unmount(m.mount, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", m.mount, err)
	}
	return nil
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput() //nolint:gosec // our own words
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// cut lets a life begin and the power go at the n-th call of its spool, which
// may be while it opens.
func (m *machine) cut(ctx context.Context, dir string, o *Oracle, n int, before, withoutFsync bool, into *Sweep) error {
	if err := m.start(ctx); err != nil {
		return err
	}
	fs, err := spool.Directory(dir)
	if err != nil {
		return errors.Join(err, m.stop())
	}
	c := &cutFS{FS: fs, mount: m.mount, oracle: o, left: n, before: before, withoutFsync: withoutFsync}
	if s, err := spool.Open(options(c, dir)); err == nil {
		err = live(ctx, s, 400, o)
		_ = errors.Join(err, s.Close()) // both fail once the power is gone
	}
	o.hush(false)
	if c.fault != nil {
		return errors.Join(c.fault, m.stop())
	}
	if c.at != "" {
		into.Faults++
		into.hit(c.at, 1)
	}
	return m.stop()
}

// cutFS lets the power go at one call.
type cutFS struct {
	spool.FS
	mount        string
	oracle       *Oracle
	before       bool
	withoutFsync bool

	mu    sync.Mutex
	left  int
	at    string // where the power went
	fault error
}

// call makes a call of the spool, and lets the power go before or after it where
// it is the one.
func (c *cutFS) call(name string, f func() error) error {
	c.mu.Lock()
	c.left--
	now := c.left == 0
	c.mu.Unlock()
	if !now {
		return f()
	}
	if c.before {
		c.cutPower(name)
		return f()
	}
	err := f()
	c.cutPower(name)
	return err
}

const (
	ext4Shutdown      = 'X'<<8 | 125 | 2<<30 | 4<<16 // _IOR('X', 125, u32)
	shutdownNoLogSync = 2
)

func (c *cutFS) cutPower(at string) {
	c.oracle.hush(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := os.Open(c.mount)
	if err == nil {
		err = errors.Join(unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, shutdownNoLogSync), f.Close())
	}
	c.at = at
	if err != nil {
		c.fault = fmt.Errorf("cut the power: %w", err)
	}
}

func (c *cutFS) file(name string, open func(string) (spool.File, error)) (f spool.File, err error) {
	err = c.call("open", func() error {
		f, err = open(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &cutFile{File: f, fs: c}, nil
}

func (c *cutFS) Create(name string) (spool.File, error) { return c.file(name, c.FS.Create) }
func (c *cutFS) Edit(name string) (spool.File, error)   { return c.file(name, c.FS.Edit) }

func (c *cutFS) Rename(from, to string) error {
	return c.call("rename", func() error { return c.FS.Rename(from, to) })
}

func (c *cutFS) Remove(name string) error {
	return c.call("unlink", func() error { return c.FS.Remove(name) })
}

func (c *cutFS) SyncDir() error { return c.call("fsync of the directory", c.FS.SyncDir) }

// Lock is not needed, and its file would be one more to wait for.
func (c *cutFS) Lock() (io.Closer, error) { return io.NopCloser(nil), nil }

type cutFile struct {
	spool.File
	fs *cutFS
}

func (f *cutFile) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.fs.call("write", func() error {
		n, err = f.File.WriteAt(b, at)
		return err
	})
	return n, err
}

func (f *cutFile) Sync() error {
	return f.fs.call("fsync", func() error {
		if f.fs.withoutFsync {
			return nil
		}
		return f.File.Sync()
	})
}
