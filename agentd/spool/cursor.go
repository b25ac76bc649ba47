package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
)

// The cursor is everything that the segment files do not say: what is
// acknowledged, what is gone and why, which of their bytes are void, and all
// positions, because those in a file go with it.
//
//	the older of cursor.0 and cursor.1 overwritten ──▶ fsync ──▶ files may be unlinked or replaced
//
// A slot is overwritten in place, so that a full disk does not keep
// acknowledged files from going. It holds its content twice, at its beginning and
// in its middle, so that no single damage loses it.
type cursor struct {
	generation uint64
	appended   uint64 // number of the last append that it knows of
	streams    []cursorStream
	cuts       []cursorCut
	positions  map[string][]byte
}

type cursorStream struct {
	streamKey
	acked, next uint64
	gone        []cursorGone
}

// cursorGone is a tombstone that lies in no file.
type cursorGone struct {
	trace
	first uint64
	count uint32
	flags uint8
	lost  lostReason
}

// cursorCut says that a file's bytes from good on are void.
type cursorCut struct {
	fileID
	good int64
}

const (
	cursorName    = "cursor" // of version 1; a suffix for each slot since
	cursorMagic   = "thzcursr"
	cursorHeader  = 8 + 4 + 4 + 8 // magic, CRC, version, length
	cursorVersion = 2
	cursorAlign   = 4 << 10
	maxCursor     = 256 << 20
)

// encode returns one copy.
func (c *cursor) encode() []byte {
	b := binary.AppendUvarint(nil, c.generation)
	b = binary.AppendUvarint(b, c.appended)
	b = binary.AppendUvarint(b, uint64(len(c.streams)))
	for i := range c.streams {
		st := &c.streams[i]
		b = binary.LittleEndian.AppendUint64(b, st.epoch)
		b = append(appendBytes(b, st.org), st.lane)
		b = binary.AppendUvarint(b, st.acked)
		b = binary.AppendUvarint(b, st.next)
		b = binary.AppendUvarint(b, uint64(len(st.gone)))
		for j := range st.gone {
			b = st.gone[j].encode(b)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(c.cuts)))
	for _, cut := range c.cuts {
		b = binary.LittleEndian.AppendUint64(b, cut.epoch)
		b = binary.AppendUvarint(b, cut.first)
		b = binary.AppendUvarint(b, uint64(cut.good)) //nolint:gosec // an offset
	}
	b = appendPositions(b, sortedKeys(c.positions), c.positions)
	one := append(make([]byte, cursorHeader, cursorHeader+len(b)), b...)
	copy(one, cursorMagic)
	binary.LittleEndian.PutUint32(one[12:], cursorVersion)
	binary.LittleEndian.PutUint64(one[16:], uint64(len(b)))
	binary.LittleEndian.PutUint32(one[8:], crc32.Checksum(one[12:], castagnoli))
	return one
}

func (g *cursorGone) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, g.first)
	b = binary.AppendUvarint(b, uint64(g.count))
	b = append(b, g.flags, byte(g.lost))
	b = binary.AppendUvarint(b, uint64(g.bytes)) //nolint:gosec // not negative
	b = binary.AppendVarint(b, g.since)
	return binary.AppendVarint(b, g.until)
}

func decodeGone(d *decoder) cursorGone {
	g := cursorGone{first: d.uvarint(), count: uint32(d.uvarint()), flags: d.byte() & (flagTest | flagTombstone), lost: lostReason(d.byte())} //nolint:gosec // written from 32 bits
	g.bytes, g.since, g.until = int64(d.uvarint()), d.varint(), d.varint()                                                                    //nolint:gosec // shown only
	return g
}

var errCursor = errors.New("neither copy in the cursor is whole")

// decodeCursor reads the first whole copy: at the beginning, or where the
// second one begins.
func decodeCursor(b []byte) (*cursor, error) {
	for _, at := range []int{0, len(b) / 2} {
		if c, err := decodeCopy(b[at:]); err == nil {
			return c, nil
		}
	}
	return nil, errCursor
}

func decodeCopy(b []byte) (*cursor, error) {
	if len(b) < cursorHeader || string(b[:8]) != cursorMagic {
		return nil, errCursor
	}
	version := binary.LittleEndian.Uint32(b[12:])
	if version == 0 || version > cursorVersion {
		return nil, errCursor
	}
	n := binary.LittleEndian.Uint64(b[16:])
	if n > uint64(len(b)-cursorHeader) { //nolint:gosec // it is longer, as checked above
		return nil, errCursor
	}
	b = b[:cursorHeader+n]
	if crc32.Checksum(b[12:], castagnoli) != binary.LittleEndian.Uint32(b[8:]) {
		return nil, errCursor
	}
	d := decoder{b: b[cursorHeader:]}
	c := &cursor{generation: d.uvarint(), appended: d.uvarint(), positions: map[string][]byte{}}
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		st := cursorStream{streamKey: streamKey{epoch: d.uint64(), org: string(d.bytes(d.uvarint()))}}
		st.lane = d.byte()
		st.acked, st.next = d.uvarint(), d.uvarint()
		if version > 1 {
			for m := d.uvarint(); m > 0 && d.err == nil; m-- {
				st.gone = append(st.gone, decodeGone(&d))
			}
		}
		c.streams = append(c.streams, st)
	}
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		c.cuts = append(c.cuts, cursorCut{fileID: fileID{epoch: d.uint64(), first: d.uvarint()}, good: int64(d.uvarint())}) //nolint:gosec // compared only
	}
	readPositions(&d, c.positions)
	return c, d.err
}

func (d *decoder) uint64() uint64 {
	b := d.bytes(8)
	if d.err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.b, d.err = nil, errShort
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	b := d.bytes(1)
	if d.err != nil {
		return 0
	}
	return b[0]
}

// slot is one of the two files that hold a cursor in turn.
type slot struct {
	file File // nil: it was not written yet, or failed
	size int64
}

func slotName(i int) string { return cursorName + "." + strconv.Itoa(i) }

func (sl *slot) close(err error) error {
	if sl.file == nil {
		return err
	}
	err = closing(sl.file, err)
	sl.file = nil
	return err
}

// loadCursor returns the latest cursor, or nil where there is none that can be
// used, and what is wrong with the other ones. That one slot is not whole is how
// a crash in the middle of a save leaves it.
func (s *Spool) loadCursor() (latest *cursor, failure error) {
	for _, name := range []string{slotName(0), slotName(1), cursorName} {
		b, err := readFile(s.fs, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var c *cursor
		if err == nil {
			c, err = decodeCursor(b)
		}
		if err != nil {
			failure = errors.Join(failure, fmt.Errorf("%s: %w", name, err))
		} else if latest == nil || c.generation > latest.generation {
			latest = c
		}
	}
	return latest, failure
}

func readFile(from FS, name string) ([]byte, error) {
	f, err := from.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err == nil && size > maxCursor {
		err = fmt.Errorf("%s of %d bytes: %w", name, size, ErrLimit)
	}
	if err != nil {
		return nil, closing(f, err)
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], closing(f, err)
}

// snapshot is called under saving and mu.
func (s *Spool) snapshot() *cursor {
	c := &cursor{generation: s.generation + 1, appended: s.appended, positions: maps.Clone(s.positions)}
	for k, st := range s.streams {
		c.streams = append(c.streams, cursorStream{streamKey: k, acked: st.acked, next: st.next, gone: st.absent()})
	}
	for _, seg := range s.segments {
		if seg.cut {
			c.cuts = append(c.cuts, cursorCut{fileID: seg.id, good: seg.good})
		}
	}
	return c
}

// absent returns the tombstones that lie in no file. Called under mu.
func (st *stream) absent() []cursorGone {
	var list []cursorGone
	if st.missing == 0 {
		return nil
	}
	for i := range st.entries {
		if e := &st.entries[i]; e.seg == nil {
			list = append(list, cursorGone{trace: st.gone[e.first], first: e.first, count: e.count, flags: e.flags, lost: e.lost})
		}
	}
	return list
}

// save makes a cursor durable. The slot of the durable one is not touched. A
// slot that fails is opened anew for the next try, which writes all of it again.
func (s *Spool) save(c *cursor) error {
	sl := &s.slots[c.generation%2]
	if err := s.saveTo(sl, slotName(int(c.generation%2)), c.encode()); err != nil {
		return sl.close(fmt.Errorf("save the cursor: %w", err))
	}
	s.generation = c.generation
	return nil
}

func (s *Spool) saveTo(sl *slot, name string, b []byte) error {
	fresh := sl.file == nil
	if fresh {
		f, err := s.fs.Edit(name)
		if err != nil {
			return err
		}
		sl.file = f
		if sl.size, err = f.Size(); err != nil {
			return err
		}
	}
	if err := sl.write(b); err != nil {
		return err
	}
	if err := sl.file.Sync(); err != nil {
		return err
	}
	if fresh {
		return s.fs.SyncDir()
	}
	return nil
}

// write puts b where the two copies belong. A slot that grows gets room to
// spare, written with zeros, so that the file system keeps it for the next ones.
func (sl *slot) write(b []byte) error {
	half := sl.size / 2
	if int64(len(b)) > half || sl.size%(2*cursorAlign) != 0 {
		half = (int64(len(b))*3/2/cursorAlign + 1) * cursorAlign
		all := make([]byte, 2*half)
		copy(all, b)
		copy(all[half:], b)
		_, err := sl.file.WriteAt(all, 0)
		if err == nil {
			sl.size = 2 * half
		}
		return err
	}
	if _, err := sl.file.WriteAt(b, 0); err != nil {
		return err
	}
	_, err := sl.file.WriteAt(b, half)
	return err
}

// unlink removes files that the durable cursor acknowledges.
func (s *Spool) unlink(freed []*segment) error {
	var errs []error
	for _, seg := range freed {
		if err := s.fs.Remove(seg.id.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove an acknowledged file: %w", err))
			continue
		}
		s.mu.Lock()
		s.drop(seg)
		s.forget(seg.id.epoch)
		s.broadcast()
		s.mu.Unlock()
		if err := seg.file.Close(); err != nil {
			errs = append(errs, err)
		}
	}
	if err := s.fs.SyncDir(); err != nil {
		errs = append(errs, fmt.Errorf("flush the spool's directory: %w", err))
	}
	return errors.Join(errs...)
}

// forget drops the finished streams of an old epoch of which no file is left.
// Called under mu.
func (s *Spool) forget(epoch uint64) {
	if epoch == s.epoch || slices.ContainsFunc(s.segments, func(seg *segment) bool { return seg.id.epoch == epoch }) {
		return
	}
	for key, st := range s.streams {
		if key.epoch != epoch || len(st.entries) > 0 {
			continue
		}
		delete(s.streams, key)
		t := s.tenants[key.org]
		t.lanes[key.lane] = slices.DeleteFunc(t.lanes[key.lane], func(o *stream) bool { return o == st })
		if !slices.ContainsFunc(t.lanes[:], func(l []*stream) bool { return len(l) > 0 }) {
			delete(s.tenants, key.org)
			s.order = slices.DeleteFunc(s.order, func(o *tenant) bool { return o == t })
		}
	}
}
