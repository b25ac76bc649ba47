package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/execstream"
	"github.com/theazo/observability/shared/telemetry"
)

const (
	// helloTimeout is how long a connection may take to say which session it is.
	helloTimeout = 10 * time.Second
	// quietFlush is how long the beginning of a line waits for its rest: a prompt
	// is to be seen while it asks.
	quietFlush = time.Second
	ackEvery   = 50 * time.Millisecond
	ackTimeout = 5 * time.Second // of writing one
	// finishFor is how long an ended session waits to become durable.
	finishFor = time.Minute

	emitBytes = 64 << 10 // of lines in one batch, about
)

// exec reads one connection of an exec session (package execstream).
//
//	reader ──frames──▶ execConn.run ──lines, events──▶ Sink
//	                        └──────── acks, as they become durable ──▶ agentd-exec
func (s *Source) exec(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		fail(w, methodFailure(http.MethodPost))
		return
	}
	t, err := s.target(r)
	if err != nil {
		fail(w, err)
		return
	}
	run := s.current()
	leave, err := run.sessions.enter(t)
	if err != nil {
		fail(w, err)
		return
	}
	defer leave()
	control := http.NewResponseController(w)
	in := bufio.NewReaderSize(r.Body, 32<<10)
	hello, err := readHello(control, in)
	if err == nil {
		err = s.claim(&t, hello.Agent, hello.Session)
	}
	if err != nil {
		fail(w, err)
		return
	}
	ctx, hangUp := context.WithCancel(r.Context())
	defer hangUp()
	x, err := run.sessions.take(ctx, t, hello.ID, hangUp)
	if err != nil {
		fail(w, err)
		return
	}
	defer run.sessions.giveBack(x)
	s.metrics.requests.WithLabelValues("exec").Inc()
	stopping, _ := r.Context().Value(stoppingKey{}).(<-chan struct{})
	c := &execConn{
		session: x, hello: hello, target: t, run: run, durable: s.cfg.Durable, control: control, w: w, stopping: stopping,
		metadata: execMetadata(hello.ID),
	}
	c.serve(ctx, in)
}

// readHello reads the beginning of a session and lifts the limits that
// requests have in time.
func readHello(control *http.ResponseController, in io.Reader) (execstream.Hello, error) {
	var hello execstream.Hello
	bad := telemetry.Failf(telemetry.InvalidRequest, "This is not the beginning of an exec session of a version that is known here.")
	if err := errors.Join(control.EnableFullDuplex(), control.SetReadDeadline(time.Now().Add(helloTimeout)), control.SetWriteDeadline(time.Time{})); err != nil {
		return hello, bad
	}
	magic := make([]byte, len(execstream.Magic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != execstream.Magic {
		return hello, bad
	}
	kind, payload, err := execstream.ReadFrame(in, nil)
	if err != nil || kind != execstream.TypeHello {
		return hello, bad
	}
	if err := decode(payload, &hello); err != nil {
		return hello, err
	}
	if err := telemetry.CheckID(hello.ID); err != nil {
		return hello, unprocessable("execId", err.Error())
	}
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return hello, bad
	}
	return hello, nil
}

func execMetadata(id string) json.RawMessage {
	b, _ := json.Marshal(map[string]string{"execId": id}) // a plain text
	return b
}

// execConn is one connection of a session.
type execConn struct {
	*session
	hello    execstream.Hello
	target   source.Target
	run      *queues
	durable  func(key string) []byte // nil: what the sink took is durable enough
	control  *http.ResponseController
	w        http.ResponseWriter
	stopping <-chan struct{}
	metadata json.RawMessage

	batch  source.Batch
	bytes  int          // of its lines
	acked  execProgress // as the sender was told
	quiet  *time.Timer
	failed bool
}

type execFrame struct {
	kind    byte
	payload []byte
}

// serve reads until the session has ended and is durable, the connection
// breaks, or the endpoint stops.
func (c *execConn) serve(ctx context.Context, in io.Reader) {
	c.w.Header().Set("Content-Type", "application/octet-stream")
	c.w.WriteHeader(http.StatusOK)
	if c.control.Flush() != nil {
		return
	}
	frames := make(chan execFrame, 2)
	ended := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() { readFrames(in, frames, ended) })
	c.loop(ctx, frames)
	close(ended)
	_ = c.control.SetReadDeadline(time.Now()) // the reader may be waiting
	reading.Wait()
}

func readFrames(in io.Reader, to chan<- execFrame, ended <-chan struct{}) {
	defer close(to)
	for {
		kind, payload, err := execstream.ReadFrame(in, nil)
		if err != nil {
			return
		}
		select {
		case to <- execFrame{kind, payload}:
		case <-ended:
			return
		}
	}
}

func (c *execConn) loop(ctx context.Context, frames <-chan execFrame) {
	c.begin()
	tick := time.NewTicker(ackEvery)
	defer tick.Stop()
	c.quiet = time.NewTimer(quietFlush)
	defer c.quiet.Stop()
	var limit <-chan time.Time
	for !c.failed {
		select {
		case f, more := <-frames:
			c.take(f, more, frames)
			if !more && !c.done {
				return
			}
			if !more {
				frames = nil // all was said: what is left is to tell the sender that it is durable
				timer := time.NewTimer(finishFor)
				defer timer.Stop()
				limit = timer.C
			}
		case <-c.quiet.C:
			c.flushPartial()
			c.emit()
		case <-tick.C:
			if c.acknowledge() {
				return
			}
		case <-limit:
			return
		case <-c.stopping: // the sender goes on with the next process
			return
		case <-ctx.Done(): // hung up, or the sender went away after its last word
			return
		}
	}
}

// take takes one frame and those that are there behind it, and emits them
// together.
func (c *execConn) take(f execFrame, more bool, frames <-chan execFrame) {
	for more && !c.failed {
		c.frame(f)
		if c.bytes >= emitBytes {
			break
		}
		select {
		case f, more = <-frames:
			continue
		default:
		}
		break
	}
	if !more && !c.done { // cut off: the sender comes back, or never
		c.flushPartial()
	}
	c.emit()
	c.quiet.Reset(quietFlush)
}

func (c *execConn) frame(f execFrame) {
	switch f.kind {
	case execstream.TypeStdout:
		c.output(&c.streams[0], f.payload)
	case execstream.TypeStderr:
		c.output(&c.streams[1], f.payload)
	case execstream.TypeExit:
		c.exit(f.payload)
	default: // of a later version: nothing that this one needs
	}
}

func (c *execConn) output(j *joiner, payload []byte) {
	d, err := execstream.ParseData(payload)
	if err != nil || c.done {
		c.failed = c.failed || err != nil
		return
	}
	switch known := j.next() - d.Offset; {
	case known >= int64(len(d.Bytes)):
		return // sent again
	case known > 0:
		d.Bytes = d.Bytes[known:]
	case known < 0:
		if c.missing(j, -known, d.At); c.failed {
			return
		}
	}
	before := len(c.batch.Lines)
	c.batch.Lines = j.add(c.batch.Lines, d.At, d.Bytes)
	for i := before; i < len(c.batch.Lines); i++ {
		c.batch.Lines[i].Metadata = c.metadata
	}
	c.bytes += len(d.Bytes)
}

// missing tells of bytes that the sender had to drop. Gaps go ahead of lines and
// are the last that a full buffer gives up: a sender of nothing else, which
// costs it a few bytes for each, is held to the sandbox's rate.
func (c *execConn) missing(j *joiner, n int64, until time.Time) {
	if !c.run.afford(c.target) {
		c.failed = true // it comes back later
		return
	}
	c.flushStream(j)
	// What comes after a gap must not be queued before it: lines come first in a batch.
	c.batch.Gaps = append(c.batch.Gaps, telemetry.Gap{
		Reason: telemetry.GapRefused, Count: telemetry.GapUnknownCount, Bytes: n, Until: until.UTC(),
		Agent: c.target.Origin.Agent, Session: c.target.Origin.Session, Sandbox: c.target.Origin.Sandbox,
		Detail: "Output of an exec session was dropped in the sandbox, because the node's local endpoint was away or slower than the command.",
	})
	c.emit()
	j.told += n
}

func (c *execConn) flushStream(j *joiner) {
	before := len(c.batch.Lines)
	c.batch.Lines = j.flush(c.batch.Lines, false)
	for i := before; i < len(c.batch.Lines); i++ {
		c.batch.Lines[i].Metadata = c.metadata
	}
}

func (c *execConn) flushPartial() {
	for i := range c.streams {
		c.flushStream(&c.streams[i])
	}
}

func (c *execConn) begin() {
	if c.started {
		return
	}
	c.started = true
	c.event(telemetry.Event{Type: telemetry.ExecStarted, Timestamp: c.hello.StartedAt})
	c.emit()
}

func (c *execConn) exit(payload []byte) {
	var e execstream.Exit
	if decode(payload, &e) != nil {
		c.failed = true
		return
	}
	if c.done {
		return
	}
	for i, length := range []int64{e.Stdout, e.Stderr} {
		if missing := length - c.streams[i].next(); missing > 0 && length <= 1<<62 {
			c.missing(&c.streams[i], missing, e.EndedAt)
		}
	}
	if c.failed {
		return
	}
	c.flushPartial()
	code := e.Code
	ended := telemetry.Event{Type: telemetry.ExecExited, Timestamp: e.EndedAt, ExitCode: &code}
	switch {
	case e.Signal != "":
		ended.Reason = "killed"
	case e.Code != 0:
		ended.Reason = "error"
	}
	ended.Attributes = map[string]string{"durationMs": strconv.FormatInt(max(e.DurationMS, 0), 10)}
	if e.Signal != "" {
		ended.Attributes["signal"], _ = cutText(e.Signal, maxAttribute)
	}
	c.done = true
	c.event(ended)
}

func (c *execConn) event(e telemetry.Event) {
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	e.Attributes["execId"] = c.hello.ID
	e.Attributes["command"], _ = cutText(strings.Join(c.hello.Command, " "), maxAttribute)
	if c.hello.TTY {
		e.Attributes["tty"] = "true"
	}
	e.Origin = c.target.Origin
	c.batch.Events = append(c.batch.Events, e)
}

// emit hands on what was read, with how far that is.
func (c *execConn) emit() {
	if len(c.batch.Lines) == 0 && c.batch.Len() == 0 {
		return
	}
	c.batch.Target = c.target
	c.batch.Positions = source.Positions{c.key: c.note()}
	records, _ := sizeOf(&c.batch)
	if err := c.run.to.Emit(c.run.ctx, &c.batch); err != nil {
		c.failed = true // the endpoint is stopping and the sink is blocked
		return
	}
	c.run.metrics.records.Add(float64(records))
	clear(c.batch.Lines)
	c.batch.Lines, c.batch.Records, c.bytes = c.batch.Lines[:0], telemetry.Records{}, 0
}

// acknowledge tells the sender what is durable; it reports whether that was
// all.
func (c *execConn) acknowledge() (all bool) {
	n := c.progress()
	if n == c.acked {
		return false
	}
	if c.durable != nil {
		var note execNote
		if json.Unmarshal(c.durable(c.key), &note) != nil {
			return false // nothing is yet
		}
		n = note.execProgress
	}
	if n == c.acked {
		return false
	}
	b := execstream.AppendAck(nil, n.Stdout, n.Stderr)
	if n.Done {
		b = execstream.AppendFrame(b, execstream.TypeDone, nil)
	}
	_ = c.control.SetWriteDeadline(time.Now().Add(ackTimeout))
	_, err := c.w.Write(b)
	if err = errors.Join(err, c.control.Flush()); err != nil {
		c.failed = true
	}
	c.acked, c.heard = n, n.Done && err == nil
	return n.Done
}
