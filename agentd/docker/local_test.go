package docker

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/telemetry"
)

// piece says of a record of the local driver that it is part of a longer line.
type piece struct {
	last    bool
	ordinal int
}

// appendEntry writes an entry as the engine does.
func appendEntry(b []byte, stream, text string, at time.Time, p *piece) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, stream)
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(at.UnixNano()))
	if text != "" {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendString(b, text)
	}
	if p == nil {
		return b
	}
	b = protowire.AppendTag(b, 4, protowire.VarintType)
	b = protowire.AppendVarint(b, 1)
	var partial []byte
	if p.last {
		partial = protowire.AppendTag(partial, 1, protowire.VarintType)
		partial = protowire.AppendVarint(partial, 1)
	}
	partial = protowire.AppendTag(partial, 2, protowire.BytesType)
	partial = protowire.AppendString(partial, "5f1c")
	partial = protowire.AppendTag(partial, 3, protowire.VarintType)
	partial = protowire.AppendVarint(partial, uint64(p.ordinal))
	b = protowire.AppendTag(b, 5, protowire.BytesType)
	return protowire.AppendBytes(b, partial)
}

func appendFrame(b []byte, stream, text string, at time.Time, p *piece) []byte {
	entry := appendEntry(nil, stream, text, at, p)
	b = binary.BigEndian.AppendUint32(b, uint32(len(entry)))
	b = append(b, entry...)
	return binary.BigEndian.AppendUint32(b, uint32(len(entry)))
}

// localTail is a tail of a local driver's log in a directory of the test's own.
func localTail(t testing.TB) (l *tail, path string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, localDir), 0o700); err != nil {
		t.Fatal(err)
	}
	l = newContainerTail(dir, strings.Repeat("a", 64), limits{}, nil)
	t.Cleanup(l.close)
	return l, filepath.Join(dir, localDir, localBase)
}

// readAll reads what is there, block by block.
func readAll(t testing.TB, l *tail) (texts []string, gaps []telemetry.Gap) {
	t.Helper()
	if _, err := l.pin(); err != nil {
		t.Fatal(err)
	}
	var b block
	for more := true; more; {
		b.reset()
		var err error
		if more, err = l.next(&b, nil); err != nil {
			t.Fatal(err)
		}
		for _, line := range b.out.lines {
			texts = append(texts, line.Stream.String()+" "+string(line.Text))
		}
		gaps = append(gaps, b.gaps...)
	}
	return texts, gaps
}

var someTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// The local driver's files: both streams, raw bytes, long lines, an empty one.
func TestLocalFiles(t *testing.T) {
	l, path := localTail(t)
	long := strings.Repeat("0123456789abcdef", pieceBytes/16)
	var data []byte
	data = appendFrame(data, "stdout", "one", someTime, nil)
	data = appendFrame(data, "stderr", "raw \xff\xfe bytes", someTime.Add(1), nil)
	data = appendFrame(data, "stdout", long, someTime.Add(2), &piece{ordinal: 1})
	data = appendFrame(data, "stderr", "between", someTime.Add(3), nil)
	data = appendFrame(data, "stdout", "end", someTime.Add(2), &piece{ordinal: 2, last: true})
	data = appendFrame(data, "stdout", "", someTime.Add(4), nil)
	data = appendFrame(data, "stdout", "next", someTime.Add(5), nil)
	writeFile(t, path, data)
	texts, gaps := readAll(t, l)
	want := []string{"stdout one", "stderr raw \xff\xfe bytes", "stderr between", "stdout " + long + "end", "stdout ", "stdout next"}
	if !slices.Equal(texts, want) || len(gaps) != 0 {
		t.Errorf("got %.200q, gaps %+v", texts, gaps)
	}
}

// An engine that died while it wrote a frame goes on after the torn one.
func TestTornFrames(t *testing.T) {
	whole := appendFrame(nil, "stdout", "torn, never whole", someTime, nil)
	for cut := 1; cut < len(whole); cut++ {
		l, path := localTail(t)
		data := appendFrame(nil, "stdout", "one", someTime, nil)
		data = append(data, whole[:cut]...)
		for i := range 20 {
			data = appendFrame(data, "stdout", strconv.Itoa(i), someTime.Add(1), nil)
		}
		writeFile(t, path, data)
		texts, gaps := readAll(t, l)
		if len(texts) != 21 || len(gaps) != 1 || gaps[0].Reason != telemetry.GapUnreadable || gaps[0].Bytes != int64(cut) {
			t.Errorf("torn after %d bytes: %d lines, gaps %+v", cut, len(texts), gaps)
		}
	}
}

// The end of a local log is read backwards, past what is no frame.
func TestLocalFilesBackwards(t *testing.T) {
	_, path := localTail(t)
	var data []byte
	for i := range 30_000 {
		data = appendFrame(data, "stdout", fmt.Sprint("line ", i), someTime.Add(time.Duration(i)), nil)
	}
	data = append(data, "\x00\x00\x00\x20torn"...)
	data = appendFrame(data, "stderr", "last", someTime, nil)
	writeFile(t, path, data)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var texts []string
	left, err := readBack(f, cutLastFrame, int64(len(data)), wordsBytes, func(r *record) bool {
		texts = append(texts, string(r.text))
		return false
	})
	if err != nil || left != 0 || len(texts) != 30_001 || texts[0] != "last" || texts[1] != "line 29999" || texts[30_000] != "line 0" {
		t.Errorf("%d lines, %d bytes left, %v", len(texts), left, err)
	}
}

// A frame that is torn for good, because its file has rotated, hides none that
// was written after it.
func TestATornFrameInARotatedFile(t *testing.T) {
	l, path := localTail(t)
	torn := binary.BigEndian.AppendUint32(nil, 900_000) // and what follows is far less
	torn = append(torn, sourcePrefix+"out"...)
	old := append(appendFrame(nil, "stdout", "one", someTime, nil), torn...)
	old = appendFrame(old, "stderr", "two", someTime, nil)
	writeFile(t, path+".1", old)
	writeFile(t, path, appendFrame(nil, "stdout", "three", someTime, nil))
	texts, gaps := readAll(t, l)
	if !slices.Equal(texts, []string{"stdout one", "stderr two", "stdout three"}) || len(gaps) != 1 || gaps[0].Bytes != int64(len(torn)) {
		t.Errorf("got %q, gaps %+v", texts, gaps)
	}
}

// What an engine wrote (20.10, TTY and not) is read by every later version.
func TestGoldenLocalFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/local/*.log")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		l, path := localTail(t)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, data)
		l.tty.Store(strings.Contains(file, "tty"))
		texts, gaps := readAll(t, l)
		var b block
		l.flush(&b) // a last line without its newline
		for _, line := range b.out.lines {
			texts = append(texts, line.Stream.String()+" "+string(line.Text))
		}
		want, err := os.ReadFile(strings.TrimSuffix(file, ".log") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(texts, "\n") + "\n"; got != string(want) || len(gaps) != 0 {
			t.Errorf("%s: %.300q, gaps %+v", file, got, gaps)
		}
	}
}

// referenceEntry reads an entry with protobuf's own functions.
func referenceEntry(b []byte) (text, stream string, at int64, whole, ok bool) {
	partial, last, timed := false, false, false
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "", "", 0, false, false
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return "", "", 0, false, false
		}
		value := b[n : n+size]
		b = b[n+size:]
		switch {
		case number == 1 && kind == protowire.BytesType:
			v, _ := protowire.ConsumeString(value)
			stream = v
		case number == 2 && kind == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(value)
			at, timed = int64(v), true
		case number == 3 && kind == protowire.BytesType:
			v, _ := protowire.ConsumeString(value)
			text = v
		case number == 4 && kind == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(value)
			partial = v != 0
		case number == 5 && kind == protowire.BytesType:
			last = false
			inner, _ := protowire.ConsumeBytes(value)
			for len(inner) > 0 {
				number, kind, n := protowire.ConsumeTag(inner)
				if n < 0 {
					return "", "", 0, false, false
				}
				size := protowire.ConsumeFieldValue(number, kind, inner[n:])
				if size < 0 {
					return "", "", 0, false, false
				}
				if number == 1 && kind == protowire.VarintType {
					v, _ := protowire.ConsumeVarint(inner[n:])
					last = v != 0
				}
				inner = inner[n+size:]
			}
		}
	}
	return text, stream, at, !partial || last, timed
}

func FuzzEntry(f *testing.F) {
	f.Add(appendEntry(nil, "stdout", "text", someTime, nil))
	f.Add(appendEntry(nil, "stderr", "", someTime, &piece{ordinal: 3, last: true}))
	f.Add([]byte{0x0a, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parseEntry(b)
		text, stream, at, whole, valid := referenceEntry(b)
		if !ok {
			// Groups, which no engine writes, are refused.
			if known := stream == "" || stream == "stdout" || stream == "stderr"; valid && known && !hasGroup(b) {
				t.Fatalf("refused %x", b)
			}
			return
		}
		if !valid {
			t.Fatalf("took %x", b)
		}
		if string(r.text) != text || r.at.UnixNano() != at || r.whole != whole || stream != "" && r.stream.String() != stream {
			t.Fatalf("%x: %+v, want %q %s %d %v", b, r, text, stream, at, whole)
		}
	})
}

func hasGroup(b []byte) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		if kind == protowire.StartGroupType {
			return true
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return false
		}
		if number == 5 && kind == protowire.BytesType {
			if inner, _ := protowire.ConsumeBytes(b[n:]); hasGroup(inner) {
				return true
			}
		}
		b = b[n+size:]
	}
	return false
}

// Whatever a file holds, reading ends, and every byte is a record, told as
// nonsense, or still waiting for its end.
func FuzzLocalFile(f *testing.F) {
	two := appendFrame(appendFrame(nil, "stdout", "one", someTime, nil), "stderr", "two", someTime, nil)
	f.Add(two)
	f.Add(append([]byte("nonsense"), two...))
	f.Add(append(two[:len(two)-3:len(two)-3], two...))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, path := localTail(t)
		writeFile(t, path, data)
		texts, gaps := readAll(t, l)
		var told int64
		for _, g := range gaps {
			told += g.Bytes
		}
		rest := int64(len(data)) - l.off
		if least := int64(len(texts)) * frameEnds; told+least+rest > int64(len(data)) || rest < 0 {
			t.Fatalf("%d bytes: %d lines, %d told as nonsense, %d wait", len(data), len(texts), told, rest)
		}
		if len(texts) == 0 && told+rest != int64(len(data)) {
			t.Fatalf("%d bytes vanished", int64(len(data))-told-rest)
		}
		if p := l.position(); p == nil && l.off >= beforeBytes {
			t.Fatal("a log that was read has no position")
		}
	})
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Reading a compressed file anywhere gives its plain text, whatever was used of
// what was read before.
func TestInflating(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.gz")
	plain := records(3000)
	writeFile(t, path, zipped(t, plain))
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rapid.Check(t, func(t *rapid.T) {
		z := &inflater{f: f}
		off := int64(0)
		for range rapid.IntRange(1, 12).Draw(t, "reads") {
			if rapid.IntRange(0, 3).Draw(t, "jump") == 0 {
				off = rapid.Int64Range(0, int64(len(plain))+10).Draw(t, "to")
			}
			buf := make([]byte, rapid.IntRange(1, 100_000).Draw(t, "size"))
			n, err := z.readAt(buf, off)
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			from := min(off, int64(len(plain)))
			if want := plain[from:min(from+int64(len(buf)), int64(len(plain)))]; !bytes.Equal(buf[:n], want) {
				t.Fatalf("%d bytes at %d, want %d", n, off, len(want))
			}
			used := rapid.IntRange(0, n).Draw(t, "used")
			z.unread(buf[used:n])
			off += int64(used)
		}
	})
}

// Files that the engine rotated and compressed while agentd was away are read
// in order from the position on, of either format; one that is broken is told.
func TestCompressedFilesAfterDowntime(t *testing.T) {
	write := map[format]func(b []byte, text string, at time.Time) []byte{
		jsonLines:   func(b []byte, text string, at time.Time) []byte { return appendRecord(b, text+"\n", "stdout", at) },
		localFrames: func(b []byte, text string, at time.Time) []byte { return appendFrame(b, "stdout", text, at, nil) },
	}
	for how, add := range write {
		dir := t.TempDir()
		base := filepath.Join(dir, "x.log")
		open := func() *tail { return &tail{home: dir, layouts: []layout{{dir: dir, base: "x.log", format: how}}} }
		var files [5][]byte // the newest last
		var want []string
		for i := range files {
			for j := range 5000 {
				text := fmt.Sprintf("file %d line %d", i, j)
				files[i] = add(files[i], text, someTime.Add(time.Duration(i*5000+j)))
				want = append(want, "stdout "+text)
			}
		}
		half := len(files[1]) / 2
		writeFile(t, base+".1", files[0])
		writeFile(t, base, files[1][:half])
		before := open()
		texts, _ := readAll(t, before)
		p := before.position()
		before.close()
		for i, data := range files[1:4] {
			writeFile(t, fmt.Sprintf("%s.%d.gz", base, 3-i), zipped(t, data))
		}
		if err := os.Remove(base + ".1"); err != nil {
			t.Fatal(err)
		}
		writeFile(t, base, files[4])
		writeFile(t, base+".1", files[3]) // being compressed: both are there

		after := open()
		if _, err := after.pin(); err != nil {
			t.Fatal(err)
		}
		var b block
		b.reset()
		if err := after.resume(p, &b); err != nil || len(b.gaps) != 0 {
			t.Fatal(err, b.gaps)
		}
		more, gaps := readAll(t, after)
		if texts = append(texts, more...); !slices.Equal(texts, want) || len(gaps) != 0 {
			t.Errorf("format %d: %d lines of %d, gaps %+v", how, len(texts), len(want), gaps)
		}
		after.close()

		broken := zipped(t, files[2])
		writeFile(t, base+".2.gz", broken[:len(broken)/2])
		last := open()
		texts, gaps = readAll(t, last)
		last.close()
		if len(gaps) != 1 || gaps[0].Reason != telemetry.GapUnreadable || texts[len(texts)-1] != want[len(want)-1] || len(texts) <= 15_000 {
			t.Errorf("format %d, a broken file: %d lines, gaps %+v", how, len(texts), gaps)
		}
	}
}

// A file that was rotated and compressed between two looks is found in that form,
// once; those that were held or read before in their plain form are not read again.
func TestFilesCompressedBeforeTheyWereSeen(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "x.log")
	content := func(i int) []byte {
		return appendRecord(nil, fmt.Sprintf("file %d\n", i), "stdout", someTime.Add(time.Duration(i)))
	}
	l := newTail(dir, "x.log")
	defer l.close()
	writeFile(t, base, content(1))
	all, _ := readAll(t, l)
	// Two rotations: 1 and 2 are compressed, 3 is being written.
	if err := os.Remove(base); err != nil {
		t.Fatal(err)
	}
	writeFile(t, base+".2.gz", zipped(t, content(1)))
	writeFile(t, base+".1.gz", zipped(t, content(2)))
	writeFile(t, base, content(3))
	texts, gaps := readAll(t, l)
	all = append(all, texts...)
	// One more; 1 to 3 were let go of.
	for _, name := range []string{".2.gz", ".1.gz", ""} {
		n := strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return r + 1
			}
			return r
		}, name)
		if n == "" {
			n = ".1"
		}
		if err := os.Rename(base+name, base+n); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, base, content(4))
	texts, more := readAll(t, l)
	all = append(all, texts...)
	if !slices.Equal(all, []string{"stdout file 1", "stdout file 2", "stdout file 3", "stdout file 4"}) || len(gaps)+len(more) != 0 {
		t.Errorf("%q, gaps %+v %+v", all, gaps, more)
	}
}
