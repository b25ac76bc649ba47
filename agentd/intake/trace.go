package intake

import (
	"bytes"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// Limits of a message that is made of several lines.
const (
	maxJoinedLines = 1000
	maxJoinedBytes = telemetry.MaxMessage
	maxTentative   = 3 // lines that may turn out to belong to it
)

// tracer finds the lines of a stream that belong to the line before them: the
// frames of a stack trace, and what stands around them. One looks at all lines
// of a stream in turn.
//
//	         a head, or a frame behind any line
//	none ────────────────────────────────────────▶ in a trace of some kind
//	 ▲  ▲                                             │        ▲    │
//	 │  └──── a line that does not belong to it ──────┘        │    │ a line that
//	 │                                              belongs to │    ▼ may belong to it
//	 └──────────── a line that does not ───────────────────── tentative
//
// Lines that were tentative are joined when one behind them belongs to the
// trace, and stand alone otherwise.
type tracer struct {
	kind      traceKind
	last      int32 // the stream's last line
	second    int32 // the one before
	lines     int   // of what is joined
	bytes     int
	anchor    int32 // the last line that is joined, where others are tentative
	tentative int   // lines since, that may belong to it
	pending   int   // bytes of them
}

type traceKind uint8

const (
	noTrace    traceKind = iota
	frames               // Java, .NET, Node, Ruby: every line has the form of a frame
	properties           // Node prints an error's own properties in braces behind its frames
	python               // Traceback: indented lines, then the exception
	pythonEnd            // behind the exception: another may follow
	golang               // panic and goroutines
	rust                 // panicked at, and its backtrace
	rustHead             // the message follows in the next line
	nodePlace            // file:line, then the source line and a caret
	nodeSource
	nodeCaret
	privateKey // PEM: it is redacted as one
)

// verdict says what a line is to the one before it.
type verdict uint8

const (
	apart verdict = iota
	belongs
	perhaps
)

// join says that the line to belongs to the line from.
type join struct{ from, to int32 }

// joiner finds the joins among the lines of one sandbox.
type joiner struct {
	streams [telemetry.Stderr + 1]tracer
	lines   int32
	joins   []join
	behind  [telemetry.Stderr + 1][maxTentative]int32 // the tentative lines
}

func (j *joiner) reset() {
	j.lines, j.joins = 0, j.joins[:0]
	for i := range j.streams {
		j.streams[i] = tracer{last: -1, second: -1}
	}
}

// feed looks at the lines that all holds from the last one that was looked at
// on.
func (j *joiner) feed(all []source.Line) {
	for int(j.lines) < len(all) {
		i := j.lines
		j.lines++
		line := &all[i]
		stream := min(line.Stream, telemetry.Stderr)
		t := &j.streams[stream]
		if t.kind == noTrace && (len(line.Text) == 0 || !interesting[line.Text[0]]) {
			t.second, t.last = t.last, i
			continue
		}
		j.look(all, t, i, stream)
	}
}

func (j *joiner) look(all []source.Line, t *tracer, i int32, stream telemetry.Stream) {
	line := &all[i]
	var before []byte
	if t.last >= 0 && !all[t.last].Partial {
		before = all[t.last].Text
	}
	v := t.next(visible(line.Text), before)
	size := len(line.Text) + 1
	if v != apart && (t.last < 0 || all[t.last].Partial || t.lines+t.tentative+1 > maxJoinedLines || t.bytes+t.pending+size > maxJoinedBytes ||
		v == perhaps && t.tentative == maxTentative) {
		v = apart
	}
	switch v {
	case belongs:
		if t.lines <= 1 && t.tentative == 0 { // the line before is the first
			t.lines, t.bytes = 1, len(before)+1
			if t.logged(all) {
				j.joins = append(j.joins, join{t.second, t.last})
				t.lines, t.bytes = 2, t.bytes+len(all[t.second].Text)+1
			}
		}
		from := t.last
		if t.tentative > 0 {
			from = t.anchor
		}
		for _, k := range j.behind[stream][:t.tentative] {
			j.joins = append(j.joins, join{from, k})
			from = k
		}
		j.joins = append(j.joins, join{from, i})
		t.lines, t.bytes = t.lines+t.tentative+1, t.bytes+t.pending+size
		t.tentative, t.pending = 0, 0
		if t.kind == noTrace { // that was its end
			t.lines, t.bytes = 0, 0
		}
	case perhaps:
		if t.tentative == 0 {
			t.anchor = t.last
		}
		j.behind[stream][t.tentative] = i
		t.tentative++
		t.pending += size
	case apart:
		t.tentative, t.pending, t.lines, t.bytes = 0, 0, 1, size
	}
	t.second, t.last = t.last, i
}

// logged reports whether the stream's last line is an exception's own, behind
// the line of a log that tells of it: a logger has written both.
func (t *tracer) logged(all []source.Line) bool {
	if t.second < 0 || all[t.second].Partial || !isException(visible(all[t.last].Text)) {
		return false
	}
	level, stated := plainLevel(visible(all[t.second].Text))
	return stated && level >= telemetry.Warn
}

// open reports whether the next line of some stream may belong to the last one.
func (j *joiner) open(all []source.Line) bool {
	for i := range j.streams {
		t := &j.streams[i]
		if t.kind != noTrace || t.last >= 0 && !all[t.last].Partial && mayBeHead(all[t.last].Text) {
			return true
		}
	}
	return false
}

// visible is a line as far as it says what it is: without escape sequences
// before it and a carriage return behind it.
func visible(text []byte) []byte {
	for len(text) > 0 && text[0] == escape {
		s := stripper{text: text[:min(len(text), 64)]}
		text = text[max(s.sequence(0), 1):]
	}
	return bytes.TrimRight(text, "\r")
}

// interesting are the first bytes of lines that begin or continue a trace.
var interesting = func() (t [256]bool) {
	for _, c := range []byte(" \t-/CETUSfgnprtu\x1b") {
		t[c] = true
	}
	return t
}()

// next says what a line is to the one before, and what state it leaves.
func (t *tracer) next(line, before []byte) verdict {
	if t.kind != noTrace {
		if kind, v := t.within(line); v != apart {
			t.kind = kind
			return v
		}
	}
	first := byte(0)
	if len(line) > 0 {
		first = line[0]
	}
	switch first {
	case ' ', '\t':
		if isFrame(line) {
			t.kind = frames
			if bytes.HasSuffix(line, []byte(" {")) {
				t.kind = properties
			}
			return belongs
		}
		if bytes.HasPrefix(line, []byte(`  File "`)) && bytes.Contains(line, []byte(`", line `)) {
			t.kind = python
			return belongs
		}
	case 'C', '-':
		if isCause(line) {
			t.kind = frames
			return belongs
		}
	}
	t.kind = headKind(line)
	if t.kind == python && before != nil {
		// logger.exception writes its own line first.
		if level, stated := plainLevel(visible(before)); stated && level >= telemetry.Error {
			return belongs
		}
	}
	return apart
}

// headKind says which trace begins with the line.
func headKind(line []byte) traceKind {
	has := func(prefix string) bool { return bytes.HasPrefix(line, []byte(prefix)) }
	if len(line) < 7 { // "panic: "
		return noTrace
	}
	switch line[0] {
	case 'T', ' ':
		if has("Traceback (most recent call last):") || has("  + Exception Group Traceback (most recent call last):") {
			return python
		}
	case 'p', 'f', 'g', 'S', 'u', 'r':
		if has("panic: ") || has("fatal error: ") || has("goroutine ") && bytes.Contains(line, []byte(" [")) && bytes.HasSuffix(line, []byte("]:")) ||
			has("SIGSEGV: ") || has("SIGQUIT: ") || has("SIGABRT: ") || has("unexpected fault address ") || has("runtime: goroutine stack exceeds") {
			return golang
		}
		if has("file://") && endsWithNumber(line) {
			return nodePlace
		}
	case 't':
		if has("thread '") && bytes.Contains(line, []byte("panicked at ")) {
			if line[len(line)-1] == ':' {
				return rustHead
			}
			return rust
		}
	case 'E', 'U':
		if has(`Exception in thread "`) || has("Unhandled exception") || has("Unhandled Exception") {
			return frames
		}
	case '/', 'n':
		if (line[0] == '/' || has("node:")) && endsWithNumber(line) {
			return nodePlace
		}
	case '-':
		if has("-----BEGIN ") && bytes.HasSuffix(line, []byte("PRIVATE KEY-----")) {
			return privateKey
		}
	}
	return noTrace
}

// within says what a line is to the trace that it comes behind, and the kind
// that it leaves.
func (t *tracer) within(line []byte) (traceKind, verdict) {
	blank, indented := len(line) == 0, len(line) > 0 && (line[0] == ' ' || line[0] == '\t')
	has := func(prefix string) bool { return bytes.HasPrefix(line, []byte(prefix)) }
	switch t.kind {
	case frames:
		switch {
		case blank:
			return frames, perhaps
		case has("Node.js v") && t.tentative > 0:
			return noTrace, belongs
		case has("    [cause]: "), has("  [errors]: "):
			return frames, belongs
		case has("}") && len(line) == 1:
			return frames, belongs
		}
	case properties:
		if line := bytes.TrimRight(line, " "); len(line) > 0 && line[0] == '}' {
			return frames, belongs
		}
		if indented {
			return properties, belongs
		}
	case python:
		switch {
		case indented:
			return python, belongs
		case isException(line):
			return pythonEnd, belongs
		}
	case pythonEnd:
		switch {
		case blank:
			return pythonEnd, perhaps
		case has("During handling of the above exception, another"), has("The above exception was the direct cause"):
			return pythonEnd, belongs
		case has("Traceback (most recent call last):") && t.lines > 2 && t.tentative > 0:
			return python, belongs
		case has("  | "), has("  +-"), has("    | "), has("    +-"):
			return pythonEnd, belongs
		}
	case golang:
		switch {
		case blank:
			return golang, perhaps
		case isGoTrace(line):
			return golang, belongs
		}
	case rustHead:
		if !blank {
			return rust, belongs
		}
	case rust:
		switch {
		case indented, has("note: "), has("stack backtrace:"), has("Caused by:"):
			return rust, belongs
		}
	case nodePlace:
		if !blank {
			return nodeSource, perhaps
		}
	case nodeSource:
		if caret := bytes.TrimLeft(line, " \t"); len(caret) > 0 && len(bytes.Trim(caret, "^")) == 0 {
			return nodeCaret, belongs
		}
	case nodeCaret:
		switch {
		case blank:
			return nodeCaret, perhaps
		case mayBeHead(line), has("Uncaught "), t.tentative > 0 && has("["):
			return frames, belongs
		}
	case privateKey:
		switch {
		case has("-----END "):
			return noTrace, belongs
		case t.lines < 128 && isKeyLine(line):
			return privateKey, belongs
		}
	case noTrace:
	}
	return noTrace, apart
}

// isFrame recognises "\tat a.B.c(B.java:1)", "    at f (x.js:1:2)",
// "   at A.B() in x.cs:line 1", "\t... 3 more", "\tfrom x.rb:1:in `f'".
func isFrame(line []byte) bool {
	if len(line) < 5 || line[0] != ' ' && line[0] != '\t' {
		return false
	}
	s := bytes.TrimSuffix(bytes.TrimLeft(line, " \t"), []byte(" {"))
	has := func(prefix string) bool { return bytes.HasPrefix(s, []byte(prefix)) }
	switch {
	case has("at "):
		return bytes.IndexByte(s, '(') > 0 || endsWithNumber(s) || has("at <anonymous>")
	case has("... "):
		return bytes.HasSuffix(s, []byte(" more")) || bytes.Contains(s, []byte("common frames omitted"))
	case has("from "):
		return bytes.Contains(s, []byte(":in "))
	case has("Suppressed: "), has("Caused by: "), has("--- End of "), has("---> "):
		return true
	}
	return false
}

// isCause recognises the lines without indentation that go on with a trace.
func isCause(line []byte) bool {
	return bytes.HasPrefix(line, []byte("Caused by: ")) || bytes.HasPrefix(line, []byte("--- End of ")) && bytes.HasSuffix(line, []byte(" ---"))
}

// isException recognises "ValueError: x", "pkg.Error" and "KeyboardInterrupt":
// the line that ends a traceback.
func isException(line []byte) bool {
	i := 0
	for i < len(line) && (letter(line[i]) || line[i] >= '0' && line[i] <= '9' || line[i] == '_' || line[i] == '.') {
		i++
	}
	return i > 0 && (i == len(line) || line[i] == ':')
}

// isGoTrace recognises what stands behind a panic: goroutines, their functions,
// the places of those, registers.
func isGoTrace(line []byte) bool {
	has := func(prefix string) bool { return bytes.HasPrefix(line, []byte(prefix)) }
	switch {
	case line[0] == '\t', has("goroutine "), has("[signal "), has("created by "), has("panic: "), has("[recovered]"), has("exit status "), has("runtime stack:"),
		has("...additional frames elided..."), has("PC="), has("main."), has("runtime."):
		return true
	case line[len(line)-1] == ')': // a function with its arguments, and nothing else
		open := bytes.IndexByte(line, '(')
		return open > 0 && bytes.IndexByte(line[:open], ' ') < 0 && bytes.IndexByte(line[:open], '.') > 0
	case len(line) < 40 && bytes.Contains(line, []byte(" 0x")): // a register
		return true
	}
	return false
}

func isKeyLine(line []byte) bool {
	for _, c := range line {
		if !letter(c) && (c < '0' || c > '9') && c != '+' && c != '/' && c != '=' && c != ':' && c != '-' && c != ',' && c != ' ' {
			return false
		}
	}
	return len(line) <= 128
}

// endsWithNumber recognises a place: "…:12", with or without a bracket behind.
func endsWithNumber(line []byte) bool {
	line = bytes.TrimRight(line, ")")
	i := len(line)
	for i > 0 && line[i-1] >= '0' && line[i-1] <= '9' {
		i--
	}
	return i < len(line) && i > 0 && line[i-1] == ':'
}

// mayBeHead recognises a line that frames may follow: it names an exception.
func mayBeHead(line []byte) bool {
	const most = 512
	line = line[:min(len(line), most)]
	for _, word := range [...]string{"Exception", "Error"} {
		rest := line
		for {
			i := bytes.Index(rest, []byte(word))
			if i < 0 {
				break
			}
			rest = rest[i+len(word):]
			if len(rest) == 0 || rest[0] == ':' || rest[0] == '\r' || rest[0] == ' ' && i > 0 || rest[0] == ')' {
				return true
			}
		}
	}
	return false
}
