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
	in.takeLines(s, origin, b.Lines, joins, &done)
	in.takeEntries(s, origin, b, &done)
	in.takeRecords(s, origin, &b.Records, &done)
	in.metrics.count(&done)
	to.account(s, before)
}

func (in *Intake) takeLines(s *scoped, origin telemetry.Origin, lines []source.Line, joins []join, done *marks) {
	if len(lines) == 0 {
		return
	}
	var l *logFrame
	e := telemetry.LogEntry{Origin: origin}
	overhead, read := originBytes(&origin), 0
	in.chains.set(len(lines), joins)
	for i := range lines {
		line := &lines[i]
		read += len(line.Text)
		if len(joins) > 0 {
			switch in.chains.at(i) {
			case joined:
				continue
			case heads:
				line = in.chains.line(lines, i)
				done[markJoined]++
			}
		}
		e.Stream = line.Stream
		message := in.read(line, &e, done)
		size := len(message) + len(e.Metadata) + lineBytes
		next := s.frame(size + overhead)
		if next != l {
			l = next
			l.bytes += overhead
		}
		l.bytes += size
		s.bytes += size
		if e.Level >= telemetry.Warn {
			l.class = telemetry.Important
		}
		l.w.AppendBytes(&e, message)
	}
	s.bytes += overhead
	in.metrics.lines.Add(float64(len(lines)))
	in.metrics.bytes.Add(float64(read))
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
