package intake

import (
	"bytes"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// How long lines wait for more of their trace, and how much may wait.
const (
	joinWait  = 200 * time.Millisecond // for the next line
	joinMost  = time.Second            // in all
	holdLines = 4 * maxJoinedLines
	holdBytes = maxJoinedBytes
	holdInAll = 4 << 20
	maxHolds  = 1024
)

// hold is what a source emitted of one sandbox that ends within a trace: whole
// batches, with their positions, so that what becomes durable is always all of
// what the positions cover and nothing else. It is taken with the batch in
// which the trace ends, or when that does not come.
type hold struct {
	key       holdKey
	batch     source.Batch // Lines are copies
	positions map[string][]byte
	joins     joiner
	bytes     int
	since     time.Time
	touched   time.Time
}

type holdKey struct {
	prefix string
	scope  telemetry.Scope
	origin telemetry.Origin
}

// holds are those of all sandboxes. Under mu.
type holds struct {
	by    map[holdKey]*hold
	keys  map[string]*hold // by the keys of their positions
	bytes int
}

// due is when the first hold is to be taken.
func (h *holds) due() (at time.Time, some bool) {
	for _, one := range h.by {
		if d := one.due(); !some || d.Before(at) {
			at, some = d, true
		}
	}
	return at, some
}

func (h *hold) due() time.Time {
	if most := h.since.Add(joinMost); most.Before(h.touched.Add(joinWait)) {
		return most
	}
	return h.touched.Add(joinWait)
}

// takeJoined takes a batch with lines, or holds it where it ends within a trace.
func (in *Intake) takeJoined(prefix string, scope telemetry.Scope, b *source.Batch) {
	key := holdKey{prefix: prefix, scope: scope, origin: b.Origin}
	h := in.holds.by[key]
	in.releaseHolders(prefix, b, h)
	alone := len(b.Entries)+b.Len() == 0 // records do not wait for a trace
	if h == nil {
		in.joins.reset()
		in.joins.feed(b.Lines)
		if alone && in.joins.open(b.Lines) && in.mayHold(b) {
			in.hold(key, b)
			return
		}
		in.takeNow(prefix, scope, b, in.joins.joins)
		return
	}
	h.touched = time.Now()
	in.holdLines(h, b)
	if !alone {
		in.release(h)
		rest := *b
		rest.Lines, rest.Positions = nil, nil
		in.takeNow(prefix, scope, &rest, nil)
		return
	}
	if !h.joins.open(h.batch.Lines) || h.bytes >= holdBytes || len(h.batch.Lines) >= holdLines || in.holds.bytes >= holdInAll || !time.Now().Before(h.due()) {
		in.release(h)
	}
}

// takeNow takes a batch into what is cut next.
func (in *Intake) takeNow(prefix string, scope telemetry.Scope, b *source.Batch, joins []join) {
	in.take(in.logs.collecting, scope, b, joins)
	for k, v := range b.Positions {
		in.takePosition(in.logs.collecting, prefix+k, v)
	}
}

func (in *Intake) mayHold(b *source.Batch) bool {
	size := 0
	for i := range b.Lines {
		size += len(b.Lines[i].Text)
	}
	return size < holdBytes && len(b.Lines) < holdLines && in.holds.bytes+size < holdInAll && len(in.holds.by) < maxHolds && !in.closed
}

func (in *Intake) hold(key holdKey, b *source.Batch) {
	h := in.spareHold
	if in.spareHold = nil; h == nil {
		h = &hold{positions: map[string][]byte{}}
	}
	h.key, h.batch.Target = key, b.Target
	h.since = time.Now()
	h.touched = h.since
	h.joins.reset()
	in.holds.by[key] = h
	in.holdLines(h, b)
	in.metrics.held.Inc()
}

// holdLines copies a batch's lines and positions behind those that are held.
func (in *Intake) holdLines(h *hold, b *source.Batch) {
	for i := range b.Lines {
		l := b.Lines[i]
		h.bytes += len(l.Text)
		in.holds.bytes += len(l.Text)
		l.Text, l.Metadata = bytes.Clone(l.Text), bytes.Clone(l.Metadata)
		h.batch.Lines = append(h.batch.Lines, l)
	}
	h.joins.feed(h.batch.Lines)
	for k, v := range b.Positions {
		if value, ok := in.checkedPosition(h.key.prefix+k, v); ok {
			h.positions[h.key.prefix+k] = value
			in.holds.keys[h.key.prefix+k] = h
			in.latest[h.key.prefix+k] = value
		}
	}
}

// release takes what is held.
func (in *Intake) release(h *hold) {
	in.take(in.logs.collecting, h.key.scope, &h.batch, h.joins.joins)
	for k, v := range h.positions {
		in.logs.collecting.positions[k] = v
		delete(in.holds.keys, k)
	}
	delete(in.holds.by, h.key)
	in.holds.bytes -= h.bytes
	clear(h.batch.Lines)
	clear(h.positions)
	h.batch.Lines, h.bytes = h.batch.Lines[:0], 0
	in.spareHold = h
}

// releaseHolders takes what is held with a position that the batch brings
// anew, but for the batch's own.
func (in *Intake) releaseHolders(prefix string, b *source.Batch, own *hold) {
	if len(in.holds.keys) == 0 {
		return
	}
	for k := range b.Positions {
		if h := in.holds.keys[prefix+k]; h != nil && h != own {
			in.release(h)
		}
	}
}

// releaseDue takes what has waited long enough, or all.
func (in *Intake) releaseDue(all bool) {
	if len(in.holds.by) == 0 {
		return
	}
	now := time.Now()
	for _, h := range in.holds.by {
		if all || !now.Before(h.due()) {
			in.release(h)
		}
	}
}
