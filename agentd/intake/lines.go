package intake

import (
	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// take adds a batch's records to what is collected. Called under mu.
func (in *Intake) take(to *batch, scope telemetry.Scope, b *source.Batch) {
	s := to.scope(scope)
	before := s.bytes
	var done marks
	origin := in.checkOrigin(b.Origin, len(b.Lines)+len(b.Entries)+len(b.Events)+len(b.Spans)+len(b.ModelCalls)+len(b.Metrics) > 0, &done)
	in.takeLines(s, origin, b.Lines, &done)
	in.takeEntries(s, origin, b, &done)
	in.takeRecords(s, origin, &b.Records, &done)
	in.metrics.count(&done)
	to.account(s, before)
}

func (in *Intake) takeLines(s *scoped, origin telemetry.Origin, lines []source.Line, done *marks) {
	if len(lines) == 0 {
		return
	}
	var l *logFrame
	e := telemetry.LogEntry{Origin: origin}
	overhead, read := originBytes(&origin), 0
	for i := range lines {
		line := &lines[i]
		read += len(line.Text)
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
	message, secret := in.redactLine(e, message, done)
	if !secret && in.wantsRaw(line, changed) {
		e.Metadata = in.withRaw(e.Metadata, line, done)
	}
	return message
}
