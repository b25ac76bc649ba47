package intake

import (
	"slices"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// lane is what waits to be appended: of the two, the one for records without
// lines never waits for the other.
type lane struct {
	collecting *batch
	flushing   *batch // what Append has not returned for yet, or nil
	spare      *batch
	last       time.Time // the last cut
}

// held is what is read of a scope and not durable yet.
func (l *lane) held(scope telemetry.Scope) int {
	return l.collecting.of(scope) + l.flushing.of(scope)
}

func (l *lane) size() int { return l.collecting.size() + l.flushing.size() }

// waits reports whether the position's key is in what waits.
func (l *lane) waits(key string) bool {
	if _, here := l.collecting.positions[key]; here {
		return true
	}
	if l.flushing == nil {
		return false
	}
	_, here := l.flushing.positions[key]
	return here
}

// cut takes what was collected for flushing, where there is something and no
// earlier cut is still there.
func (l *lane) cut() {
	if l.flushing != nil || l.collecting.empty() {
		return
	}
	l.last = time.Now()
	l.flushing = l.collecting
	if l.collecting = l.spare; l.collecting == nil {
		l.collecting = newBatch()
	}
	l.spare = nil
}

// done forgets what was flushed.
func (l *lane) done() {
	l.flushing.reset()
	l.flushing, l.spare = nil, l.flushing
}

// batch is what one Append will make durable.
type batch struct {
	scopes    map[telemetry.Scope]*scoped
	order     []*scoped // in order of arrival
	positions map[string][]byte
	bytes     int
	full      bool      // a frame's worth of some scope is here
	gathered  bool      // nothing more is about to come of what was written at the same time
	began     time.Time // when its first record came
	top       telemetry.Level
	frames    []frame.Frame
	encoded   bool // frames is made
	spare     []*scoped
}

func newBatch() *batch {
	return &batch{scopes: map[telemetry.Scope]*scoped{}, positions: map[string][]byte{}}
}

func (b *batch) size() int {
	if b == nil {
		return 0
	}
	return b.bytes
}

func (b *batch) of(scope telemetry.Scope) int {
	if b == nil || b.scopes[scope] == nil {
		return 0
	}
	return b.scopes[scope].bytes
}

func (b *batch) empty() bool { return len(b.order) == 0 && len(b.positions) == 0 }

// scope returns the place of a scope's records in this batch.
func (b *batch) scope(key telemetry.Scope) *scoped {
	if s := b.scopes[key]; s != nil {
		return s
	}
	var s *scoped
	if n := len(b.spare); n > 0 {
		s, b.spare = b.spare[n-1], b.spare[:n-1]
	} else {
		s = &scoped{}
	}
	s.Scope = key
	b.scopes[key] = s
	b.order = append(b.order, s)
	return s
}

// account takes note of what was added to a scope that held so many bytes
// before.
func (b *batch) account(s *scoped, before int) {
	if b.began.IsZero() {
		b.began = time.Now()
	}
	b.bytes += s.bytes - before
	b.full = b.full || s.full()
}

// maxSpare is how many scopes' buffers a batch keeps for the next.
const maxSpare = 8

// reset forgets the records and keeps some buffers.
func (b *batch) reset() {
	for _, s := range b.order {
		if len(b.spare) < maxSpare {
			s.reset()
			b.spare = append(b.spare, s)
		}
	}
	clear(b.scopes)
	b.order = slices.Delete(b.order, 0, len(b.order))
	clear(b.positions)
	b.frames = slices.Delete(b.frames, 0, len(b.frames))
	b.bytes, b.full, b.gathered, b.encoded, b.began, b.top = 0, false, false, false, time.Time{}, telemetry.Debug
}

// scoped is what a batch holds of one organisation and environment.
type scoped struct {
	telemetry.Scope
	bytes     int
	logs      []*logFrame
	open      [2]*logFrame // of sandboxes within their share, and above
	overflown bool         // one was full and another begun
	free      []*logFrame

	records []*recordFrame // all but the last of each class are full
}

// logFrame is one frame of lines while it is being filled.
type logFrame struct {
	w     segment.Writer
	class telemetry.Class
	bytes int
	since int    // lines since one that made it important
	body  []byte // where it is encoded to; kept for the next
}

// recordFrame is one frame of the events lane while it is being filled.
type recordFrame struct {
	telemetry.Records
	class telemetry.Class
	bytes int
}

func (s *scoped) full() bool {
	if s.bytes >= frameBytes || s.overflown {
		return true
	}
	for _, l := range s.open {
		if l != nil && l.w.Lines() >= frameLines {
			return true
		}
	}
	return false
}

func (s *scoped) reset() {
	const keep = 3 // of a scope that had more, one batch was unusually large
	for _, l := range s.logs {
		if len(s.free) < keep {
			s.free = append(s.free, l)
		}
	}
	s.logs = slices.Delete(s.logs, 0, len(s.logs))
	s.records = slices.Delete(s.records, 0, len(s.records))
	s.open, s.overflown, s.bytes = [2]*logFrame{}, false, 0
}

// splitLines is how many lines of one class a frame of bulk lines has before it
// ends for a line of another.
const splitLines = 256

// frame returns the frame that takes a line of so many bytes. Lines of
// sandboxes above their share go to frames of their own, so that those are
// given up first; all lines of one sandbox in one cut go the same way, and so
// in their order.
func (s *scoped) frame(bulk bool, level telemetry.Level, bytes int) *logFrame {
	kind, class := 0, telemetry.Normal
	if bulk {
		kind, class = 1, telemetry.Bulk
	}
	important := level >= telemetry.Warn
	if l := s.open[kind]; l != nil {
		fits := l.w.Lines() < frameLines && (l.bytes+bytes <= frameBytes || l.w.Lines() == 0)
		if fits && (!bulk || !l.parts(important)) {
			l.note(important)
			return l
		}
		s.overflown = s.overflown || !fits
	}
	var l *logFrame
	if n := len(s.free); n > 0 {
		l, s.free = s.free[n-1], s.free[:n-1]
	} else {
		l = &logFrame{}
	}
	l.class, l.bytes, l.since = class, 0, 0
	l.note(important)
	s.open[kind] = l
	s.logs = append(s.logs, l)
	return l
}

// parts reports whether a frame of bulk lines ends before the line: few warnings
// must not keep a flood from being given up.
func (l *logFrame) parts(important bool) bool {
	return l.since >= splitLines && (l.class == telemetry.Important) != important
}

// note raises the frame's class for a warning, and counts the lines since.
func (l *logFrame) note(important bool) {
	switch {
	case !important:
		l.since++
	case l.class == telemetry.Important:
		l.since = 0
	default:
		l.class, l.since = telemetry.Important, 0
	}
}

// recordsOf returns the frame that takes a record of so many bytes.
func (s *scoped) recordsOf(class telemetry.Class, bytes int) *telemetry.Records {
	s.bytes += bytes
	for _, r := range slices.Backward(s.records) {
		if r.class != class {
			continue
		}
		if r.bytes+bytes > frameBytes || r.Len() == frameLines {
			break
		}
		r.bytes += bytes
		return &r.Records
	}
	r := &recordFrame{class: class, bytes: bytes}
	s.records = append(s.records, r)
	return &r.Records
}

// encode makes the batch's frames: for each scope the records, then the lines.
func (in *Intake) encode(b *batch) {
	if b.encoded {
		return // before an attempt to append that failed
	}
	b.encoded = true
	for _, s := range b.order {
		for _, r := range s.records {
			in.encodeRecords(b, s, r)
		}
		for _, l := range s.logs {
			n := l.w.Lines()
			if n == 0 {
				continue
			}
			l.body = l.w.Encode(l.body[:0])
			b.frames = append(b.frames, frame.Frame{Body: l.body, Header: frame.Header{
				Org: s.Org, Env: s.Env, Lane: telemetry.LaneLogs, Class: l.class, Count: uint32(n), //nolint:gosec // at most frameLines
			}})
		}
	}
}

func (in *Intake) encodeRecords(b *batch, s *scoped, r *recordFrame) {
	body, err := wire.EncodeRecords(&r.Records)
	if err != nil {
		in.metrics.dropped.WithLabelValues("not_encodable").Add(float64(r.Len()))
		in.log.Error("records of the events lane cannot be encoded and are dropped", "organisation", string(s.Org), "error", err)
		return
	}
	b.frames = append(b.frames, frame.Frame{Body: body, Header: frame.Header{
		Org: s.Org, Env: s.Env, Lane: telemetry.LaneEvents, Class: r.class, Count: uint32(r.Len()), //nolint:gosec // at most frameLines
	}})
}
