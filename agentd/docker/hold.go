package docker

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/shared/telemetry"
)

// limits bound what is held of one log's files that are deleted and not read
// yet: they take descriptors, and disk space that nobody sees. Files that have a
// name are the engine's own to bound.
type limits struct {
	files int   // 0: no limit
	bytes int64 // 0: no limit
}

// lost is what was given up between two files of a log.
type lost struct {
	files int
	bytes int64
}

// enforce keeps what is held within the limits. Past half of them the log is to
// be read before others; past all of them the oldest file that is not being read
// is given up. The caller holds mu.
func (t *tail) enforce() {
	if t.limits == (limits{}) || len(t.files) == 0 {
		return
	}
	var deleted []*logFile // oldest first
	var sizes []int64
	var sum int64
	for _, f := range t.files[:len(t.files)-1] {
		if size, gone, err := f.stat(); err == nil && gone {
			deleted, sizes, sum = append(deleted, f), append(sizes, size), sum+size
		}
	}
	over := func(share int) bool {
		return t.limits.files > 0 && len(deleted)*share > t.limits.files || t.limits.bytes > 0 && sum*int64(share) > t.limits.bytes
	}
	reading := len(deleted) > 0 && deleted[0] == t.files[0]
	for over(1) && (len(deleted) > 1 || len(deleted) == 1 && !reading) {
		oldest := 0
		if reading {
			oldest = 1
		}
		t.giveUp(deleted[oldest], sizes[oldest])
		sum -= sizes[oldest]
		deleted, sizes = slices.Delete(deleted, oldest, oldest+1), slices.Delete(sizes, oldest, oldest+1)
	}
	t.crowded.Store(over(2))
}

// giveUp lets go of a file unread. The file after it tells of it.
func (t *tail) giveUp(f *logFile, size int64) {
	i := slices.Index(t.files, f)
	next := t.files[i+1]
	next.lost.files += f.lost.files + 1
	next.lost.bytes += f.lost.bytes + size
	t.files = slices.Delete(t.files, i, i+1)
	f.close()
}

// tellLost reports what was given up before f.
func (t *tail) tellLost(f *logFile, b *block) {
	t.mu.Lock()
	gone := f.lost
	f.lost = lost{}
	t.mu.Unlock()
	if gone.files == 0 {
		return
	}
	b.gap(telemetry.Gap{
		Reason: telemetry.GapRotated, Count: telemetry.GapUnknownCount, Bytes: gone.bytes, Since: t.lastTime,
		Detail: fmt.Sprintf("%d rotated log files were given up unread: the node's buffer took no more, and they held too much disk space.", gone.files),
	})
}

// budget is how many log files may be open at once in all.
type budget struct {
	most int64
	used atomic.Int64
}

// errNoDescriptors says that no more log files can be opened now.
var errNoDescriptors = errors.New("no more files may be open: raise LimitNOFILE of agentd's unit")

// spareDescriptors is what the rest of the process needs.
const spareDescriptors = 256

// newBudget leaves a part of the process's descriptors to others.
func newBudget() *budget {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur > 1<<30 {
		return &budget{most: 1 << 30}
	}
	most := int64(l.Cur)
	return &budget{most: max(most-spareDescriptors, most/2)}
}

func (b *budget) take() error {
	if b == nil {
		return nil
	}
	if b.used.Add(1) > b.most {
		b.used.Add(-1)
		return errNoDescriptors
	}
	return nil
}

func (b *budget) give() {
	if b != nil {
		b.used.Add(-1)
	}
}

// noDescriptors reports whether a file was not opened for want of descriptors.
func noDescriptors(err error) bool {
	return errors.Is(err, errNoDescriptors) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}
