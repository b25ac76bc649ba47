package main

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNoPortIsGivenTwice(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // returns at once
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	busy := l.Addr().(*net.TCPAddr)
	taken := map[string]bool{}
	for range 3 { // all of them want the busy one
		a, err := freeAddress(busy.String(), busy.Port, taken)
		if err != nil {
			t.Fatal(err)
		}
		if taken[a] || a == busy.String() {
			t.Fatalf("%s is given, after %v; %s is busy", a, taken, busy)
		}
		taken[a] = true
	}
}

func TestASecondStartIsRefusedAndAKilledOnesChildrenAreKnown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, left, err := takeLock(path)
	if err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
	if err := first.add(4711); err != nil {
		t.Fatal(err)
	}
	if _, _, err := takeLock(path); err == nil || !strings.Contains(err.Error(), "already") {
		t.Fatalf("a second start: %v", err)
	}
	_ = first.file.Close() // as a kill -9 does
	second, left, err := takeLock(path)
	if err != nil || !slices.Equal(left, []int{4711}) {
		t.Fatalf("after a kill: %v, %v", left, err)
	}
	second.release()
	third, left, err := takeLock(path)
	if err != nil || len(left) > 0 {
		t.Fatalf("after a clean end: %v, %v", left, err)
	}
	third.release()
}
