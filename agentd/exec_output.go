package agentd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

const (
	// heldOutput is how long output is still read after the child has ended:
	// something that it started may hold the pipe for ever.
	heldOutput = 2 * time.Second
	// drainOutput bounds what is read after that: all that a pipe can hold.
	drainOutput = 1 << 20
	quietOutput = 10 * time.Millisecond
)

// output is one of the child's two streams.
type output struct {
	stream   telemetry.Stream
	from, to *os.File  // our end of the pipe and the child's
	pass     io.Writer // where it is passed on to

	held bool // the child has ended and the pipe is still open
	left int  // what is still read then

	missed  missed
	retryAt time.Time // while lines are missed: when the sink is asked again
}

// missed is what of a stream was passed on and could not be kept.
type missed struct {
	lines, bytes int64
	since, until time.Time
}

func (m *missed) add(lines []source.Line) {
	for i := range lines {
		if m.lines == 0 {
			m.since = lines[i].Timestamp
		}
		m.lines++
		m.bytes += int64(len(lines[i].Text))
		m.until = lines[i].Timestamp
	}
}

// gap tells of it, if it is anything.
func (m *missed) gap(stream telemetry.Stream) []telemetry.Gap {
	if m.lines == 0 {
		return nil
	}
	return []telemetry.Gap{{
		Reason: telemetry.GapEvicted, Count: m.lines, Bytes: m.bytes, Since: m.since, Until: m.until,
		Detail: "Lines of " + stream.String() + " were only passed on: the buffer of this node took none, and the command was not to wait for it.",
	}}
}

// read reads until the end; once the deadline of a held pipe has passed, what
// lies in it, which is there at once.
func (o *output) read(b []byte) (int, error) {
	if !o.held {
		n, err := o.from.Read(b)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		o.held, o.left = true, drainOutput
	}
	if o.left <= 0 {
		return 0, io.EOF
	}
	n, err := readNow(o.from, b[:min(len(b), o.left)])
	o.left -= n
	return n, err
}

// readNow reads what lies in a pipe; io.EOF: nothing does, and nothing came
// within a moment. It asks the kernel first and the clock second, so that it
// reads all however late it runs.
func readNow(from *os.File, b []byte) (n int, err error) {
	raw, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	for try := range 2 {
		if try > 0 {
			<-time.After(quietOutput)
		}
		var errno error
		if err := raw.Control(func(fd uintptr) { n, errno = syscall.Read(int(fd), b) }); err != nil {
			return 0, err
		}
		switch {
		case errors.Is(errno, syscall.EAGAIN) || errors.Is(errno, syscall.EINTR):
		case errno != nil:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
	return 0, io.EOF
}

// outputs makes the pipes of a command. They are files of ours, so that Wait
// waits for the child alone.
func (c *Command) outputs(cmd *exec.Cmd) ([]*output, error) {
	list := []*output{{stream: telemetry.Stdout, pass: c.Stdout}, {stream: telemetry.Stderr, pass: c.Stderr}}
	for i, o := range list {
		var err error
		if o.from, o.to, err = os.Pipe(); err != nil {
			for _, o := range list[:i] {
				_ = o.from.Close()
				_ = o.to.Close()
			}
			return nil, err
		}
	}
	cmd.Stdout, cmd.Stderr = list[0].to, list[1].to
	return list, nil
}

// collect reads one pipe to its end, passes the bytes on and emits the lines.
// A line longer than telemetry.MaxMessage is cut and marked. When whoever reads
// our output leaves, the pipe is closed: the child learns of it as it would
// without us, and what it wrote until then is collected.
func (c *Command) collect(ctx context.Context, o *output, t source.Target, to source.Sink) {
	r := lineReader{stream: o.stream}
	buf := make([]byte, 64<<10)
	for {
		n, err := o.read(buf)
		if n > 0 {
			r.write(buf[:n], time.Now())
			if _, e := o.pass.Write(buf[:n]); errors.Is(e, syscall.EPIPE) {
				err = e
			} else if e != nil {
				c.Log.Debug("output was not passed on", "stream", o.stream.String(), "error", e)
			}
		}
		if err != nil {
			r.end(time.Now())
		}
		if len(r.lines) > 0 || err != nil && o.missed.lines > 0 {
			c.keep(ctx, o, &source.Batch{Target: t, Lines: r.lines}, to, err != nil)
			r.lines = r.lines[:0]
		}
		if err != nil {
			_ = o.from.Close()
			break
		}
	}
	if o.held {
		c.Log.Warn("the child has ended, but something that it started still holds its output: it is read no further", "stream", o.stream.String())
	}
}

// retryMissed is how often the sink is asked again while lines are missed.
const retryMissed = 250 * time.Millisecond

// keep emits lines, behind what was missed before them. The child, which may
// be waiting for its pipe, waits no longer than longestStall; what it wrote last
// waits as long as there is patience.
func (c *Command) keep(ctx context.Context, o *output, b *source.Batch, to source.Sink, last bool) {
	if o.missed.lines > 0 && !last && time.Now().Before(o.retryAt) {
		o.missed.add(b.Lines)
		return
	}
	wait := c.stall
	if o.missed.lines > 0 {
		wait = retryMissed / 10
	}
	if !last {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	if b.Gaps = o.missed.gap(o.stream); b.Gaps != nil {
		lines := b.Lines
		b.Lines = nil // what is missing comes first
		if err := c.emit(ctx, to, b); err == nil {
			o.missed = missed{}
			b = &source.Batch{Target: b.Target, Lines: lines}
		} else {
			b.Lines = lines
		}
	}
	if len(b.Lines) == 0 {
		return
	}
	if o.missed.lines == 0 {
		err := c.emit(ctx, to, b)
		if err == nil {
			return
		}
		c.Log.Error("lines are passed on and not kept: the buffer takes none", "stream", o.stream.String(), "error", err)
	}
	o.missed.add(b.Lines)
	o.retryAt = time.Now().Add(retryMissed)
}

// lineReader cuts a stream of bytes into lines.
type lineReader struct {
	stream  telemetry.Stream
	partial []byte
	length  int64 // of the line so far, what is dropped of it included
	skip    bool  // the rest of an overlong line is being dropped
	lines   []source.Line
}

func (r *lineReader) write(b []byte, at time.Time) {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			r.add(b)
			return
		}
		r.add(b[:i])
		r.flush(at, false)
		b = b[i+1:]
	}
}

func (r *lineReader) add(b []byte) {
	r.length += int64(len(b))
	if room := telemetry.MaxMessage - len(r.partial); len(b) > room {
		b = b[:room]
		r.skip = true
	}
	r.partial = append(r.partial, b...)
}

func (r *lineReader) flush(at time.Time, partial bool) {
	text := bytes.TrimSuffix(r.partial, []byte{'\r'})
	if r.skip { // cut between two runes
		for n := len(text) - 1; n >= 0 && n >= len(text)-utf8.UTFMax; n-- {
			if utf8.RuneStart(text[n]) {
				if !utf8.FullRune(text[n:]) {
					text = text[:n]
				}
				break
			}
		}
	}
	line := source.Line{Timestamp: at.UTC(), Text: text, Truncated: r.skip, Partial: partial, Stream: r.stream}
	if r.skip {
		line.Original = r.length
	}
	r.lines = append(r.lines, line)
	r.partial, r.length, r.skip = nil, 0, false // the line holds the bytes until it is emitted
}

func (r *lineReader) end(at time.Time) {
	if len(r.partial) > 0 {
		r.flush(at, true)
	}
}
