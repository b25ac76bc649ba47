package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// crashFS is a directory in memory that can lose power. Each file has a
// volatile and a durable image, each name a volatile and a durable meaning; a
// crash keeps what was flushed and, sector by sector and name by name, a
// random part of the rest. An fsync that fails drops the dirty sectors, as Linux
// does: a later one that succeeds does not bring them back.
type crashFS struct {
	mu      sync.Mutex
	random  *rand.Rand
	names   map[string]*inode
	durable map[string]*inode

	calls    int   // that change something, so far
	failAt   int   // the call that fails; 0: none
	failFor  int   // how many calls from failAt on fail
	failWith error // EIO or ENOSPC
	syncs    int
	dead     bool // power is off: every call fails
}

const sector = 512

type inode struct {
	data, durable []byte
	dirty         map[int]bool // sectors
}

func newCrashFS(seed uint64) *crashFS {
	return &crashFS{random: rand.New(rand.NewPCG(seed, 1)), names: map[string]*inode{}, durable: map[string]*inode{}}
}

var errPower = errors.New("power is off")

// call counts a call that changes something and says whether it fails.
func (c *crashFS) call() error {
	if c.dead {
		return errPower
	}
	c.calls++
	if c.failAt > 0 && c.calls >= c.failAt && c.calls < c.failAt+c.failFor {
		return c.failWith
	}
	return nil
}

// fail makes the n-th call from now on fail, and so many after it.
func (c *crashFS) fail(n, howMany int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failAt, c.failFor, c.failWith = c.calls+n, howMany, err
}

func (c *crashFS) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failAt = 0
}

// failing reports whether calls fail or may come to fail.
func (c *crashFS) failing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failAt > 0
}

// crash turns the power off for who uses the file system now, and returns what
// the next start finds.
func (c *crashFS) crash() *crashFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	next := newCrashFS(c.random.Uint64())
	all := map[string]bool{}
	for n := range c.names {
		all[n] = true
	}
	for n := range c.durable {
		all[n] = true
	}
	sorted := make([]string, 0, len(all))
	for n := range all {
		sorted = append(sorted, n)
	}
	slices.Sort(sorted)
	for _, n := range sorted {
		node := c.durable[n]
		if c.random.IntN(2) == 0 {
			node = c.names[n]
		}
		if node == nil {
			continue
		}
		node.writeBack(c.random, 2)
		image := slices.Clone(node.durable)
		next.names[n] = &inode{data: image, durable: slices.Clone(image), dirty: map[int]bool{}}
		next.durable[n] = next.names[n]
	}
	return next
}

// writeBack makes one in so many dirty sectors durable, in any order.
func (n *inode) writeBack(random *rand.Rand, oneIn int) {
	sectors := make([]int, 0, len(n.dirty))
	for s := range n.dirty {
		sectors = append(sectors, s)
	}
	slices.Sort(sectors)
	for _, s := range sectors {
		if random.IntN(oneIn) == 0 {
			n.flush(s)
		}
	}
}

func (n *inode) flush(s int) {
	end := min((s+1)*sector, len(n.data))
	if s*sector >= end {
		return
	}
	if len(n.durable) < end {
		n.durable = append(n.durable, make([]byte, end-len(n.durable))...)
	}
	copy(n.durable[s*sector:end], n.data[s*sector:end])
	delete(n.dirty, s)
}

func (c *crashFS) Create(name string) (File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.call(); err != nil {
		return nil, err
	}
	n := &inode{dirty: map[int]bool{}}
	c.names[name] = n
	return &crashFile{fs: c, node: n}, nil
}

func (c *crashFS) Open(name string) (File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.names[name]
	if n == nil {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return &crashFile{fs: c, node: n}, nil
}

func (c *crashFS) Rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.call(); err != nil {
		return err
	}
	c.names[to] = c.names[from]
	delete(c.names, from)
	return nil
}

func (c *crashFS) Remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.call(); err != nil {
		return err
	}
	if c.names[name] == nil {
		return fs.ErrNotExist
	}
	delete(c.names, name)
	return nil
}

func (c *crashFS) List() ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for n := range c.names {
		names = append(names, n)
	}
	return names, nil
}

func (c *crashFS) SyncDir() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.call(); err != nil {
		return err
	}
	c.durable = maps.Clone(c.names)
	return nil
}

func (c *crashFS) Lock() (io.Closer, error) { return io.NopCloser(nil), nil }
func (c *crashFS) Close() error             { return nil }

type crashFile struct {
	fs   *crashFS
	node *inode
}

func (f *crashFile) ReadAt(b []byte, at int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if at >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *crashFile) WriteAt(b []byte, at int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.fs.call()
	if err != nil {
		b = b[:f.fs.random.IntN(len(b)+1)] // a short write
	}
	if errors.Is(err, errPower) {
		return 0, err
	}
	if end := at + int64(len(b)); end > int64(len(f.node.data)) {
		f.node.data = append(f.node.data, make([]byte, end-int64(len(f.node.data)))...)
	}
	copy(f.node.data[at:], b)
	for s := int(at) / sector; s*sector < int(at)+len(b); s++ {
		f.node.dirty[s] = true
	}
	return len(b), err
}

func (f *crashFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.call(); err != nil {
		if !errors.Is(err, errPower) {
			f.node.writeBack(f.fs.random, 2)
			f.node.dirty = map[int]bool{}
		}
		return err
	}
	f.fs.syncs++
	f.node.writeBack(f.fs.random, 1)
	return nil
}

func (f *crashFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *crashFile) Close() error { return nil }
