package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
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

	dieAt int   // the power goes at this call; 0: not by itself
	peak  int64 // the most that segment files took, finished or not

	total, others int64 // size of the file system, what others use of it; 0: no bounds
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
	if c.calls == c.dieAt {
		c.dead = true
		return errPower
	}
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

// die lets the power go at the n-th call from now on.
func (c *crashFS) die(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dieAt = c.calls + n
}

// survival is what a power cut leaves of what was not flushed.
type survival int

const (
	keepSome survival = iota // any sectors, any names
	keepNone
	keepAll
	keepTorn // as keepSome, with a sector of each file half written
	survivals
)

// crash turns the power off for who uses the file system now, and returns what
// the next start finds.
func (c *crashFS) crash() *crashFS { return c.cut(keepSome) }

func (c *crashFS) cut(keep survival) *crashFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	next := newCrashFS(c.random.Uint64())
	next.total, next.others = c.total, c.others
	all := maps.Clone(c.names)
	maps.Copy(all, c.durable)
	for _, n := range slices.Sorted(maps.Keys(all)) {
		node := c.durable[n]
		if keep == keepAll || keep != keepNone && c.random.IntN(2) == 0 {
			node = c.names[n]
		}
		if node == nil {
			continue
		}
		switch keep {
		case keepAll:
			node.writeBack(c.random, 1)
		case keepNone:
		case keepTorn:
			node.tear(c.random)
			fallthrough
		default:
			node.writeBack(c.random, 2)
		}
		image := slices.Clone(node.durable)
		next.names[n] = &inode{data: image, durable: slices.Clone(image), dirty: map[int]bool{}}
		next.durable[n] = next.names[n]
	}
	return next
}

// tear makes one dirty sector half of what it was to be, and the rest noise.
// Bytes that did not change stay what they are.
func (n *inode) tear(random *rand.Rand) {
	if len(n.dirty) == 0 {
		return
	}
	dirty := slices.Sorted(maps.Keys(n.dirty))
	s := dirty[random.IntN(len(dirty))]
	for i := s*sector + random.IntN(sector); i < min((s+1)*sector, len(n.data)); i++ {
		if i >= len(n.durable) || n.durable[i] != n.data[i] {
			n.data[i] = byte(random.Uint32())
		}
	}
	n.flush(s)
}

// writeBack makes one in so many dirty sectors durable, in any order.
func (n *inode) writeBack(random *rand.Rand, oneIn int) {
	for _, s := range slices.Sorted(maps.Keys(n.dirty)) {
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

func (c *crashFS) Edit(name string) (File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.names[name]; n != nil {
		return &crashFile{fs: c, node: n}, nil
	}
	if err := c.call(); err != nil {
		return nil, err
	}
	n := &inode{dirty: map[int]bool{}}
	c.names[name] = n
	return &crashFile{fs: c, node: n}, nil
}

// Space says what a test has set, or that there is plenty.
func (c *crashFS) Space() (free, total int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total == 0 {
		return 1 << 40, 1 << 41, nil
	}
	return c.free(), c.total, nil
}

func (c *crashFS) free() int64 {
	used := int64(0)
	for _, n := range c.names {
		used += int64(len(n.data))
	}
	return max(c.total-c.others-used, 0)
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
	return slices.Sorted(maps.Keys(c.names)), nil
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
	if err == nil && f.fs.total > 0 && f.fs.free() < at+int64(len(b))-int64(len(f.node.data)) {
		err = syscall.ENOSPC
	}
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
	f.fs.notePeak()
	for s := int(at) / sector; s*sector < int(at)+len(b); s++ {
		f.node.dirty[s] = true
	}
	return len(b), err
}

// notePeak remembers how large the segment files were at most.
func (c *crashFS) notePeak() {
	sum := int64(0)
	for name, n := range c.names {
		if strings.Contains(name, fileSuffix) {
			sum += int64(len(n.data))
		}
	}
	c.peak = max(c.peak, sum)
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
