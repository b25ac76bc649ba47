package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"time"
)

// recovery is what Open pieces together from the files and the cursor.
type recovery struct {
	*Spool
	cursor   *cursor // nil: none
	names    map[string]string
	frames   map[streamKey][]entry
	spans    map[streamKey]span // that frames and trailers name
	numbered uint64             // highest number of an accepted append
	damaged  int
	empty    []*segment // nothing in them was accepted
}

// recover finds again what is on disk. Damage is counted and told, never an
// error; an error is a directory that cannot be listed or written at all.
func (s *Spool) recover() error {
	names, err := s.fs.List()
	if err != nil {
		return fmt.Errorf("list the spool's directory: %w", err)
	}
	r := &recovery{Spool: s, names: map[string]string{}, frames: map[streamKey][]entry{}, spans: map[streamKey]span{}}
	files, err := r.files(names)
	if err != nil {
		return err
	}
	c, failure := s.loadCursor()
	switch {
	case c != nil && failure != nil:
		s.log.Warn("one of the spool's two cursors is not whole, as after a crash; the other one serves", "error", failure)
	case failure != nil && len(files) > 0: // else it is the very first one, and torn
		s.log.Error("the spool's cursor is damaged: frames that were acknowledged may be sent again, and sources may repeat what they read last", "error", failure)
		s.stats.Corrupt++
	}
	if r.cursor = c; c == nil {
		r.cursor = &cursor{}
	}
	s.generation, s.positions = r.cursor.generation, r.cursor.positions
	if s.positions == nil {
		s.positions = map[string][]byte{}
	}
	r.numbered = r.cursor.appended
	for i, id := range files {
		limit := uint64(math.MaxUint64)
		if i+1 < len(files) {
			limit = files[i+1].first
		}
		r.file(id, limit)
	}
	for i, seg := range s.segments {
		if seg.ended = time.Now(); i+1 < len(s.segments) {
			seg.ended = s.segments[i+1].begun
		}
	}
	s.appended = r.numbered
	r.assemble()
	s.stats.Corrupt += r.damaged
	s.dirty = true
	return r.settle()
}

// files sorts out the directory: segment files in order; temporary ones are
// removed.
func (r *recovery) files(names []string) ([]fileID, error) {
	var files []fileID
	for _, name := range names {
		id, ok := parseFileName(name)
		switch {
		case ok:
			files = append(files, id)
		case strings.HasSuffix(name, temporarySuffix):
			if err := r.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("remove an unfinished file: %w", err)
			}
		case name != cursorName && name != slotName(0) && name != slotName(1) && name != lockName:
			r.log.Warn("the spool's directory holds a file that is not the spool's; it is left alone", "file", name)
		}
	}
	slices.SortFunc(files, func(a, b fileID) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.epoch, b.epoch))
	})
	return files, nil
}

// file takes in one file. limit is the first append of the file after it.
func (r *recovery) file(id fileID, limit uint64) {
	seg, blocks, err := r.scan(id)
	if err != nil {
		r.log.Error("a file of the spool cannot be read; its frames are lost", "file", id.name(), "error", err)
		r.damaged++
	}
	if seg == nil {
		return
	}
	r.segments = append(r.segments, seg)
	r.charge(seg, seg.size)
	accepted := r.accept(seg, blocks, limit)
	for i := range accepted {
		b := &accepted[i]
		r.numbered = max(r.numbered, b.append)
		if b.skipped {
			r.damaged++
		}
		if b.kind == kindTrailer {
			r.trailer(seg, b)
			continue
		}
		r.charge(seg, max(frameCharge-b.size(), 0))
		key := streamKey{epoch: id.epoch, org: b.org, lane: b.lane}
		r.frames[key] = append(r.frames[key], entryOf(b, seg))
		r.widen(key, b.first, b.count)
	}
	if len(accepted) == 0 {
		r.empty = append(r.empty, seg)
	}
}

func (r *recovery) scan(id fileID) (*segment, []found, error) {
	f, err := r.fs.Open(id.name())
	if err != nil {
		return nil, nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, nil, closing(f, err)
	}
	seg := &segment{id: id, file: f, size: size, good: fileHeader, sealed: true}
	head := make([]byte, min(size, fileHeader))
	if _, err := f.ReadAt(head, 0); err == nil {
		seg.begun = begunAt(head)
	}
	blocks, err := scan(id, f, size, r.intern)
	return seg, blocks, err
}

// intern keeps one string per organisation.
func (r *recovery) intern(b []byte) string {
	if s, ok := r.names[string(b)]; ok {
		return s
	}
	s := string(b)
	r.names[s] = s
	return s
}

// accept returns the blocks of the appends that had been accepted (doc.go has
// the rules), and notes in the segment where they end.
func (r *recovery) accept(seg *segment, blocks []found, limit uint64) []found {
	good := int64(math.MaxInt64)
	for _, cut := range r.cursor.cuts {
		if cut.fileID == seg.id {
			good = cut.good
		}
	}
	kept := blocks[:0:0]
	for _, b := range blocks {
		void := b.append >= limit || b.at >= good || b.append < seg.id.first
		if void && b.flags&flagMoved == 0 { // what was moved had been accepted before
			seg.cut = true
			r.stats.Cut++
			continue
		}
		kept = append(kept, b)
	}
	if n := len(kept); n > 0 && limit == math.MaxUint64 && good == math.MaxInt64 && kept[n-1].append > r.cursor.appended && kept[n-1].flags&flagMoved == 0 {
		start := slices.IndexFunc(kept, func(b found) bool { return b.append == kept[n-1].append })
		if !r.whole(seg, kept[start:]) {
			r.log.Warn("the spool's last append was torn; it had not been accepted, and its source reads it again",
				"file", seg.id.name(), "blocks", n-start)
			r.stats.Cut += n - start
			kept = kept[:start]
		}
	}
	if n := len(kept); n > 0 {
		seg.good = kept[n-1].at + kept[n-1].size()
	}
	seg.cut = seg.cut || seg.good < seg.size
	return kept
}

// whole reports whether these are all blocks of one append, undamaged.
func (r *recovery) whole(seg *segment, blocks []found) bool {
	if blocks[0].flags&flagFirst == 0 || blocks[len(blocks)-1].flags&flagLast == 0 {
		return false
	}
	var buf []byte
	for i := range blocks {
		b := &blocks[i]
		if i > 0 && !b.chained {
			return false
		}
		if int64(cap(buf)) < b.size() {
			buf = make([]byte, b.size())
		}
		if _, _, err := readBlock(seg.id, seg.file, b.at, b.size(), buf); err != nil {
			return false
		}
	}
	return true
}

// trailer takes in what an append says of its frames and of positions.
func (r *recovery) trailer(seg *segment, b *found) {
	if b.append <= r.cursor.appended {
		return // the cursor has all that, and what came later
	}
	_, body, err := readBlock(seg.id, seg.file, b.at, b.size(), nil)
	if err != nil {
		r.log.Error("positions in the spool are damaged; their sources repeat what they read since the ones before", "file", seg.id.name(), "error", err)
		r.damaged++
		return
	}
	d := decoder{b: body}
	for _, p := range readPlaces(&d) {
		key := streamKey{epoch: seg.id.epoch, org: r.intern([]byte(p.org)), lane: p.lane}
		r.widen(key, p.first, p.count)
	}
	readPositions(&d, r.positions)
}

// maxMissing bounds what a cursor can say is there, and so the tombstones.
const maxMissing = 1 << 40

// span is a range of sequences: first to next - 1.
type span struct{ first, next uint64 }

func (r *recovery) widen(key streamKey, first uint64, count uint32) {
	sp, ok := r.spans[key]
	if !ok || first < sp.first {
		sp.first = first
	}
	sp.next = max(sp.next, first+uint64(count))
	r.spans[key] = sp
}

// assemble makes streams of the frames: acknowledged ones left out, tombstones
// where sequences are missing.
func (r *recovery) assemble() {
	known := map[streamKey]cursorStream{}
	for _, c := range r.cursor.streams {
		if c.lane < Lanes && c.next > c.acked && c.next-c.acked < maxMissing {
			known[c.streamKey] = c
		}
	}
	for key, sp := range r.spans {
		if _, ok := known[key]; ok {
			continue
		}
		c := cursorStream{streamKey: key, next: 1}
		if r.cursor.generation == 0 { // without a cursor nobody knows what was acknowledged and unlinked
			c.acked, c.next = sp.first-1, sp.first
		}
		known[key] = c
	}
	order := r.epochOrder(known)
	for _, key := range order {
		r.stream(known[key])
	}
	for _, key := range order {
		r.forget(key.epoch)
	}
}

// epochOrder sorts streams so that each organisation's old epochs come first:
// in the order in which their files do.
func (r *recovery) epochOrder(known map[streamKey]cursorStream) []streamKey {
	age := map[uint64]int{}
	for i, seg := range r.segments {
		if _, ok := age[seg.id.epoch]; !ok {
			age[seg.id.epoch] = i + 1 // 0: no file is left of it, it is older than all
		}
	}
	keys := make([]streamKey, 0, len(known))
	for key := range known {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b streamKey) int {
		return cmp.Or(cmp.Compare(age[a.epoch], age[b.epoch]), cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.org, b.org), cmp.Compare(a.lane, b.lane))
	})
	return keys
}

func (r *recovery) stream(c cursorStream) {
	st := r.Spool.stream(c.streamKey)
	st.acked, st.next = c.acked, c.acked+1
	list := r.frames[c.streamKey]
	traces := map[uint64]trace{}
	for i := range c.gone {
		g := &c.gone[i]
		if g.count == 0 || g.first == 0 || g.first > c.next || uint64(g.count) > c.next-g.first || g.lost == notLost || g.lost >= lostReasons {
			continue
		}
		e := entry{first: g.first, count: g.count, flags: g.flags, lost: g.lost, class: tombstoneClass}
		if e.first < st.next && e.last() >= st.next { // some of it is acknowledged
			e.count -= uint32(st.next - e.first) //nolint:gosec // less than count
			e.first = st.next
		}
		list = append(list, e)
		traces[e.first] = g.trace
	}
	// A file that is not rewritten yet still has what is gone: the tombstone counts.
	slices.SortStableFunc(list, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(b.lost, a.lost))
	})
	for _, e := range list {
		if e.first < st.next {
			continue // acknowledged, gone, or there twice
		}
		r.missing(st, e.first, e.flags)
		st.push(e)
		st.next = e.last() + 1
		if t, ok := traces[e.first]; ok && e.seg == nil {
			st.leave(e.first, t)
			r.stats.Lost += uint64(e.count)
		} else {
			r.stats.Recovered++
		}
	}
	r.missing(st, max(c.next, r.spans[c.streamKey].next), 0)
}

// missing puts tombstones up to, not including, the sequence next.
func (r *recovery) missing(st *stream, next uint64, flags uint8) {
	if next <= st.next {
		return
	}
	r.log.Error("records are missing in the spool; a tombstone takes their place",
		"organisation", st.org, "epoch", fmt.Sprintf("%016x", st.epoch), "lane", st.lane, "first", st.next, "last", next-1)
	r.stats.Lost += next - st.next
	for _, e := range tombstones(st.next, next-1, corrupt, flags) {
		st.push(e)
	}
	st.next = next
}

// settle makes what was decided durable, and removes files in which nothing
// was accepted: the next file may need their name's place in the order. A full
// disk stops neither.
func (r *recovery) settle() error {
	for _, seg := range r.empty {
		if err := r.fs.Remove(seg.id.name()); err != nil {
			return fmt.Errorf("remove a file in which nothing was accepted: %w", err)
		}
		r.drop(seg)
		_ = seg.file.Close() // it was only read
	}
	if len(r.empty) > 0 {
		if err := r.fs.SyncDir(); err != nil {
			return fmt.Errorf("flush the spool's directory: %w", err)
		}
	}
	if err := r.tidy(); err != nil {
		r.log.Warn("the spool's cursor could not be saved at the start; it is tried again", "error", err)
	} else if err := r.fs.Remove(cursorName); err != nil && !errors.Is(err, fs.ErrNotExist) { // of version 1: a slot has it now
		r.log.Warn("an old cursor could not be removed; it is not used any more", "error", err)
	}
	return nil
}
