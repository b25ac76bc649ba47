package test

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/theazo/observability/test/stack"
)

// follower reads a stream as a browser does: whenever the connection ends it
// comes back with the last id that it has seen.
type follower struct {
	client *stack.Client
	path   string

	mu      sync.Mutex
	entries []stack.Entry
	gaps    []string
	opened  int
	ready   chan struct{}
}

// follow starts a follower; it ends with the test.
func follow(t *testing.T, c *stack.Client, path string) *follower {
	t.Helper()
	f := &follower{client: c, path: path, ready: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f.run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	select {
	case <-f.ready:
	case <-time.After(stack.Patience):
		t.Fatal("the stream did not open")
	}
	return f
}

func (f *follower) run(ctx context.Context) {
	last := ""
	for ctx.Err() == nil {
		_ = f.client.Stream(ctx, f.path, &last, func(e stack.Event) bool {
			f.take(e)
			return true
		})
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (f *follower) take(e stack.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch e.Name {
	case "ready":
		if f.opened == 0 {
			close(f.ready)
		}
		f.opened++
	case "log":
		var entry stack.Entry
		if json.Unmarshal([]byte(e.Data), &entry) == nil {
			f.entries = append(f.entries, entry)
		}
	case "gap":
		f.gaps = append(f.gaps, e.Data)
	}
}

func (f *follower) await(t *testing.T, n int) []stack.Entry {
	t.Helper()
	limit := time.After(2 * stack.Patience)
	for {
		f.mu.Lock()
		have := len(f.entries)
		f.mu.Unlock()
		if have >= n {
			break
		}
		select {
		case <-limit:
			t.Fatalf("the stream gave %d of %d lines", have, n)
		case <-time.After(50 * time.Millisecond):
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]stack.Entry(nil), f.entries...)
}

// checkNumbered checks that entries hold each of the numbers 1…n of a linegen
// exactly once, and in their order within each stream.
func checkNumbered(t *testing.T, what string, entries []stack.Entry, n int) {
	t.Helper()
	seen := make([]int, n+1)
	lastOf := map[string]int{}
	ids := map[string]bool{}
	disorder := 0
	for _, e := range entries {
		i := number(e.Message)
		if i < 1 || i > n {
			t.Errorf("%s: line %.60q is none of the %d", what, e.Message, n)
			continue
		}
		seen[i]++
		if ids[e.ID] {
			t.Errorf("%s: id %s came twice", what, e.ID)
		}
		ids[e.ID] = true
		if i < lastOf[e.Stream] {
			disorder++
		}
		lastOf[e.Stream] = i
	}
	missing, twice := 0, 0
	for i := 1; i <= n; i++ {
		switch {
		case seen[i] == 0:
			missing++
		case seen[i] > 1:
			twice++
		}
	}
	if missing > 0 || twice > 0 || disorder > 0 {
		t.Errorf("%s: of %d lines %d are missing, %d came more than once, %d are out of order", what, n, missing, twice, disorder)
	}
}

// number reads the number of a linegen's line: "… n=123 …".
func number(message string) int {
	_, text, _ := strings.Cut(message, "n=")
	digits, _, _ := strings.Cut(text, " ")
	i, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return i
}
