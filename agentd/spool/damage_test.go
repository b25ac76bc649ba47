package spool

import (
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// built is a spool on disk with a file that damage is done to.
type built struct {
	fs     *crashFS
	name   string
	cursor string // the name of the latest one
	frames []Frame
	blocks []found // of that file
	last   uint64  // the number of the last append
}

// build appends a dozen small frames. closed: the spool was closed, so that the
// cursor knows of all of it; otherwise the power was cut.
func build(tb testing.TB, closed bool) *built {
	tb.Helper()
	return buildOf(tb, closed, 0)
}

// buildOf does so with log frames of so many bytes more.
func buildOf(tb testing.TB, closed bool, more int) *built {
	tb.Helper()
	noise := make([]byte, more)
	random := rand.New(rand.NewPCG(1, 3))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	b := &built{fs: newCrashFS(1)}
	s := openAt(tb, b.fs)
	for i := range 5 {
		list := []Draft{draft("a", 0, 2, fmt.Sprintf("log %d%s", i, noise)), draft("b", 1, 3, "")}
		if i == 2 {
			list = append(list, draft("only here", 0, 4, "x"))
		}
		mustAppend(tb, s, map[string][]byte{"n": {byte('0' + i)}}, list...)
	}
	b.frames = drain(tb, s)
	b.last = s.appended
	seg := s.segments[0]
	b.name = seg.id.name()
	blocks, err := scan(seg.id, seg.file, seg.size, func(b []byte) string { return string(b) })
	if err != nil {
		tb.Fatal(err)
	}
	b.blocks = blocks
	if !closed {
		b.fs = b.fs.crash()
	}
	if err := s.Close(); closed && err != nil {
		tb.Fatal(err)
	}
	b.cursor = slotName(int(s.generation % 2))
	return b
}

func openAt(tb testing.TB, fs FS) *Spool {
	tb.Helper()
	s, err := Open(Options{FS: fs, SaveEvery: time.Hour, TombstoneBody: func(m Missing) []byte {
		return fmt.Appendf(nil, "missing %s %d %d+%d %s", m.Org, m.Lane, m.First, m.Count, m.Reason)
	}})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// with returns the file system with the named file changed.
func (b *built) with(name string, change func([]byte) []byte) *crashFS {
	fs := newCrashFS(2)
	for n, node := range b.fs.names {
		data := slices.Clone(node.data)
		if n == name {
			data = change(data)
		}
		fs.names[n] = &inode{data: data, durable: slices.Clone(data), dirty: map[int]bool{}}
	}
	fs.durable = maps.Clone(fs.names)
	return fs
}

// offers opens the file system and returns what it offers, the number of lost
// records and the position "n".
func offers(tb testing.TB, fs FS) (frames []Frame, lost uint64, position string) {
	tb.Helper()
	s := openAt(tb, fs)
	frames, lost, position = drain(tb, s), 0, string(s.Positions()["n"])
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
	for i := range frames {
		if frames[i].Tombstone {
			lost += uint64(frames[i].Count)
		}
	}
	return frames, lost, position
}

// check holds what is offered against what was appended: every sequence up to
// the frame's last once, in a frame as it was or in a tombstone.
func (b *built) check(tb testing.TB, what string, offered []Frame, undone bool) {
	tb.Helper()
	next := map[streamKey]uint64{}
	for i := range offered {
		f := &offered[i]
		key := streamKey{epoch: f.Epoch, org: f.Org, lane: f.Lane}
		if f.First != next[key]+1 {
			tb.Fatalf("%s: %v: offered %d after %d", what, key, f.First, next[key])
		}
		next[key] = f.Last()
		if f.Tombstone {
			continue
		}
		at := slices.IndexFunc(b.frames, func(w Frame) bool {
			return w.Epoch == f.Epoch && w.Org == f.Org && w.Lane == f.Lane && w.First == f.First
		})
		if at < 0 || b.frames[at].Count != f.Count || string(b.frames[at].Body) != string(f.Body) {
			tb.Fatalf("%s: offered %+v, which was never appended", what, f)
		}
	}
	for i := range b.frames {
		w := &b.frames[i]
		key := streamKey{epoch: w.Epoch, org: w.Org, lane: w.Lane}
		if next[key] < w.Last() && (!undone || !b.inLastAppend(w)) {
			tb.Fatalf("%s: %v: %d to %d are missing without a tombstone", what, key, next[key]+1, w.Last())
		}
	}
}

func (b *built) inLastAppend(f *Frame) bool {
	return slices.ContainsFunc(b.blocks, func(x found) bool {
		return x.kind == kindFrame && x.append == b.last && x.org == f.Org && x.lane == f.Lane && x.first == f.First
	})
}

// blockAt returns the block that an offset lies in, or nil in the file's header.
func (b *built) blockAt(offset int) *found {
	for i := range b.blocks {
		if x := &b.blocks[i]; int64(offset) >= x.at && int64(offset) < x.at+x.size() {
			return x
		}
	}
	return nil
}

var flipEvery = flag.Int("spool.flip-every", 4099, "TestBitFlips64KiB flips one bit in so many; 1 is all 524,288 of them")

// TestEveryBitFlip flips each bit of a file in turn. Exactly the records of the
// frame that it lies in are lost, and counted; a flip in the very last append,
// of which no cursor knows, undoes that append with its positions.
func TestEveryBitFlip(t *testing.T) {
	for _, closed := range []bool{true, false} {
		flipBits(t, build(t, closed), closed, 1)
	}
}

// TestBitFlips64KiB does the same to a file of the size of real frames.
func TestBitFlips64KiB(t *testing.T) {
	b := buildOf(t, true, 12900)
	if size := len(b.fs.names[b.name].data); size < 64<<10 {
		t.Fatalf("%d bytes", size)
	}
	flipBits(t, b, true, *flipEvery)
}

func flipBits(t *testing.T, b *built, closed bool, every int) {
	t.Helper()
	flips := 0
	for bit := 0; bit < len(b.fs.names[b.name].data)*8; bit += every {
		what := fmt.Sprintf("closed %v, bit %d", closed, bit)
		fs := b.with(b.name, func(data []byte) []byte {
			data[bit/8] ^= 1 << (bit % 8)
			return data
		})
		x := b.blockAt(bit / 8)
		undone := !closed && x != nil && x.append == b.last
		wantLost, wantPosition := uint64(0), "4"
		if x != nil && x.kind == kindFrame {
			wantLost = uint64(x.count)
		}
		if undone {
			wantLost, wantPosition = 0, "3"
		}
		frames, lost, position := offers(t, fs)
		b.check(t, what, frames, undone)
		if lost != wantLost || position != wantPosition {
			t.Fatalf("%s: %d records lost and position %q, want %d and %q", what, lost, position, wantLost, wantPosition)
		}
		if bit%97 == 0 { // the same again: nothing that was decided changes
			again, _, _ := offers(t, fs)
			if got, want := fmt.Sprint(show(again)), fmt.Sprint(show(frames)); got != want {
				t.Fatalf("%s: offered %s, at the next start %s", what, want, got)
			}
		}
		flips++
	}
	t.Logf("FIGURE spool_bit_flips %d", flips)
	t.Logf("FIGURE spool_bit_flips_undetected 0")
}

// TestEveryTruncation cuts the file at every length: appends that are whole
// stay, a spool whose cursor knows better says exactly what is missing.
func TestEveryTruncation(t *testing.T) {
	for _, closed := range []bool{true, false} {
		b := build(t, closed)
		for length := range len(b.fs.names[b.name].data) {
			what := fmt.Sprintf("closed %v, cut at %d", closed, length)
			frames, lost, position := offers(t, b.with(b.name, func(data []byte) []byte { return data[:length] }))
			whole, kept := uint64(0), 0
			for i := range b.blocks {
				x := &b.blocks[i]
				if x.at+x.size() > int64(length) {
					break
				}
				if x.kind == kindFrame {
					kept++
				} else {
					whole = x.append
				}
			}
			if closed {
				b.check(t, what, frames, false)
				if offeredWhole(frames) != kept || position != "4" {
					t.Fatalf("%s: %d frames and position %q; %d frames are whole", what, offeredWhole(frames), position, kept)
				}
				continue
			}
			want := ""
			if whole > 0 {
				want = string(rune('0' + whole - 1))
			}
			if lost != 0 || position != want {
				t.Fatalf("%s: position %q and %d lost; append %d is the last whole one", what, position, lost, whole)
			}
		}
	}
}

func offeredWhole(frames []Frame) (n int) {
	for i := range frames {
		if !frames[i].Tombstone {
			n++
		}
	}
	return n
}

// TestZeroedAndScrambledRanges damages ranges of any length.
func TestZeroedAndScrambledRanges(t *testing.T) {
	b := build(t, true)
	size := len(b.fs.names[b.name].data)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		from := random.IntN(size)
		to := from + random.IntN(size-from) + 1
		frames, _, _ := offers(t, b.with(b.name, func(data []byte) []byte {
			for j := from; j < to; j++ {
				data[j] = 0
				if i%2 == 0 {
					data[j] = byte(random.Uint32())
				}
			}
			return data
		}))
		b.check(t, fmt.Sprintf("%d to %d", from, to), frames, false)
		intact := 0
		for j := range b.blocks {
			x := &b.blocks[j]
			if x.kind == kindFrame && (int64(to) <= x.at || int64(from) >= x.at+x.size()) {
				intact++
			}
		}
		if got := offeredWhole(frames); got < intact {
			t.Fatalf("%d to %d: %d frames are untouched, %d are offered", from, to, intact, got)
		}
	}
}

// TestDamagedCursor flips each bit of the cursor: its other copy serves. Where
// all of it is gone, frames are offered again and none is lost.
func TestDamagedCursor(t *testing.T) {
	b := build(t, true)
	data := b.fs.names[b.cursor].data
	half := len(data) / 2
	used := cursorHeader + int(binary.LittleEndian.Uint64(data[16:]))
	for bit := range len(data) * 8 {
		if at := bit / 8; at%half > used && bit%61 != 0 {
			continue // room to spare
		}
		frames, lost, position := offers(t, b.with(b.cursor, func(data []byte) []byte {
			data[bit/8] ^= 1 << (bit % 8)
			return data
		}))
		b.check(t, fmt.Sprintf("bit %d", bit), frames, false)
		if lost != 0 || position != "4" {
			t.Fatalf("bit %d: %d lost, position %q", bit, lost, position)
		}
	}
	frames, lost, _ := offers(t, b.with(b.cursor, func([]byte) []byte { return []byte("nonsense") }))
	b.check(t, "no cursor", frames, false)
	if lost != 0 {
		t.Errorf("%d lost without a cursor", lost)
	}
}

// TestPlantedBlock puts a frame's bytes, as a hostile container may print them,
// into a body whose own head is damaged: it must not be taken for a frame.
func TestPlantedBlock(t *testing.T) {
	fs := newCrashFS(1)
	s := openAt(t, fs)
	seed := fileID{first: 1, epoch: 12345}.seed() // the epoch is what the container cannot know
	planted := appendBlock(nil, &block{kind: kindFrame, org: "victim", append: 1, first: 1, count: 1}, []byte("forged"), seed)
	mustAppend(t, s, nil, Draft{Key: Key{Org: "evil"}, Count: 1, Body: append([]byte("1234"), planted...)})
	name := s.segments[0].id.name()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fs.names[name].data[fileHeader] ^= 1
	frames, _, _ := offers(t, fs)
	if got := fmt.Sprint(show(frames)); got != `[evil/0 1-1 "missing evil 0 1+1 corrupt"]` {
		t.Errorf("offered %s", got)
	}
}

// TestRewind goes back to what is there and to what is gone.
func TestRewind(t *testing.T) {
	s := openAt(t, newCrashFS(1))
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	mustAppend(t, s, nil, draft("a", 0, 2, "one"), draft("a", 0, 2, "two"), draft("a", 0, 2, "three"))
	drain(t, s)
	s.Rewind("a", s.Epoch(), 0, 3)
	if got := fmt.Sprint(show(drain(t, s))); got != `[a/0 3-4 "two" a/0 5-6 "three"]` {
		t.Errorf("after going back to 3: %s", got)
	}
	if err := s.Ack("a", s.Epoch(), 0, 4); err != nil {
		t.Fatal(err)
	}
	s.Rewind("a", s.Epoch(), 0, 2)
	if got := fmt.Sprint(show(drain(t, s))); got != `[a/0 2-4 "missing a 0 2+3 forgotten" a/0 5-6 "three"]` {
		t.Errorf("after going back to what is gone: %s", got)
	}
	s.Reset()
	if got := len(drain(t, s)); got != 2 {
		t.Errorf("%d frames after a reset", got)
	}
}
