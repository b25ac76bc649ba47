package spool

import (
	"flag"
	"fmt"
	"syscall"
	"testing"
)

// scriptOptions let the script fill the budget and give up frames.
var scriptOptions = Options{Budget: 40 << 10}

// script fills files, delivers some, is over its budget, starts again and
// delivers the rest; the errors are what the test injects.
func script(m *model) {
	step := func(i int) {
		_ = m.append([]Draft{
			{Key: Key{Org: "a"}, Class: uint8(i % 2), Count: 2, Body: fmt.Appendf(nil, "log %d %s", i, make([]byte, 1900))},
			{Key: Key{Org: "b"}, Class: 2, Count: 1, Body: fmt.Appendf(nil, "warning %d", i)},
			draft("b", 1, 1, fmt.Sprintf("event %d", i)),
		})
	}
	deliver := func(org string) {
		for key, list := range m.frames {
			if last := list[len(list)-1].Last(); key.org == org && m.s.Ack(key.org, key.epoch, key.lane, last) == nil {
				m.acked[key] = last
			}
		}
	}
	for i := range 8 {
		step(i)
		if i%4 == 3 {
			if deliver("b"); i == 3 {
				deliver("a") // the very first files go with the second cursor
			}
			_ = m.save()
		}
	}
	if m.s.Close() != nil || m.open() != nil {
		return // as at the next start
	}
	for i := range 14 {
		step(i)
	}
	deliver("a")
	_ = m.save()
	for i := range 2 {
		step(i)
	}
	deliver("b")
	_ = m.save()
}

var callEvery = flag.Int("spool.call-every", 5, "the tests that fail at, or cut the power at, each call do so at one call in so many; 1 is all of them")

// TestEveryCallFails plays one script again and again, with the n-th call that
// changes the disk failing, once and for good, and cuts the power soon or later.
func TestEveryCallFails(t *testing.T) {
	for i, howMany := range []int{1, 1 << 30} {
		for j, cause := range []error{syscall.EIO, syscall.ENOSPC} {
			n := 1 + (2*i+j)%*callEvery
			for ; ; n += *callEvery {
				m := newModel(t, uint64(n), scriptOptions)
				m.fs.fail(n, howMany, cause)
				if n%3 > 0 { // the power goes soon after it, else at the end
					m.fs.die(n + 8*(n%3))
				}
				before := m.fs.calls
				script(m)
				reached := m.fs.calls-before >= n
				m.powerCut(t, survival(n%int(survivals)), 0)
				if err := m.s.Close(); err != nil {
					t.Fatal(err)
				}
				if !reached {
					break
				}
			}
			if n < 100 {
				t.Errorf("%d calls only", n)
			}
			t.Logf("%v, %d calls in a row: %d places, one in %d of them", cause, howMany, n-1, *callEvery)
		}
	}
}

// TestEveryCrash cuts the power at every call of the script that changes the
// disk, leaves of what was not flushed nothing, all, some or torn sectors, and
// cuts it again at each of the first calls of the recovery.
func TestEveryCrash(t *testing.T) {
	cuts := 0
	for keep := range survivals {
		for n := 1 + int(keep)%*callEvery; ; n += *callEvery {
			m := newModel(t, uint64(n), scriptOptions)
			before := m.fs.calls
			m.fs.die(n)
			script(m)
			reached := m.fs.calls-before >= n
			again := 0
			if n%5 < 2 {
				again = 8
			}
			m.powerCut(t, keep, again)
			cuts += 1 + again
			if err := m.s.Close(); err != nil {
				t.Fatal(err)
			}
			if !reached {
				break
			}
		}
	}
	t.Logf("%d power cuts", cuts)
}

// TestScriptEvicts makes sure that the script does what it is for.
func TestScriptEvicts(t *testing.T) {
	m := newModel(t, 1, scriptOptions)
	script(m)
	st := m.s.Stats()
	if st.Evicted[0][0].Frames == 0 || st.Rewrote == 0 || st.Lost == 0 {
		t.Errorf("nothing gave way: %+v", st)
	}
	if st.Evicted[1] != [Classes]Loss{} {
		t.Errorf("events gave way to logs: %+v", st.Evicted)
	}
	m.powerCut(t, keepSome, 0)
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
}
