package spool

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// writerEnv makes the test binary the writer that TestKill kills.
const writerEnv = "SPOOL_TEST_WRITER"

// writer appends numbered lines until it is killed.
func writer(dir string) error {
	s, err := Open(Options{Dir: dir, SegmentBytes: 16 << 10, Budget: 64 << 20, SaveEvery: 5 * time.Millisecond})
	if err != nil {
		return err
	}
	defer s.Close()
	n, _ := strconv.Atoi(string(s.Positions()["n"]))
	out := bufio.NewWriter(os.Stdout)
	ctx := context.Background()
	for n++; ; n++ {
		body := fmt.Appendf(nil, "line %d %s", n, strings.Repeat("x", n%3000))
		d := []Draft{{Key: Key{Org: "a"}, Count: 1, Body: body}, {Key: Key{Org: "b"}, Lane: 1, Count: 1, Body: body}}
		if err := s.Append(d, map[string][]byte{"n": []byte(strconv.Itoa(n))}); err != nil {
			return err
		}
		// Only what is told here counts as accepted for the parent.
		if _, err := fmt.Fprintf(out, "accepted %d\n", n); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if n%10 == 0 { // deliver some, so that files are unlinked
			for range 5 {
				f, err := s.Next(ctx, nil)
				if err != nil {
					return err
				}
				if err := deliver(dir, &f); err != nil {
					return err
				}
				if err := s.Ack(f.Org, f.Epoch, f.Lane, f.Last()); err != nil {
					return err
				}
			}
		}
	}
}

// deliver notes a frame as a receiver would, durably for the sake of a kill:
// the page cache outlives the process.
func deliver(dir string, f *Frame) error {
	out, err := os.OpenFile(dir+".delivered", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	word := strings.Fields(string(f.Body) + " none none")
	_, err = fmt.Fprintf(out, "%s %016x %d %s\n", f.Org, f.Epoch, f.First, word[1])
	return closing(out, err)
}

var kills = flag.Int("spool.kills", 15, "how often TestKill kills the writer")

// TestKill kills a writing process again and again, at random, and then reads
// what it left: every accepted append is there once, in order.
func TestKill(t *testing.T) {
	dir := t.TempDir() + "/spool"
	accepted := 0
	for range *kills {
		accepted = max(accepted, runWriter(t, dir, time.Duration(20+rand.IntN(100))*time.Millisecond))
	}
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range drain(t, s) {
		if f.Tombstone {
			t.Errorf("a tombstone: %+v", f)
		}
		if err := deliver(dir, &f); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); st.Lost != 0 || st.Corrupt != 0 {
		t.Errorf("lost %d, damaged %d", st.Lost, st.Corrupt)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(dir + ".delivered")
	if err != nil {
		t.Fatal(err)
	}
	// A receiver keeps the first of each (organisation, epoch, sequence).
	seen, next := map[string]bool{}, map[string]int{"a": 1, "b": 1}
	for line := range strings.Lines(string(b)) {
		word := strings.Fields(line)
		key := strings.Join(word[:3], " ")
		if seen[key] {
			continue
		}
		seen[key] = true
		if n, _ := strconv.Atoi(word[3]); n != next[word[0]] {
			t.Fatalf("organisation %s: line %s where %d was expected", word[0], word[3], next[word[0]])
		}
		next[word[0]]++
	}
	if next["a"] <= accepted || next["b"] <= accepted {
		t.Errorf("delivered up to %v, accepted were %d", next, accepted)
	}
	t.Logf("%d kills, %d appends", *kills, accepted)
}

// runWriter runs a writer and kills it after a while; it returns the last
// append that it told of.
func runWriter(t *testing.T, dir string, life time.Duration) (accepted int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), writerEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var killer *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if killer == nil { // its life begins with its first append, however slow the machine is
			killer = time.AfterFunc(life, func() { _ = cmd.Process.Kill() })
		}
		if n, ok := strings.CutPrefix(lines.Text(), "accepted "); ok {
			accepted, _ = strconv.Atoi(n)
		}
	}
	err = cmd.Wait()
	if killer == nil || !strings.Contains(fmt.Sprint(err), "killed") {
		t.Fatalf("the writer ended by itself: %v: %s", err, complaint.String())
	}
	killer.Stop()
	return accepted
}

// TestConcurrency lets many append, read, acknowledge, reset and ask at once.
func TestConcurrency(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), SegmentBytes: 8 << 10, Budget: 256 << 10, SaveEvery: time.Millisecond})
	const writers, appends = 4, 100
	ctx, stop := context.WithCancel(t.Context())
	var writing, reading sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range appends {
				for {
					if err := s.Room(ctx); err != nil {
						t.Error(err)
						return
					}
					err := s.Append([]Draft{draft(strconv.Itoa(w), uint8(i%2), 1, strings.Repeat("x", 500))}, map[string][]byte{strconv.Itoa(w): {byte(i)}})
					if err == nil {
						break
					}
					if !errors.Is(err, ErrFull) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	var mu sync.Mutex
	got := map[string]bool{}
	for range 2 {
		reading.Go(func() {
			for {
				f, err := s.Next(ctx, func(org string) bool { return org == "none" })
				if err != nil {
					return
				}
				mu.Lock()
				got[fmt.Sprint(f.Org, f.Lane, f.First)] = true
				done := len(got) == writers*appends
				mu.Unlock()
				// Acknowledge in order, as a receiver does: only what directly follows.
				if f.First%7 == 0 {
					s.Reset()
				}
				if f.Tombstone {
					t.Errorf("a tombstone: %+v", f)
				}
				mu.Lock()
				last := uint64(0)
				for got[fmt.Sprint(f.Org, f.Lane, last+1)] {
					last++
				}
				mu.Unlock()
				if err := s.Ack(f.Org, f.Epoch, f.Lane, last); err != nil {
					t.Error(err)
				}
				s.Stats()
				if done {
					stop()
				}
			}
		})
	}
	writing.Wait()
	reading.Wait()
	stop()
	if len(got) != writers*appends {
		t.Errorf("%d frames of %d", len(got), writers*appends)
	}
}
