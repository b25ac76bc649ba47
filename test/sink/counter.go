package sink

import (
	"context"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Counter counts lines that begin with a marker: "#iFFFsNNNNNNNNN ", the number
// of a file and of the line in it. It implements ingest.Committer.
type Counter struct {
	mu        sync.Mutex
	marks     map[markKey]uint64
	files     map[int]*bitmap
	stats     Stats
	latencies []time.Duration
}

type markKey struct {
	node  telemetry.NodeID
	epoch uint64
	lane  telemetry.Lane
}

// Stats is what has come.
type Stats struct {
	Frames   int64
	Bytes    int64 // of frames, encoded
	Unique   int64 // numbered lines
	Repeated int64 // numbered lines that had come before: promised to be none
	Other    int64 // lines without a number
	Text     int64 // bytes of the unique ones
	Gaps     int64
	Resent   int64     // records in frames that were known by their marks: harmless
	Bad      int64     // frames that could not be read
	Last     time.Time // when the last new numbered line was received
}

// NewCounter makes a counter that has seen nothing.
func NewCounter() *Counter { return &Counter{marks: map[markKey]uint64{}, files: map[int]*bitmap{}} }

// Stats returns what has come so far.
func (c *Counter) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Forget starts counting again; marks stay, so that no node is asked for what
// it has forgotten.
func (c *Counter) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files, c.stats, c.latencies = map[int]*bitmap{}, Stats{}, nil
}

// Missing returns how many of the lines 0 … n-1 of each file have not come.
func (c *Counter) Missing(n []int64) (missing int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for file, want := range n {
		missing += want - c.files[file].below(want)
	}
	return missing
}

// Latencies returns the times from the writing of lines to their arrival,
// sorted, and forgets them. A line says when it was written by "t=NANOSECONDS "
// after its marker.
func (c *Counter) Latencies() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.latencies
	c.latencies = nil
	slices.Sort(l)
	return l
}

// Commit implements ingest.Committer.
func (c *Counter) Commit(_ context.Context, frames []*frame.Received) ([]frame.Outcome, []*frame.Published, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	outcomes := make([]frame.Outcome, len(frames))
	for i, f := range frames {
		k := markKey{node: f.Node, epoch: f.Epoch, lane: f.Lane}
		switch mark := c.marks[k]; {
		case f.Last() <= mark:
			outcomes[i].Verdict = frame.Duplicate
			c.stats.Resent += int64(f.Count)
		case f.First != mark+1:
			outcomes[i] = frame.Outcome{Verdict: frame.OutOfOrder, Next: mark + 1}
		default:
			c.marks[k] = f.Last()
			c.take(f)
		}
	}
	return outcomes, nil, nil
}

// take counts one new frame. Called under mu.
func (c *Counter) take(f *frame.Received) {
	c.stats.Frames++
	c.stats.Bytes += int64(len(f.Body))
	c.stats.Gaps += int64(len(f.Gaps))
	if f.Quarantine != "" {
		c.stats.Bad++
		return
	}
	if f.Segment == nil {
		return
	}
	lines := f.Segment.Read()
	if err := lines.Decode(segment.Message); err != nil {
		c.stats.Bad++
		return
	}
	for i := range lines.Segment.Lines {
		c.line(lines.Message(i), f.ReceivedAt)
	}
}

const markerLen = len("#iFFFsNNNNNNNNN ")

func (c *Counter) line(message []byte, at time.Time) {
	file, n, ok := marker(message)
	if !ok {
		c.stats.Other++
		return
	}
	b := c.files[file]
	if b == nil {
		b = &bitmap{}
		c.files[file] = b
	}
	if !b.set(n) {
		c.stats.Repeated++
		return
	}
	c.stats.Unique++
	c.stats.Text += int64(len(message))
	c.stats.Last = at
	const stamp = len("t=1234567890123456789 ")
	if m := message[markerLen:]; len(m) >= stamp && m[0] == 't' && m[1] == '=' {
		if ns, ok := number(m[2 : stamp-1]); ok {
			c.latencies = append(c.latencies, at.Sub(time.Unix(0, ns)))
		}
	}
}

// marker reads the numbers that a line begins with.
func marker(m []byte) (file int, n int64, ok bool) {
	if len(m) < markerLen || m[0] != '#' || m[1] != 'i' || m[5] != 's' || m[15] != ' ' {
		return 0, 0, false
	}
	f, ok1 := number(m[2:5])
	n, ok2 := number(m[6:15])
	return int(f), n, ok1 && ok2
}

func number(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// bitmap is a set of line numbers.
type bitmap struct{ words []uint64 }

// set adds n and reports whether it is new.
func (b *bitmap) set(n int64) bool {
	word, bit := int(n/64), uint64(1)<<(n%64)
	if word >= len(b.words) {
		b.words = slices.Grow(b.words, word+1-len(b.words))[:word+1]
	}
	known := b.words[word]&bit != 0
	b.words[word] |= bit
	return !known
}

// below counts the members under n. A nil bitmap is empty.
func (b *bitmap) below(n int64) (count int64) {
	if b == nil {
		return 0
	}
	for i, w := range b.words {
		if left := n - int64(i)*64; left < 64 {
			if left <= 0 {
				break
			}
			w &= 1<<left - 1
		}
		count += int64(bits.OnesCount64(w))
	}
	return count
}
