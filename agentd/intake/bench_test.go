package intake

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

var benchLines = map[string]string{
	"plain":  "2026-11-22 07:00:00,123 worker-3 fetched https://api.example.com/v1/items?page=12 in 184 ms, 25 items, retry 0, cache miss, region eu-west-1",
	"prose":  "the agent has finished reading the file and will now write the answer for the user",
	"python": "2026-11-22 07:00:00,123 - app.module - WARNING - slow answer of 1,204 ms from the model, going on with the next step of the plan",
	"logfmt": `time=2026-11-22T07:00:00Z level=info msg="step done" step=12 tokens=1834 cost=0.0031 model=small`,
	"json":   `{"level":"info","time":1763794800,"msg":"step done","step":12,"tokens":1834,"trace_id":"0af7651916cd43dd8448eb211c80319c","model":"small"}`,
	"ansi":   "\x1b[2m2026-11-22T07:00:00.123456Z\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2mapp::worker\x1b[0m\x1b[2m:\x1b[0m fetched items page=12 took=184ms items=25",
}

// BenchmarkLine finds out what a line says.
func BenchmarkLine(b *testing.B) {
	for name, text := range benchLines {
		b.Run(name, func(b *testing.B) {
			var p parser
			var done marks
			e := telemetry.LogEntry{Origin: target.Origin}
			l := line(text)
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				p.line(&l, &e, &done)
			}
		})
	}
}

// mixed makes a batch of lines as agents write them: 171 bytes on average, most
// of them plain.
func mixed(lines int, structured bool) *source.Batch {
	b := &source.Batch{Target: target}
	pad := "and so the work goes on with item "
	for i := range lines {
		var text string
		switch k := i % 20; {
		case structured && k < 5:
			text = fmt.Sprintf(`{"level":"info","time":1763794800%03d,"msg":"step %d done, the next one begins","step":%d,"tokens":%d,"trace_id":"0af7651916cd43dd8448eb211c%06d","model":"small","route":"/v1/items"}`, i%1000, i, i, i*7%5000, i/50)
		case structured && k < 8:
			text = fmt.Sprintf(`time=2026-11-22T07:00:00.%03dZ level=info msg="step %d done, the next one begins" step=%d tokens=%d cost=0.0031 model=small route=/v1/items request=req-%d`, i%1000, i, i, i*7%5000, i)
		case k == 8:
			text = "  indented output of a tool: " + strings.Repeat(pad, 4) + strconv.Itoa(i)
		case k == 9:
			text = fmt.Sprintf("2026-11-22 07:00:00,%03d - app.module - WARNING - slow answer of %d ms from the model, going on with the next step of the plan; %s%d", i%1000, i%3000, pad, i)
		case k < 13:
			text = fmt.Sprintf("the agent has finished reading file-%d.txt and will now write the answer for the user, %s%d, %s%d", i, pad, i, pad, i*3)
		default:
			text = fmt.Sprintf("2026-11-22 07:00:00,%03d worker-%d fetched https://api.example.com/v1/items?page=%d in %d ms, 25 items, retry 0, cache miss, region eu-west-1, %s%d", i%1000, i%8, i, i*31%900, pad, i)
		}
		l := line(text)
		l.Timestamp = noon.Add(time.Duration(i) * time.Millisecond)
		b.Lines = append(b.Lines, l)
	}
	return b
}

// scanned is what a redactor without a hit costs at least: a pass over the text.
type scanned struct{}

func (scanned) Redact(_, text []byte, hit func(string)) []byte {
	if bytes.Contains(text, []byte("\x01never\x01")) {
		hit("never")
	}
	return text
}

// BenchmarkIntake is the whole way of a batch of 1,000 lines but for the disk:
// joined, parsed, redacted, copied into columns, and encoded (zstd) as frames.
// cpu-ns/line is this process's CPU, whatever else the machine does.
func BenchmarkIntake(b *testing.B) {
	const lines = 1000
	for _, c := range []struct {
		name       string
		cfg        Config
		structured bool
	}{
		{"plain/off", Config{NoStructure: true, NoMultiline: true, KeepANSI: true}, false},
		{"plain/on", Config{}, false},
		{"structured/off", Config{NoStructure: true, NoMultiline: true, KeepANSI: true}, true},
		{"structured/on", Config{}, true},
		{"structured/redacted", Config{Redactor: scanned{}}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			in := New(c.cfg, nil, hclog.NewNullLogger(), nil)
			batch := mixed(lines, c.structured)
			size := 0
			for i := range batch.Lines {
				size += len(batch.Lines[i].Text)
			}
			b.ReportAllocs()
			b.SetBytes(int64(size))
			before := cpu(b)
			for b.Loop() {
				in.joins.reset()
				if !c.cfg.NoMultiline {
					in.joins.feed(batch.Lines)
				}
				in.take(in.logs.collecting, telemetry.Scope{}, batch, in.joins.joins)
				in.encode(in.logs.collecting)
				in.logs.collecting.reset()
			}
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N)/lines, "cpu-ns/line")
			b.ReportMetric(float64(size)/lines, "B/message")
		})
	}
}

// cpu is the processor time of this process.
func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
