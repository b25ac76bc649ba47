package segment

import (
	"encoding/binary"
	"math/bits"
)

// Numbers that differ little from their neighbours (times, positions) are
// stored as the lengths of the differences, which compress, and the bits below
// their highest, which do not:
//
//	values := length column(class…) bits
//
// A class is a byte: the bit length of a value's amount (0 to 64), with the high bit for
// a negative value. The bits lie lowest first. Near the entropy whatever the
// distribution, where varints lose a third.
const classNegative = 0x80

// appendValues appends values to dst; scratch is memory to work in.
func appendValues(dst []byte, values []int64, scratch []byte) (appended, kept []byte) {
	classes := scratch[:0]
	for _, v := range values {
		amount, sign := uint64(v), byte(0) //nolint:gosec // two's complement, undone when it is read
		if v < 0 {
			amount, sign = -amount, classNegative
		}
		classes = append(classes, sign|byte(bits.Len64(amount))) //nolint:gosec // at most 64
	}
	dst = appendLong(dst, classes)
	w := bitWriter{dst: dst}
	for i, v := range values {
		amount := uint64(v) //nolint:gosec // see above
		if v < 0 {
			amount = -amount
		}
		if n := uint(classes[i] &^ classNegative); n > 1 {
			w.write(amount&^(1<<(n-1)), n-1)
		}
	}
	return w.flush(), classes
}

// bitWriter appends bits, lowest first.
type bitWriter struct {
	dst  []byte
	held uint64
	n    uint // bits held, below 8 between writes
}

func (w *bitWriter) write(v uint64, n uint) {
	if n > 32 {
		w.write(v&0xffffffff, 32)
		v, n = v>>32, n-32
	}
	w.held |= v << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.dst = append(w.dst, byte(w.held)) //nolint:gosec // the lowest eight bits
		w.held >>= 8
	}
}

func (w *bitWriter) flush() []byte {
	if w.n > 0 {
		w.dst = append(w.dst, byte(w.held)) //nolint:gosec // the lowest eight bits
	}
	return w.dst
}

// readValues reads as many values as dst has places. r must hold nothing after them.
func (l *inflater) readValues(dst []int64, r *reader) {
	column := r.bytes(r.count(MaxColumn, "length of classes"))
	if r.err != nil {
		return
	}
	classes, err := l.inflate(column)
	if err != nil {
		r.err = err
		return
	}
	if len(classes) != len(dst) {
		r.fail("%d classes of %d values", len(classes), len(dst))
		return
	}
	total := uint(0)
	for _, c := range classes {
		n := uint(c &^ classNegative)
		if n > 64 {
			r.fail("a value of %d bits", n)
			return
		}
		if n > 1 {
			total += n - 1
		}
	}
	if (total+7)/8 != uint(len(r.b)) {
		r.fail("%d bits of values in %d bytes", total, len(r.b))
		return
	}
	at := uint(0)
	for i, c := range classes {
		n := uint(c &^ classNegative)
		if n == 0 {
			dst[i] = 0
			continue
		}
		amount := uint64(1)<<(n-1) | bitsAt(r.b, at, n-1)
		at += n - 1
		if c&classNegative != 0 {
			amount = -amount
		}
		dst[i] = int64(amount) //nolint:gosec // two's complement, see appendValues
	}
	r.b = nil
}

// bitsAt returns the n bits from bit at on, at most 63. They lie within b.
func bitsAt(b []byte, at, n uint) uint64 {
	i, shift := at>>3, at&7
	if i+9 <= uint(len(b)) {
		v := binary.LittleEndian.Uint64(b[i:])>>shift | uint64(b[i+8])<<(64-shift)
		return v & (1<<n - 1)
	}
	v := uint64(0)
	for j := range n {
		bit := at + j
		v |= uint64(b[bit>>3]>>(bit&7)&1) << j
	}
	return v
}
