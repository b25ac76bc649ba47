package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A directory that is listed while files are renamed in it may leave one out:
// the one that was being read is looked for again, and not taken for lost.
func TestTheFileOfAPositionIsLookedForAgain(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"x-json.log.2", "x-json.log.1", "x-json.log"} {
		line := fmt.Sprintf(`{"log":"line %d\n","stream":"stdout","time":"2026-01-02T03:04:0%d.000000001Z"}`+"\n", i, i)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := newTail(dir, "x-json.log")
	defer l.close()
	if _, err := l.pin(); err != nil || len(l.files) != 3 {
		t.Fatal(len(l.files), err)
	}
	missed := l.files[1]
	first, err := missed.fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	size, err := missed.size()
	if err != nil {
		t.Fatal(err)
	}
	before, err := missed.before(size)
	if err != nil {
		t.Fatal(err)
	}
	missed.close()
	l.files = slices.Delete(l.files, 1, 2) // as if the listing had left it out
	newest := l.files[1]

	var b block
	p := &logPosition{placeNote: placeNote{Device: missed.id.device, Inode: missed.id.inode, Print: first, Offset: size}, Before: hashOf(before), Size: size}
	if err := l.resume(p, &b); err != nil {
		t.Fatal(err)
	}
	if len(b.gaps) != 0 || len(l.files) != 2 || l.files[0].id != missed.id || l.files[1] != newest || l.off != size || l.files[0].seq >= l.files[1].seq {
		t.Fatalf("gaps %+v, %d files, offset %d", b.gaps, len(l.files), l.off)
	}
}

// So is the file in which an open line began.
func TestTheFileOfAnOpenLineIsLookedForAgain(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	first, rest := strings.Repeat("a", pieceBytes), strings.Repeat("b", 100)
	writeFile(t, filepath.Join(dir, "x-json.log.2"), appendRecord(nil, first, "stdout", at))
	writeFile(t, filepath.Join(dir, "x-json.log.1"), appendRecord(nil, "other\n", "stderr", at.Add(1)))
	writeFile(t, filepath.Join(dir, "x-json.log"), appendRecord(nil, rest+"\n", "stdout", at))
	var b block
	before := newTail(dir, "x-json.log")
	defer before.close()
	if _, err := before.pin(); err != nil {
		t.Fatal(err)
	}
	for before.last.file != before.files[len(before.files)-1] && before.off == 0 {
		b.reset()
		if _, err := before.next(&b, nil); err != nil {
			t.Fatal(err)
		}
		if len(b.out.lines) == 1 {
			break // of the middle file
		}
		before.letGo(before.files[0])
	}
	p := before.position()
	if p == nil || p.Stdout == nil || p.Stdout.From == nil || len(b.out.lines) != 1 {
		t.Fatalf("position %+v, %d lines", p, len(b.out.lines))
	}

	l := newTail(dir, "x-json.log")
	defer l.close()
	if _, err := l.pin(); err != nil || len(l.files) != 3 {
		t.Fatal(len(l.files), err)
	}
	l.files[0].close()
	l.files = slices.Delete(l.files, 0, 1) // as if the listing had left it out
	b.reset()
	if err := l.resume(p, &b); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 6 {
		more, err := l.next(&b, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.out.lines {
			got = append(got, string(b.out.lines[i].Text))
		}
		if len(b.gaps) > 0 {
			t.Fatalf("gaps %+v", b.gaps)
		}
		if b.reset(); !more {
			break
		}
	}
	if len(got) != 1 || got[0] != first+rest {
		t.Fatalf("%d lines came: %.80q", len(got), got)
	}
}
