package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/telemetry"
)

// Bounds of the engine's log API.
const (
	// pieceBytes is where the engine cuts long lines.
	pieceBytes = 16 << 10
	// frameBytes is the largest frame that makes sense.
	frameBytes = 1 << 20
	// endTimeout is how long a follower of an ended container waits for the
	// engine to close its stream before it asks for the rest.
	endTimeout = 5 * time.Second
)

// follows is the followers by sandbox. Only control adds and asks.
type follows struct {
	ctx   context.Context // of the group whose goroutines followers are
	group *errgroup.Group
	c     *control
	m     map[*sandbox]*follower
}

func newFollows(ctx context.Context, group *errgroup.Group, c *control) *follows {
	return &follows{ctx: ctx, group: group, c: c, m: map[*sandbox]*follower{}}
}

// add follows a container's log through the engine.
func (f *follows) add(s *sandbox, d *details, start *beginning) {
	state := &apiLog{id: s.id, target: s.target, tty: d.TTY}
	if p := start.position; p != nil && p.API != nil {
		state.resume(p)
	} else if start.now {
		state.since = time.Now()
	}
	switch {
	case d.Running:
		f.start(s, state, nil)
	case d.Started.IsZero():
		f.m[s] = &follower{state: state} // its start event begins
	default:
		f.start(s, state, nil)
		f.m[s].stop(d.Finished)
	}
}

func (f *follows) start(s *sandbox, state *apiLog, earlier *follower) {
	l := &follower{
		c: f.c, s: s, state: state, earlier: earlier, running: true,
		ending: make(chan struct{}), done: make(chan struct{}),
	}
	f.m[s] = l
	f.group.Go(func() error { return l.run(f.ctx) })
}

// again follows a container that was started once more.
func (f *follows) again(s *sandbox) {
	if l := f.m[s]; l != nil && !l.running && s.tail.where() == nil {
		f.start(s, l.state, l)
	}
}

// of returns the follower of a running sandbox, if it has one.
func (f *follows) of(s *sandbox) *follower {
	if l := f.m[s]; l != nil && l.running {
		return l
	}
	return nil
}

// last returns the follower of a sandbox's last run, if it has one that ever ran.
func (f *follows) last(s *sandbox) *follower {
	if l := f.m[s]; l != nil && l.done != nil {
		return l
	}
	return nil
}

// follower reads one run of one container through the engine's API, for logs
// that are in no file. It costs the engine 25 to 40 times what a tail costs.
type follower struct {
	c       *control
	s       *sandbox
	state   *apiLog
	earlier *follower // of the run before, which must have finished; nil: none
	running bool      // control's own

	ended  time.Time     // when the container had ended; written before ending is closed
	ending chan struct{} // closed when the container has ended
	done   chan struct{} // closed when everything was handed over; nil: it never ran
}

// stop has the follower of a container that ended at a time read to the end
// and finish.
func (l *follower) stop(ended time.Time) {
	l.running, l.ended = false, ended
	close(l.ending)
}

func (l *follower) finished() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// run reads until the container has ended and its log was read to the end.
func (l *follower) run(ctx context.Context) error {
	defer l.c.reader.push(l.s) // whose exit event waits for us
	defer close(l.done)
	if l.earlier != nil && l.earlier.done != nil {
		select {
		case <-l.earlier.done:
		case <-ctx.Done():
			return nil
		}
		l.earlier = nil
	}
	pause := retry.Backoff{Min: 200 * time.Millisecond, Max: 10 * time.Second}
	said := false
	for ctx.Err() == nil {
		ended := l.hasEnded()
		before := l.state.read
		err := l.connection(ctx, !ended)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errSink):
			return err
		case errors.Is(err, errGone) || ended && err == nil:
			return l.finish(ctx)
		case errors.Is(err, errMute):
			return l.tellMute(ctx)
		}
		if l.state.read > before {
			pause.Reset()
			said = false
		}
		if err != nil && !said && !l.hasEnded() {
			said = true
			l.c.log.Warn("a container's log cannot be read through the engine; it is tried again", "container", l.s.id, "error", err)
		}
		l.pause(ctx, pause.Next(), ended)
	}
	return nil
}

// pause waits before the next connection. The container's end cuts the wait
// short, once.
func (l *follower) pause(ctx context.Context, d time.Duration, ended bool) {
	ending := l.ending
	if ended {
		ending = nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-ending:
	}
}

func (l *follower) hasEnded() bool {
	select {
	case <-l.ending:
		return true
	default:
		return false
	}
}

// errSink marks an error of the sink, not of the engine.
var errSink = errors.New("the sink has closed")

// connection reads one answer of the engine to its end.
func (l *follower) connection(ctx context.Context, follow bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := l.c.engine.Logs(ctx, l.s.id, l.state.from(), follow)
	if err != nil {
		return err
	}
	defer body.Close()
	watching := make(chan struct{})
	defer close(watching)
	if follow {
		l.c.follows.group.Go(func() error {
			select {
			case <-l.ending:
				select {
				case <-time.After(endTimeout):
					cancel()
				case <-watching:
				}
			case <-watching:
			}
			return nil
		})
	}
	l.state.rewind()
	in := bufio.NewReaderSize(body, 64<<10)
	for {
		b := &l.state.block
		b.reset()
		readErr := l.state.fill(in, b)
		if err := l.emit(ctx, b); err != nil {
			return err
		}
		if readErr != nil {
			if errors.Is(readErr, io.EOF) {
				return nil
			}
			return readErr
		}
	}
}

// errMute says that the engine cannot read the log that it writes.
var errMute = errdefs.ErrNotImplemented

// tellMute tells once of a log that nobody can read, and waits for the end of the
// run.
func (l *follower) tellMute(ctx context.Context) error {
	if !l.state.mute {
		l.state.mute = true
		batch := source.Batch{Target: *l.state.target, Positions: source.Positions{l.s.key: l.state.position().note()}}
		batch.Gaps = []telemetry.Gap{{
			Reason: telemetry.GapUnreadable, Count: telemetry.GapUnknownCount,
			Detail: "The container's log goes to a driver that cannot be read back, and the engine's cache of it is switched off.",
		}}
		l.c.metrics.aboutGaps(&batch)
		if err := l.c.reader.sink.Emit(ctx, &batch); err != nil {
			return fmt.Errorf("%w: %w", errSink, err)
		}
	}
	select {
	case <-l.ending:
	case <-ctx.Done():
	}
	return nil
}

// finish closes the lines that are still open. Those that began after the end
// are of a next run, and the next follower reads them again.
func (l *follower) finish(ctx context.Context) error {
	b := &l.state.block
	b.reset()
	for stream := telemetry.Stdout; stream <= telemetry.Stderr; stream++ {
		if s := &l.state.streams[stream]; !s.joiner.at.After(l.ended) {
			b.out.end(&s.joiner, stream)
			s.settle()
		}
	}
	return l.emit(ctx, b)
}

func (l *follower) emit(ctx context.Context, b *block) error {
	if len(b.out.lines) == 0 {
		return nil
	}
	batch := source.Batch{
		Target: *l.state.target, Lines: b.out.lines,
		Positions: source.Positions{logKey + l.s.id: encode(l.state.position())},
	}
	if err := l.c.reader.sink.Emit(ctx, &batch); err != nil {
		return fmt.Errorf("%w: %w", errSink, err)
	}
	l.state.read += int64(len(b.out.lines))
	l.c.metrics.count(&batch)
	l.c.metrics.truncated.Add(float64(b.out.cut))
	return nil
}

// apiLog is one container's log as the API gives it.
type apiLog struct {
	id      string
	target  *source.Target
	tty     bool
	since   time.Time // when nothing was read yet
	mute    bool      // nobody can read it, and a gap said so
	read    int64
	streams [telemetry.Stderr + 1]apiStream
	stamps  stampParser
	block   block
	frame   []byte
}

// apiStream is one of its streams.
type apiStream struct {
	joiner joiner
	mark   apiMark // the last record of a line that was handed over
	at     apiMark // the last record seen in this answer
	seen   apiMark // the last record ever taken
}

// settle moves the mark when no line is open.
func (s *apiStream) settle() {
	if !s.joiner.open {
		s.mark = s.seen
	}
}

// take counts a record and reports whether it is new.
func (s *apiStream) take(at time.Time) bool {
	if at.Equal(s.at.At) {
		s.at.N++
	} else {
		s.at = apiMark{At: at, N: 1}
	}
	if at.Before(s.mark.At) || at.Equal(s.mark.At) && s.at.N <= s.mark.N {
		return false
	}
	s.seen = s.at
	return true
}

func (a *apiLog) resume(p *logPosition) {
	a.mute = p.Mute
	a.streams[telemetry.Stdout].mark, a.streams[telemetry.Stderr].mark = p.API.Stdout, p.API.Stderr
	for stream, open := range map[telemetry.Stream]*openLine{telemetry.Stdout: p.Stdout, telemetry.Stderr: p.Stderr} {
		if open != nil && open.From == nil {
			j := &a.streams[stream].joiner
			j.skipping, j.at = true, unixNano(open.Skip)
		}
	}
}

// from is the time to ask for: the API's since is not exact and its streams are
// not in the order of time, so it is a second before the older of the marks.
func (a *apiLog) from() time.Time {
	var oldest time.Time
	for stream := telemetry.Stdout; stream <= telemetry.Stderr; stream++ {
		if at := a.streams[stream].mark.At; !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
	}
	if oldest.IsZero() {
		return a.since
	}
	return oldest.Add(-time.Second)
}

// rewind prepares for another answer, which repeats what is after the marks.
func (a *apiLog) rewind() {
	for i := range a.streams {
		s := &a.streams[i]
		s.at, s.seen = apiMark{}, s.mark
		if s.joiner.open {
			s.joiner.drop()
		}
	}
}

func (a *apiLog) position() *logPosition {
	p := &logPosition{Mute: a.mute, API: &apiStreams{Stdout: a.streams[telemetry.Stdout].mark, Stderr: a.streams[telemetry.Stderr].mark}}
	if j := &a.streams[telemetry.Stdout].joiner; j.skipping {
		p.Stdout = j.note()
	}
	if j := &a.streams[telemetry.Stderr].joiner; j.skipping {
		p.Stderr = j.note()
	}
	return p
}

// fill reads records until a block is full or no more has arrived.
func (a *apiLog) fill(in *bufio.Reader, b *block) error {
	b.out.tty = a.tty
	for len(b.out.lines) < blockLines && len(b.scan.arena) < blockBytes {
		var stream telemetry.Stream
		var err error
		if a.tty {
			stream, err = telemetry.Stdout, a.readLine(in)
		} else {
			stream, err = a.readFrame(in)
		}
		if err != nil {
			return err
		}
		a.record(stream, b)
		if in.Buffered() == 0 {
			return nil
		}
	}
	return nil
}

// record takes what lies in a.frame: a timestamp, a blank and a piece of text.
func (a *apiLog) record(stream telemetry.Stream, b *block) {
	stamp, text, ok := bytes.Cut(a.frame, []byte{' '})
	if !ok {
		return
	}
	r := record{stream: stream}
	if r.at, ok = a.stamps.parse(stamp); !ok {
		return
	}
	s := &a.streams[stream]
	if !s.take(r.at) {
		return
	}
	if a.tty {
		text = withoutStamps(text, stamp)
	}
	start := len(b.scan.arena)
	b.scan.arena = append(b.scan.arena, text...)
	r.text, r.whole = cutNewline(b.scan.arena[start:])
	b.out.add(&s.joiner, &r, place{})
	s.settle()
}

// withoutStamps removes the timestamp that the API of a terminal repeats before
// each piece of a long line.
func withoutStamps(text, stamp []byte) []byte {
	for at := pieceBytes; at+len(stamp) < len(text); at += pieceBytes {
		if bytes.HasPrefix(text[at:], stamp) && text[at+len(stamp)] == ' ' {
			text = append(text[:at], text[at+len(stamp)+1:]...)
		}
	}
	return text
}

// readFrame reads one frame of a multiplexed answer: a byte for the stream,
// three zeros, the length, and that many bytes.
func (a *apiLog) readFrame(in *bufio.Reader) (telemetry.Stream, error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(head[4:])
	stream := telemetry.Stream(head[0])
	if head[0] < 1 || head[0] > 2 || head[1]|head[2]|head[3] != 0 || n > frameBytes {
		return 0, fmt.Errorf("the engine's answer holds a frame of stream %d and %d bytes: it makes no sense", head[0], n)
	}
	if cap(a.frame) < int(n) {
		a.frame = make([]byte, n)
	}
	a.frame = a.frame[:n]
	_, err := io.ReadFull(in, a.frame)
	return stream, err
}

// readLine reads one line of a terminal, of which it keeps as much as the
// longest message needs.
func (a *apiLog) readLine(in *bufio.Reader) error {
	const most = telemetry.MaxMessage + telemetry.MaxMessage/pieceBytes*64
	a.frame = a.frame[:0]
	for {
		part, err := in.ReadSlice('\n')
		if room := most - len(a.frame); room > 0 {
			a.frame = append(a.frame, part[:min(room, len(part))]...)
		}
		switch {
		case err == nil:
			if a.frame[len(a.frame)-1] != '\n' {
				a.frame = append(a.frame, '\n')
			}
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(a.frame) > 0:
			return nil
		default:
			return err
		}
	}
}
