package spool

import (
	"slices"
	"time"
)

// keep saves the cursor now and then, frees what it allows, and finds room for
// who waits for it. It is the one goroutine of a spool; Close ends it and waits
// for it.
func (s *Spool) keep() {
	saved := time.Now() // by Open
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-s.nudge:
		case <-timer.C:
		}
		s.attend()
		due, short, work := s.due()
		if !work {
			if short > 0 {
				timer.Reset(spaceEvery) // only the file system can help: ask it again
			}
			continue
		}
		if wait := time.Until(saved.Add(due)); wait > 0 {
			timer.Reset(wait)
			continue
		}
		if err := s.reclaim(short, halfDead); err != nil {
			s.log.Warn("the spool could not be tidied; acknowledged frames keep their disk space until it can", "error", err)
		}
		timer.Reset(s.o.SaveEvery)
		saved = time.Now()
	}
}

// attend lets those look again who wait for room, where the file system has some.
func (s *Spool) attend() {
	s.mu.Lock()
	waiting := s.waiting > 0
	s.mu.Unlock()
	if !waiting {
		return
	}
	s.measure()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted() <= 0 {
		s.broadcast()
	}
}

// due says whether there is work for reclaim, how long after the last time it
// may wait, and how much room is asked for. It is not put off for long when it
// frees a file, least when somebody waits for that room. A cursor that frees
// nothing only spares the receiver some frames that it knows, after a crash.
func (s *Spool) due() (after time.Duration, short int64, work bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frees := slices.ContainsFunc(s.segments, (*segment).free)
	if s.waiting > 0 {
		short = max(s.wanted(), 0)
	}
	s.idle = !frees && !s.dirty && short <= 0 // no timer is set then
	switch {
	case short > 0 && (frees || slices.ContainsFunc(s.segments, func(seg *segment) bool { return s.copyable(seg, halfDead) })):
		return s.o.SaveEvery / 20, short, true
	case frees:
		return s.o.SaveEvery, short, true
	default:
		return 5 * s.o.SaveEvery, short, s.dirty
	}
}

// acknowledged tells the keeper of an acknowledgement, where it would not look
// soon enough by itself: to wake it for each costs a turn of a processor. Called
// under mu.
func (s *Spool) acknowledged() {
	if s.idle || s.waiting > 0 || slices.ContainsFunc(s.segments, (*segment).free) {
		s.wakeKeeper()
	}
}

// wakeKeeper is called under mu.
func (s *Spool) wakeKeeper() {
	select {
	case s.nudge <- struct{}{}:
	default: // it is awake
	}
}
