package spool

import (
	"context"
	"fmt"
	"math"
	"time"
)

// budget is what the files take, and may take. Under mu.
//
//	0 ────────── log frames ─────────▶│◀─ 5 % ─▶│◀── SegmentBytes ──▶│ ceiling
//	0 ────────── events lane ──────────────────▶│  a file's copy,    │
//	                                            │  while both exist  │
type budget struct {
	used    int64
	ceiling int64 // Options.Budget, or less where the file system has no room for it
	free    int64
	low     bool      // free is below the floor: ceiling stays what was used by then
	asked   time.Time // when the file system was asked for its space
	since   int64     // bytes taken since then
	told    time.Time // when the log was told that lines wait
	said    time.Time // when it was told that frames give way
	full    time.Time // since when log frames have found no room that an acknowledgement gave; zero: they do
}

const (
	spaceEvery = time.Second
	spaceBytes = 16 << 20
	leastFloor = 512 << 20
	forever    = time.Duration(math.MaxInt64)
)

// reserve is the part of the budget that only the events lane may use.
func (b *budget) reserve() int64 { return b.ceiling / 20 }

// limit is up to where frames may take room.
func (s *Spool) limit(logs bool) int64 {
	limit := s.budget.ceiling - s.o.SegmentBytes
	if logs {
		limit -= s.budget.reserve()
	}
	return limit
}

// measure asks the file system for its free space, now and then.
func (s *Spool) measure() {
	s.mu.Lock()
	due := s.budget.asked.IsZero() || time.Since(s.budget.asked) >= spaceEvery || s.budget.since >= spaceBytes
	s.mu.Unlock()
	if !due {
		return
	}
	free, total, err := s.fs.Space()
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.budget
	b.asked, b.since = time.Now(), 0
	if err != nil {
		s.log.Debug("the file system does not say how much room it has", "error", err)
		return
	}
	floor := s.o.Floor
	if floor == 0 {
		floor = min(max(total/20, leastFloor), total/4)
	}
	b.free = free
	switch low := free < floor; {
	case low && !b.low:
		s.log.Warn("the file system of the buffer is nearly full: the buffer does not grow until there is room again; free some space",
			"free_bytes", free, "floor_bytes", floor, "used_bytes", b.used)
		fallthrough
	case !low:
		b.ceiling = min(s.o.Budget, b.used+max(free-floor, 0))
		// A little is always taken, so that events are told whatever the disk's state.
		b.ceiling = max(b.ceiling, min(s.o.Budget, 3*s.o.SegmentBytes))
		if b.low = low; s.wanted() <= 0 {
			b.full = time.Time{}
		}
	}
}

// filled notes that the file system refused a write for lack of space.
func (s *Spool) filled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budget.ceiling = min(s.budget.ceiling, max(s.budget.used, 3*s.o.SegmentBytes))
	s.budget.asked = time.Now()
}

// shortage is how much room the unit lacks.
func (s *Spool) shortage(u *unit) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	short := s.budget.used + u.charge + fileHeader - s.limit(u.logs)
	if short > 0 && u.logs && s.budget.full.IsZero() {
		s.budget.full = time.Now()
	}
	return short
}

// patience is how much longer log frames wait for room before others give way.
// Where several organisations have frames here, one's wait would be all others'
// wait, so there it is none. Called under mu.
func (s *Spool) patience() time.Duration {
	switch {
	case s.o.EvictAfter < 0:
		return forever
	case s.owners() > 1:
		return 0
	}
	return max(s.o.EvictAfter-time.Since(s.budget.full), 0)
}

// owners is how many organisations have frames on disk. Called under mu.
func (s *Spool) owners() (n int) {
	for _, t := range s.order {
		if t.charge() > 0 {
			n++
		}
	}
	return n
}

// Room waits until there is room for an ordinary Append of log frames, or until
// they have waited as long as Options.EvictAfter says, or ctx ends. Frames of
// the events lane need not wait: an Append of them alone makes room at once.
func (s *Spool) Room(ctx context.Context) error {
	s.measure()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.closed {
			return ErrClosed
		}
		if s.wanted() <= 0 {
			return nil
		}
		if s.budget.full.IsZero() {
			s.budget.full = time.Now()
			s.sayFull()
		}
		patience := s.patience()
		if patience == 0 {
			return nil
		}
		if err := s.waitRoom(ctx, patience); err != nil {
			return fmt.Errorf("wait for room in the spool: %w", err)
		}
	}
}

// sayFull tells the log that lines wait, now and then. Called under mu.
func (s *Spool) sayFull() {
	if now := time.Now(); now.Sub(s.budget.told) >= sayEvery {
		s.budget.told = now
		s.log.Warn("the spool is full: lines that can be read again wait in their files", "budget", s.o.Budget, "may_use", s.budget.ceiling, "at_most", s.patience().String())
	}
}

// wanted is how much room an ordinary Append lacks. Called under mu.
func (s *Spool) wanted() int64 { return s.budget.used + s.o.SegmentBytes/2 - s.limit(true) }

// waitRoom waits for a change, while the keeper looks for room.
func (s *Spool) waitRoom(ctx context.Context, atMost time.Duration) error {
	s.waiting++
	defer func() { s.waiting-- }()
	s.wakeKeeper()
	if atMost == forever {
		return s.wait(ctx)
	}
	timed, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	if err := s.wait(timed); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return nil
}

// Fill is what the files take, and up to where log frames may go now.
func (s *Spool) Fill() (used, limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.budget.used, s.limit(true)
}
