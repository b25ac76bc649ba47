package docker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// reference reads a record with encoding/json: what the scanner must agree with.
func reference(line []byte) (text string, stream telemetry.Stream, at time.Time, ok bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(line, &members) != nil || members == nil {
		return "", 0, at, false
	}
	member := func(name, absent string) string {
		raw, there := members[name]
		if !there {
			return absent
		}
		var s *string
		if json.Unmarshal(raw, &s) != nil || s == nil {
			ok = false
			return ""
		}
		return *s
	}
	ok = true
	text = member("log", "")
	stream, err := telemetry.ParseStream(member("stream", "stdout"))
	if err != nil || stream == telemetry.NoStream {
		ok = false
	}
	at, err = time.Parse(time.RFC3339Nano, member("time", ""))
	return text, stream, at, ok && err == nil
}

func seedRecords() []string {
	return []string{
		`{"log":"hello\n","stream":"stdout","time":"2026-01-02T15:04:05.123456789Z"}`,
		`{"log":"piece","stream":"stderr","time":"2026-01-02T15:04:05Z"}`,
		`{"log":"a\\b\"c\u00e9\ud83d\ude00\ud83d \t\r\n","stream":"stdout","time":"2026-01-02T15:04:05.1+02:00"}`,
		`{"log":"x\n","stream":"stdout","attrs":{"a":"b","c":[1,{"d":null}]},"time":"2026-02-28T23:59:59.999999999Z"}`,
		` { "time" : "2026-01-02T15:04:05.1Z" , "log" : "" , "n" : -1.5e3 } `,
		`{"log":"\u001b[31mred\u001b[0m\u0000\n","stream":"stderr","time":"2024-02-29T00:00:00Z"}`,
		`{"log":"broken","stream":"stdout"}`, `{"log":"\u12"}`, `{"log":"unended`, `{}`, `[]`, ``, `{"log":null}`,
		`{"log":"x","stream":"stdout","time":"2026-13-02T15:04:05Z"}`,
		`{"log":"x\","stream":"stdout","time":"2026-01-02T15:04:05Z"}`,
		"{\"log\":\"raw\ttab\",\"stream\":\"stdout\",\"time\":\"2026-01-02T15:04:05Z\"}",
		`{"log":"x","stream":"stdout","time":"2026-01-02T15:04:05Z"} trailing`,
	}
}

func FuzzScanner(f *testing.F) {
	for _, s := range seedRecords() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 {
			t.Skip("records hold no newline")
		}
		var s scanner
		for range 2 { // with and without what it remembers
			r, ok := s.parse(line)
			text, stream, at, valid := reference(line)
			if !ok {
				if valid && !looseTime(line) {
					t.Fatalf("refused %q", line)
				}
				return
			}
			if !valid {
				t.Fatalf("took %q, which encoding/json refuses", line)
			}
			got := string(r.text)
			if r.whole {
				got += "\n"
			}
			if strings.ToValidUTF8(got, "") != strings.ReplaceAll(text, "\uFFFD", "") && !strings.Contains(got, "\uFFFD") {
				t.Fatalf("text of %q is %q, want %q", line, got, text)
			}
			if r.stream != stream || !r.at.Equal(at) {
				t.Fatalf("%q: %v %v, want %v %v", line, r.stream, r.at, stream, at)
			}
			if r.whole != strings.HasSuffix(text, "\n") {
				t.Fatalf("%q: whole %v", line, r.whole)
			}
		}
	})
}

// looseTime reports whether a record's time is in a form that time.Parse takes
// and no engine writes.
func looseTime(line []byte) bool {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(line, &members)
	var s string
	_ = json.Unmarshal(members["time"], &s)
	at, err := time.Parse(time.RFC3339Nano, s)
	_, offset := at.Zone()
	return err != nil || s != at.Format(time.RFC3339Nano) && (strings.Contains(s, ",") || len(s) != len(at.Format(time.RFC3339Nano)) || offset == 0)
}

func FuzzStamp(f *testing.F) {
	for _, s := range []string{"2026-01-02T15:04:05.123456789Z", "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "2026-01-02T15:04:05.1+02:00", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.9-23:59", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var p stampParser
		for range 2 {
			got, ok := p.parse([]byte(s))
			want, err := time.Parse(time.RFC3339Nano, s)
			if ok && (err != nil || !got.Equal(want)) {
				t.Fatalf("%q: %v, want %v (%v)", s, got, want, err)
			}
			if !ok && err == nil && s == want.UTC().Format(time.RFC3339Nano) && len(want.UTC().Format("2006")) == 4 {
				t.Fatalf("refused %q", s)
			}
		}
	})
}

// A time that is another year's in UTC is no time: positions could not hold it.
func TestTimesThatCannotBeWritten(t *testing.T) {
	for s, want := range map[string]bool{
		"9999-12-31T23:59:59-00:01": false, "9999-12-31T23:59:59+00:01": true,
		"0000-01-01T00:00:00+00:01": false, "0000-01-01T00:00:00-00:01": true,
	} {
		if _, ok := new(stampParser).parse([]byte(s)); ok != want {
			t.Errorf("%s: %v", s, ok)
		}
	}
}

// records makes n records of about the bench workload's lengths.
func records(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var b []byte
	for i := range n {
		at = at.Add(time.Duration(r.IntN(2_000_000)))
		text := fmt.Sprintf("#i001s%09d ", i) + strings.Repeat("request completed status=200 latency_ms=17 ", 1+r.IntN(4))
		if i%12 == 0 {
			text += `user="anna" path="/api/v1/orders"`
		}
		b = appendRecord(b, text+"\n", "stdout", at)
	}
	return b
}

func appendRecord(b []byte, text, stream string, at time.Time) []byte {
	log, _ := json.Marshal(text)
	return fmt.Appendf(b, `{"log":%s,"stream":%q,"time":%q}`+"\n", log, stream, at.Format(time.RFC3339Nano))
}

const benchLines = 10_000

func perLine(b *testing.B, data []byte) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchLines, "ns/line")
	b.SetBytes(int64(len(data)))
}

func BenchmarkScanner(b *testing.B) {
	data := records(benchLines)
	var s scanner
	b.ReportAllocs()
	for b.Loop() {
		s.reset()
		for rest := data; len(rest) > 0; {
			end := bytes.IndexByte(rest, '\n')
			if _, ok := s.parse(rest[:end]); !ok {
				b.Fatal("refused")
			}
			rest = rest[end+1:]
		}
	}
	perLine(b, data)
}

func BenchmarkEncodingJSON(b *testing.B) {
	data := records(benchLines)
	b.ReportAllocs()
	for b.Loop() {
		for rest := data; len(rest) > 0; {
			end := bytes.IndexByte(rest, '\n')
			var r struct {
				Log    string    `json:"log"`
				Stream string    `json:"stream"`
				Time   time.Time `json:"time"`
			}
			if err := json.Unmarshal(rest[:end], &r); err != nil {
				b.Fatal(err)
			}
			rest = rest[end+1:]
		}
	}
	perLine(b, data)
}

// BenchmarkTail is all that reading costs: system calls, records, lines and
// positions, without the sink.
func BenchmarkTail(b *testing.B) {
	data := records(benchLines)
	dir := b.TempDir()
	writeFile(b, dir+"/x-json.log", data)
	b.ReportAllocs()
	var blk block // a reader's tails share it
	for b.Loop() {
		tail := newTail(dir, "x-json.log")
		if _, err := tail.pin(); err != nil {
			b.Fatal(err)
		}
		lines := 0
		for {
			blk.reset()
			more, err := tail.next(&blk, nil)
			if err != nil {
				b.Fatal(err)
			}
			lines += len(blk.out.lines)
			encode(tail.position())
			if !more {
				break
			}
		}
		if lines != benchLines {
			b.Fatalf("%d lines", lines)
		}
		tail.close()
	}
	perLine(b, data)
}
