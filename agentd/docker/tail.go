package docker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// Bounds of one read.
const (
	blockBytes  = 256 << 10
	recordBytes = 1 << 20 // a record longer than this makes no sense
	blockLines  = 4096
	maxRotated  = 1000 // files of one log
)

// tail reads one log: a chain of files, of which the last is being written.
//
//	dir/base.2   dir/base.1   dir/base          names at the moment
//	   [seq 7]  ─▶  [seq 8]  ─▶ [seq 9]         held open, oldest first
//	      ▲ off
//
// The watcher pins files, the reader alone reads and lets go of them.
type tail struct {
	dir, base string
	tty       atomic.Bool // a terminal: lines end with \r\n

	mu      sync.Mutex
	files   []*logFile // held, oldest first
	seq     int        // of the newest file ever held
	created int        // how often the engine created base since the first pin
	pinned  int        // how many files were pinned
	missed  int        // files that came and went unseen, not yet told
	closed  bool

	// The reader's own.
	off      int64
	joiners  [telemetry.Stderr + 1]joiner
	last     place     // after the last consumed record; file nil: none yet
	lastTime time.Time // of that record
	size     int64     // of last's file, as far as known
	before   []byte    // the last bytes before last
	resumed  *logPosition
	replay   *replay
}

// replay reads again from where the open lines began, only for their sake.
type replay struct {
	until place
	from  [telemetry.Stderr + 1]*place
}

// mark is an end of a log that an event waits for.
type mark struct {
	file *logFile // nil: there was no file
	size int64
}

// block is the memory of one read, shared by all tails of a reader.
type block struct {
	buf  []byte
	scan scanner
	out  lineWriter
	gaps []telemetry.Gap
	read int64 // bytes consumed
}

func (b *block) reset() {
	b.scan.reset()
	b.out.reset()
	b.gaps = b.gaps[:0]
	b.read = 0
	if cap(b.buf) != blockBytes {
		b.buf = make([]byte, blockBytes)
	}
}

func newTail(dir, base string) *tail { return &tail{dir: dir, base: base} }

// pin opens every file of the chain that is newer than the newest one held. It
// reports whether there were any.
func (t *tail) pin() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false, nil
	}
	fresh, err := t.scanChain()
	for _, f := range fresh {
		t.seq++
		f.seq = t.seq
	}
	t.files = append(t.files, fresh...)
	t.pinned += len(fresh)
	return len(fresh) > 0, err
}

// scanChain opens files from the newest name to the oldest until it meets one
// that is held, and returns them oldest first. Renames during the scan move
// files towards older names, so one may be met twice but none is passed over;
// only a name that vanished meanwhile makes it look again.
func (t *tail) scanChain() ([]*logFile, error) {
	var fresh []*logFile // newest first
	for range 3 {
		names, err := t.chainNames()
		if err != nil {
			return nil, err
		}
		var seen []*logFile
		met, hole := false, false
		for _, name := range names {
			f, err := openLog(filepath.Join(t.dir, name))
			if errors.Is(err, os.ErrNotExist) {
				hole = true
				continue
			}
			if err != nil {
				if len(fresh)+len(seen) > 0 {
					break // what is open is worth more than what is not
				}
				return nil, err
			}
			same := func(o *logFile) bool { return o.id == f.id }
			if i := slices.IndexFunc(fresh, same); i >= 0 {
				f.close()
				f = fresh[i]
			} else if slices.ContainsFunc(seen, same) {
				f.close()
				continue
			} else if slices.ContainsFunc(t.files, same) {
				f.close()
				met = true
				break
			}
			seen = append(seen, f)
		}
		for _, f := range fresh {
			if !slices.Contains(seen, f) {
				seen = append(seen, f) // rotated away since, and held
			}
		}
		if fresh = seen; met || !hole {
			break
		}
	}
	slices.Reverse(fresh)
	return fresh, nil
}

// chainNames lists base, base.1, base.2 … as far as they exist.
func (t *tail) chainNames() ([]string, error) {
	d, err := os.Open(t.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	all, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, name := range all {
		if name == t.base {
			numbers = append(numbers, 0)
		} else if rest, ok := strings.CutPrefix(name, t.base+"."); ok {
			if n, err := strconv.Atoi(rest); err == nil && n > 0 && n < maxRotated {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	names := make([]string, len(numbers))
	for i, n := range numbers {
		names[i] = t.base
		if n > 0 {
			names[i] += "." + strconv.Itoa(n)
		}
	}
	return names, nil
}

// wasCreated counts a file that the engine created under the base name.
func (t *tail) wasCreated() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.created++
}

// watched says that creations are counted from now on. At most one of the files
// pinned until now was created since the watch began.
func (t *tail) watched() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.created, t.pinned = 0, min(t.pinned, 1)
}

// settle compares the files created with the files pinned, when no creation is
// waiting to be looked at: each must have given one file.
func (t *tail) settle() (missed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.created - t.pinned
	if n <= 0 {
		return false
	}
	t.missed += n
	t.pinned += n
	return true
}

// end marks where the log ends now.
func (t *tail) end() *mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.files) == 0 {
		return &mark{}
	}
	f := t.files[len(t.files)-1]
	size, err := f.size()
	if err != nil {
		return &mark{}
	}
	return &mark{file: f, size: size}
}

// current returns the file to read, and whether a newer one is held: then
// nothing more is written to the current one.
func (t *tail) current() (f *logFile, newer bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.files) == 0 {
		return nil, false
	}
	return t.files[0], len(t.files) > 1
}

// next consumes up to one block of records into b, not beyond the mark. It
// reports whether more may be there at once.
func (t *tail) next(b *block, limit *mark) (more bool, err error) {
	t.tellMissed(b)
	for {
		f, newer := t.current()
		if f == nil {
			return false, nil
		}
		buf := b.buf
		if limit != nil && limit.file == f && limit.size > t.off {
			buf = buf[:min(int64(len(buf)), limit.size-t.off)]
		} else if limit != nil && limit.file == f {
			return false, nil
		}
		n, err := f.f.ReadAt(buf, t.off)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("read %s: %w", f.f.Name(), err)
		}
		used := t.consume(f, buf[:n], b)
		switch {
		case used > 0:
			return used < n || n == len(buf) || newer, nil
		case n == len(b.buf) && n < recordBytes:
			b.buf = make([]byte, recordBytes) // a record of many escapes; until the next reset
		case n == len(b.buf):
			t.discard(f, b, int64(n), "a record without an end")
			return true, nil
		case newer:
			if n > 0 {
				t.discard(f, b, int64(n), "the end of a rotated file broke off")
			}
			t.letGo(f)
		default:
			return false, t.checkTruncated(f, b)
		}
	}
}

// consume scans whole records and returns how many bytes they took.
func (t *tail) consume(f *logFile, buf []byte, b *block) int {
	used := 0
	for len(b.out.lines) < blockLines {
		end := bytes.IndexByte(buf[used:], '\n')
		if end < 0 {
			break
		}
		t.record(f, buf[used:used+end], t.off+int64(used), b)
		used += end + 1
	}
	if used == 0 {
		return 0
	}
	if t.off == 0 && f.print == "" {
		f.print = fingerprintOf(buf[:used])
	}
	t.advance(f, buf[:used], b)
	return used
}

// record hands one record on, or tells that it made no sense.
func (t *tail) record(f *logFile, line []byte, off int64, b *block) {
	at := place{file: f, off: off}
	r, ok := b.scan.parse(line)
	if !ok {
		// An engine that was killed while it wrote appends its next record to
		// the broken one.
		if i := bytes.LastIndex(line, []byte(logPrefix)); i > 0 {
			r, ok = b.scan.parse(line[i:])
			line = line[:i]
		}
		b.gap(telemetry.Gap{
			Reason: telemetry.GapUnreadable, Count: 1, Bytes: int64(len(line)), Since: t.lastTime,
			Detail: "A record of the engine's log file made no sense.",
		})
		if !ok {
			return
		}
	}
	t.lastTime = r.at
	if t.replay != nil {
		if at.before(t.replay.until) {
			if from := t.replay.from[r.stream]; from == nil || at.before(*from) {
				return
			}
		} else {
			t.replay, t.resumed = nil, nil
		}
	}
	b.out.add(&t.joiners[r.stream], &r, at)
}

// gap adds a gap to the block; many broken records make one.
func (b *block) gap(g telemetry.Gap) {
	if n := len(b.gaps); n > 0 && b.gaps[n-1].Reason == g.Reason && b.gaps[n-1].Detail == g.Detail && g.Count > 0 {
		b.gaps[n-1].Count += g.Count
		b.gaps[n-1].Bytes += g.Bytes
		return
	}
	b.gaps = append(b.gaps, g)
}

// discard passes over bytes that are no record.
func (t *tail) discard(f *logFile, b *block, n int64, why string) {
	b.gap(telemetry.Gap{
		Reason: telemetry.GapUnreadable, Count: telemetry.GapUnknownCount, Bytes: n, Since: t.lastTime,
		Detail: "The engine's log file could not be read on: " + why + ".",
	})
	t.advance(f, b.buf[:n], b)
}

// advance moves the offset behind the bytes used.
func (t *tail) advance(f *logFile, used []byte, b *block) {
	t.off += int64(len(used))
	b.read += int64(len(used))
	if len(used) >= beforeBytes {
		t.before = append(t.before[:0], used[len(used)-beforeBytes:]...)
	} else {
		t.before = append(t.before, used...)
		if over := len(t.before) - beforeBytes; over > 0 {
			t.before = append(t.before[:0], t.before[over:]...)
		}
	}
	t.last, t.size = place{file: f, off: t.off}, max(t.size, t.off)
}

// letGo closes a file that was read to its end.
func (t *tail) letGo(f *logFile) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.files) > 0 && t.files[0] == f {
		t.files = slices.Delete(t.files, 0, 1)
		f.close()
	}
	t.off, t.size = 0, 0
	t.before = t.before[:0]
}

// checkTruncated is called at the end of the last file: one that is shorter
// than what was read of it begins anew.
func (t *tail) checkTruncated(f *logFile, b *block) error {
	size, err := f.size()
	if err != nil {
		return err
	}
	if t.size = size; size >= t.off {
		return nil
	}
	b.gap(telemetry.Gap{
		Reason: telemetry.GapTruncated, Count: telemetry.GapUnknownCount, Since: t.lastTime,
		Detail: "The engine's log file was truncated; lines written shortly before may be missing.",
	})
	t.flush(b)
	t.off, f.print, t.before = 0, "", t.before[:0]
	t.replay, t.resumed = nil, nil
	return nil
}

// tellMissed reports files that came and went between two looks.
func (t *tail) tellMissed(b *block) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missed == 0 {
		return
	}
	b.gap(telemetry.Gap{
		Reason: telemetry.GapRotated, Count: telemetry.GapUnknownCount, Since: t.lastTime,
		Detail: fmt.Sprintf("%d log files rotated away before they could be opened. Give the container a larger max-size or max-file.", t.missed),
	})
	t.missed = 0
}

// flush closes the lines that are still open: their streams have ended.
func (t *tail) flush(b *block) {
	for stream := telemetry.Stdout; stream <= telemetry.Stderr; stream++ {
		b.out.end(&t.joiners[stream], stream)
	}
}

// reached reports whether everything before the mark has been consumed.
func (t *tail) reached(m *mark) bool {
	if m.file == nil {
		return true
	}
	f, _ := t.current()
	return f == nil || f.seq > m.file.seq || f == m.file && t.off >= m.size
}

// position returns the note to resume from, or nothing when nothing of the log
// was read yet.
func (t *tail) position() *logPosition {
	if t.replay != nil {
		return t.resumed
	}
	if t.last.file == nil || t.last.file.print == "" {
		return nil
	}
	p := &logPosition{placeNote: t.last.note(), Before: hashOf(t.before), Size: t.size, Last: t.lastTime}
	p.Stdout, p.Stderr = t.joiners[telemetry.Stdout].note(), t.joiners[telemetry.Stderr].note()
	return p
}

func (j *joiner) note() *openLine {
	switch {
	case j.open:
		from := j.from.note()
		return &openLine{From: &from}
	case j.skipping:
		return &openLine{Skip: j.at.UnixNano()}
	}
	return nil
}

// held is how many files are open.
func (t *tail) held() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.files)
}

// close lets go of every file.
func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.files {
		f.close()
	}
	t.files, t.closed = nil, true
}
