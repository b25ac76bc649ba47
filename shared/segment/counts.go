package segment

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// CountStep is the width of the buckets in which a chunk counts its lines.
// Buckets begin at whole multiples of it since 1970.
const CountStep = 5 * time.Minute

const countsVersion = 1

// LevelCount says how many lines of each level have timestamps in
// [Start, Start+CountStep).
type LevelCount struct {
	Start  time.Time
	Levels [telemetry.NumLevels]int
}

// countWriter counts the lines of a chunk.
//
//	counts := version(1) buckets{ (distance<<4 | levels) count… }
//
// distance is from the bucket before, zigzag in the first; levels has a bit for each count
// that is not zero.
type countWriter struct {
	buckets map[int64]*[telemetry.NumLevels]int
	last    *[telemetry.NumLevels]int
	lastAt  int64
}

func (w *countWriter) add(micros int64, level telemetry.Level) {
	at := floorDiv(micros, CountStep.Microseconds())
	if w.last == nil || at != w.lastAt {
		if w.buckets == nil {
			w.buckets = make(map[int64]*[telemetry.NumLevels]int)
		}
		c := w.buckets[at]
		if c == nil {
			c = new([telemetry.NumLevels]int)
			w.buckets[at] = c
		}
		w.last, w.lastAt = c, at
	}
	w.last[level]++
}

func (w *countWriter) encode() []byte {
	starts := make([]int64, 0, len(w.buckets))
	for at := range w.buckets {
		starts = append(starts, at)
	}
	slices.Sort(starts)
	dst := binary.AppendUvarint([]byte{countsVersion}, uint64(len(starts)))
	last := int64(0)
	for i, at := range starts {
		distance := uint64(at - last) //nolint:gosec // they rise
		if i == 0 {
			distance = uint64(at)<<1 ^ uint64(at>>63) //nolint:gosec // zigzag
		}
		last = at
		levels := w.buckets[at]
		mask := uint64(0)
		for l, n := range levels {
			if n > 0 {
				mask |= 1 << l
			}
		}
		dst = binary.AppendUvarint(dst, distance<<4|mask)
		for _, n := range levels {
			if n > 0 {
				dst = binary.AppendUvarint(dst, uint64(n))
			}
		}
	}
	return dst
}

func (w *countWriter) reset() {
	clear(w.buckets)
	w.last = nil
}

// ReadCounts appends to dst what the counts column of a chunk says, in the
// order of time.
func ReadCounts(dst []LevelCount, column []byte) ([]LevelCount, error) {
	r := reader{b: column}
	if v := r.byte(); v != countsVersion && r.err == nil {
		r.fail("counts version %d is not known here", v)
	}
	n := r.count(MaxChunkLines, "buckets")
	if r.err == nil && 2*n > len(r.b) {
		r.fail("%d buckets in %d bytes", n, len(r.b))
	}
	const most = maxMicros/int64(5*time.Minute/time.Microsecond) + 1
	dst = slices.Grow(dst, n)
	at := int64(0)
	for i := range n {
		v := r.uvarint()
		distance := int64(v >> 4)
		if i == 0 {
			distance = distance>>1 ^ -(distance & 1)
		}
		if at += distance; at > most || at < -most || i > 0 && distance == 0 {
			r.fail("bucket %d is out of range", i)
		}
		if r.err != nil {
			break
		}
		c := LevelCount{Start: fromMicros(at * CountStep.Microseconds())}
		for l := range c.Levels {
			if v&(1<<l) != 0 {
				c.Levels[l] = r.count(MaxChunkLines, "lines of a bucket")
			}
		}
		dst = append(dst, c)
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes after the last bucket", len(r.b))
	}
	return dst, r.err
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
