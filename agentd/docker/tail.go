package docker

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
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

	rememberGone = 32 // files that were read to their end
)

// tail reads one log: a chain of files, of which the last is being written.
//
//	dir/base.2   dir/base.1   dir/base          names at the moment
//	   [seq 7]  ─▶  [seq 8]  ─▶ [seq 9]         held open, oldest first
//	      ▲ off
//
// The watcher pins files, and gives up those that are too many; the reader alone
// reads and lets go of them.
type tail struct {
	home    string   // the directory that is watched for the layouts
	layouts []layout // where the log may be
	limits  limits
	budget  *budget     // of descriptors; nil: none
	tty     atomic.Bool // a terminal: lines end with \r\n
	crowded atomic.Bool // much is held: it is to be read first

	mu      sync.Mutex
	at      *layout    // where the log is; nil: no file was seen yet
	files   []*logFile // held, oldest first
	seq     int        // of the newest file ever held
	gone    []string   // fingerprints of those that were let go of last
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
	asAPI    *[telemetry.Stderr + 1]apiStream // what was read through the API before; nil: nothing
	toldWhat bool                             // that the log is a cache
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
	// cached says that the log was found to be a cache.
	cached bool
}

func (b *block) reset() {
	b.scan.reset()
	b.out.reset()
	b.gaps = b.gaps[:0]
	b.read, b.cached = 0, false
	if cap(b.buf) != blockBytes {
		b.buf = make([]byte, blockBytes)
	}
}

// newTail reads a log of json lines.
func newTail(dir, base string) *tail {
	return &tail{home: dir, layouts: []layout{{dir: dir, base: base}}}
}

// wasCreated counts a file that the engine created under the log's base name. It
// returns false for any other name.
func (t *tail) wasCreated(dir, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.layouts {
		if l := &t.layouts[i]; l.dir == dir && l.base == name && (t.at == nil || t.at == l) {
			t.created++
			return true
		}
	}
	return false
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
	if f.zip != nil {
		return &mark{file: f, size: math.MaxInt64} // reached when it was let go of
	}
	size, err := f.size()
	if err != nil {
		return &mark{}
	}
	return &mark{file: f, size: size}
}

// current returns the file to read, and whether nothing more is written to it:
// there is a newer one, or it has been compressed.
func (t *tail) current() (f *logFile, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.files) == 0 {
		return nil, false
	}
	return t.files[0], len(t.files) > 1 || t.files[0].zip != nil
}

// grew reports whether there is something to read, at the price of one system
// call.
func (t *tail) grew() bool {
	f, done := t.current()
	if f == nil || done {
		return f != nil
	}
	size, err := f.size()
	return err != nil || size != t.off
}

// zipped reports whether a compressed file is to be read next.
func (t *tail) zipped() bool {
	f, _ := t.current()
	return f != nil && f.zip != nil
}

// next consumes up to one block of records into b, not beyond the mark. It
// reports whether more may be there at once.
func (t *tail) next(b *block, limit *mark) (more bool, err error) {
	t.tellMissed(b)
	t.tellCache(b)
	for {
		f, done := t.current()
		if f == nil {
			return false, nil
		}
		t.tellLost(f, b)
		buf := b.buf
		if limit != nil && limit.file == f && limit.size > t.off {
			buf = buf[:min(int64(len(buf)), limit.size-t.off)]
		} else if limit != nil && limit.file == f {
			return false, nil
		}
		n, err := f.available(buf, t.off)
		broken := err != nil && !errors.Is(err, io.EOF)
		if broken && f.zip == nil {
			return false, fmt.Errorf("read %s: %w", f.f.Name(), err)
		}
		used := t.consume(f, buf[:n], b)
		if f.zip != nil {
			f.zip.unread(buf[used:n])
		}
		switch {
		case used > 0:
			return used < n || n == len(buf) || done, nil
		case broken:
			t.discard(f, b, buf[:n], "a compressed file is broken")
			t.letGo(f)
			return true, nil
		case n == len(b.buf) && n < recordBytes:
			b.buf = make([]byte, recordBytes) // a record of many escapes; until the next reset
		case n == len(b.buf):
			t.discard(f, b, buf[:n], "a record without an end")
			return true, nil
		case done && n > 0:
			t.discard(f, b, buf[:f.format.broken(buf[:n])], "the end of a rotated file broke off")
			return true, nil
		case done:
			t.letGo(f)
		default:
			return false, t.checkTruncated(f, b)
		}
	}
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
		if first := f.known(); first != "" {
			t.gone = append(t.gone[max(0, len(t.gone)-rememberGone+1):], first)
		}
		f.close()
		if t.crowded.Load() {
			t.enforce()
		}
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
	f.is("")
	t.off, t.before = 0, t.before[:0]
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

// tellCache reports once that the log is not all that its container printed.
func (t *tail) tellCache(b *block) {
	if at := t.where(); t.toldWhat || at == nil || !at.cached {
		return
	}
	t.toldWhat = true
	b.cached = true
	b.gap(telemetry.Gap{
		Reason: telemetry.GapUnreadable, Count: telemetry.GapUnknownCount, Since: t.lastTime,
		Detail: "The container's log goes to another driver; the engine's cache of it drops lines when the container prints fast, and does not say which.",
	})
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
	if t.last.file == nil {
		return nil
	}
	if first, err := t.last.file.fingerprint(); err != nil || first == "" {
		return nil
	}
	p := &logPosition{placeNote: t.last.note(), Before: hashOf(t.before), Size: t.size, Last: t.lastTime, Cache: t.toldWhat}
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
