package localpg

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestForward(t *testing.T) {
	t.Parallel()
	input := strings.Join([]string{
		"12 00000 LOG:  database system is ready",
		"12 57P03 FATAL:  the database system is starting up",
		"12 53100 PANIC:  could not write to file: No space left on device",
		"\tand a second line",
		"12 42P01 ERROR:  relation does not exist",
		"12 01000 WARNING:  there is no transaction",
		"12 28000 FATAL:  role does not exist",
		"postgres: error while loading shared libraries",
		"12 00000 LOG:  " + strings.Repeat("x", 3*lineMax),
		"12 00000 LOG:  bad \xff bytes",
		"13 00000 LOG:  without a newline at the end",
	}, "\n")
	var out bytes.Buffer
	var complaints tail
	forward(hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: &out, DisableTime: true}), strings.NewReader(input), &complaints)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{"[DEBUG]", "[DEBUG]", "[ERROR]", "[ERROR]", "[DEBUG]", "[WARN]", "[WARN]", "[WARN]", "[DEBUG]", "[DEBUG]", "[DEBUG]"}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), out.String())
	}
	for i, level := range want {
		if !strings.HasPrefix(lines[i], level) || len(lines[i]) > 2*lineMax {
			t.Errorf("line %d: %.200q, want level %s", i, lines[i], level)
		}
	}
	for _, part := range []string{"No space left", "and a second line", "no transaction", "role does not exist", "shared libraries"} {
		if !strings.Contains(complaints.String(), part) {
			t.Errorf("complaints miss %q: %q", part, complaints.String())
		}
	}
	if strings.Contains(complaints.String(), "starting up") {
		t.Errorf("complaints hold what is none: %q", complaints.String())
	}
}

func TestTailIsBounded(t *testing.T) {
	t.Parallel()
	var last tail
	for range 100 {
		_, _ = last.Write(bytes.Repeat([]byte("a"), 1000))
	}
	_, _ = last.Write([]byte("the end"))
	if got := last.String(); len(got) > tailMax || !strings.HasSuffix(got, "the end") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-10:])
	}
}

func TestTuningFollowsTheMachine(t *testing.T) {
	t.Parallel()
	const gib = 1024 * mib
	for _, c := range []struct {
		memory, disk uint64
		buffers, wal string
	}{
		{256 * mib, 2 * gib, "64MB", "256MB"},
		{4 * gib, 20 * gib, "1024MB", "2048MB"},
		{256 * gib, 4096 * gib, "4096MB", "4096MB"},
	} {
		got := tuning(c.memory, c.disk)
		if got["shared_buffers"] != c.buffers || got["max_wal_size"] != c.wal {
			t.Errorf("memory %d, disk %d: shared_buffers %s, max_wal_size %s; want %s, %s",
				c.memory, c.disk, got["shared_buffers"], got["max_wal_size"], c.buffers, c.wal)
		}
	}
}
