package execclient

import (
	"sync"
	"time"
)

// Bounds of what is kept for the endpoint.
const (
	keepBytes  = 1 << 20
	chunkBytes = 32 << 10
	chunkCost  = 96 // of a chunk beside its bytes
	mergeFor   = 5 * time.Millisecond
)

// The two streams.
const (
	stdout = iota
	stderr
)

// chunk is a piece of one stream.
type chunk struct {
	stream int
	offset int64
	at     time.Time
	data   []byte
}

// recorder keeps what the command printed until agentd has it: chunks that
// were sent and are not acknowledged, then those that were not sent. When it is
// full, chunks that were sent go first, because they very likely arrived; then
// new ones are dropped.
type recorder struct {
	mu      sync.Mutex
	chunks  []chunk
	sent    int // so many of chunks were sent
	bytes   int
	offsets [2]int64 // bytes of each stream so far, dropped ones included
	exit    []byte   // the exit frame's payload, once the command has ended
	moved   time.Time
	away    bool // the last attempt to reach agentd failed
	done    bool // agentd has it all, or wants none of it
	wake    chan struct{}
	ended   chan struct{} // closed when done
}

func newRecorder() *recorder {
	return &recorder{wake: make(chan struct{}, 1), ended: make(chan struct{}), moved: time.Now()}
}

// add records bytes; it copies them and never waits.
func (r *recorder) add(stream int, b []byte) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(b) > 0 {
		n := min(len(b), chunkBytes)
		r.addChunk(stream, b[:n], now)
		b = b[n:]
	}
	r.signal()
}

func (r *recorder) addChunk(stream int, b []byte, now time.Time) {
	offset := r.offsets[stream]
	r.offsets[stream] += int64(len(b))
	if r.done {
		return
	}
	for r.sent > 0 && r.bytes+len(b)+chunkCost > keepBytes {
		r.forget(1)
	}
	if r.bytes+len(b)+chunkCost > keepBytes {
		return // dropped: the next offset says so
	}
	if len(r.chunks) == 0 {
		r.moved = now // what waits from now on
	}
	if n := len(r.chunks); n > r.sent {
		last := &r.chunks[n-1]
		if last.stream == stream && last.offset+int64(len(last.data)) == offset && len(last.data)+len(b) <= chunkBytes && now.Sub(last.at) < mergeFor {
			last.data = append(last.data, b...)
			r.bytes += len(b)
			return
		}
	}
	r.chunks = append(r.chunks, chunk{stream, offset, now, append([]byte(nil), b...)})
	r.bytes += len(b) + chunkCost
}

// forget drops the first n chunks, which were sent.
func (r *recorder) forget(n int) {
	for i := range n {
		r.bytes -= len(r.chunks[i].data) + chunkCost
		r.chunks[i] = chunk{}
	}
	r.chunks = r.chunks[n:]
	r.sent -= n
}

func (r *recorder) signal() {
	select {
	case r.wake <- struct{}{}:
	default: // it knows
	}
}

// end says that the command has ended.
func (r *recorder) end(exit func(stdout, stderr int64) []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exit = exit(r.offsets[stdout], r.offsets[stderr])
	if len(r.chunks) == 0 {
		r.moved = time.Now()
	}
	r.signal()
}

// next returns chunks that were not sent, of about so many bytes at most, and
// counts them as sent; exit comes after the last. They stay as they are: add
// extends none that was sent.
func (r *recorder) next(most int) (chunks []chunk, exit []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.sent
	for r.sent < len(r.chunks) && most > 0 {
		most -= len(r.chunks[r.sent].data)
		r.sent++
	}
	chunks = append(chunks, r.chunks[first:r.sent]...)
	if r.sent == len(r.chunks) {
		exit = r.exit
	}
	return chunks, exit
}

// again makes all that is not acknowledged unsent: the connection broke.
func (r *recorder) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent, r.away = 0, true
}

// connected says that agentd reads.
func (r *recorder) connected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away, r.moved = false, time.Now()
}

// progress notes that something was written or acknowledged.
func (r *recorder) progress() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved = time.Now()
}

// acknowledge forgets what agentd has.
func (r *recorder) acknowledge(upTo [2]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved = time.Now()
	n := 0
	for n < r.sent && r.chunks[n].offset+int64(len(r.chunks[n].data)) <= upTo[r.chunks[n].stream] {
		n++
	}
	r.forget(n)
}

// finish says that nothing more is to be sent.
func (r *recorder) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.done {
		r.done = true
		r.chunks, r.sent, r.bytes = nil, 0, 0
		close(r.ended)
	}
}

// stalled reports whether waiting is in vain: agentd is away, or nothing has
// moved for so long.
func (r *recorder) stalled(limit time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.away || time.Since(r.moved) > limit
}
