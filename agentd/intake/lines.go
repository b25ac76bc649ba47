package intake

import (
	"bytes"
	"slices"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// take adds a batch's records to what is collected; joins says which of its
// lines belong together. Called under mu.
func (in *Intake) take(to *batch, scope telemetry.Scope, b *source.Batch, joins []join) {
	s := to.scope(scope)
	before := s.bytes
	var done marks
	origin := in.checkOrigin(b.Origin, len(b.Lines)+len(b.Entries)+len(b.Events)+len(b.Spans)+len(b.ModelCalls)+len(b.Metrics) > 0, &done)
	if len(b.Lines)+len(b.Entries) > 0 {
		in.takeLines(to, s, origin, b, joins, &done)
	}
	if b.Len() > 0 {
		in.takeRecords(s, origin, &b.Records, &done)
		to.top = telemetry.Error // they do not wait
	}
	in.metrics.count(&done)
	to.account(s, before)
}

// taking is the state of one batch while its lines are taken.
type taking struct {
	scope  *scoped
	share  *share
	sample bool // one in sampleOne of its debug and info lines is kept
	top    telemetry.Level
	last   *logFrame
}

func (in *Intake) takeLines(to *batch, s *scoped, origin telemetry.Origin, b *source.Batch, joins []join, done *marks) {
	read := 0
	for i := range b.Lines {
		read += len(b.Lines[i].Text)
	}
	for i := range b.Entries {
		read += len(b.Entries[i].Message) + len(b.Entries[i].Metadata)
	}
	t := taking{scope: s, share: in.fair.of(s.Scope, &origin, read, in.cuts), top: to.top}
	t.sample = t.share.bulk && in.pressureNow() > sampleFrom
	e := telemetry.LogEntry{Origin: origin}
	in.chains.set(len(b.Lines), joins)
	for i := range b.Lines {
		line := &b.Lines[i]
		if len(joins) > 0 {
			switch in.chains.at(i) {
			case joined:
				continue
			case heads:
				line = in.chains.line(b.Lines, i)
				done[markJoined]++
			}
		}
		e.Stream = line.Stream
		in.put(&t, &e, in.read(line, &e, done), done)
	}
	in.takeEntries(&t, origin, b, done)
	to.top = t.top
	in.metrics.lines.Add(float64(len(b.Lines) + len(b.Entries)))
	in.metrics.bytes.Add(float64(read))
	in.tellSampled(t.share, false)
}

// put adds an entry to the frame that takes it.
func (in *Intake) put(t *taking, e *telemetry.LogEntry, message []byte, done *marks) {
	size := len(message) + len(e.Metadata) + lineBytes
	if t.sample && in.sample(t.share, e, size) {
		done[markSampled]++
		return
	}
	overhead := originBytes(&e.Origin)
	l := t.scope.frame(t.share.bulk, e.Level, size+overhead)
	if l != t.last { // a frame has each origin once
		t.last = l
		size += overhead
	}
	l.bytes += size
	t.scope.bytes += size
	t.top = max(t.top, e.Level)
	l.w.AppendBytes(e, message)
}

// read finds out what a line says, without what must not leave.
func (in *Intake) read(line *source.Line, e *telemetry.LogEntry, done *marks) (message []byte) {
	message, changed := in.parse.line(line, e, done)
	if line == &in.chains.whole && e.LevelInferred && !bytes.HasPrefix(message, []byte("-----BEGIN ")) {
		e.Level = telemetry.Error // a stack trace without a level of its own
	}
	message, secret := in.redactLine(e, message, done)
	if !secret && in.wantsRaw(line, changed) {
		e.Metadata = in.withRaw(e.Metadata, line, done)
	}
	return message
}

// chains are the lines of a batch that belong together, as lists.
type chains struct {
	next  []int32 // the line that comes behind; 0: none
	inner []bool  // it comes behind another
	whole source.Line
	text  []byte
}

// What a line is in its chain.
const (
	alone = iota
	heads
	joined
)

func (c *chains) set(lines int, joins []join) {
	if len(joins) == 0 {
		return
	}
	c.next, c.inner = slices.Grow(c.next[:0], lines)[:lines], slices.Grow(c.inner[:0], lines)[:lines]
	clear(c.next)
	clear(c.inner)
	for _, j := range joins {
		c.next[j.from], c.inner[j.to] = j.to, true
	}
}

func (c *chains) at(i int) int {
	switch {
	case c.inner[i]:
		return joined
	case c.next[i] != 0:
		return heads
	}
	return alone
}

// line puts a chain together; it is valid until the next call.
func (c *chains) line(lines []source.Line, i int) *source.Line {
	c.whole = lines[i]
	c.text = append(c.text[:0], lines[i].Text...)
	for k := c.next[i]; k != 0; k = c.next[k] {
		l := &lines[k]
		c.text = append(append(c.text, '\n'), l.Text...)
		c.whole.Truncated = c.whole.Truncated || l.Truncated
		c.whole.KeepRaw = c.whole.KeepRaw || l.KeepRaw
		c.whole.Partial = l.Partial
	}
	c.whole.Text = c.text
	return &c.whole
}
