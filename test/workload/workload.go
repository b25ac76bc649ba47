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
	"errors"
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
	Messages int64 // made so far
	Lines    int64 // of the json-file: long messages take several
	Text     int64 // bytes of the messages
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
	d.Text += int64(len(m))
	stream := "stdout"
	if d.r.IntN(5) == 0 {
		stream = "stderr"
	}
	d.at = d.at.Add(time.Duration(d.r.IntN(400_000)) * time.Nanosecond)
	for len(m) > 0 {
		k := min(len(m), piece)
		b = AppendLine(b, m[:k], k == len(m), stream, d.at)
		m = m[k:]
		d.Lines++
	}
	return b
}

// AppendLine appends one json-file line, as Docker writes it; last says that
// the message ends with it.
func AppendLine(b, message []byte, last bool, stream string, at time.Time) []byte {
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

// Made says what was written.
type Made struct {
	Messages []int64 // by file
	Lines    int64   // of the json-files: long messages take several
	Bytes    int64   // of the files
	Text     int64   // bytes of the messages
}

// Total is the number of messages in all files.
func (m *Made) Total() (n int64) {
	for _, one := range m.Messages {
		n += one
	}
	return n
}

// Write makes dir/cNNN-json.log files that hold messages lines in all, with
// timestamps up to a minute ago.
func Write(dir string, files int, messages int64, seed uint64) error {
	each := messages / int64(files)
	_, err := write(dir, files, seed, each, func(d *Docker, _ int64) bool { return d.Messages < each })
	return err
}

// WriteBytes makes dir/cNNN-json.log files of about so many bytes in all, with
// timestamps up to a minute ago.
func WriteBytes(dir string, files int, bytes int64, seed uint64) (Made, error) {
	each := bytes / int64(files)
	const mean = 245 // bytes of a line
	return write(dir, files, seed, each/mean, func(_ *Docker, size int64) bool { return size < each })
}

// write makes files as long as more says so; about is how many messages that
// gives a file.
func write(dir string, files int, seed uint64, about int64, more func(d *Docker, size int64) bool) (Made, error) {
	var m Made
	text := Text(seed, 4<<20)
	began := time.Now().UTC().Add(-time.Minute - time.Duration(about)*200*time.Microsecond)
	for i := range files {
		d := NewDocker(seed, i, text, began)
		size, err := writeFile(filepath.Join(dir, FileName(i)), d, more)
		if err != nil {
			return m, err
		}
		m.Messages = append(m.Messages, d.Messages)
		m.Lines, m.Text, m.Bytes = m.Lines+d.Lines, m.Text+d.Text, m.Bytes+size
	}
	return m, nil
}

// FileName of a file by its number.
func FileName(i int) string { return fmt.Sprintf("c%03d-json.log", i) }

func writeFile(path string, d *Docker, more func(d *Docker, size int64) bool) (size int64, err error) {
	f, err := os.Create(path) //nolint:gosec // the caller's directory
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	var b []byte
	for more(d, size) {
		b = d.Next(b[:0])
		if _, err := w.Write(b); err != nil {
			return size, err
		}
		size += int64(len(b))
	}
	// To the disk now, and not while somebody measures flushes of his own.
	return size, errors.Join(w.Flush(), f.Sync())
}
