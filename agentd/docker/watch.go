package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// watcher opens log files the moment they are created and says when a log that
// was read to its end has grown. It uses two inotify instances. One watches the
// directory of directories and each directory; its goroutine does nothing that
// can wait. The other watches each log that is idle: such a watch fires once and
// is set again by the reader, so that a storm of lines costs no storm of events.
// While the reader works in rounds it looks at that instance itself, once a
// round, so that a thousand logs with a line now and then cost fifty wake-ups a
// second and not a thousand.
//
// Where the kernel grants no watches (fs.inotify.max_user_watches), the same
// looks are taken every 250 ms instead.
type watcher struct {
	log   hclog.Logger
	f     *os.File // the instance of directories; nil: none was granted
	idle  *os.File // the instance of idle logs
	found func(dir, name string)
	gone  func(dir, name string) // a directory; nil: nobody asks
	wake  func(*sandbox)
	quiet chan struct{} // one slot: the reader waits to be woken
	woken []byte        // the reader's own, for events of idle

	mu      sync.Mutex
	dirs    map[int32]*watchedDir
	byPath  map[string]*watchedDir
	logs    map[int32]idleLog
	refused bool // a watch was refused, and the log says so
	starved bool // a file could not be opened for want of descriptors, and the log says so
	closed  bool
}

// watchedDir is a directory in which logs, or directories of logs, appear.
type watchedDir struct {
	path   string
	wd     int32
	polled bool                // no watch was granted
	logs   map[string]*sandbox // by the log's base name
}

// idleLog is a log that wakes its sandbox at the next line.
type idleLog struct {
	s *sandbox
	f *logFile
}

// dirMask asks for creations. The kernel makes one event of two equal ones in a
// row, and then a file that came and went could not be counted: the events of
// its going part them.
const dirMask = unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_ONLYDIR

// inotifyBytes is room for some hundred events at once.
const inotifyBytes = 64 << 10

// newWatcher makes a watcher. found is called with every name that appears in
// a watched directory and belongs to no sandbox yet; wake with every sandbox
// that has something to read.
func newWatcher(log hclog.Logger, found func(dir, name string), wake func(*sandbox)) *watcher {
	w := &watcher{
		log: log, found: found, wake: wake, quiet: make(chan struct{}, 1),
		dirs: map[int32]*watchedDir{}, byPath: map[string]*watchedDir{}, logs: map[int32]idleLog{},
	}
	var err error
	if w.f, err = newInotify(); err == nil {
		if w.idle, err = newInotify(); err != nil {
			w.f.Close()
			w.f = nil
		}
	}
	if err != nil {
		w.refuse(err)
	}
	return w
}

func newInotify() (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// refuse says once that the kernel grants no more watches.
func (w *watcher) refuse(err error) {
	if !w.refused {
		w.refused = true
		w.log.Warn("the kernel refuses to watch files; they are looked at every 250 ms instead. "+
			"Raise fs.inotify.max_user_watches and max_user_instances", "error", err)
	}
}

// starve says once that no more files can be opened. Those that wait for it are
// tried again.
func (w *watcher) starve(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused = true
	if !w.starved {
		w.starved = true
		w.log.Error("log files cannot be opened and may be lost when they rotate; they are tried again every 250 ms", "error", err)
	}
}

// add calls inotify_add_watch. The caller holds mu.
func (w *watcher) add(to *os.File, path string, mask uint32) (int32, error) {
	if to == nil || w.closed {
		return 0, unix.ENOSPC
	}
	var wd int
	var addErr error
	// Control keeps the descriptor open while it is used.
	conn, err := to.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { wd, addErr = unix.InotifyAddWatch(int(fd), path, mask) })
	}
	if err = errors.Join(err, addErr); err != nil {
		return 0, &os.PathError{Op: "watch", Path: path, Err: err}
	}
	return int32(wd), nil //nolint:gosec // the kernel counts watches in 32 bits
}

// dir begins to watch a directory; a second call changes nothing. What is in it
// already is not told.
func (w *watcher) dir(path string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.dirLocked(path)
	return err
}

func (w *watcher) dirLocked(path string) (*watchedDir, error) {
	if d := w.byPath[path]; d != nil {
		return d, nil
	}
	d := &watchedDir{path: path, logs: map[string]*sandbox{}}
	wd, err := w.add(w.f, path, dirMask)
	switch {
	case err == nil:
		d.wd = wd
		w.dirs[wd] = d
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM):
		d.polled = true
		w.refuse(err)
	default:
		return nil, err
	}
	w.byPath[path] = d
	return d, nil
}

// follow pins the files of a sandbox's log now and whenever a new one is created.
func (w *watcher) follow(s *sandbox) error {
	w.mu.Lock()
	d, err := w.dirLocked(s.tail.home)
	fresh := err == nil && d.logs[s.tail.layouts[0].base] != s
	if fresh {
		for i := range s.tail.layouts {
			d.logs[s.tail.layouts[i].below(s.tail.home)] = s
		}
	}
	w.mu.Unlock()
	if err != nil {
		return err
	}
	w.below(s)
	if _, err = s.tail.pin(); noDescriptors(err) {
		w.starve(err)
	}
	if fresh {
		s.tail.watched()
	}
	w.pinConfig(s)
	w.wake(s)
	return err
}

// below watches the directories below a sandbox's own in which its log may be,
// as soon as they are there.
func (w *watcher) below(s *sandbox) {
	for i := range s.tail.layouts {
		l := &s.tail.layouts[i]
		if l.dir == s.tail.home {
			continue
		}
		w.mu.Lock()
		if d, err := w.dirLocked(l.dir); err == nil {
			d.logs[l.base] = s
		}
		w.mu.Unlock()
	}
}

// pinConfig holds the engine's note of a container until it is identified.
func (w *watcher) pinConfig(s *sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.target != nil || s.config != nil {
		return
	}
	if f, err := os.Open(filepath.Join(s.tail.home, configFile)); err == nil {
		s.config = f
	}
}

// disarm takes back arm.
func (w *watcher) disarm(s *sandbox) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disarmLocked(s)
	for i := range s.tail.layouts {
		l := &s.tail.layouts[i]
		w.forgetLog(s, s.tail.home, l.below(s.tail.home))
		w.forgetLog(s, l.dir, l.base)
	}
}

// forgetLog ends the watch for a sandbox's log in a directory, and the watch of
// the directory where it is for that sandbox alone.
func (w *watcher) forgetLog(s *sandbox, dir, name string) {
	d := w.byPath[dir]
	if d == nil || d.logs[name] != s {
		return
	}
	delete(d.logs, name)
	if len(d.logs) == 0 && (dir != s.tail.home || filepath.Base(dir) == s.id) {
		w.removeLocked(w.f, d.wd)
		w.forgetDir(d)
	}
}

func (w *watcher) disarmLocked(s *sandbox) {
	if f := s.armed; f != nil && f.watch != 0 {
		w.removeLocked(w.idle, f.watch)
		delete(w.logs, f.watch)
		f.watch = 0
	}
	s.armed = nil
}

// removeLocked ends a watch, if the kernel has not done so itself.
func (w *watcher) removeLocked(from *os.File, wd int32) {
	if from == nil || w.closed || wd == 0 {
		return
	}
	if conn, err := from.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) }) //nolint:gosec // a watch is never negative
	}
}

func (w *watcher) forgetDir(d *watchedDir) {
	delete(w.dirs, d.wd)
	delete(w.byPath, d.path)
}

// run tells of events until ctx ends.
func (w *watcher) run(ctx context.Context) error {
	if w.f == nil {
		<-ctx.Done()
		return nil
	}
	stop := context.AfterFunc(ctx, w.close)
	defer stop()
	var waking sync.WaitGroup
	defer waking.Wait()
	defer w.close()
	waking.Go(func() { w.runIdle(ctx) })
	buf := make([]byte, inotifyBytes)
	created := map[*sandbox]bool{}
	for {
		n, err := w.f.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read file events: %w", err)
		}
		w.take(buf[:n], created)
		// A read that left room has emptied the kernel's queue, so every file
		// created until then has been looked for.
		if n < len(buf)/2 {
			for s := range created {
				if s.tail.settle() {
					w.wake(s)
				}
			}
			clear(created)
		}
	}
}

// close ends run.
func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f != nil && !w.closed {
		w.closed = true
		w.f.Close()
		w.idle.Close()
	}
}

// fileEvent is one event of inotify.
type fileEvent struct {
	wd   int32
	mask uint32
	name string
}

// fileEvents are the events of one read.
func fileEvents(buf []byte) iter.Seq[fileEvent] {
	return func(yield func(fileEvent) bool) {
		for len(buf) >= unix.SizeofInotifyEvent {
			wd := int32(binary.NativeEndian.Uint32(buf[0:])) //nolint:gosec // the kernel wrote an int32 there
			mask := binary.NativeEndian.Uint32(buf[4:])
			size := int(binary.NativeEndian.Uint32(buf[12:]))
			buf = buf[unix.SizeofInotifyEvent:]
			if size > len(buf) {
				return
			}
			name := string(bytes.TrimRight(buf[:size], "\x00"))
			buf = buf[size:]
			if !yield(fileEvent{wd: wd, mask: mask, name: name}) {
				return
			}
		}
	}
}

// take handles events of directories.
func (w *watcher) take(buf []byte, created map[*sandbox]bool) {
	for e := range fileEvents(buf) {
		switch {
		case e.mask&unix.IN_Q_OVERFLOW != 0:
			w.log.Warn("more happened to files than the kernel keeps; looking at all of them")
			w.lookAtAll()
		case e.mask&unix.IN_IGNORED != 0:
			w.ended(e.wd)
		case e.mask&unix.IN_CREATE != 0:
			w.createdName(e.wd, e.name, created)
		case e.mask&unix.IN_ISDIR != 0:
			w.goneName(e.wd, e.name)
		}
	}
}

// ended forgets the watch of a directory that is gone.
func (w *watcher) ended(wd int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := w.dirs[wd]; d != nil {
		w.forgetDir(d)
	}
}

// goneName is told of a directory that was removed or moved away.
func (w *watcher) goneName(wd int32, name string) {
	w.mu.Lock()
	path := ""
	if d := w.dirs[wd]; d != nil {
		path = d.path
	}
	w.mu.Unlock()
	if path != "" && w.gone != nil {
		w.gone(path, name)
	}
}

func (w *watcher) createdName(wd int32, name string, created map[*sandbox]bool) {
	w.mu.Lock()
	d := w.dirs[wd]
	var s *sandbox
	path := ""
	if d != nil {
		s, path = d.logs[name], d.path
	}
	w.mu.Unlock()
	switch {
	case d == nil:
	case s == nil:
		w.found(path, name)
	case s.tail.wasCreated(path, name):
		created[s] = true
		w.pinLog(s)
	default:
		w.below(s)
		w.pinLog(s)
	}
}

// pinLog pins what is new of a log.
func (w *watcher) pinLog(s *sandbox) {
	fresh, err := s.tail.pin()
	switch {
	case noDescriptors(err):
		w.starve(err)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		w.log.Warn("a log file cannot be opened", "container", s.id, "error", err)
	}
	if fresh {
		w.pinConfig(s)
		w.wake(s)
	}
}

// poll looks where the kernel does not tell.
func (w *watcher) poll() {
	if w.refusedAny() {
		w.look(func(d *watchedDir) bool { return d.polled })
	}
}

func (w *watcher) refusedAny() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused
}

// lookAtAll looks everywhere.
func (w *watcher) lookAtAll() { w.look(func(*watchedDir) bool { return true }) }

// look finds new names and new files in the directories chosen, and wakes
// every sandbox in them, and every one whose log does not wake it.
func (w *watcher) look(chosen func(*watchedDir) bool) {
	w.mu.Lock()
	var dirs []*watchedDir
	logs := map[*sandbox]bool{} // each once, by whatever name
	for _, d := range w.byPath {
		if chosen(d) {
			dirs = append(dirs, d)
		}
		for _, s := range d.logs {
			if chosen(d) || s.armed == nil || s.armed.watch == 0 {
				logs[s] = true
			}
		}
	}
	w.mu.Unlock()
	for _, d := range dirs {
		entries, err := os.ReadDir(d.path)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				w.mu.Lock()
				w.forgetDir(d)
				w.mu.Unlock()
			}
			continue
		}
		for _, e := range entries {
			w.found(d.path, e.Name())
		}
	}
	for s := range logs {
		w.pinLog(s)
		w.wake(s)
	}
}
