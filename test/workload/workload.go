// Package workload makes the fixed work that figures are measured on: Docker
// json-file logs of an agent platform. The same seed gives the same bytes on
// every machine, and the figures of other systems in docs/benchmarks.md were
// taken on the same distribution of lengths and words.
//
// Every message starts with a marker "#iFFFsNNNNNNNNN " (file, sequence), so
// that a reader can tell what is missing and what came twice.
package workload

import (
	"bufio"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// piece is where Docker splits a message.
const piece = 16 << 10

const markerLen = 16

var words = []string{
	"request", "completed", "user", "connection", "timeout", "retry", "upstream", "cache", "miss", "hit",
	"queue", "worker", "started", "stopped", "flush", "batch", "commit", "rollback", "transaction", "token", "expired",
	"GET", "POST", "/api/v1/orders", "/api/v1/users", "/healthz", "status=200", "status=404", "status=500", "latency_ms=",
	"bytes=", "from", "to", "with", "for", "error", "warning", "info", "failed", "succeeded", "the", "of", "session",
	"shard", "replica", "leader", "election", "heartbeat", "lag", "offset", "partition", "consumer", "group", "rebalance",
}

// Text returns n bytes of log-like text: words, numbers, hex ids, quotes.
func Text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 77)) //nolint:gosec // seeded on purpose
	b := make([]byte, 0, n+64)
	for len(b) < n {
		switch x := r.IntN(100); {
		case x < 70:
			b = append(b, words[r.IntN(len(words))]...)
		case x < 82:
			b = strconv.AppendInt(b, int64(r.IntN(100000)), 10)
		case x < 92:
			b = fmt.Appendf(b, "%08x", r.Uint32())
		default:
			b = fmt.Appendf(b, "%s=%q", words[r.IntN(len(words))], words[r.IntN(len(words))])
		}
		b = append(b, ' ')
	}
	return b[:n]
}

// Docker makes the lines of one container's json-file log.
type Docker struct {
	Messages int64
	file     int
	r        *rand.Rand
	text     []byte
	at       time.Time
	message  []byte
}

// NewDocker starts the log of file number file.
func NewDocker(seed uint64, file int, text []byte, at time.Time) *Docker {
	return &Docker{file: file, text: text, at: at, r: rand.New(rand.NewPCG(seed, uint64(file)+1))} //nolint:gosec // seeded on purpose
}

// length is lognormal (median 110, mean about 140), with 0.5 % of 2-8 KB and
// 0.02 % of 20-60 KB.
func (d *Docker) length() int {
	switch x := d.r.Float64(); {
	case x < 0.0002:
		return 20000 + d.r.IntN(40000)
	case x < 0.0052:
		return 2000 + d.r.IntN(6000)
	}
	n := int(math.Exp(math.Log(110) + 0.7*d.r.NormFloat64()))
	return max(markerLen+8, min(n, 15000))
}

// Next appends one message, which may be several json-file lines.
func (d *Docker) Next(b []byte) []byte {
	n := d.length()
	m := fmt.Appendf(d.message[:0], "#i%03ds%09d ", d.file, d.Messages)
	off := d.r.IntN(len(d.text) - n)
	m = append(m, d.text[off:off+n-markerLen]...)
	d.message = m
	d.Messages++
	stream := "stdout"
	if d.r.IntN(5) == 0 {
		stream = "stderr"
	}
	d.at = d.at.Add(time.Duration(d.r.IntN(400_000)) * time.Nanosecond)
	for len(m) > 0 {
		k := min(len(m), piece)
		b = appendLine(b, m[:k], k == len(m), stream, d.at)
		m = m[k:]
	}
	return b
}

func appendLine(b, message []byte, last bool, stream string, at time.Time) []byte {
	b = append(b, `{"log":"`...)
	for _, c := range message {
		if c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	if last {
		b = append(b, `\n`...)
	}
	b = append(b, `","stream":"`...)
	b = append(b, stream...)
	b = append(b, `","time":"`...)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000000000Z")
	return append(b, "\"}\n"...)
}

// Write makes dir/cNNN-json.log files that hold messages lines in all, with
// timestamps up to a minute ago.
func Write(dir string, files int, messages int64, seed uint64) error {
	text := Text(seed, 4<<20)
	each := messages / int64(files)
	began := time.Now().UTC().Add(-time.Minute - time.Duration(each)*200*time.Microsecond)
	for i := range files {
		if err := writeFile(filepath.Join(dir, fmt.Sprintf("c%03d-json.log", i)), NewDocker(seed, i, text, began), each); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(path string, d *Docker, messages int64) error {
	f, err := os.Create(path) //nolint:gosec // the caller's directory
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	var b []byte
	for d.Messages < messages {
		b = d.Next(b[:0])
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}
