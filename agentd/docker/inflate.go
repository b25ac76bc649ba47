package docker

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
)

// inflater reads a rotated file that the engine has compressed, at offsets in
// its plain text. It reads forward; a step back begins anew. What a reader did
// not use of a block is kept, so that reading on is no step back.
type inflater struct {
	f    *os.File
	r    *gzip.Reader // nil: closed
	at   int64        // in the plain text, after rest
	rest []byte       // read before and not used
}

func (z *inflater) readAt(buf []byte, off int64) (int, error) {
	if start := z.at - int64(len(z.rest)); z.r == nil || off < start {
		if err := z.rewind(); err != nil {
			return 0, err
		}
	} else {
		z.rest = z.rest[min(off-start, int64(len(z.rest))):]
	}
	if skip := off - z.at; skip > 0 {
		n, err := io.CopyN(io.Discard, z.r, skip)
		if z.at += n; err != nil {
			return 0, z.ended(err)
		}
	}
	n := copy(buf, z.rest)
	z.rest = z.rest[n:]
	if n == len(buf) {
		return n, nil
	}
	m, err := io.ReadFull(z.r, buf[n:])
	z.at += int64(m)
	return n + m, z.ended(err)
}

func (z *inflater) rewind() (err error) {
	z.at, z.rest = 0, nil
	from := io.NewSectionReader(z.f, 0, 1<<62)
	if z.r == nil {
		z.r, err = gzip.NewReader(from)
	} else {
		err = z.r.Reset(from)
	}
	if err != nil {
		z.close()
		return fmt.Errorf("inflate: %w", err)
	}
	return nil
}

// ended tells the end of a whole file from the end of a broken one.
func (z *inflater) ended(err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		// ReadFull says so at any end; the reader knows.
		if _, again := z.r.Read(make([]byte, 1)); errors.Is(again, io.EOF) {
			return io.EOF
		}
	}
	return fmt.Errorf("inflate: %w", err)
}

// unread takes back the end of the last block, which the next read asks for.
func (z *inflater) unread(rest []byte) {
	z.rest = append(append([]byte(nil), rest...), z.rest...)
}

// close gives up the memory of reading.
func (z *inflater) close() { z.r, z.at, z.rest = nil, 0, nil }
