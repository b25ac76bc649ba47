package spool

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Append makes frames and positions durable in one step and gives the frames
// their sequences. A nil position deletes its key.
//
// Where there is no room it gives up frames that are worth less, or that are
// over their organisation's share, which may be some of drafts; for log frames
// only after Options.EvictAfter. It returns ErrFull (after which Room waits)
// where it may not, or where the file system has no space. After any error
// nothing of drafts will be offered, and the caller may try again with the same or
// more.
func (s *Spool) Append(drafts []Draft, positions map[string][]byte) error {
	if len(drafts)+len(positions) == 0 {
		return nil
	}
	s.measure()
	s.writing.Lock()
	defer s.writing.Unlock()
	u, err := s.plan(drafts, positions)
	if err != nil {
		return err
	}
	if u, err = s.fit(u); err != nil {
		return err
	}
	if err := s.write(u); err != nil {
		return err
	}
	s.publish(u)
	if s.active.charge >= s.o.SegmentBytes {
		s.seal() // only sealed files give their room back
	}
	return nil
}

// fit finds room for the unit: by unlinking what is acknowledged, then by
// copying files without their dead bytes, then by giving up frames. It returns
// the unit with tombstones for those of its own that it gave up.
func (s *Spool) fit(u *unit) (*unit, error) {
	for oneIn := int64(halfDead); ; oneIn = partlyDead {
		short := s.shortage(u)
		if short <= 0 {
			return u, nil
		}
		s.seal() // its dead bytes count, too
		freed, err := s.freed(func() error { return s.reclaim(short, oneIn) })
		if err != nil {
			return nil, fmt.Errorf("%w, and it cannot be made room in it: %w", ErrFull, err)
		}
		if freed > 0 {
			continue
		}
		if !s.mayEvict(u) {
			return nil, fmt.Errorf("%w: %d bytes are missing", ErrFull, short)
		}
		kept, given := s.evict(short, u.drafts)
		if given <= 0 {
			return nil, fmt.Errorf("%w: %d bytes are missing, and nothing may be given up for them", ErrFull, short)
		}
		if u, err = s.plan(kept, u.positions); err != nil {
			return nil, err
		}
	}
}

// freed runs f and says how much less of the budget is used after it.
func (s *Spool) freed(f func() error) (int64, error) {
	used := func() int64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.budget.used
	}
	before := used()
	err := f()
	return before - used(), err
}

// mayEvict reports whether the unit may make others give way.
func (s *Spool) mayEvict(u *unit) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(u.drafts) > 0 && (!u.logs || s.patience() == 0)
}

// unit is one Append on its way to disk.
type unit struct {
	number    uint64
	drafts    []Draft
	blocks    []found // of the drafts, then the trailer; at is the place in the file
	body      []byte  // of the trailer
	positions map[string][]byte
	size      int64
	charge    int64
	logs      bool // some frames are not of the events lane
}

// plan checks the drafts, assigns sequences and sums up sizes.
func (s *Spool) plan(drafts []Draft, positions map[string][]byte) (*unit, error) {
	u := &unit{drafts: drafts, positions: positions, blocks: make([]found, 0, len(drafts)+1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	u.number = s.appended + 1
	next := map[streamKey]uint64{}
	for i := range drafts {
		d := &drafts[i]
		if len(d.Org) > MaxOrg || len(d.Body) > MaxBody || d.Count == 0 || d.Lane >= Lanes {
			return nil, fmt.Errorf("%w: frame of %d bytes, %d records, lane %d, organisation of %d bytes", ErrLimit, len(d.Body), d.Count, d.Lane, len(d.Org))
		}
		key := streamKey{epoch: s.epoch, org: d.Org, lane: d.Lane}
		first := next[key]
		if first == 0 {
			first = 1
			if st := s.streams[key]; st != nil {
				first = st.next
			}
		}
		next[key] = first + uint64(d.Count)
		u.logs = u.logs || d.Lane == 0
		u.add(block{kind: kindFrame, flags: draftFlags(d), lane: d.Lane, class: d.Class, org: d.Org, append: u.number, first: first, count: d.Count}, len(d.Body))
	}
	u.body = appendTrailer(nil, u.blocks, positions)
	if len(u.body) > MaxTrailer {
		return nil, fmt.Errorf("%w: positions of %d bytes", ErrLimit, len(u.body))
	}
	u.add(block{kind: kindTrailer, append: u.number}, len(u.body))
	u.blocks[0].flags |= flagFirst
	u.blocks[len(u.blocks)-1].flags |= flagLast
	return u, nil
}

func (u *unit) add(b block, body int) {
	u.blocks = append(u.blocks, found{block: b})
	size := blockSize(len(b.org), body)
	u.size += size
	u.charge += max(size, frameCharge)
}

func draftFlags(d *Draft) (flags uint8) {
	if d.Test {
		flags |= flagTest
	}
	if d.Tombstone {
		flags |= flagTombstone
	}
	return flags
}

func sortedKeys(m map[string][]byte) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// write writes and flushes the unit, in a new file where the active one has
// failed. A file whose write or fsync failed once is never written again: the
// kernel may have dropped its dirty pages and say nothing at the next fsync.
func (s *Spool) write(u *unit) error {
	var err error
	for range 2 {
		if s.active == nil || s.active.good > fileHeader && s.active.good+u.size > s.o.SegmentBytes {
			if err = s.roll(u.number); err != nil {
				break
			}
		}
		if err = s.writeTo(s.active, u); err == nil {
			return nil
		}
		s.log.Warn("a write to the spool failed; its file is sealed and a new one begun", "file", s.active.id.name(), "error", err)
		s.abandon()
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		s.filled()
		return fmt.Errorf("%w: no space left on its file system: %w", ErrFull, err)
	}
	return fmt.Errorf("append to the spool: %w", err)
}

func (s *Spool) writeTo(seg *segment, u *unit) error {
	s.buffer = s.buffer[:0]
	chain, seed := s.chain, seg.id.seed()
	for i := range u.blocks {
		b := &u.blocks[i]
		body := u.body
		if i < len(u.drafts) {
			body = u.drafts[i].Body
		}
		b.at, b.previous = seg.good+int64(len(s.buffer)), chain
		s.buffer = appendBlock(s.buffer, &b.block, body, seed)
		chain = b.crc
	}
	if _, err := seg.file.WriteAt(s.buffer, seg.good); err != nil {
		return fmt.Errorf("write %s: %w", seg.id.name(), err)
	}
	if err := seg.file.Sync(); err != nil {
		return fmt.Errorf("flush %s: %w", seg.id.name(), err)
	}
	s.chain = chain
	if cap(s.buffer) > maxBuffer {
		s.buffer = nil // one large append must not be kept in memory for ever
	}
	return nil
}

const maxBuffer = 4 << 20

// roll seals the active file and begins the next one: header flushed, then the
// name, then the directory, all before the first block.
func (s *Spool) roll(number uint64) error {
	s.seal()
	id := fileID{first: number, epoch: s.epoch}
	seg := &segment{id: id, begun: time.Now(), size: fileHeader, good: fileHeader}
	temporary := id.name() + temporarySuffix
	file, err := s.fs.Create(temporary)
	if err != nil {
		return fmt.Errorf("begin %s: %w", id.name(), err)
	}
	seg.file = file
	if err := s.begin(seg, temporary); err != nil {
		_ = s.fs.Remove(temporary) // Open removes it too
		return closing(file, fmt.Errorf("begin %s: %w", id.name(), err))
	}
	s.active, s.chain = seg, id.seed()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = append(s.segments, seg)
	s.charge(seg, fileHeader)
	return nil
}

const temporarySuffix = ".tmp"

func (s *Spool) begin(seg *segment, temporary string) error {
	if _, err := seg.file.WriteAt(seg.id.header(seg.begun), 0); err != nil {
		return err
	}
	if err := seg.file.Sync(); err != nil {
		return err
	}
	if err := s.fs.Rename(temporary, seg.id.name()); err != nil {
		return err
	}
	return s.fs.SyncDir()
}

// seal lets the active file take no more appends.
func (s *Spool) seal() {
	if s.active == nil {
		return
	}
	s.mu.Lock()
	s.active.sealed = true
	if s.active.live == 0 {
		s.wakeKeeper()
	}
	s.mu.Unlock()
	s.active = nil
}

// abandon seals the active file after a failure. Whatever reached the disk
// after its last good offset is void: the next file's name says so, and the
// cursor once it is saved. Where nothing was accepted in it, the next file
// replaces it under the same name.
func (s *Spool) abandon() {
	seg := s.active
	size, err := seg.file.Size()
	s.mu.Lock()
	seg.cut = true
	if err == nil && size > seg.size {
		s.charge(seg, size-seg.size)
		seg.size = size
	}
	if seg.good == fileHeader {
		s.drop(seg)
		_ = seg.file.Close() // it has failed already
		s.active = nil
	}
	s.dirty = true
	s.mu.Unlock()
	s.seal()
}

// charge takes bytes of the budget for a file. Called under mu.
func (s *Spool) charge(seg *segment, bytes int64) {
	seg.charge += bytes
	s.budget.used += bytes
	s.budget.since += bytes
}

// drop forgets a file. Called under mu.
func (s *Spool) drop(seg *segment) {
	s.budget.used -= seg.charge
	s.segments = slices.DeleteFunc(s.segments, func(o *segment) bool { return o == seg })
}

// publish lets the unit's frames be read: it is durable.
func (s *Spool) publish(u *unit) {
	seg := s.active
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appended = u.number
	seg.good += u.size
	seg.size, seg.ended = seg.good, time.Now()
	s.charge(seg, u.charge)
	for i := range u.blocks {
		if b := &u.blocks[i]; b.kind == kindFrame {
			st := s.stream(streamKey{epoch: s.epoch, org: b.org, lane: b.lane})
			st.push(entryOf(b, seg))
			st.next = b.last() + 1
		}
	}
	for k, v := range u.positions {
		if v == nil {
			delete(s.positions, k)
		} else {
			s.positions[k] = slices.Clone(v)
		}
	}
	s.dirty = true
	s.stats.Appends++
	s.stats.Syncs++
	s.broadcast()
}
