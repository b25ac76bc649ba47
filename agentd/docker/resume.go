package docker

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// begin puts the reader where it has to start.
func (t *tail) begin(start *beginning, b *block) error {
	switch {
	case start.position != nil:
		return t.resume(start.position, b)
	case start.now:
		return t.toEnd()
	}
	return nil
}

// resume goes on from a position of an earlier process. Everything that the
// position names is looked for by fingerprint among the files held; what cannot
// be found is told as a gap in b.
func (t *tail) resume(p *logPosition, b *block) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastTime, t.toldWhat = p.Last, p.Cache
	if p.API != nil {
		t.resumeFromAPI(p)
		return nil
	}
	all, err := t.holdsAll(p)
	for tries := 0; err == nil && !all && tries < rescans; tries++ {
		t.rescan()
		all, err = t.holdsAll(p)
	}
	if err != nil {
		return err
	}
	found, err := t.find(&p.placeNote)
	if err != nil {
		return err
	}
	if found < 0 {
		if len(t.files) > 0 || p.Offset < p.Size {
			b.gap(telemetry.Gap{
				Reason: telemetry.GapRotated, Count: telemetry.GapUnknownCount, Since: p.Last, Bytes: max(p.Size-p.Offset, 0),
				Detail: "The log file that was being read rotated away or was removed while agentd was not running.",
			})
		}
		return nil
	}
	f := t.files[found]
	intact, err := f.holds(p)
	if err != nil {
		return err
	}
	if !intact {
		b.gap(telemetry.Gap{
			Reason: telemetry.GapTruncated, Count: telemetry.GapUnknownCount, Since: p.Last,
			Detail: "The log file that was being read was truncated while agentd was not running.",
		})
		t.dropBefore(found)
		return nil
	}
	until := place{file: f, off: p.Offset}
	t.last, t.size = until, p.Size
	first, err := t.resumeOpenLines(p, until, b)
	if err != nil {
		return err
	}
	if t.before, err = first.file.before(first.off); err != nil {
		return err
	}
	t.dropBefore(slices.Index(t.files, first.file))
	t.off = first.off
	return nil
}

// resumeFromAPI passes over what an earlier agentd had read through the engine's
// API, which gives the same records.
func (t *tail) resumeFromAPI(p *logPosition) {
	t.asAPI = new([telemetry.Stderr + 1]apiStream)
	t.asAPI[telemetry.Stdout].mark, t.asAPI[telemetry.Stderr].mark = p.API.Stdout, p.API.Stderr
}

// isNew reports whether a record of a file is after the mark. From the first one
// that is, all are, whatever their times.
func (s *apiStream) isNew(at time.Time) bool {
	if s.mark == (apiMark{}) {
		return true
	}
	if !s.take(at) {
		return false
	}
	s.mark = apiMark{}
	return true
}

// holdsAll reports whether all files that a position names are held.
func (t *tail) holdsAll(p *logPosition) (bool, error) {
	places := []*placeNote{&p.placeNote}
	for _, open := range []*openLine{p.Stdout, p.Stderr} {
		if open != nil && open.From != nil {
			places = append(places, open.From)
		}
	}
	for _, at := range places {
		if i, err := t.find(at); err != nil || i < 0 {
			return false, err
		}
	}
	return true, nil
}

// rescans is how often a position's file is looked for again, and rescanPause
// the time before each: a directory that is listed while files are renamed in
// it may leave out the very one.
const (
	rescans     = 5
	rescanPause = 5 * time.Millisecond
)

// beyond is how many names that are not there end a rescan, past the last one
// that is listed: files move on while it goes.
const beyond = 3

// rescan opens the files anew before anything was read of them, by every name that
// there may be, listed or not. Files move towards older names only, and so does
// the scan, which therefore passes over none. Those held stay held; what has no
// name any more is the oldest.
func (t *tail) rescan() {
	<-time.After(rescanPause)
	if t.at == nil {
		return
	}
	names, err := t.at.chain()
	if err != nil {
		return // gone: what is held is all there is
	}
	last := 0
	if len(names) > 0 {
		last = names[len(names)-1].number
	}
	var all []*logFile // newest first
	for number := 0; number <= last+beyond && number < maxRotated; number++ {
		f, err := t.openNumber(number)
		if err != nil {
			continue // renamed meanwhile: the next name is its own
		}
		last = max(last, number)
		same := func(o *logFile) bool { return o.same(f) }
		if slices.ContainsFunc(all, same) {
			f.close()
			continue
		}
		if i := slices.IndexFunc(t.files, same); i >= 0 {
			f.close()
			f = t.files[i]
		} else {
			t.pinned++
		}
		all = append(all, f)
	}
	for _, f := range slices.Backward(t.files) {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	slices.Reverse(all)
	for _, f := range all {
		t.seq++
		f.seq = t.seq
	}
	t.files = all
}

// openNumber opens a file of the chain by its number, compressed or not.
func (t *tail) openNumber(number int) (*logFile, error) {
	name := chainName{name: t.at.base, number: number}
	if number > 0 {
		name.name += "." + strconv.Itoa(number)
	}
	f, err := t.open(name)
	if number > 0 && errors.Is(err, os.ErrNotExist) {
		name.name, name.zipped = name.name+zipSuffix, true
		f, err = t.open(name)
	}
	return f, err
}

// find returns the index of the file of a note: by fingerprint, and by inode
// among equals; -1 when it is not held.
func (t *tail) find(n *placeNote) (int, error) {
	found := -1
	for i, f := range t.files {
		first, err := f.fingerprint()
		if err != nil {
			return -1, err
		}
		if first == "" || first != n.Print {
			continue
		}
		if found < 0 || f.id == (fileID{device: n.Device, inode: n.Inode}) {
			found = i
		}
	}
	return found, nil
}

// holds reports whether f still has what was read of it.
func (l *logFile) holds(p *logPosition) (bool, error) {
	if l.zip != nil {
		before, err := l.before(p.Offset)
		return err == nil && hashOf(before) == p.Before, nil
	}
	size, err := l.size()
	if err != nil || size < p.Offset {
		return false, err
	}
	before, err := l.before(p.Offset)
	return err == nil && hashOf(before) == p.Before, err
}

// resumeOpenLines returns where to start: at the position, or before it where a
// long line was open there, whose pieces must be read again.
func (t *tail) resumeOpenLines(p *logPosition, until place, b *block) (first place, err error) {
	first = until
	var again replay
	for stream, open := range map[telemetry.Stream]*openLine{telemetry.Stdout: p.Stdout, telemetry.Stderr: p.Stderr} {
		switch {
		case open == nil:
		case open.From == nil:
			j := &t.joiners[stream]
			j.skipping, j.at = true, unixNano(open.Skip)
		default:
			i, err := t.find(open.From)
			if err != nil {
				return first, err
			}
			if i < 0 {
				b.gap(telemetry.Gap{
					Reason: telemetry.GapRotated, Count: 1, Since: p.Last,
					Detail: "The beginning of a long line rotated away while agentd was not running.",
				})
				continue
			}
			from := place{file: t.files[i], off: open.From.Offset}
			again.from[stream] = &from
			if from.before(first) {
				first = from
			}
		}
	}
	if first != until {
		again.until = until
		t.replay, t.resumed = &again, p
	}
	return first, nil
}

// dropBefore lets go of the files before the i-th: they were read.
func (t *tail) dropBefore(i int) {
	for _, f := range t.files[:i] {
		f.close()
	}
	t.files = slices.Delete(t.files, 0, i)
	t.off = 0
}

// toEnd passes over everything that is there now.
func (t *tail) toEnd() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.files)
	if n > 0 && t.files[n-1].zip != nil {
		t.dropBefore(n) // of long ago
		n = 0
	}
	if n == 0 {
		return nil
	}
	t.dropBefore(n - 1)
	f := t.files[0]
	size, err := f.size()
	if err != nil {
		return err
	}
	if _, err := f.fingerprint(); err != nil {
		return err
	}
	if t.before, err = f.before(size); err != nil {
		return fmt.Errorf("pass over an old log: %w", err)
	}
	t.off, t.size = size, size
	t.last = place{file: f, off: size}
	return nil
}
