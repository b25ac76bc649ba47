package docker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/agentd/source"
)

// Keeper keeps open files by name for the next source of the same kind, in this
// process or in the next one: a log that was deleted while it was read, and the
// logs of containers that may end before the next source is there.
type Keeper interface {
	// Put takes over an open file.
	Put(name string, f *os.File)
	// Take removes and returns the files whose names begin with prefix.
	Take(prefix string) map[string]*os.File
}

// finishWithin is how long a stopping source goes on to hand over what it has
// read, and to read what is deleted.
const finishWithin = 3 * time.Second

// noteWithin is how long it may take after that to note what was not read.
const noteWithin = time.Second

// kept are the files that an earlier source has left, by log.
//
//	<source>.<log>.<layout>.<number>
type kept struct {
	keeper Keeper // nil: there is none
	source string
	files  map[string][]keptFile // by log, oldest first
}

type keptFile struct {
	f      *os.File
	layout int
	number int
}

// newKept takes over what an earlier source of that name has left.
func newKept(keeper Keeper, name string) *kept {
	k := &kept{keeper: keeper, source: name, files: map[string][]keptFile{}}
	if keeper == nil {
		return k
	}
	taken := keeper.Take(name + ".")
	for _, name := range slices.Sorted(maps.Keys(taken)) {
		f := taken[name]
		parts := strings.Split(name, ".")
		if len(parts) != 4 {
			f.Close()
			continue
		}
		layout, err1 := strconv.Atoi(parts[2])
		number, err2 := strconv.Atoi(parts[3])
		if err1 != nil || err2 != nil || layout < 0 {
			f.Close()
			continue
		}
		k.files[parts[1]] = append(k.files[parts[1]], keptFile{f: f, layout: layout, number: number})
	}
	for _, files := range k.files {
		slices.SortFunc(files, func(a, b keptFile) int { return cmp.Compare(a.number, b.number) })
	}
	return k
}

// logName is a log's name in a descriptor's: a container's id as it is, a path
// by its hash.
func logName(id string) string {
	if isContainerID(id) {
		return id
	}
	h := sha256.Sum256([]byte(id))
	return hex.EncodeToString(h[:])
}

// restore gives a new tail the files that an earlier one held. They are older than
// whatever it pins.
func (k *kept) restore(id string, t *tail) *tail {
	name := logName(id)
	for _, old := range k.files[name] {
		if old.layout >= len(t.layouts) {
			old.f.Close()
			continue
		}
		at := &t.layouts[old.layout]
		f, err := reopened(old.f, at)
		if err != nil || t.at != nil && t.at != at {
			old.f.Close()
			continue
		}
		t.at = at
		t.seq++
		f.seq, f.budget = t.seq, t.budget
		if t.budget != nil {
			t.budget.used.Add(1)
		}
		t.files = append(t.files, f)
	}
	delete(k.files, name)
	return t
}

// reopened gives an inherited file the name that it has, or had.
func reopened(f *os.File, at *layout) (*logFile, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("inherited log: %w", err)
	}
	again := os.NewFile(uintptr(fd), filepath.Join(at.dir, at.base))
	l, err := newLogFile(again, at.format, false)
	if err != nil {
		return nil, errors.Join(err, again.Close())
	}
	f.Close()
	return l, nil
}

// keep leaves the files of logs to the next source: first those that only we
// hold, and then those that are being written.
func (k *kept) keep(all []*sandbox) {
	for _, files := range k.files {
		for _, old := range files {
			old.f.Close() // nobody asked for its log
		}
	}
	clear(k.files)
	if k.keeper == nil {
		return
	}
	for _, last := range []bool{false, true} {
		for _, s := range all {
			s.tail.leave(last, func(f *logFile, layout, number int) {
				k.keeper.Put(fmt.Sprintf("%s.%s.%d.%d", k.source, logName(s.id), layout, number), f.f)
			})
		}
	}
}

// leave takes files out of the tail: all but the last, or the last. Compressed
// ones stay, for they have names.
func (t *tail) leave(last bool, put func(f *logFile, layout, number int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at == nil || t.closed {
		return
	}
	layout := 0
	for i := range t.layouts {
		if t.at == &t.layouts[i] {
			layout = i
		}
	}
	t.files = slices.DeleteFunc(t.files, func(f *logFile) bool {
		if f.zip != nil || (f.seq == t.seq) != last {
			return false
		}
		put(f, layout, f.seq)
		f.budget.give()
		return true
	})
}

// unread is how many bytes of deleted files were not read yet: nobody can read
// them once they are closed.
func (t *tail) unread() (sum int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, f := range t.files {
		size, deleted, err := f.stat()
		if err != nil || !deleted {
			continue
		}
		if i == 0 {
			size -= t.off
		}
		sum += max(size, 0)
	}
	return sum
}

// finish reads, before the source ends, what nobody can read after it, for as long
// as ctx lets it. The positions of logs of which something is left say how much.
func (r *reader) finish(ctx context.Context) {
	all := slices.DeleteFunc(r.all.all(), func(s *sandbox) bool { return s.torn || !s.known() })
	for _, s := range all {
		for ctx.Err() == nil && s.tail.unread() > 0 {
			progress, more, err := r.step(ctx, s)
			if err != nil || !progress && !more {
				break
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteWithin)
	defer cancel()
	for _, s := range all {
		if s.torn {
			continue
		}
		if p := s.tail.leftAt(); p != nil {
			if r.sink.Emit(ctx, &source.Batch{Positions: source.Positions{s.key: p.note()}}) != nil {
				return // the next source finds the files missing all the same
			}
		}
	}
}

// leftAt is the position to leave behind where it differs from the one that went
// with the last lines: at the beginning of the next file, whose one before may be
// gone, and with a size that counts what is deleted and not read.
func (t *tail) leftAt() *logPosition {
	left := t.unread()
	if f, done := t.current(); done && f.zip == nil {
		if size, err := f.size(); err == nil && t.off == size {
			t.letGo(f) // read to its end, without having looked for more
		}
	}
	t.mu.Lock()
	f := t.last.file
	moved := f != nil && len(t.files) > 0 && t.files[0] != f && t.off == 0 && t.replay == nil &&
		t.joiners[1].note() == nil && t.joiners[2].note() == nil
	if moved {
		if first, err := t.files[0].fingerprint(); err != nil || first == "" {
			moved = false
		} else {
			t.last, t.size = place{file: t.files[0]}, 0
		}
	}
	t.mu.Unlock()
	if !moved && left == 0 {
		return nil
	}
	p := t.position()
	if p != nil && left > 0 {
		q := *p
		q.Size = max(q.Size, q.Offset+left)
		p = &q
	}
	return p
}
