package redact_test

import (
	"fmt"
	"math/rand/v2"
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

// ordinary are lines as agents and their tools print them most.
var ordinary = []string{
	`{"time":"{stamp}","level":"INFO","msg":"tool call finished","tool":"bash","duration_ms":{digits:4},"session":"ses_{alnum:6}","usage":{"input_tokens":{digits:5},"output_tokens":{digits:3}}}`,
	`{stamp} INFO agent.loop step={digits:2} plan="read the file /workspace/src/main.py and fix the failing test" elapsed={digits:1}.{digits:2}s`,
	`127.0.0.1 - - [22/Nov/2026:13:33:21 +0000] "GET /api/v1/users?page=3 HTTP/1.1" 200 {digits:4} "https://example.com/index.html" "Mozilla/5.0 (X11; Linux x86_64)"`,
	`I1122 13:33:21.{digits:6}   {digits:5} controller.go:231] Reconciling object namespace="default" name="agent-{hex:9}-x2x4z" generation={digits:2} trace={hex:32}`,
	`  File "/usr/lib/python3.11/site-packages/httpx/_client.py", line {digits:4}, in _send_single_request`,
	`level=debug ts={stamp} caller=client.go:{digits:3} msg="request completed" method=POST url=/v1/messages status=200 request_id={uuid} took={digits:3}ms bytes={digits:5}`,
	`✓ src/components/List.test.tsx ({digits:2} tests) {digits:3}ms`,
	`Collecting numpy>=1.24 (from -r requirements.txt (line {digits:1}))  Downloading numpy-2.1.3-cp311-manylinux_2_17_x86_64.whl (16.3 MB)`,
}

// ordinaryLines fills them in.
func ordinaryLines() [][]byte {
	rnd := rand.New(rand.NewPCG(5, 6))
	var out [][]byte
	for range 200 {
		for _, l := range ordinary {
			out = append(out, []byte(fill(strings.ReplaceAll(l, "{stamp}", "2026-11-22T13:33:21.123456Z"), rnd)))
		}
	}
	return out
}

func BenchmarkOrdinaryLines(b *testing.B) { benchmarkLines(b, ordinaryLines()) }

// BenchmarkTrickyLines has lines that nearly are what is looked for.
func BenchmarkTrickyLines(b *testing.B) { benchmarkLines(b, cleanLines(b)) }

func BenchmarkSecretLines(b *testing.B) {
	var lines [][]byte
	for _, l := range secretLines(b) {
		lines = append(lines, l.text)
	}
	benchmarkLines(b, lines)
}

func benchmarkLines(b *testing.B, lines [][]byte) {
	b.Helper()
	r := mustNew(b, redact.Config{})
	var bytes int64
	for _, l := range lines {
		bytes += int64(len(l))
	}
	dst := make([]byte, 0, 4096)
	b.SetBytes(bytes)
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		for _, l := range lines {
			r.Redact(dst, l, nil)
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
