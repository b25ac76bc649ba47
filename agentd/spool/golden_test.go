package spool

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files of the current version anew")

// golden is what each directory of testdata must always be read as. Version 1 has
// one cursor file; version 2 has slots, a copied file, and what gave way.
var golden = map[string]string{
	"v1": `[org_b/1 1-1 "event" org_a/0 3-3 "two" org_b/0 1-3 "" org_a/0 4-13 "given up"] map["docker/c":"{\"offset\":7}" "docker/d":"x"] test true tombstone true class 2`,
	"v2": `[org_b/1 1-1 "event" org_a/0 3-3 "two" org_b/0 1-3 "missing org_b 0 1+3 evicted" org_a/0 4-13 "given up"] map["docker/c":"{\"offset\":7}" "docker/d":"x"] test true tombstone true class 2`,
}

// TestGolden reads a spool of each version that was ever written.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t, filepath.Join("testdata", "v2"))
	}
	for version, want := range golden {
		t.Run(version, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", version))); err != nil {
				t.Fatal(err)
			}
			s := open(t, Options{Dir: dir})
			frames := drain(t, s)
			if len(frames) != 4 {
				t.Fatalf("%d frames", len(frames))
			}
			got := fmt.Sprintf("%s %q test %v tombstone %v class %d", show(frames), s.Positions(), frames[1].Test, frames[3].Tombstone, frames[0].Class)
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if frames[0].Epoch != 0x0123456789abcdef {
				t.Errorf("epoch %016x", frames[0].Epoch)
			}
		})
	}
}

func writeGolden(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Dir: dir, SaveEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	s.epoch = 0x0123456789abcdef
	mustAppend(t, s, map[string][]byte{"docker/c": []byte(`{"offset":5}`)}, draft("org_a", 0, 2, "one"), draft("org_b", 0, 3, ""))
	if err := s.Ack("org_a", s.epoch, 0, 2); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, map[string][]byte{"docker/c": []byte(`{"offset":7}`), "docker/d": []byte("x")},
		Draft{Key: Key{Org: "org_a", Test: true}, Class: 1, Count: 1, Body: []byte("two")},
		Draft{Key: Key{Org: "org_b"}, Lane: 1, Class: 2, Count: 1, Body: []byte("event")},
		Draft{Key: Key{Org: "org_a"}, Class: 2, Count: 10, Tombstone: true, Body: []byte("given up")})
	s.mu.Lock()
	s.streams[streamKey{epoch: s.epoch, org: "org_b"}].lose(0, evicted, trace{bytes: 48, since: 1, until: 2})
	s.mu.Unlock()
	s.seal()
	if err := s.reclaim(1, 1<<20); err != nil {
		t.Fatal(err)
	}
	if s.stats.Rewrote == 0 {
		t.Fatal("no file was copied")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
}
