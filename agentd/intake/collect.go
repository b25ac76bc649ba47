package intake

import (
	"slices"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// scoped is what a batch holds of one organisation and environment.
type scoped struct {
	telemetry.Scope
	bytes int
	logs  []*logFrame // all but the last are full
	free  []*logFrame

	events []telemetry.Event
	gaps   []telemetry.Gap
}

// logFrame is one frame of lines while it is being filled.
type logFrame struct {
	w     segment.Writer
	class telemetry.Class
	bytes int
	body  []byte // where it is encoded to; kept for the next
}

func (s *scoped) reset() {
	const keep = 2 // of a scope that had more, one batch was unusually large
	for _, l := range s.logs {
		if len(s.free) < keep {
			s.free = append(s.free, l)
		}
	}
	s.logs = slices.Delete(s.logs, 0, len(s.logs))
	s.events = slices.Delete(s.events, 0, len(s.events))
	s.gaps = slices.Delete(s.gaps, 0, len(s.gaps))
	s.bytes = 0
}

// frame returns the frame that takes a line of so many bytes.
func (s *scoped) frame(bytes int) *logFrame {
	if n := len(s.logs); n > 0 {
		if l := s.logs[n-1]; l.w.Lines() < frameLines && (l.bytes+bytes <= frameBytes || l.w.Lines() == 0) {
			return l
		}
	}
	var l *logFrame
	if n := len(s.free); n > 0 {
		l, s.free = s.free[n-1], s.free[:n-1]
	} else {
		l = &logFrame{}
	}
	l.class, l.bytes = telemetry.Normal, 0
	s.logs = append(s.logs, l)
	return l
}

// take adds a batch's records to what is collected. Called under mu.
func (in *Intake) take(scope telemetry.Scope, b *source.Batch) {
	s := in.collecting.scope(scope)
	before := s.bytes
	var done marks
	origin := in.checkOrigin(b.Origin, len(b.Lines)+len(b.Events) > 0, &done)
	in.takeLines(s, origin, b.Lines, &done)
	for i := range b.Events {
		in.takeEvent(s, origin, b.Events[i], &done)
	}
	for i := range b.Gaps {
		in.takeGap(s, origin, b.Gaps[i], &done)
	}
	in.metrics.count(&done)
	in.collecting.bytes += s.bytes - before
	in.collecting.full = in.collecting.full || s.bytes >= frameBytes || len(s.logs) > 1 ||
		len(s.logs) == 1 && s.logs[0].w.Lines() >= frameLines
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
		message := in.parse.line(line, &e, done)
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

// lineBytes is what a line takes beside its texts, so that empty lines count too.
const lineBytes = 8

func originBytes(o *telemetry.Origin) int {
	return 16 + len(o.Agent) + len(o.Session) + len(o.User) + len(o.Sandbox)
}

// checkOrigin makes an origin that every reader takes: an id that cannot be one
// is left out, and an agent without a good one gets the sandbox's own.
func (in *Intake) checkOrigin(o telemetry.Origin, needAgent bool, done *marks) telemetry.Origin {
	if o == in.parse.origin && (o.Agent != "" || !needAgent) {
		return o // as the batch before: it was good
	}
	fixed := o
	fixed.Stream = telemetry.NoStream
	if o.Session != "" && telemetry.CheckID(string(o.Session)) != nil {
		fixed.Session = ""
	}
	if o.User != "" && telemetry.CheckUser(string(o.User)) != nil {
		fixed.User = ""
	}
	if o.Sandbox != "" && telemetry.CheckID(string(o.Sandbox)) != nil {
		fixed.Sandbox = ""
	}
	if (needAgent || o.Agent != "") && telemetry.CheckID(string(o.Agent)) != nil {
		fixed.Agent = ids.AgentOf(o.Provider, o.Sandbox)
	}
	if fixed == o {
		in.parse.origin = o
		return o
	}
	if fixed.Agent != o.Agent || fixed.Session != o.Session || fixed.User != o.User || fixed.Sandbox != o.Sandbox {
		done[markBadID]++
		if in.firstWarning("id " + string(fixed.Agent)) {
			in.log.Warn("a sandbox has ids that cannot be ids; they are left out", "agent", fixed.Agent, "sandbox", fixed.Sandbox)
		}
	}
	return fixed
}

// Limits of records, as receivers check them.
const (
	maxText       = 1024 // bytes of a reason, detail, attribute or its name
	maxAttributes = 32
	recordBytes   = 64 // what a record takes beside its texts, about
)

func (in *Intake) takeEvent(s *scoped, origin telemetry.Origin, e telemetry.Event, done *marks) {
	if telemetry.CheckID(string(e.Type)) != nil {
		in.metrics.dropped.WithLabelValues("bad_event").Inc()
		return
	}
	if e.Agent == "" {
		e.Origin = origin
	} else {
		e.Origin = in.checkOrigin(e.Origin, true, done)
	}
	e.Stream, e.Source = telemetry.NoStream, telemetry.SourceProvider
	if e.Timestamp = microseconds(e.Timestamp); e.Timestamp.IsZero() {
		e.Timestamp = microseconds(time.Now())
		done[markUntimed]++
	}
	size := recordBytes + originBytes(&e.Origin) + len(e.Type)
	e.Reason = in.recordText(e.Reason, done)
	attributes := make(map[string]string, min(len(e.Attributes), maxAttributes))
	for _, k := range firstKeys(e.Attributes) {
		key, value := in.recordText(k, done), in.recordText(e.Attributes[k], done)
		attributes[key] = value
		size += len(key) + len(value)
	}
	if len(attributes) < len(e.Attributes) {
		done[markTruncated]++
	}
	if e.Attributes = attributes; len(attributes) == 0 {
		e.Attributes = nil
	}
	s.events = append(s.events, e)
	s.bytes += size + len(e.Reason)
	in.metrics.events.Inc()
}

// firstKeys returns the first maxAttributes keys in order.
func firstKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys[:min(len(keys), maxAttributes)]
}

func (in *Intake) takeGap(s *scoped, origin telemetry.Origin, g telemetry.Gap, done *marks) {
	if telemetry.CheckID(string(g.Reason)) != nil {
		g.Reason = telemetry.GapUnreadable
	}
	if g.Agent == "" && g.Session == "" && g.Sandbox == "" {
		g.Agent, g.Session, g.Sandbox = origin.Agent, origin.Session, origin.Sandbox
	} else {
		o := in.checkOrigin(telemetry.Origin{Agent: g.Agent, Session: g.Session, Sandbox: g.Sandbox}, false, done)
		g.Agent, g.Session, g.Sandbox = o.Agent, o.Session, o.Sandbox
	}
	g.Count, g.Bytes = max(g.Count, telemetry.GapUnknownCount), max(g.Bytes, 0)
	g.Since, g.Until = microseconds(g.Since), microseconds(g.Until)
	g.Detail = in.recordText(g.Detail, done)
	s.gaps = append(s.gaps, g)
	s.bytes += recordBytes + len(g.Agent) + len(g.Session) + len(g.Sandbox) + len(g.Detail)
	in.metrics.gaps.Inc()
}

// recordText cleans a text of a record and cuts it.
func (in *Intake) recordText(s string, done *marks) string {
	if len(s) <= maxText && isClean([]byte(s)) {
		return s
	}
	b, cut := in.parse.cleaned([]byte(s), maxText)
	done[markCleaned]++
	if cut {
		done[markTruncated]++
	}
	return string(b)
}

func microseconds(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// encode makes the batch's frames: for each scope the events, then the lines.
func (in *Intake) encode(b *batch) {
	if b.encoded {
		return // before an attempt to append that failed
	}
	b.encoded = true
	for _, s := range b.order {
		if err := b.encodeRecords(s); err != nil {
			in.metrics.dropped.WithLabelValues("not_encodable").Add(float64(len(s.events) + len(s.gaps)))
			in.log.Error("records of the events lane cannot be encoded and are dropped", "organisation", string(s.Org), "error", err)
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

// recordsPerFrame keeps a frame of records, at their largest, below frame.MaxBody.
const recordsPerFrame = 32

func (b *batch) encodeRecords(s *scoped) error {
	events, gaps := s.events, s.gaps
	for len(events)+len(gaps) > 0 {
		e := events[:min(len(events), recordsPerFrame)]
		g := gaps[:min(len(gaps), recordsPerFrame-len(e))]
		body, err := wire.EncodeRecords(&telemetry.Records{Events: e, Gaps: g})
		if err != nil {
			return err
		}
		b.frames = append(b.frames, frame.Frame{Body: body, Header: frame.Header{
			Org: s.Org, Env: s.Env, Lane: telemetry.LaneEvents, Class: telemetry.Important, Count: uint32(len(e) + len(g)), //nolint:gosec // at most recordsPerFrame
		}})
		events, gaps = events[len(e):], gaps[len(g):]
	}
	return nil
}
