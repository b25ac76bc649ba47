package spool

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/shared/ids"
)

// Lanes is how many lanes there are. A higher lane is offered first.
const Lanes = 2

// Classes is how many classes there are. A higher class is given up later.
const Classes = 3

// Reasons of what is missing.
const (
	// ReasonCorrupt: the frames were damaged on disk.
	ReasonCorrupt = "corrupt"
	// ReasonForgotten: the receiver asked again for what it had acknowledged,
	// and it is no longer here.
	ReasonForgotten = "forgotten"
	// ReasonEvicted: the frames made room for others.
	ReasonEvicted = "evicted"
)

// What callers test for.
var (
	ErrFull   = errors.New("the spool is full")
	ErrClosed = errors.New("the spool is closed")
	ErrLocked = errors.New("the spool is in use")
	ErrLimit  = errors.New("over the spool's limits")
)

// Key is an opaque partition: the spool only compares it.
type Key struct {
	Org  string
	Test bool
}

// Draft is a frame that has no place in a sequence yet.
type Draft struct {
	Key
	Lane, Class uint8
	Tombstone   bool
	Count       uint32 // records; the frame takes as many sequence numbers
	Body        []byte
}

// Frame is a draft with its place: the sequences First to First + Count - 1 of
// (Epoch, Org, Lane).
type Frame struct {
	Draft
	Epoch, First uint64
}

// Last is the sequence of the last record.
func (f *Frame) Last() uint64 { return f.First + uint64(f.Count) - 1 }

// Options of a spool.
type Options struct {
	Dir string
	// SegmentBytes is the size, or what it counts for of Budget, at which a file
	// is followed by the next one; 0: 8 MiB. It is never more than an eighth of Budget.
	SegmentBytes int64
	// Budget is what all files together may take; 0: 1 GiB.
	Budget int64
	// Floor is what is left free of the file system; 0: 5 %, at least 512 MiB, at
	// most a quarter of it; negative: nothing.
	Floor int64
	// EvictAfter is how long log frames wait for room, while one organisation's
	// are the only ones here, until an Append makes room by giving up others; 0:
	// not at all; negative: for ever.
	EvictAfter time.Duration
	// SaveEvery is the usual time between two saves of the cursor that free a
	// file; 0: 1 s.
	SaveEvery time.Duration
	Log       hclog.Logger
	// TombstoneBody makes the body of a frame that says what is missing. It must
	// not call the spool. nil: such frames have no body.
	TombstoneBody func(Missing) []byte
	FS            FS // nil: Dir on the real file system
}

// Missing is a range of one sequence that a tombstone stands for.
type Missing struct {
	Key
	Lane         uint8
	Epoch, First uint64
	Count        uint32
	Bytes        int64     // of the frames as they lay on disk; 0: not known
	Since, Until time.Time // when they were appended, roughly; zero: not known
	Reason       string
}

func (o *Options) complete() {
	if o.Budget <= 0 {
		o.Budget = 1 << 30
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 8 << 20
	}
	o.SegmentBytes = min(o.SegmentBytes, o.Budget/8)
	if o.SaveEvery <= 0 {
		o.SaveEvery = time.Second
	}
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	if o.TombstoneBody == nil {
		o.TombstoneBody = func(Missing) []byte { return nil }
	}
}

// Spool is the queue. It is safe for concurrent use.
type Spool struct {
	o     Options
	fs    FS
	log   hclog.Logger
	lock  io.Closer
	epoch uint64 // of new frames

	writing sync.Mutex // held by the one Append that writes; before mu
	active  *segment   // under writing: the file that takes appends, or nil
	chain   uint32     // under writing: headCRC of the active file's last block
	buffer  []byte     // under writing

	saving     sync.Mutex // held while the cursor is written and files are unlinked or rewritten; before mu
	generation uint64     // under saving: of the durable cursor
	slots      [2]slot    // under saving

	mu        sync.Mutex
	closed    bool
	changed   chan struct{} // closed and replaced when a waiter should look again
	appended  uint64        // number of the last accepted append
	segments  []*segment    // oldest first
	budget    budget
	streams   map[streamKey]*stream
	tenants   map[string]*tenant
	order     []*tenant
	turn      [Lanes]int // index into order, after the one served last
	positions map[string][]byte
	dirty     bool // something changed that the cursor does not say yet
	idle      bool // the keeper looks again only when it is told to
	waiting   int  // callers of Room that wait
	stats     Stats

	nudge chan struct{} // wakes the keeper
	quit  chan struct{}
	kept  sync.WaitGroup
}

// LaneStats describes one lane.
type LaneStats struct {
	Frames int   // not acknowledged
	Unsent int   // of them, not offered since the last Reset
	Bytes  int64 // of the frames, as they lie on disk
	// Oldest is when the file was begun that holds the oldest of them; zero: none.
	Oldest time.Time
}

// Stats describes a spool.
type Stats struct {
	Lane      [Lanes]LaneStats
	Disk      int64 // bytes of the files
	Budget    int64
	Ceiling   int64 // what of Budget may be used now: less where the file system is nearly full
	Free      int64 // bytes of the file system that may still be written, when last asked
	Low       bool  // Free is below the floor
	Files     int
	Appends   uint64 // since Open
	Syncs     uint64 // fsyncs of files by Append, since Open
	Recovered int    // frames found at Open that were not acknowledged
	Cut       int    // blocks of a torn tail that Open left out
	Corrupt   int    // damaged places found
	Lost      uint64 // records that tombstones stand for, also those of Evicted
	// Evicted is what gave way to others since Open, by lane and class. Of a
	// frame that was on its way by then the receiver may have had time to take it.
	Evicted [Lanes][Classes]Loss
	Rewrote int64 // bytes copied to free the room beside them, since Open
}

// Loss counts frames that were given up.
type Loss struct {
	Frames  int
	Records uint64
	Bytes   int64
}

// Open opens the spool in o.Dir, which it makes where it is missing, and finds
// again what was there. Only what makes the directory useless is an error.
func Open(o Options) (*Spool, error) {
	o.complete()
	if o.FS == nil {
		d, err := openDirectory(o.Dir)
		if err != nil {
			return nil, err
		}
		o.FS = d
	}
	lock, err := o.FS.Lock()
	if err != nil {
		return nil, closing(o.FS, err)
	}
	s := &Spool{
		o: o, fs: o.FS, log: o.Log, lock: lock, epoch: ids.Epoch(),
		changed: make(chan struct{}), streams: map[streamKey]*stream{}, tenants: map[string]*tenant{}, positions: map[string][]byte{},
		nudge: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	s.budget.ceiling = o.Budget
	if err := s.recover(); err != nil {
		for _, seg := range s.segments {
			err = closing(seg.file, err)
		}
		return nil, closing(o.FS, closing(lock, err))
	}
	s.kept.Go(s.keep)
	return s, nil
}

// Close makes the cursor durable and lets go of the directory. Appends that
// have returned are safe without it.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.broadcast()
	s.mu.Unlock()
	close(s.quit)
	s.kept.Wait()
	s.writing.Lock() // an Append that has begun ends first
	defer s.writing.Unlock()
	err := s.tidy()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		err = closing(seg.file, err)
	}
	for i := range s.slots {
		err = s.slots[i].close(err)
	}
	s.segments, s.active = nil, nil
	return closing(s.fs, closing(s.lock, err))
}

// Epoch is the epoch of the frames that are appended now.
func (s *Spool) Epoch() uint64 { return s.epoch }

// Positions returns a copy of the durable positions.
func (s *Spool) Positions() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.positions) // the values are never changed, only replaced
}

// wait lets go of mu until something has changed.
func (s *Spool) wait(ctx context.Context) error {
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// broadcast lets all waiters look again. Called under mu.
func (s *Spool) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Stats describes the spool now.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Budget, st.Files = s.o.Budget, len(s.segments)
	st.Ceiling, st.Free, st.Low = s.budget.ceiling, s.budget.free, s.budget.low
	for _, seg := range s.segments {
		st.Disk += seg.size
	}
	for _, stream := range s.streams {
		stream.count(&st.Lane[stream.lane])
	}
	return st
}
