package spool

import (
	"bytes"
	"testing"
	"time"
)

// FuzzOpen opens a segment file and a cursor of any content: nothing panics, and
// what is offered has a place in a sequence without holes.
func FuzzOpen(f *testing.F) {
	b := build(f, true)
	f.Add(b.fs.names[b.name].data, b.fs.names[b.cursor].data)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, file, cursor []byte) {
		fs := newCrashFS(1)
		for name, data := range map[string][]byte{b.name: file, b.cursor: cursor} {
			fs.names[name] = &inode{data: data, dirty: map[int]bool{}}
		}
		s, err := Open(Options{FS: fs, SaveEvery: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		next := map[streamKey]uint64{}
		for range 10_000 {
			s.mu.Lock()
			st, _ := s.pick(nil)
			s.mu.Unlock()
			if st == nil {
				break
			}
			fr, err := s.Next(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			key := streamKey{epoch: fr.Epoch, org: fr.Org, lane: fr.Lane}
			if before, ok := next[key]; ok && fr.First != before || fr.First == 0 || fr.Count == 0 {
				t.Fatalf("offered %d+%d after %d", fr.First, fr.Count, before)
			}
			next[key] = fr.First + uint64(fr.Count)
		}
		if err := s.Append([]Draft{draft("a", 0, 1, "still works")}, map[string][]byte{"p": {1}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDecode reads what a checksum would let through only by chance.
func FuzzDecode(f *testing.F) {
	f.Add(appendTrailer(nil, []found{{block: block{org: "a", first: 1, count: 2}}}, map[string][]byte{"k": []byte("v"), "gone": nil}))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder{b: b}
		places := readPlaces(&d)
		positions := map[string][]byte{}
		readPositions(&d, positions)
		if len(places) > len(b) || len(positions) > len(b) {
			t.Fatalf("%d places and %d positions of %d bytes", len(places), len(positions), len(b))
		}
		for k, v := range positions {
			if !bytes.Contains(b, []byte(k)) || !bytes.Contains(b, v) {
				t.Fatalf("position %q = %q is nowhere in the bytes", k, v)
			}
		}
	})
}
