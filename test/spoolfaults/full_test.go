package spoolfaults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/agentd/spool"
)

// TestSharedTmpfs lets five organisations of unequal rates fill a spool on a file
// system of 64 MiB that somebody else fills to the last byte, again and again.
// Events are refused only while there is not a byte left, and none is lost; what
// logs lose is the loud ones'.
func TestSharedTmpfs(t *testing.T) {
	need(t, true)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := spool.Open(spool.Options{Dir: filepath.Join(dir, "spool"), Budget: 40 << 20, SegmentBytes: 1 << 20, SaveEvery: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var filling sync.WaitGroup
	filling.Go(func() { fill(ctx, filepath.Join(dir, "others")) })
	full, events := 0, 0
	peak := int64(0)
	for n := range 6000 {
		var list []spool.Draft
		for org := range 5 { // each writes half as much as the one before
			if n%(1<<org) == 0 {
				list = append(list, spool.Draft{Key: spool.Key{Org: fmt.Sprintf("org_%d", org)}, Class: uint8(n % 3), Count: 10, Body: noise(n)})
			}
		}
		if err := s.Append(list, nil); err != nil {
			if !errors.Is(err, spool.ErrFull) {
				t.Fatal(err)
			}
			full++
		}
		if n%10 == 0 {
			events++
			for {
				err := s.Append([]spool.Draft{{Key: spool.Key{Org: "org_0"}, Lane: 1, Class: 2, Count: 1, Body: noise(n)[:200]}}, nil)
				if err == nil {
					break
				}
				if !errors.Is(err, spool.ErrFull) {
					t.Fatal(err)
				}
				<-time.After(time.Millisecond)
			}
		}
		peak = max(peak, s.Stats().Disk)
	}
	stop()
	filling.Wait()
	st := s.Stats()
	t.Logf("FIGURE spool_peak_of_budget %.3f", float64(peak)/float64(st.Budget))
	t.Logf("FIGURE spool_events_lost %d", st.Evicted[1][0].Records+st.Evicted[1][1].Records+st.Evicted[1][2].Records)
	t.Logf("%d appends found the disk full; %+v", full, st)
	if st.Evicted[1] != [spool.Classes]spool.Loss{} || st.Lane[1].Frames != events {
		t.Errorf("of %d events %d are here", events, st.Lane[1].Frames)
	}
	if peak > st.Budget || st.Lost == 0 || st.Corrupt != 0 {
		t.Errorf("%d bytes at most, %d records lost, %d damaged", peak, st.Lost, st.Corrupt)
	}
	lost := map[string]float64{}
	for _, l := range s.Ledger() {
		if l.Lane == 0 {
			lost[l.Org] = float64(l.Lost) / float64(l.Assigned)
		}
	}
	t.Logf("part of their records that logs lost: %.2v", lost)
	if lost["org_4"] > lost["org_0"] {
		t.Errorf("the quietest organisation lost %.2f of its records, the loudest %.2f", lost["org_4"], lost["org_0"])
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// fill takes all that is free, lets go of it, and begins again.
func fill(ctx context.Context, path string) {
	block := make([]byte, 256<<10)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := os.Create(path) //nolint:gosec // the test's own directory
		if err != nil {
			return
		}
		for err == nil || errors.Is(err, unix.ENOSPC) {
			select {
			case <-ctx.Done():
				_ = errors.Join(f.Close(), os.Remove(path))
				return
			case <-tick.C:
			}
			if rand.IntN(400) == 0 { //nolint:gosec // not a secret
				break
			}
			_, err = f.Write(block)
		}
		_ = f.Close()
	}
}

func noise(n int) []byte {
	random := rand.New(rand.NewPCG(uint64(n), 5)) //nolint:gosec // the same again
	b := make([]byte, 200+random.IntN(12000))
	for i := range b {
		b[i] = byte(random.Uint64()) //nolint:gosec // noise
	}
	return b
}
