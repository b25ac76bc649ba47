package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Limits of one row of log_hot. A query holds one row's columns at a time, and
// what it decodes of them.
const (
	maxRowBytes   = 8 << 20
	maxRowDecoded = 8 << 20
	maxRowParts   = segment.MaxParts
)

// batch is one Commit on its way: judged frames, and the rows they become.
type batch struct {
	frames []*frame.Received
	times  [][]frame.Times // by frame; nil where a frame has no lines

	marks   []*mark // sorted
	markOf  map[markKey]*mark
	scopes  []*scopeBatch // sorted after judge
	scopeOf map[telemetry.Scope]*scopeBatch

	outcomes    []frame.Outcome
	events      []eventRow
	spans       []spanRow
	spanOf      map[spanKey]int // index in spans
	calls       []callRow
	metrics     []metricRow
	quarantined []*frame.Received
	seen        *sightings
	now         time.Time
}

type markKey struct {
	org   telemetry.OrgID
	node  telemetry.NodeID
	epoch uint64
	lane  telemetry.Lane
}

type mark struct {
	markKey
	within  bool // a frame is not the first of its epoch
	known   bool // it is in the database
	changed bool
	seq     uint64 // last committed
	base    uint64 // of a new mark: where it began

	// What became of the records that this commit takes; of seq, once it is
	// in the database.
	visible, quarantined, lost int64
}

// scopeBatch is what one stream gets. Its records take consecutive positions:
// lines, in the order of parts, then gaps.
type scopeBatch struct {
	scope telemetry.Scope
	parts []linePart
	gaps  []gapRow
	next  int64 // of the counter after this commit
	ahead int64 // microseconds

	erasures int64 // of the counter: 0 where nothing was ever erased

	// What waits for the compactor from here on.
	hotRows int64
	hotRaw  int64
	since   time.Time
}

type linePart struct {
	part segment.Part
	recv time.Time // of its row
}

type gapRow struct {
	telemetry.Gap
	lane  telemetry.Lane
	epoch uint64
}

func newBatch(frames []*frame.Received, times [][]frame.Times, spans *spanCache) *batch {
	b := &batch{
		frames: frames, times: times, markOf: map[markKey]*mark{}, spanOf: map[spanKey]int{}, scopeOf: map[telemetry.Scope]*scopeBatch{},
		outcomes: make([]frame.Outcome, len(frames)), now: storedTime(time.Now()),
	}
	b.seen = newSightings(spans)
	for _, f := range frames {
		k := keyOf(f)
		if b.markOf[k] == nil {
			m := &mark{markKey: k}
			b.markOf[k] = m
			b.marks = append(b.marks, m)
		}
		if f.First > 1 {
			b.markOf[k].within = true
		}
	}
	return b
}

func keyOf(f *frame.Received) markKey {
	return markKey{org: f.Org, node: f.Node, epoch: f.Epoch, lane: f.Lane}
}

// orgs lists the organisations of the transaction.
func (b *batch) orgs() []string {
	var list []string
	for _, m := range b.marks {
		list = append(list, string(m.org))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// judge decides each frame by its mark, in order, and collects what the
// committed ones hold.
func (b *batch) judge() {
	for i, f := range b.frames {
		m := b.markOf[keyOf(f)]
		switch {
		case f.Last() <= m.seq:
			b.outcomes[i] = frame.Outcome{Verdict: frame.Duplicate}
		case f.First > m.seq+1:
			b.outcomes[i] = frame.Outcome{Verdict: frame.OutOfOrder, Next: m.seq + 1}
		default:
			known := m.seq + 1 - f.First // records at the front that were committed before
			m.seq, m.changed = f.Last(), true
			b.outcomes[i] = frame.Outcome{Verdict: frame.Committed}
			m.count(f, int64(uint64(f.Count)-known)) //nolint:gosec // known is below Count
			b.take(f, b.times[i], known)
		}
	}
	slices.SortFunc(b.scopes, func(x, y *scopeBatch) int {
		return cmp.Or(cmp.Compare(x.scope.Org, y.scope.Org), cmp.Compare(x.scope.Env, y.scope.Env))
	})
	for _, sc := range b.scopes {
		sc.closeRows()
	}
}

// count is the ledger's entry for the last records of one frame. Those of kinds
// that this release does not know are the very last.
func (m *mark) count(f *frame.Received, records int64) {
	switch {
	case f.Quarantine != "":
		m.quarantined += records
	case f.Tombstone:
		m.lost += records
	default:
		unknown := min(int64(f.Unknown), records)
		m.visible += records - unknown
		m.quarantined += unknown
	}
}

func (b *batch) changes() bool {
	return slices.ContainsFunc(b.marks, func(m *mark) bool { return m.changed })
}

func (b *batch) scope(s telemetry.Scope) *scopeBatch {
	sc := b.scopeOf[s]
	if sc == nil {
		sc = &scopeBatch{scope: s}
		b.scopeOf[s] = sc
		b.scopes = append(b.scopes, sc)
	}
	return sc
}

// take adds what one frame holds beyond its first known records. (The spool
// never cuts a frame anew, but a tombstone may stand for frames of which some
// were committed and their acknowledgement lost.)
func (b *batch) take(f *frame.Received, times []frame.Times, known uint64) {
	sc, recv := b.scope(f.Scope()), b.received(f)
	switch {
	case f.Quarantine != "":
		b.quarantined = append(b.quarantined, f)
		sc.addGap(f, recv, telemetry.Gap{
			Reason: telemetry.GapQuarantined, Count: int64(uint64(f.Count) - known), Bytes: int64(len(f.Body)), //nolint:gosec // known is below Count
			FirstSeq: f.First + known, LastSeq: f.Last(), Detail: "the aggregator could not take these records and keeps them apart: " + cleanText(f.Quarantine),
		})
	case f.Tombstone:
		b.takeTombstone(sc, f, recv, known)
	case f.Lane == telemetry.LaneLogs:
		if known > 0 {
			f, times = without(f, int(known)) //nolint:gosec // below MaxCount
		}
		part := linePart{part: segment.Part{Segment: f.Segment, Node: f.Node, Epoch: f.Epoch, FirstSeq: f.First}, recv: recv}
		sc.parts = append(sc.parts, part)
		b.seen.lines(f, times, recv)
	default:
		b.takeRecords(sc, f, recv, known)
	}
}

func (b *batch) takeTombstone(sc *scopeBatch, f *frame.Received, recv time.Time, known uint64) {
	g := telemetry.Gap{Reason: telemetry.GapEvicted}
	if len(f.Gaps) > 0 {
		g = f.Gaps[0]
	}
	// The header is what the mark moves by, so it is what the ledger counts.
	g.Count, g.FirstSeq, g.LastSeq = int64(uint64(f.Count)-known), f.First+known, f.Last() //nolint:gosec // known is below Count
	sc.addGap(f, recv, g)
}

// takeRecords adds the records of the events lane; record i of the frame has
// sequence First + i. Those of kinds that this release does not know come last
// and are kept as bytes.
func (b *batch) takeRecords(sc *scopeBatch, f *frame.Received, recv time.Time, known uint64) {
	p := place{scope: f.Scope(), node: f.Node, epoch: f.Epoch, seq: f.First, recv: recv}
	each := func(n int, take func(i int)) {
		for i := range n {
			if p.seq >= f.First+known {
				take(i)
			}
			p.seq++
		}
	}
	each(len(f.Events), func(i int) {
		b.events = append(b.events, eventRow{place: p, Event: &f.Events[i]})
		b.seen.event(f, &f.Events[i], recv)
	})
	each(len(f.Spans), func(i int) { b.addSpan(spanRow{place: p, Span: &f.Spans[i]}) })
	each(len(f.ModelCalls), func(i int) { b.calls = append(b.calls, callRow{place: p, ModelCall: &f.ModelCalls[i]}) })
	each(len(f.Metrics), func(i int) { b.metrics = append(b.metrics, metricRow{place: p, MetricPoint: &f.Metrics[i]}) })
	each(len(f.Gaps), func(i int) { sc.addGap(f, recv, f.Gaps[i]) })
	if f.Unknown > 0 {
		b.quarantined = append(b.quarantined, f)
	}
}

func (sc *scopeBatch) addGap(f *frame.Received, recv time.Time, g telemetry.Gap) {
	g.Node, g.ObservedAt = f.Node, recv
	g.Detail = cleanText(g.Detail)
	sc.gaps = append(sc.gaps, gapRow{Gap: g, lane: f.Lane, epoch: f.Epoch})
}

// received is when the aggregator took the frame.
func (b *batch) received(f *frame.Received) time.Time {
	if f.ReceivedAt.IsZero() {
		return b.now
	}
	return storedTime(f.ReceivedAt)
}

// without returns the frame without its first lines. All its columns were decoded before.
func without(f *frame.Received, known int) (*frame.Received, []frame.Times) {
	var w segment.Writer
	var e telemetry.LogEntry
	lines := decoded(f.Segment)
	for i := known; i < f.Segment.Lines; i++ {
		lines.Entry(i, &e)
		w.Append(&e)
	}
	cut := *f
	cut.First += uint64(known) //nolint:gosec // a count of lines
	cut.Count -= uint32(known) //nolint:gosec // a count of lines
	s, err := segment.Parse(w.Encode(nil))
	if err != nil {
		panic(fmt.Sprintf("store: a segment of lines just decoded does not parse: %v", err))
	}
	cut.Segment = s
	return &cut, frame.OriginTimes(decoded(s))
}

// decoded returns the lines of a segment that is known to be good.
func decoded(s *segment.Segment) *segment.Lines {
	lines := s.Read()
	if err := lines.DecodeAll(); err != nil {
		panic(fmt.Sprintf("store: a segment of lines that were decoded before does not decode: %v", err))
	}
	return lines
}

// closeRows gives all parts of a row the time of the newest of them, finds how
// far the lines are ahead of it, and counts the rows.
func (sc *scopeBatch) closeRows() {
	for row := range sc.rows() {
		sc.hotRows++
		recv := row[0].recv
		for i := range row {
			if row[i].recv.After(recv) {
				recv = row[i].recv
			}
		}
		for i := range row {
			row[i].recv = recv
			sc.hotRaw += int64(row[i].part.RawBytes)
			sc.ahead = max(sc.ahead, row[i].part.Max.UnixMicro()-recv.UnixMicro())
		}
		if sc.since.IsZero() || recv.Before(sc.since) {
			sc.since = recv
		}
	}
}

// rows yields the parts of each row: one, unless there is more than fits.
func (sc *scopeBatch) rows() func(yield func([]linePart) bool) {
	return func(yield func([]linePart) bool) {
		start, size, decoded := 0, 0, 0
		for i := range sc.parts {
			s := sc.parts[i].part.Segment
			n := encodedSize(s)
			if i > start && (size+n > maxRowBytes || decoded+s.DecodedBytes() > maxRowDecoded || i-start == maxRowParts) {
				if !yield(sc.parts[start:i]) {
					return
				}
				start, size, decoded = i, 0, 0
			}
			size, decoded = size+n, decoded+s.DecodedBytes()
		}
		if start < len(sc.parts) {
			yield(sc.parts[start:])
		}
	}
}

func encodedSize(s *segment.Segment) int {
	n := 0
	for c := range segment.NumColumns {
		n += len(s.Encoded(c))
	}
	return n
}

// count is how many positions the scope takes.
func (sc *scopeBatch) count() int64 {
	n := int64(len(sc.gaps))
	for i := range sc.parts {
		n += int64(sc.parts[i].part.Lines)
	}
	return n
}

// published describes the committed records, by scope and rising position. Their
// lines are decoded by who shows them: most are never shown.
func (b *batch) published() []*frame.Published {
	var list []*frame.Published
	for _, sc := range b.scopes {
		at := sc.next - sc.count()
		for i := range sc.parts {
			p := &sc.parts[i]
			list = append(list, frame.NewPublished(sc.scope, at, p.recv, &p.part, p.part.Read()))
			at += int64(p.part.Lines)
		}
		for i := range sc.gaps {
			list = append(list, publishedGap(sc.scope, at, sc.gaps[i].Gap))
			at++
		}
	}
	return list
}

func publishedGap(scope telemetry.Scope, at int64, g telemetry.Gap) *frame.Published {
	g.Position = at
	return &frame.Published{Scope: scope, Position: at, Node: g.Node, ObservedAt: g.ObservedAt, Gaps: []telemetry.Gap{g}}
}

// storedTime is a time as the database keeps it: UTC, microseconds.
func storedTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// PostgreSQL's calendar is narrower than a segment's. Bounds outside it are
// moved to its edge, in rows and queries alike, so that order is kept. (The
// edge is not the zero time, which means none.)
var (
	minTime = time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func clampTime(t time.Time) time.Time {
	switch {
	case t.Before(minTime):
		return minTime
	case t.After(maxTime):
		return maxTime
	}
	return storedTime(t)
}

// cleanText makes text that PostgreSQL takes.
func cleanText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
