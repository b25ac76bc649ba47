package spool

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkAppend appends frames as intake cuts them: 40 KiB of one lane, then
// both lanes. syncs/op is the number of fsyncs.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{200, 40 << 10} {
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
