package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/theazo/observability/shared/segment"
)

// Limits of one chunk.
const (
	chunkLines = 4096
	chunkRaw   = 1 << 20
)

// How far a line's timestamp may be from its arrival to decide its day: a clock
// that is far off must not make a partition of the year 2071, nor put a line where
// retention takes it at once. Too late counts as the bound, too early as the arrival.
const (
	dayPast   = 30 * 24 * time.Hour
	dayFuture = 10 * time.Minute
)

const microsPerDay = 24 * 60 * 60 * 1_000_000

// chunkDay counts days since 1970, in UTC.
type chunkDay int32

func (d chunkDay) date() time.Time { return time.Unix(int64(d)*24*60*60, 0).UTC() }

func dayOf(t time.Time) chunkDay { return dayOfMicros(t.UnixMicro()) }

func dayOfMicros(us int64) chunkDay {
	d := us / microsPerDay
	if us%microsPerDay < 0 {
		d--
	}
	return chunkDay(d) //nolint:gosec // timestamps are within the calendar
}

// lineBlock is some lines that were decoded together: a segment of a hot row, or
// a block of a chunk.
type lineBlock struct {
	lines  *segment.Lines
	first  segment.Place        // of a segment: its lines follow one after the other
	places *segment.BlockPlaces // of a block: each line's own
	day    func(i int) chunkDay // of each line
}

func (b *lineBlock) place(i int) segment.Place {
	if b.places != nil {
		return b.places.At(i)
	}
	p := b.first
	p.Position += int64(i)
	p.Seq += uint64(i) //nolint:gosec // a count of lines
	return p
}

func (b *lineBlock) position(i int) int64 {
	if b.places != nil {
		return b.places.Position(i)
	}
	return b.first.Position + int64(i)
}

// segmentBlock is a segment of a hot row that arrived at recv and begins at a
// position. Its columns are decoded.
func segmentBlock(lines *segment.Lines, part *segment.Part, position int64, recv time.Time) lineBlock {
	lo, at, hi := recv.Add(-dayPast).UnixMicro(), recv.UnixMicro(), recv.Add(dayFuture).UnixMicro()
	return lineBlock{
		lines: lines, first: segment.Place{Position: position, Node: part.Node, Epoch: part.Epoch, Seq: part.FirstSeq, Observed: recv},
		day: func(i int) chunkDay {
			micros := lines.Micros(i)
			if micros < lo {
				micros = at
			}
			return dayOfMicros(min(micros, hi))
		},
	}
}

// dayChunk is a chunk with what the codec does not know of it.
type dayChunk struct {
	*segment.Chunk
	class int16
	day   chunkDay
	odd   bool
}

// sortedLine is where one line of a set is, and what it is sorted by.
type sortedLine struct {
	group       uint64 // day, then rank of the owner
	micros      int64
	position    int64
	block, line uint32
}

// chunkCutter makes chunks of any lines of one stream. It keeps its buffers
// from one set to the next; not safe for concurrent use.
type chunkCutter struct {
	blocks  []lineBlock
	refs    []sortedLine
	origins segment.Interner
	numbers []uint32 // of the origins of all blocks, one after the other
	writer  segment.ChunkWriter
}

func (c *chunkCutter) add(b lineBlock) { c.blocks = append(c.blocks, b) }

// cut makes chunks of the lines that were added, and forgets them.
func (c *chunkCutter) cut(class int16) []*dayChunk {
	c.sort()
	var chunks []*dayChunk
	for rest := c.refs; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].day() == rest[0].day() {
			n++
		}
		chunks = c.cutDay(chunks, class, rest[:n])
		rest = rest[n:]
	}
	c.reset()
	return chunks
}

func (c *chunkCutter) reset() {
	clear(c.blocks) // they hold the decoded lines
	c.blocks, c.refs = c.blocks[:0], c.refs[:0]
	c.origins.Reset()
}

func (r *sortedLine) day() chunkDay { return chunkDay(int32(r.group>>32) - dayOffset) } //nolint:gosec // put there by groupOf

// dayOffset makes days before 1970 sort first.
const dayOffset = 1 << 30

func groupOf(day chunkDay, rank uint32) uint64 {
	return uint64(int64(day)+dayOffset)<<32 | uint64(rank) //nolint:gosec // never negative
}

// sort fills refs by day, owner, timestamp and position.
func (c *chunkCutter) sort() {
	c.numbers = c.numbers[:0]
	for b := range c.blocks {
		c.numbers = c.origins.Intern(c.blocks[b].lines.Segment, c.numbers)
	}
	ranks := ownerRanks(c.origins.Origins())
	numbers := c.numbers
	for b := range c.blocks {
		block := &c.blocks[b]
		l := block.lines
		for i := range l.Segment.Lines {
			c.refs = append(c.refs, sortedLine{
				group: groupOf(block.day(i), ranks[numbers[l.OriginIndex(i)]]), micros: l.Micros(i), position: block.position(i),
				block: uint32(b), line: uint32(i),
			})
		}
		numbers = numbers[len(l.Origins):]
	}
	slices.SortFunc(c.refs, func(x, y sortedLine) int {
		switch {
		case x.group != y.group:
			return cmp.Compare(x.group, y.group)
		case x.micros != y.micros:
			return cmp.Compare(x.micros, y.micros)
		}
		return cmp.Compare(x.position, y.position)
	})
}

// cutDay appends the chunks of one day's lines: of even sizes, as few as the
// limits allow.
func (c *chunkCutter) cutDay(chunks []*dayChunk, class int16, refs []sortedLine) []*dayChunk {
	raw := 0
	for i := range refs {
		raw += len(c.blocks[refs[i].block].lines.Message(int(refs[i].line)))
	}
	count := max((len(refs)+chunkLines-1)/chunkLines, (raw+chunkRaw-1)/chunkRaw, 1)
	most := (len(refs) + count - 1) / count
	day, odd := refs[0].day(), false
	flush := func() {
		if k := c.writer.Encode(); k != nil {
			chunks = append(chunks, &dayChunk{Chunk: k, class: class, day: day, odd: odd})
		}
		odd = false
	}
	for i := range refs {
		r := &refs[i]
		b := &c.blocks[r.block]
		if c.writer.Lines() == most || c.writer.Lines() > 0 && c.writer.RawBytes()+len(b.lines.Message(int(r.line))) > chunkRaw {
			flush()
		}
		c.writer.Append(b.lines, int(r.line), b.place(int(r.line)))
		odd = odd || dayOfMicros(r.micros) != day
	}
	flush()
	return chunks
}
