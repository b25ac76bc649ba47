package docker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// Bounds of the work for one run's last words.
const (
	// wordsBytes is how much of a log's end is read. One stream's tail may lie
	// before that much of the other stream.
	wordsBytes = 4 << 20
	// wordsLines and wordsTimeout bound what the engine is asked for where the log
	// is in no file.
	wordsLines   = 2000
	wordsTimeout = 5 * time.Second
)

// ending is what is known of the end of a run when its log is complete. The tails
// are read when the exit is told, not before: a thousand exits that wait for a
// blocked sink hold no text.
type ending struct {
	facts telemetry.LastWords
	log   *mark     // the end of its files; nil: it is read through the engine
	after time.Time // the run before had ended by then
	until time.Time
	tty   bool
	mute  bool // the driver keeps nothing
}

// ending notes the end of a run that exit tells of.
func (r *run) ending(exit *telemetry.Event) *ending {
	e := &ending{after: r.Earlier, until: r.Exited, tty: r.tty, mute: r.Silent}
	e.facts = telemetry.LastWords{OOMKilled: exit.Reason == reasonOOM, ImageDigest: clip(r.digest, maxAttribute)}
	if exit.ExitCode != nil {
		e.facts.Signal = signalOf(*exit.ExitCode)
	}
	if !r.Started.IsZero() && r.Exited.After(r.Started) {
		e.facts.Duration = r.Exited.Sub(r.Started)
	}
	return e
}

// signalOf returns the signal that ended a process with that exit code.
func signalOf(code int) string {
	if code <= exitSignal {
		return ""
	}
	return unix.SignalName(unix.Signal(code - exitSignal)) // empty where there is none of that number
}

// lastWords completes the last words with the tails of both streams.
func (t *teller) lastWords(ctx context.Context, s *sandbox, e *ending) *telemetry.LastWords {
	words := e.facts
	var tails tails
	switch {
	case e.mute:
	case e.log != nil:
		tails.tty = e.tty
		if err := tails.readFiles(s.tail, e.log, e.after); err != nil {
			t.log.Debug("the end of a log cannot be read; it is told without its last lines", "container", s.id, "error", err)
		}
	default:
		if err := tails.ask(ctx, t.engine, s.id, e); err != nil && ctx.Err() == nil {
			t.log.Debug("the engine does not tell the end of a log; it is told without its last lines", "container", s.id, "error", err)
		}
	}
	words.Stdout, words.StdoutOmitted = tails.streams[telemetry.Stdout].text(&tails)
	words.Stderr, words.StderrOmitted = tails.streams[telemetry.Stderr].text(&tails)
	return &words
}

// tails collects the last bytes of both streams, the newest record first.
type tails struct {
	tty     bool
	streams [telemetry.Stderr + 1]tailOf
	read    int64 // bytes of files that were looked at
	unread  int64 // bytes of files before those
}

// tailOf is one stream's.
type tailOf struct {
	pieces [][]byte // newest first
	bytes  int      // of pieces
	seen   int64    // bytes of all records that were looked at
}

// add takes the next older record. It reports whether both streams have enough.
func (t *tails) add(r *record) (enough bool) {
	s := &t.streams[r.stream]
	text := r.text
	if t.tty && r.whole {
		text = bytes.TrimSuffix(text, []byte{'\r'})
	}
	if s.bytes <= telemetry.MaxTail {
		piece := make([]byte, 0, len(text)+1)
		piece = append(piece, text...)
		if r.whole {
			piece = append(piece, '\n')
		}
		s.pieces = append(s.pieces, piece)
		s.bytes += len(piece)
	}
	s.seen += int64(len(text))
	if r.whole {
		s.seen++
	}
	return t.streams[telemetry.Stdout].bytes > telemetry.MaxTail && t.streams[telemetry.Stderr].bytes > telemetry.MaxTail
}

// text returns the tail, and how many bytes came before it: exactly where the
// run's whole log was looked at, and otherwise by this stream's share of what was.
func (s *tailOf) text(t *tails) (text string, omitted int64) {
	all := make([]byte, 0, s.bytes)
	for _, piece := range slices.Backward(s.pieces) {
		all = append(all, piece...)
	}
	all = cutTail(all)
	omitted = s.seen - int64(len(all))
	if t.read > 0 && t.unread > 0 {
		omitted += int64(float64(s.seen) / float64(t.read) * float64(t.unread))
	}
	return string(bytes.ToValidUTF8(all, []byte("\uFFFD"))), omitted
}

// cutTail returns at most the last MaxTail bytes, from the beginning of a line
// where that keeps at least half of them.
func cutTail(text []byte) []byte {
	over := len(text) - telemetry.MaxTail
	if over <= 0 {
		return text
	}
	if text[over-1] == '\n' {
		return text[over:]
	}
	text = text[over:]
	if i := bytes.IndexByte(text, '\n'); i >= 0 && i < telemetry.MaxTail/2 {
		return text[i+1:]
	}
	for n := 0; n < utf8.UTFMax && n < len(text); n++ {
		if utf8.RuneStart(text[n]) {
			return text[n:]
		}
	}
	return text
}

// readFiles reads the end of a log from its files, newest first.
func (t *tails) readFiles(log *tail, end *mark, after time.Time) error {
	if end.file == nil || end.file.zip != nil {
		return nil
	}
	files := newestFirst(log, end.file)
	defer files.close()
	size, done, earlier := end.size, false, false
	cut := cutRecord
	if end.file.format == localFrames {
		cut = cutLastFrame
	}
	for i, f := range files.list {
		if i > 0 {
			var err error
			if size, err = f.Seek(0, io.SeekEnd); err != nil {
				return err
			}
		}
		if !done {
			left, err := readBack(f, cut, size, wordsBytes-t.read, func(r *record) bool {
				earlier = !after.IsZero() && !r.at.After(after)
				done = earlier || t.add(r)
				return done
			})
			t.read += size - left
			if err != nil {
				return err
			}
			done, size = done || left > 0, left
		}
		if !earlier { // what is before is of this run
			t.unread += size
		}
	}
	return nil
}

// endFiles are files of a log from one on to older ones.
type endFiles struct {
	list   []*os.File
	opened []*os.File // to be closed again
}

// newestFirst returns a file of a log and some before it: those that are held,
// and then those that have a name.
func newestFirst(log *tail, newest *logFile) endFiles {
	const most = 100 // of 20 KB each, they would hold enough
	files := endFiles{list: []*os.File{newest.f}}
	oldest := newest.id
	for _, f := range log.olderThan(newest) {
		if f.zip != nil {
			return files
		}
		files.list, oldest = append(files.list, f.f), f.id
	}
	base := newest.f.Name()
	if n := strings.LastIndexByte(base, '.'); number(base[n+1:]) != nil {
		base = base[:n] // it had been rotated when it was opened
	}
	for n, met := 0, false; n < maxRotated && len(files.list) < most; n++ {
		name := base
		if n > 0 {
			name += "." + strconv.Itoa(n)
		}
		f, err := openLog(name, newest.format, false)
		if err != nil {
			break // there is no other, or it is compressed
		}
		files.opened = append(files.opened, f.f)
		switch {
		case f.id == oldest:
			met = true
		case met:
			files.list = append(files.list, f.f)
		}
	}
	return files
}

func (e *endFiles) close() {
	for _, f := range e.opened {
		_ = f.Close() // nothing was written
	}
}

// backBlock is how much readBack reads at once.
const backBlock = 256 << 10

// readBack reads the records of a file that end before an offset, the newest
// first, until take has enough or about so many bytes were read. It returns where
// the oldest record that it took begins.
func readBack(f *os.File, cut cutLast, end, most int64, take func(*record) (enough bool)) (begin int64, err error) {
	var scan scanner
	var window []byte // from begin of what was read to end
	for at := end; ; {
		for len(window) > 0 {
			r, n, ok := cut(&scan, window, at == 0)
			if n == 0 {
				break // it begins before the window
			}
			window, end = window[:len(window)-n], end-int64(n)
			if ok && take(&r) {
				return end, nil
			}
			scan.reset()
		}
		if at == 0 || most <= 0 || len(window) > recordBytes {
			return end, nil
		}
		n := min(at, backBlock)
		at, most = at-n, most-n
		block := make([]byte, int(n)+len(window))
		if _, err := f.ReadAt(block[:n], at); err != nil {
			return end, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		copy(block[n:], window)
		window = block
	}
}

// cutLast reads the last record of b, and says how long it is; 0: it begins
// before b, which is whole when b begins a file.
type cutLast func(scan *scanner, b []byte, whole bool) (r record, size int, ok bool)

// cutRecord is cutLast of json lines.
func cutRecord(scan *scanner, b []byte, whole bool) (r record, size int, ok bool) {
	from := bytes.LastIndexByte(b[:len(b)-1], '\n') + 1
	if from == 0 && !whole {
		return r, 0, false
	}
	r, ok = scan.parse(bytes.TrimSuffix(b[from:], []byte{'\n'}))
	return r, len(b) - from, ok
}

// ask asks the engine for the end of a log that is in no file here.
func (t *tails) ask(ctx context.Context, e engine, id string, of *ending) error {
	ctx, cancel := context.WithTimeout(ctx, wordsTimeout)
	defer cancel()
	body, err := e.Tail(ctx, id, of.after, of.until, wordsLines)
	if err != nil {
		return err
	}
	defer body.Close()
	log := &apiLog{id: id, tty: of.tty}
	in := bufio.NewReaderSize(body, 64<<10)
	for {
		log.block.reset()
		err := log.fill(in, &log.block)
		for i := range log.block.out.lines {
			t.append(&log.block.out.lines[i])
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
	}
}

// append takes the next newer line.
func (t *tails) append(l *source.Line) {
	s := &t.streams[l.Stream]
	if len(s.pieces) == 0 {
		s.pieces = [][]byte{nil}
	}
	all := s.pieces[0]
	all = append(all, l.Text...)
	if !l.Partial {
		all = append(all, '\n')
	}
	s.seen += int64(len(all) - len(s.pieces[0]))
	if len(all) > 4*telemetry.MaxTail {
		all = append(all[:0], all[len(all)-2*telemetry.MaxTail:]...)
	}
	s.pieces[0], s.bytes = all, len(all)
}

// olderThan returns the files that are held and older than one, the newest first.
func (t *tail) olderThan(newest *logFile) []*logFile {
	t.mu.Lock()
	defer t.mu.Unlock()
	var older []*logFile
	for _, f := range slices.Backward(t.files) {
		if f.seq < newest.seq {
			older = append(older, f)
		}
	}
	return older
}
