package segment

import (
	"time"
)

// BlockLines is how many lines of a chunk are encoded, and decode, together.
const BlockLines = 512

// blockBytes is the raw size at which a block of fewer lines is cut.
const blockBytes = 256 << 10

// maxListed bounds the bytes of the lists of agents and of sessions of a chunk.
const maxListed = 512

// Chunk is a row of the store that holds lines in the order in which queries
// want them: what becomes of hot rows.
type Chunk struct {
	Row
	Places []byte // column: ReadPlaces
	Bloom  []byte // Token
	Counts []byte // column: ReadCounts

	First, Last          int64     // positions, both inclusive
	Observed0, Observed1 time.Time // both inclusive
	SessionLo, SessionHi string    // the lowest and the highest session, by bytes
	Sessions, Agents     []string  // each once, in the order of lines; nil: too many to list
	Owners               []byte    // Owner.In: of what is not listed; nil: nobody is denied
}

// ChunkWriter collects lines and encodes them into one chunk. It keeps its
// buffers from one chunk to the next. Not safe for concurrent use.
type ChunkWriter struct {
	block    Writer
	waiting  []lineRef // of the block that is not cut yet
	blockRaw int
	blocks   []*Segment
	places   placeWriter
	counts   countWriter
	bloom    bloomWriter
	lines    int
	raw      int
}

// Append adds line i of l, whose columns must all be decoded and stay so until
// Encode. The caller appends lines of a session and of an agent together, as far
// as that goes, by timestamp and position, and cuts before MaxChunkLines; at.Observed
// is taken to the microsecond.
func (w *ChunkWriter) Append(l *Lines, i int, at Place) {
	size := len(l.message.At(i)) + len(l.metadata.At(i))
	if len(w.waiting) == BlockLines || len(w.waiting) > 0 && w.blockRaw+size > blockBytes {
		w.cut()
	}
	w.waiting = append(w.waiting, lineRef{l, i})
	w.places.append(&at)
	w.blockRaw += size
	w.lines++
	w.raw += size
}

// Lines is the number of lines since the last Encode.
func (w *ChunkWriter) Lines() int { return w.lines }

// RawBytes is the size of their messages and metadata.
func (w *ChunkWriter) RawBytes() int { return w.raw }

// cut encodes the lines that wait as one block.
func (w *ChunkWriter) cut() {
	if len(w.waiting) == 0 {
		return
	}
	w.block.scaled = true
	w.block.appendLines(w.waiting)
	for _, r := range w.waiting {
		w.counts.add(r.l.times[r.i], r.l.Level(r.i))
	}
	w.block.message.each(w.bloom.addMessage)
	w.places.cut(len(w.waiting))
	w.blocks = append(w.blocks, w.block.encodeSegment())
	clear(w.waiting)
	w.waiting, w.blockRaw = w.waiting[:0], 0
}

// Encode returns the lines as a chunk and forgets them; nil without lines.
func (w *ChunkWriter) Encode() *Chunk {
	w.cut()
	if w.lines == 0 {
		return nil
	}
	c := &Chunk{Row: joinBlocks(w.blocks), Places: w.places.encode(), Bloom: w.bloom.encode(), Counts: w.counts.encode()}
	first, last, observed0, observed1 := w.places.bounds()
	c.First, c.Last, c.Observed0, c.Observed1 = first, last, fromMicros(observed0), fromMicros(observed1)
	c.list(w.blocks)
	w.lines, w.raw, w.blocks = 0, 0, nil
	w.places.reset()
	w.counts.reset()
	return c
}

// list says whose lines the chunk holds.
func (c *Chunk) list(blocks []*Segment) {
	sessions, agents := newListing(), newListing()
	for i, block := range blocks {
		for j := range block.Origins {
			o := &block.Origins[j]
			s := string(o.Session)
			if i+j == 0 {
				c.SessionLo, c.SessionHi = s, s
			}
			c.SessionLo, c.SessionHi = min(c.SessionLo, s), max(c.SessionHi, s)
			if s != "" {
				sessions.add(s)
			}
			agents.add(string(o.Agent))
		}
	}
	c.Sessions, c.Agents = sessions.list, agents.list
	owners := map[Owner]struct{}{}
	for _, block := range blocks {
		for j := range block.Origins {
			if c.Sessions == nil {
				owners[SessionOwner(block.Origins[j].Session)] = struct{}{}
			}
			if c.Agents == nil {
				owners[AgentOwner(block.Origins[j].Agent)] = struct{}{}
			}
		}
	}
	c.Owners = encodeOwners(owners)
}

// listing is a list of ids that is given up when it becomes too long.
type listing struct {
	list []string
	seen map[string]struct{}
	size int
}

func newListing() *listing {
	return &listing{list: []string{}, seen: make(map[string]struct{})}
}

func (l *listing) add(id string) {
	if _, seen := l.seen[id]; seen || l.list == nil {
		return
	}
	l.seen[id] = struct{}{}
	l.list = append(l.list, id)
	if l.size += len(id) + 4; l.size > maxListed {
		l.list = nil
	}
}
