package redact_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/agentd/redact"
)

func mustNew(t testing.TB, cfg redact.Config) *redact.Redactor {
	t.Helper()
	r, err := redact.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// cpuTime is what this process has used, in nanoseconds: the machine may be
// busy with others.
func cpuTime(b *testing.B) int64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func BenchmarkCleanLines(b *testing.B) {
	r := mustNew(b, redact.Config{})
	lines := cleanLines(b)
	var bytes int64
	for _, l := range lines {
		bytes += int64(len(l))
	}
	var dst []byte
	b.SetBytes(bytes)
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		for _, l := range lines {
			dst = r.Redact(dst[:0], l, nil)[:0]
			_ = dst
		}
	}
	used := float64(cpuTime(b)-before) / float64(b.N)
	b.ReportMetric(used/float64(len(lines)), "cpu-ns/line")
	b.ReportMetric(float64(bytes)/used*1e3, "cpu-MB/s")
}

func BenchmarkHostileLines(b *testing.B) {
	r := mustNew(b, redact.Config{})
	for _, part := range hostileParts {
		line := []byte(strings.Repeat(part, 256<<10/len(part)))
		b.Run(fmt.Sprintf("%.20q", part), func(b *testing.B) {
			var dst []byte
			b.SetBytes(int64(len(line)))
			before := cpuTime(b)
			for b.Loop() {
				dst = r.Redact(dst[:0], line, nil)[:0]
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
		})
	}
}

// hostileParts are repeated to a line of 256 KiB each.
var hostileParts = []string{
	"sk-", "-sk-a", "sk-glpat-", "eyJ.", "eyJ", "eyJaaaaaaaaaaaa.", "a://", "a://b:c", "a://a:b@", "password=", `password="`, `password='\"`, "password=,", "password: ",
	"token=aaaaaaa&", "_key=", "AKIA", "hf_", ":AA", "1:AA", "-----BEGIN PRIVATE KEY-----", "authorization: digest ", "cookie: a=", "bearer ", "basic AAAA ",
	"4111-", "4111 1111 ", "4111111111111111", "1", "1 ", "[redacted:x]", "password=[redacted:x]", "://[redacted:x]", "--token ", "key-", ".atlasv1.", "&sig=", "\x00", "\xff", "SK0", "7Q~",
}
