package docker

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/telemetry"
)

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// engineLog writes a json file as the engine does: pieces of 16 KiB, rotation
// by renaming.
type engineLog struct {
	path string
	keep int   // rotated files
	max  int64 // bytes of one file; 0: no rotation
	f    *os.File
	size int64
	at   time.Time
	want map[telemetry.Stream][]string
}

func newEngineLog(t testing.TB, path string, limit int64, keep int) *engineLog {
	t.Helper()
	l := &engineLog{path: path, max: limit, keep: keep, at: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), want: map[telemetry.Stream][]string{}}
	if err := l.create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.f.Close() })
	return l
}

func (l *engineLog) create() (err error) {
	l.size = 0
	l.f, err = os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	return err
}

// line writes one line of a stream and notes what must come of it.
func (l *engineLog) line(stream telemetry.Stream, text string) error {
	l.want[stream] = append(l.want[stream], text[:min(len(text), telemetry.MaxMessage)])
	return l.pieces(stream, text+"\n", nil)
}

// pieces writes a text in pieces; between them, between is called.
func (l *engineLog) pieces(stream telemetry.Stream, text string, between func() error) error {
	l.at = l.at.Add(time.Microsecond)
	at := l.at
	for len(text) > 0 {
		piece := text[:min(len(text), pieceBytes)]
		text = text[len(piece):]
		if err := l.write(appendRecord(nil, piece, stream.String(), at)); err != nil {
			return err
		}
		if between != nil && len(text) > 0 {
			if err := between(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *engineLog) write(record []byte) error {
	if l.max > 0 && l.size >= l.max {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(record)
	l.size += int64(n)
	return err
}

func (l *engineLog) rotate() error {
	if err := l.f.Close(); err != nil {
		return err
	}
	for i := l.keep; i > 1; i-- {
		_ = os.Rename(l.path+"."+strconv.Itoa(i-1), l.path+"."+strconv.Itoa(i)) // not all are there yet
	}
	if l.keep > 0 {
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
	}
	return l.create()
}

func newFiles(t testing.TB, glob string) source.Source {
	t.Helper()
	s, err := New(Config{Files: []string{glob}}, hclog.NewNullLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func streamsOf(sandbox string, l *engineLog) map[sourcetest.Stream][]string {
	want := map[sourcetest.Stream][]string{}
	for stream, lines := range l.want {
		want[sourcetest.Stream{Sandbox: telemetry.SandboxID(sandbox), Stream: stream}] = lines
	}
	return want
}

// Files that grow, rotate, hold long lines of both streams at once: nothing is
// lost and nothing comes twice, wherever agentd dies.
func TestFilesSurviveCrashesAnywhere(t *testing.T) {
	dir := t.TempDir()
	logs := map[string]*engineLog{}
	for i := range 4 {
		id := "box" + strconv.Itoa(i)
		logs[id] = newEngineLog(t, filepath.Join(dir, id+"-json.log"), 200<<10, 500)
	}
	sourcetest.Exercise(t, sourcetest.Subject{
		New: func(t *testing.T) source.Source {
			t.Helper()
			return newFiles(t, filepath.Join(dir, "*-json.log"))
		},
		Write: func(ctx context.Context) error {
			r := rand.New(rand.NewPCG(3, 4))
			for n := range 1000 {
				for _, l := range logs {
					if err := writeSomething(l, r, n); err != nil {
						return err
					}
				}
				if n%100 == 0 {
					if err := retry.Sleep(ctx, 10*time.Millisecond); err != nil {
						return err
					}
				}
			}
			return nil
		},
		Want: func() map[sourcetest.Stream][]string {
			want := map[sourcetest.Stream][]string{}
			for id, l := range logs {
				maps.Copy(want, streamsOf(id, l))
			}
			return want
		},
		Crashes: 30,
	})
}

// writeSomething writes a short line mostly, sometimes a long one, and sometimes
// a long one of each stream with their pieces mixed.
func writeSomething(l *engineLog, r *rand.Rand, n int) error {
	stream := telemetry.Stdout + telemetry.Stream(r.IntN(2))
	switch r.IntN(60) {
	case 0:
		return l.line(stream, fmt.Sprintf("%d ", n)+strings.Repeat("long line. ", r.IntN(10_000)))
	case 1:
		return l.line(stream, fmt.Sprintf("%d ", n)+strings.Repeat("x", telemetry.MaxMessage+r.IntN(1<<20)))
	case 2:
		long := fmt.Sprintf("%d ", n) + strings.Repeat("mixed. ", 20_000)
		other := telemetry.Stdout + telemetry.Stderr - stream
		between := 0
		l.want[stream] = append(l.want[stream], long)
		at := l.at.Add(time.Microsecond)
		err := l.pieces(stream, long+"\n", func() error {
			between++
			return l.line(other, fmt.Sprintf("%d between %d", n, between))
		})
		l.at = l.at.Add(l.at.Sub(at))
		return err
	}
	return l.line(stream, fmt.Sprintf("%d short \"line\"", n))
}

// read reads everything that is there through a new source.
func read(t *testing.T, glob string, from []sourcetest.Record, enough func([]sourcetest.Record) bool) []sourcetest.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sourcetest.Patience)
	defer cancel()
	sink := sourcetest.NewSink(from...)
	done := make(chan error, 1)
	src := newFiles(t, glob)
	go func() { done <- src.Run(ctx, sourcetest.PositionsOf(from), sink) }()
	if !sink.Await(ctx, enough) {
		t.Errorf("not all came: %d batches", len(sink.Records()))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return sink.Records()
}

func texts(records []sourcetest.Record) []string {
	var all []string
	for i := range records {
		for _, l := range records[i].Lines {
			all = append(all, string(l.Text))
		}
	}
	return all
}

func lines(n int) func([]sourcetest.Record) bool {
	return func(r []sourcetest.Record) bool { return len(texts(r)) >= n }
}

// A large backlog in one file keeps no other waiting.
func TestABacklogStarvesNobody(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var big []byte
	for i := range 200_000 {
		big = appendRecord(big, fmt.Sprintf("big %d\n", i), "stdout", at)
	}
	writeFile(t, filepath.Join(dir, "big-json.log"), big)
	for i := range 20 {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("small%d-json.log", i)), appendRecord(nil, "small\n", "stdout", at))
	}
	records := read(t, filepath.Join(dir, "*-json.log"), nil, lines(200_020))
	small, before := 0, 0
	for i := range records {
		switch {
		case len(records[i].Lines) > blockLines:
			t.Errorf("a batch of %d lines", len(records[i].Lines))
		case records[i].Origin.Sandbox != "big":
			small += len(records[i].Lines)
		case small < 20:
			before++
		}
	}
	// One turn while the files are found, and one more of each round.
	if before > 25 {
		t.Errorf("the small files waited for %d blocks of the big one", before)
	}
}

// A file that took a deleted one's inode is another file: it is read whole.
func TestAnInodeThatIsUsedAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "box-json.log")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	writeFile(t, path, appendRecord(appendRecord(nil, "one\n", "stdout", at), "two\n", "stdout", at))
	records := read(t, path, nil, lines(2))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, appendRecord(nil, "three, in another file of just the same length and more\n", "stdout", at.Add(time.Hour)))
	records = read(t, path, records, lines(3))
	if got := texts(records); !slices.Equal(got, []string{"one", "two", "three, in another file of just the same length and more"}) {
		t.Errorf("lines %q", got)
	}
	if gaps := sourcetest.GapsOf(records); len(gaps) != 1 || gaps[0].Reason != telemetry.GapRotated {
		t.Errorf("gaps %+v, want one of a file that is gone", gaps)
	}
}

// A file that is cut while it is read, as the engine does with max-file=1.
func TestAFileThatIsCut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "box-json.log")
	l := newEngineLog(t, path, 0, 0)
	for i := range 5 {
		if err := l.line(telemetry.Stdout, fmt.Sprintf("before %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	cut := false
	records := read(t, path, nil, func(r []sourcetest.Record) bool {
		switch n := len(texts(r)); {
		case n == 5 && !cut:
			cut = true
			if err := l.rotate(); err != nil { // keeps no files: truncates
				t.Error(err)
			}
			if err := l.line(telemetry.Stdout, "after"); err != nil {
				t.Error(err)
			}
			return false
		default:
			return n >= 6
		}
	})
	if gaps := sourcetest.GapsOf(records); len(gaps) != 1 || gaps[0].Reason != telemetry.GapTruncated {
		t.Errorf("gaps %+v, want one of a file that was cut", gaps)
	}
}

// A file that was cut and grew beyond the position while agentd was away: its
// first record is the same, but not what was before the position.
func TestAFileCutWhileAgentdWasAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "box-json.log")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	first := appendRecord(nil, "first\n", "stdout", at)
	writeFile(t, path, appendRecord(slices.Clone(first), "second\n", "stdout", at.Add(1)))
	records := read(t, path, nil, lines(2))
	grown := appendRecord(slices.Clone(first), "another, longer second\n", "stdout", at.Add(2))
	writeFile(t, path, appendRecord(grown, "third\n", "stdout", at.Add(3)))
	records = read(t, path, records, lines(5))
	if got := texts(records); !slices.Equal(got[2:], []string{"first", "another, longer second", "third"}) {
		t.Errorf("after the cut came %q", got[2:])
	}
	if gaps := sourcetest.GapsOf(records); len(gaps) != 1 || gaps[0].Reason != telemetry.GapTruncated {
		t.Errorf("gaps %+v, want one of a file that was cut", gaps)
	}
}

// Records that make no sense are told and passed over; the next ones are read.
func TestBrokenRecords(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "box-json.log")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	data := appendRecord(nil, "one\n", "stdout", at)
	data = append(data, "\x00\x00\x00\n{\"log\":\"torn off and "...)
	data = appendRecord(data, "two\n", "stdout", at)
	data = append(data, []byte(strings.Repeat("no newline for 3 MiB ", 150_000)+"\n")...)
	data = appendRecord(data, "three\n", "stdout", at)
	writeFile(t, path, data)
	records := read(t, path, nil, lines(3))
	if got := texts(records); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("lines %.200q", got)
	}
	for _, g := range sourcetest.GapsOf(records) {
		if g.Reason != telemetry.GapUnreadable || g.Sandbox != "box" {
			t.Errorf("gap %+v", g)
		}
	}
	if len(sourcetest.GapsOf(records)) == 0 {
		t.Error("broken records were passed over in silence")
	}
}

// What a joiner gives is what was written, cut at the largest message.
func TestJoinedLines(t *testing.T) { rapid.Check(t, joinedLines) }

func FuzzJoiner(f *testing.F) { f.Fuzz(rapid.MakeFuzz(joinedLines)) }

func joinedLines(t *rapid.T) {
	var j joiner
	var w lineWriter
	at := time.Unix(0, 0)
	var want []string
	for range rapid.IntRange(1, 6).Draw(t, "lines") {
		at = at.Add(time.Nanosecond)
		text := strings.Repeat(rapid.SampledFrom([]string{"x", "é", "€", "😀", "\xff"}).Draw(t, "rune"), rapid.IntRange(1, 300_000).Draw(t, "n"))
		whole := rapid.Bool().Draw(t, "whole")
		for rest := text; ; {
			n := min(len(rest), rapid.IntRange(1, 100_000).Draw(t, "piece"))
			r := record{at: at, text: []byte(rest[:n]), stream: telemetry.Stdout, whole: whole && n == len(rest)}
			w.add(&j, &r, place{})
			if rest = rest[n:]; rest == "" {
				break
			}
		}
		if len(text) > 0 || whole {
			want = append(want, text)
		}
	}
	w.end(&j, telemetry.Stdout)
	if len(w.lines) > len(want)+1 {
		t.Fatalf("%d lines of %d", len(w.lines), len(want))
	}
	i := 0
	for _, l := range w.lines {
		if len(l.Text) == 0 && (i >= len(want) || want[i] != "") {
			continue // a piece without text has opened a line
		}
		if i >= len(want) || !strings.HasPrefix(want[i], string(l.Text)) {
			t.Fatalf("line %d is %.40q", i, l.Text)
		}
		if l.Truncated != (l.Original > 0) || l.Truncated && l.Original != int64(len(want[i])) {
			t.Fatalf("line %d of %d bytes: truncated %v, original length %d", i, len(want[i]), l.Truncated, l.Original)
		}
		if cut := len(want[i]) - len(l.Text); cut > 0 && (!l.Truncated || len(l.Text) > telemetry.MaxMessage || len(l.Text) <= telemetry.MaxMessage-4) {
			t.Fatalf("line %d: %d bytes cut to %d, truncated %v", i, len(want[i]), len(l.Text), l.Truncated)
		}
		i++
	}
	if i != len(want) {
		t.Fatalf("%d lines of %d came", i, len(want))
	}
}
