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
)

// The cursor is everything that the segment files do not say: what is
// acknowledged, which of their bytes are void, and all positions, because those
// in a file go with it.
//
//	cursor.tmp written ──▶ fsync ──▶ renamed to cursor ──▶ directory fsync ──▶ files may be unlinked
//
// It holds its content twice, so that no single damage loses it.
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
}

// cursorCut says that a file's bytes from good on are void.
type cursorCut struct {
	fileID
	good int64
}

const (
	cursorName    = "cursor"
	cursorMagic   = "thzcursr"
	cursorHeader  = 8 + 4 + 4 + 8 // magic, CRC, version, length
	cursorVersion = 1
	maxCursor     = 256 << 20
)

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
	return slices.Concat(one, one)
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
	if len(b) < cursorHeader || string(b[:8]) != cursorMagic || binary.LittleEndian.Uint32(b[12:]) != cursorVersion {
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

func (d *decoder) byte() byte {
	b := d.bytes(1)
	if d.err != nil {
		return 0
	}
	return b[0]
}

// loadCursor returns the cursor, or nil where there is none that can be used.
func (s *Spool) loadCursor() *cursor {
	b, err := readFile(s.fs, cursorName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var c *cursor
	if err == nil {
		c, err = decodeCursor(b)
	}
	if err != nil {
		s.log.Error("the spool's cursor is damaged: frames that were acknowledged may be sent again, and sources may repeat what they read last", "error", err)
		s.stats.Corrupt++
		return nil
	}
	return c
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

// tidy makes the cursor durable and then unlinks the files that it allows.
func (s *Spool) tidy() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	c := s.snapshot()
	var freed []*segment
	for _, seg := range s.segments {
		if seg.free() {
			freed = append(freed, seg)
		}
	}
	wasDirty := s.dirty
	s.dirty = false
	s.mu.Unlock()
	if !wasDirty && len(freed) == 0 {
		return nil
	}
	if err := s.save(c); err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
		return err
	}
	if len(freed) == 0 {
		return nil
	}
	return s.unlink(freed)
}

// free reports whether the file holds nothing that is still wanted.
func (seg *segment) free() bool { return seg.sealed && seg.live == 0 && seg.readers == 0 }

// snapshot is called under saving and mu.
func (s *Spool) snapshot() *cursor {
	s.generation++
	c := &cursor{generation: s.generation, appended: s.appended, positions: maps.Clone(s.positions)}
	for k, st := range s.streams {
		c.streams = append(c.streams, cursorStream{streamKey: k, acked: st.acked, next: st.next})
	}
	for _, seg := range s.segments {
		if seg.cut {
			c.cuts = append(c.cuts, cursorCut{fileID: seg.id, good: seg.good})
		}
	}
	return c
}

func (s *Spool) save(c *cursor) error {
	const temporary = cursorName + temporarySuffix
	f, err := s.fs.Create(temporary)
	if err != nil {
		return fmt.Errorf("save the cursor: %w", err)
	}
	_, err = f.WriteAt(c.encode(), 0)
	if err == nil {
		err = f.Sync()
	}
	if err = closing(f, err); err == nil {
		if err = s.fs.Rename(temporary, cursorName); err == nil {
			err = s.fs.SyncDir()
		}
	}
	if err != nil {
		return fmt.Errorf("save the cursor: %w", err)
	}
	return nil
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
	if len(errs) > 0 {
		s.mu.Lock()
		s.dirty = true // try again
		s.mu.Unlock()
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
