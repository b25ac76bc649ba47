package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
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
