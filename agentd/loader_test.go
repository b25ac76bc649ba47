package agentd

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Any change in the file's directory makes the loader look, and agentd's own
// log may be there: what did not change the configuration is not applied, and
// what is wrong with it is said once.
func TestOnlyAChangeOfTheConfigurationIsOne(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agentd.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := func(level string) string {
		return "aggregator:\n  addresses: [127.0.0.1:1]\nlog:\n  level: " + level + "\n"
	}
	write("agentd.yaml", config("info"))
	l, _, err := NewLoader("run", []string{"-config", file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Load(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	var mu sync.Mutex
	said := func() int {
		mu.Lock()
		defer mu.Unlock()
		return strings.Count(out.String(), "is not used")
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	changes := l.Watch(ctx, hclog.New(&hclog.LoggerOptions{Output: &lockedWriter{mu: &mu, b: &out}}))

	quiet := func(what string) {
		t.Helper()
		write("agentd.log", what)
		select {
		case <-changes:
			t.Fatalf("%s: nothing had changed", what)
		case <-time.After(5 * settleFile):
		}
	}
	next := func(level string) {
		t.Helper()
		write("agentd.yaml", config(level))
		select {
		case c := <-changes:
			if c.Log.Level != level {
				t.Fatalf("level %s, not %s", c.Log.Level, level)
			}
		case <-ctx.Done():
			t.Fatalf("level %s was not seen", level)
		}
	}
	quiet("a line of a log")
	next("debug")
	quiet("another line")
	write("agentd.yaml", config("loud"))
	tick := time.NewTicker(settleFile / 4)
	defer tick.Stop()
	for said() == 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("nobody said that the file is wrong")
		}
	}
	quiet("a third line")
	if n := said(); n != 1 {
		t.Fatalf("said %d times that the file is wrong", n)
	}
	next("debug") // as before the mistake: whoever mended it is told
}
