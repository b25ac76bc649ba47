package spool

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkAppend appends frames as intake cuts them, offers and acknowledges
// them: of one lane, then of both. syncs/op is the number of fsyncs.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{200, 30 << 10, 256 << 10} {
		for _, lanes := range []uint8{1, 2} {
			b.Run(fmt.Sprintf("%d bytes, %d lanes", size, lanes), func(b *testing.B) {
				s := open(b, Options{Dir: b.TempDir(), Budget: 4 << 30, SaveEvery: 100 * time.Millisecond})
				body := make([]byte, size)
				position := map[string][]byte{"docker/4c0012880fc6454f": make([]byte, 200)}
				b.ReportAllocs()
				b.SetBytes(int64(size) * int64(lanes))
				for b.Loop() {
					var list []Draft
					for lane := range lanes {
						list = append(list, Draft{Key: Key{Org: "org_a"}, Lane: lane, Count: 1, Body: body})
					}
					if err := s.Append(list, position); err != nil {
						b.Fatal(err)
					}
					for range lanes {
						f, err := s.Next(b.Context(), nil)
						if err != nil {
							b.Fatal(err)
						}
						if err := s.Ack(f.Org, f.Epoch, f.Lane, f.Last()); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(s.Stats().Syncs)/float64(b.N), "syncs/op")
			})
		}
	}
}

// BenchmarkOpen opens a spool with a backlog of 256 MiB.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s := open(b, Options{Dir: dir, Budget: 4 << 30})
	body := make([]byte, 40<<10)
	for s.Stats().Disk < 256<<20 {
		mustAppend(b, s, nil, Draft{Key: Key{Org: "org_a"}, Count: 1, Body: body}, Draft{Key: Key{Org: "org_a"}, Count: 1, Body: body})
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(Options{Dir: dir, Budget: 4 << 30})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStages shows what of that is what: an append with its fsync, taking
// a frame out, and an acknowledgement.
func BenchmarkStages(b *testing.B) {
	for _, size := range []int{30 << 10, 256 << 10} {
		s := open(b, Options{Dir: b.TempDir(), Budget: 8 << 30, SaveEvery: 100 * time.Millisecond})
		body := make([]byte, size)
		name := func(what string) string { return fmt.Sprintf("%s, %d KiB", what, size>>10) }
		b.Run(name("append"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustAppend(b, s, nil, Draft{Key: Key{Org: "org_a"}, Count: 1, Body: body})
			}
		})
		var frames []Frame
		b.Run(name("next"), func(b *testing.B) {
			b.ReportAllocs()
			s.Reset()
			for b.Loop() {
				if s.Stats().Lane[0].Unsent == 0 {
					s.Reset()
				}
				f, err := s.Next(b.Context(), nil)
				if err != nil {
					b.Fatal(err)
				}
				f.Body = nil
				frames = append(frames, f)
			}
		})
		b.Run(name("ack"), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				f := &frames[i%len(frames)]
				if err := s.Ack(f.Org, f.Epoch, f.Lane, f.Last()); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkFull appends to a spool that is full: each file of new frames is paid
// for by frames that give way. disk/byte is what is written for a byte of body.
func BenchmarkFull(b *testing.B) {
	for _, important := range []int{0, 50, 95} {
		b.Run(fmt.Sprintf("%d%% important", important), func(b *testing.B) {
			s := open(b, Options{Dir: b.TempDir(), Budget: 128 << 20, Floor: -1, SaveEvery: 100 * time.Millisecond})
			body, n := make([]byte, 30<<10), 0
			next := func() {
				class := uint8(1)
				if n%100 < important {
					class = 2
				}
				n++
				mustAppend(b, s, nil, Draft{Key: Key{Org: "org_a"}, Class: class, Count: 1, Body: body}, Draft{Key: Key{Org: "org_b"}, Class: class, Count: 1, Body: body})
			}
			for s.Stats().Lost == 0 {
				next()
			}
			before, from := s.Stats().Rewrote, n
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
			copied := float64(s.Stats().Rewrote - before)
			b.ReportMetric(1+copied/float64((n-from)*2*len(body)), "disk/byte")
		})
	}
}
