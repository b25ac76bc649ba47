package spool

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// segment is one file of blocks.
type segment struct {
	id    fileID
	file  File
	begun time.Time
	ended time.Time // when the last append came; roughly

	size   int64 // bytes of the file
	good   int64 // where the last accepted append ends
	cut    bool  // what lies after good is void and stays so
	sealed bool  // takes no more appends

	charge  int64 // what it takes of the budget
	wanted  int64 // of it: frames that are not acknowledged
	live    int   // how many they are
	readers int   // reads in progress: the file stays open for them
	moving  bool  // its frames are being copied
	retired bool  // another file has its name and its frames: closed by its last reader
}

// dead is what a copy of the file would save.
func (seg *segment) dead() int64 { return seg.charge - fileHeader - seg.wanted }

// free reports whether the file holds nothing that is still wanted.
func (seg *segment) free() bool {
	return seg.sealed && seg.live == 0 && seg.readers == 0 && !seg.moving
}

// frameCharge is the least that a frame takes of the budget.
const frameCharge = 1 << 10

// found is a block that a scan found, and where.
type found struct {
	block
	at      int64
	chained bool // it directly follows the block before, or the header, undamaged
	skipped bool // something unreadable lies before it
}

// scan finds the blocks of a file by their heads; bodies are not read.
func scan(id fileID, f io.ReaderAt, size int64, intern func([]byte) string) (blocks []found, err error) {
	seed := id.seed()
	w := window{f: f, size: size}
	previous, chained := seed, true
	for at := int64(fileHeader); at < size; {
		head, err := w.at(at, blockHeader+MaxOrg)
		if err != nil {
			return blocks, err
		}
		b, bad := parseHead(head, seed, intern)
		if bad == nil && at+b.size() <= size {
			blocks = append(blocks, found{block: b, at: at, chained: chained && b.previous == previous, skipped: !chained})
			previous, chained = b.crc, true
			at += b.size()
			continue
		}
		chained = false
		if at, err = w.resync(at + blockAlign); err != nil {
			return blocks, err
		}
	}
	return blocks, nil
}

// window reads a file forward in pieces.
type window struct {
	f     io.ReaderAt
	size  int64
	start int64
	b     []byte
	own   []byte
}

const windowBytes = 4 << 10

// at returns up to n bytes from offset on: fewer only at the file's end.
func (w *window) at(offset int64, n int) ([]byte, error) {
	want := min(int64(n), w.size-offset)
	if offset < w.start || offset+want > w.start+int64(len(w.b)) {
		if err := w.fill(offset, windowBytes); err != nil {
			return nil, err
		}
	}
	from := offset - w.start
	return w.b[from:min(from+want, int64(len(w.b)))], nil
}

func (w *window) fill(offset int64, n int64) error {
	n = min(n, w.size-offset)
	if int64(cap(w.own)) < n {
		w.own = make([]byte, n)
	}
	w.start, w.b = offset, w.own[:n]
	got, err := w.f.ReadAt(w.b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read at %d: %w", offset, err)
	}
	w.b = w.b[:got]
	if int64(got) < n {
		w.size = offset + int64(got) // it shrank under us: that is its end
	}
	return nil
}

// resync returns the next place at or after offset where a block may begin,
// or the file's size.
func (w *window) resync(offset int64) (int64, error) {
	const step = 64 << 10 // a multiple of the alignment
	for offset < w.size {
		if err := w.fill(offset, step); err != nil {
			return w.size, err
		}
		if i := findMagic(w.b); i >= 0 {
			return offset + int64(i), nil
		}
		offset += step
	}
	return w.size, nil
}

// readBlock reads a whole block again and checks every byte of it; buf is used
// where it is large enough. body and org are views of the result.
func readBlock(id fileID, f io.ReaderAt, at, size int64, buf []byte) (b block, body []byte, err error) {
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := f.ReadAt(buf, at); err != nil {
		return block{}, nil, fmt.Errorf("read block at %d: %w", at, err)
	}
	seed := id.seed()
	b, err = parseHead(buf, seed, func(b []byte) string { return string(b) })
	if err != nil {
		return block{}, nil, fmt.Errorf("block at %d: %w", at, err)
	}
	start := int64(blockHeader + len(b.org))
	if b.size() != size || !b.checkBody(buf[start:], seed) {
		return block{}, nil, fmt.Errorf("block at %d: %w", at, errNoBlock)
	}
	end := start + int64(b.body)
	return b, buf[start:end:end], nil
}
