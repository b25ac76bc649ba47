package spool

import (
	"cmp"
	"fmt"
	"slices"
)

// How much of a file must be dead, at least, for it to be copied without it.
const (
	halfDead    = 2  // one part in so many: what is saved is at least what is copied
	partlyDead  = 16 // frames were given up for this room
	smallFile   = 8  // one part in so many of SegmentBytes: copied along, so that files do not become many
	copyBuffer  = 1 << 20
	maxCopyFile = 64 // files made one
)

// move is one frame on its way from one file to another.
type move struct {
	st  *stream
	e   entry
	at  int64 // in the new file
	err error // it cannot be copied: it is damaged
}

// rewriting copies what is wanted of some files of one epoch into a new one that
// takes the first one's name. The cursor that knows what is not wanted, and the
// new file, are durable before any of the old ones goes. At a crash in between
// the frames of both are there: the second of two alike is left out.
type rewriting struct {
	group []*segment
	moves []move
	fresh *segment
}

// reclaim makes the cursor durable and then unlinks the files that it allows.
// Where more room is wanted it copies what is wanted of the files that have the
// most dead bytes; those of which less than one part in oneIn is dead are left.
func (s *Spool) reclaim(short int64, oneIn int64) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	c := s.snapshot()
	var freed []*segment
	for _, seg := range s.segments {
		if seg.free() {
			freed = append(freed, seg)
			short -= seg.charge
		}
	}
	var r *rewriting
	if short > 0 {
		r = s.planRewrite(short, oneIn)
	}
	wasDirty := s.dirty
	s.dirty = false
	s.mu.Unlock()
	if !wasDirty && len(freed) == 0 && r == nil {
		return nil
	}
	err := s.save(c)
	if err == nil && len(freed) > 0 {
		err = s.unlink(freed)
	}
	if r != nil {
		if err == nil {
			err = s.rewrite(r)
		}
		s.settleMoves(r, err == nil)
		if err == nil {
			err = s.unlinkFree(r.group)
		}
	}
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
	return err
}

// tidy is reclaim without a wish for room.
func (s *Spool) tidy() error { return s.reclaim(0, halfDead) }

// copyable reports whether a copy of a file is worth it. Called under mu.
func (s *Spool) copyable(seg *segment, oneIn int64) bool {
	return seg.sealed && !seg.moving && seg.live > 0 && seg.wanted <= s.o.SegmentBytes && seg.dead()*oneIn >= seg.charge
}

// planRewrite chooses files and lists what is wanted of them, as of the cursor
// that is saved next. Called under saving and mu.
func (s *Spool) planRewrite(short, oneIn int64) *rewriting {
	var list []*segment
	for _, seg := range s.segments {
		if s.copyable(seg, oneIn) {
			list = append(list, seg)
		}
	}
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, func(a, b *segment) int { return cmp.Compare(b.dead()*a.charge, a.dead()*b.charge) })
	r, epoch := &rewriting{}, list[0].id.epoch
	for _, seg := range s.segments { // small ones go along
		if seg.sealed && !seg.moving && seg.live > 0 && seg.charge*smallFile <= s.o.SegmentBytes && !slices.Contains(list, seg) {
			list = append(list, seg)
		}
	}
	wanted, saved := int64(0), int64(0)
	for _, seg := range list {
		full := saved >= short && seg.charge*smallFile > s.o.SegmentBytes
		if full || seg.id.epoch != epoch || wanted+seg.wanted > s.o.SegmentBytes || len(r.group) == maxCopyFile {
			continue
		}
		r.group = append(r.group, seg)
		wanted, saved = wanted+seg.wanted, saved+seg.dead()
	}
	slices.SortFunc(r.group, func(a, b *segment) int { return cmp.Compare(a.id.first, b.id.first) })
	first, last := r.group[0], r.group[len(r.group)-1]
	r.fresh = &segment{id: first.id, begun: first.begun, ended: last.ended, sealed: true, moving: true}
	s.charge(r.fresh, fileHeader+wanted)
	for _, seg := range r.group {
		seg.moving = true
	}
	for _, st := range s.streams {
		for _, e := range st.entries {
			if st.epoch == epoch && e.seg != nil && e.seg.moving {
				r.moves = append(r.moves, move{st: st, e: e})
			}
		}
	}
	slices.SortFunc(r.moves, func(a, b move) int {
		return cmp.Or(cmp.Compare(a.e.seg.id.first, b.e.seg.id.first), cmp.Compare(a.e.at, b.e.at))
	})
	return r
}

// rewrite writes the new file and gives it the first one's name, durably.
func (s *Spool) rewrite(r *rewriting) error {
	name := r.fresh.id.name()
	temporary := name + temporarySuffix
	file, err := s.fs.Create(temporary)
	if err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	r.fresh.file = file
	if err = s.copyMoves(r); err == nil {
		err = file.Sync()
	}
	if err == nil {
		if err = s.fs.Rename(temporary, name); err == nil {
			err = s.fs.SyncDir()
		}
	}
	if err != nil {
		_ = s.fs.Remove(temporary) // Open removes it too
		return closing(file, fmt.Errorf("copy %s: %w", name, err))
	}
	return nil
}

// copyMoves writes the new file's content. Each frame is checked; a damaged one
// is left behind, to be told as missing.
func (s *Spool) copyMoves(r *rewriting) error {
	seg, seed := r.fresh, r.fresh.id.seed()
	chain, start := seed, int64(0)
	out := append(make([]byte, 0, copyBuffer), seg.id.header(seg.begun)...)
	flush := func() error {
		_, err := seg.file.WriteAt(out, start)
		start, out = start+int64(len(out)), out[:0]
		return err
	}
	var buf []byte
	for i := range r.moves {
		m := &r.moves[i]
		if int64(cap(buf)) < int64(m.e.size) {
			buf = make([]byte, m.e.size)
		}
		b, body, err := readBlock(m.e.seg.id, m.e.seg.file, m.e.at, int64(m.e.size), buf)
		if err == nil && !m.e.is(m.st, &b) {
			err = errNoBlock
		}
		if m.err = err; err != nil {
			continue
		}
		m.at = start + int64(len(out))
		b.flags = b.flags&^(flagFirst|flagLast) | flagMoved
		b.previous = chain
		out = appendBlock(out, &b, body, seed)
		chain = b.crc
		if len(out) >= copyBuffer {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	seg.size, seg.good = start, start
	return nil
}

// settleMoves lets the index point to the new file, where it is there, or lets
// everything be as it was.
func (s *Spool) settleMoves(r *rewriting, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.fresh.moving = false
	for _, seg := range r.group {
		seg.moving = false
	}
	if !done {
		s.budget.used -= r.fresh.charge
		return
	}
	charge := int64(fileHeader)
	for i := range r.moves {
		m := &r.moves[i]
		if m.err == nil { // also where it is not wanted any more
			charge += m.e.charge()
		}
		s.relocate(m, r.fresh)
	}
	first := r.group[0]
	s.segments[slices.Index(s.segments, first)] = r.fresh
	s.budget.used += charge - r.fresh.charge - first.charge
	s.stats.Rewrote += r.fresh.size
	r.fresh.charge = charge
	first.retired = true
	first.release()
	s.broadcast()
}

// relocate moves one entry, where it is still wanted. Called under mu.
func (s *Spool) relocate(m *move, to *segment) {
	i, ok := m.st.find(m.e.first)
	if !ok || m.st.entries[i].first != m.e.first || m.st.entries[i].seg != m.e.seg {
		return // acknowledged or given up meanwhile
	}
	if m.err != nil {
		s.damaged(m.st, &m.e, m.err)
		return
	}
	e := &m.st.entries[i]
	m.st.account(e, -1)
	e.seg, e.at = to, m.at
	m.st.account(e, 1)
}

// release closes a file that another one has replaced, once nobody reads it.
// Called under mu.
func (seg *segment) release() {
	if seg.retired && seg.readers == 0 {
		_ = seg.file.Close() // it was only read
	}
}

// unlinkFree removes those of the files in which nothing is left.
func (s *Spool) unlinkFree(group []*segment) error {
	s.mu.Lock()
	var freed []*segment
	for _, seg := range group {
		if !seg.retired && seg.free() {
			freed = append(freed, seg)
		}
	}
	s.mu.Unlock()
	if len(freed) == 0 {
		return nil
	}
	return s.unlink(freed)
}

// is reports whether a block is the entry's frame.
func (e *entry) is(st *stream, b *block) bool {
	return b.kind == kindFrame && b.first == e.first && b.count == e.count && b.org == st.org && b.lane == st.lane
}
