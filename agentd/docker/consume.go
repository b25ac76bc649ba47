package docker

import (
	"bytes"

	"github.com/theazo/observability/shared/telemetry"
)

// consume takes whole records and returns how many bytes they took.
func (t *tail) consume(f *logFile, buf []byte, b *block) (used int) {
	if f.format == localFrames {
		used = t.consumeFrames(f, buf, b)
	} else {
		used = t.consumeLines(f, buf, b)
	}
	if used > 0 {
		if t.off == 0 && f.known() == "" {
			f.is(fingerprintOf(f.format, buf))
		}
		t.advance(f, buf[:used], b)
	}
	return used
}

func (t *tail) consumeLines(f *logFile, buf []byte, b *block) (used int) {
	for len(b.out.lines) < blockLines {
		end := bytes.IndexByte(buf[used:], '\n')
		if end < 0 {
			break
		}
		t.record(f, buf[used:used+end], t.off+int64(used), b)
		used += end + 1
	}
	return used
}

func (t *tail) consumeFrames(f *logFile, buf []byte, b *block) (used int) {
	for len(b.out.lines) < blockLines {
		at := t.off + int64(used)
		entry, size, state := cutFrame(buf[used:])
		if state == frameShort {
			break
		}
		r, ok := record{}, false
		if state == frameWhole {
			r, ok = parseEntry(entry)
		} else {
			size = nextFrame(buf[used:])
		}
		if ok {
			t.take(&r, place{file: f, off: at}, b)
		} else {
			t.nonsense(int64(size), b)
		}
		used += size
	}
	return used
}

// broken returns how much of a file's last bytes, which are no whole record, is
// to be passed over.
func (how format) broken(rest []byte) int {
	if how == localFrames && len(rest) > 1 {
		if n := nextFrame(rest); n < len(rest)-4-len(sourcePrefix) {
			return n
		}
	}
	return len(rest)
}

// record hands on the record of a line, or tells that it made no sense.
func (t *tail) record(f *logFile, line []byte, off int64, b *block) {
	r, ok := b.scan.parse(line)
	if !ok {
		// An engine that was killed while it wrote appends its next record to
		// the broken one.
		if i := bytes.LastIndex(line, []byte(logPrefix)); i > 0 {
			r, ok = b.scan.parse(line[i:])
			line = line[:i]
		}
		t.nonsense(int64(len(line)), b)
		if !ok {
			return
		}
	}
	t.take(&r, place{file: f, off: off}, b)
}

func (t *tail) nonsense(n int64, b *block) {
	b.gap(telemetry.Gap{
		Reason: telemetry.GapUnreadable, Count: 1, Bytes: n, Since: t.lastTime,
		Detail: "A record of the engine's log file made no sense.",
	})
}

// take hands a record on, unless it was before.
func (t *tail) take(r *record, at place, b *block) {
	t.lastTime = r.at
	if t.replay != nil {
		if at.before(t.replay.until) {
			if from := t.replay.from[r.stream]; from == nil || at.before(*from) {
				return
			}
		} else {
			t.replay, t.resumed = nil, nil
		}
	}
	if t.asAPI != nil && !t.asAPI[r.stream].isNew(r.at) {
		return
	}
	b.out.add(&t.joiners[r.stream], r, at)
}

// discard passes over bytes that are no record.
func (t *tail) discard(f *logFile, b *block, passed []byte, why string) {
	b.gap(telemetry.Gap{
		Reason: telemetry.GapUnreadable, Count: telemetry.GapUnknownCount, Bytes: int64(len(passed)), Since: t.lastTime,
		Detail: "The engine's log file could not be read on: " + why + ".",
	})
	t.advance(f, passed, b)
}
