package docker

import (
	"time"
	"unicode/utf8"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// joiner puts the pieces of one stream's long lines together again. The engine
// cuts lines at 16 KiB and gives all pieces of one line the time of its first,
// so a piece with another time begins another line.
//
//	          piece without newline              longer than countBytes
//	(empty) ────────────────────────▶ open ──────────────────────────────▶ skipping
//	   ▲                               │         emitted, truncated           │
//	   └── newline, other time, end ───┴──────────────────────────────────────┘
//	         emitted (partial, unless a newline came)         the rest is dropped
//
// An open line keeps the first MaxMessage bytes and counts the others, so that a
// truncated line can say how long it was.
type joiner struct {
	buf      []byte
	length   int64 // of the open line so far
	at       time.Time
	from     place // where the open line began
	open     bool
	full     bool // nothing more goes into buf
	skipping bool
}

// countBytes is how far the length of a line is counted before it is emitted
// although it has not ended.
const countBytes = 16 << 20

// keepBuffer is the largest buffer that a joiner keeps for its next long line.
const keepBuffer = 64 << 10

// lineWriter collects lines, and the texts that do not lie in the read buffer.
type lineWriter struct {
	lines []source.Line
	texts []byte
	cut   int // lines that were longer than MaxMessage
	tty   bool
}

func (w *lineWriter) reset() {
	clear(w.lines) // or they would keep the read buffers of other sandboxes alive
	w.lines = w.lines[:0]
	if cap(w.texts) > maxArena {
		w.texts = nil
	}
	w.texts = w.texts[:0]
	w.cut = 0
}

// add takes the next record of j's stream, which begins at from.
func (w *lineWriter) add(j *joiner, r *record, from place) {
	if (j.open || j.skipping) && !r.at.Equal(j.at) {
		w.end(j, r.stream)
	}
	switch {
	case j.skipping:
		j.skipping = !r.whole
	case !j.open && r.whole && len(r.text) <= telemetry.MaxMessage:
		w.append(source.Line{Timestamp: r.at, Text: r.text, Stream: r.stream})
	default:
		w.join(j, r, from)
	}
}

func (w *lineWriter) join(j *joiner, r *record, from place) {
	if !j.open {
		j.open, j.at, j.from = true, r.at, from
	}
	j.length += int64(len(r.text))
	if room := telemetry.MaxMessage - len(j.buf); j.full || len(r.text) > room {
		if !j.full {
			j.full = true
			j.buf = append(j.buf, r.text[:room]...)
			if !utf8.RuneStart(r.text[room]) {
				j.buf = cutRune(j.buf)
			}
		}
	} else {
		j.buf = append(j.buf, r.text...)
	}
	switch {
	case r.whole:
		w.take(j, source.Line{Timestamp: j.at, Stream: r.stream})
	case j.length > countBytes:
		w.take(j, source.Line{Timestamp: j.at, Stream: r.stream})
		j.skipping = true
	}
}

// end closes j's line although no newline has come.
func (w *lineWriter) end(j *joiner, stream telemetry.Stream) {
	if j.open {
		w.take(j, source.Line{Timestamp: j.at, Stream: stream, Partial: true})
	}
	j.skipping = false
}

// take moves the open line's text out of the joiner.
func (w *lineWriter) take(j *joiner, line source.Line) {
	if j.full {
		line.Truncated, line.Original = true, j.length
		w.cut++
	}
	start := len(w.texts)
	w.texts = append(w.texts, j.buf...)
	line.Text = w.texts[start:len(w.texts):len(w.texts)]
	w.append(line)
	j.drop()
}

// drop forgets the open line.
func (j *joiner) drop() {
	j.open, j.full, j.length = false, false, 0
	if j.buf = j.buf[:0]; cap(j.buf) > keepBuffer {
		j.buf = nil
	}
}

func (w *lineWriter) append(line source.Line) {
	if n := len(line.Text); w.tty && !line.Truncated && n > 0 && line.Text[n-1] == '\r' {
		line.Text = line.Text[:n-1] // a terminal ends its lines with \r\n
	}
	w.lines = append(w.lines, line)
}

// cutRune removes the first bytes of a character whose rest is missing.
func cutRune(b []byte) []byte {
	for i := len(b) - 1; i >= 0 && i >= len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return b[:i]
			}
			break
		}
	}
	return b
}
