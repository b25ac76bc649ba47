package logexport_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/theazo/observability/shared/logexport"
	"github.com/theazo/observability/shared/telemetry"
)

func entry(message string) *telemetry.LogEntry {
	return &telemetry.LogEntry{
		ID: "log_1", Timestamp: time.UnixMicro(1_700_000_000_123_456).UTC(), Level: telemetry.Warn, Message: message,
		Origin:   telemetry.Origin{Agent: "agt_a", Session: "ses_a", User: "=cmd()", Provider: telemetry.Docker, Stream: telemetry.Stderr},
		Metadata: json.RawMessage(`{"a":"b,\"c\""}`), Node: "nod_1",
	}
}

func TestNDJSONIsTheEntriesAsTheAPIPrintsThem(t *testing.T) {
	var out bytes.Buffer
	w := logexport.NewWriter(&out, logexport.NDJSON)
	var want []byte
	for _, text := range []string{"one", "two\nlines", "\u2028\x00"} {
		e := entry(text)
		want = append(e.AppendJSON(want), '\n')
		if err := w.Entry(e); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Gap(&telemetry.Gap{Reason: telemetry.GapEvicted, Count: 3})
	_ = w.Fail(telemetry.Failf(telemetry.Unavailable, "The database is away."), "req_1")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	whole := string(want) + `{"gap":{"reason":"evicted","count":3}}` + "\n" + `{"error":{"code":"unavailable","message":"The database is away.","requestId":"req_1"}}` + "\n"
	if diff := cmp.Diff(whole, out.String()); diff != "" || w.Lines() != 3 {
		t.Errorf("%d lines (-want +got):\n%s", w.Lines(), diff)
	}
}

func TestCSVIsReadBackAndHoldsNoFormula(t *testing.T) {
	var out bytes.Buffer
	w := logexport.NewWriter(&out, logexport.CSV)
	texts := []string{"plain", "with, comma", "two\nlines", `a "quote"`, "=1+1", "+1", "-1", "@x", "\tx", "\n=1", ""}
	for _, text := range texts {
		if err := w.Entry(entry(text)); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Gap(&telemetry.Gap{Reason: telemetry.GapRotated, Count: 1, Detail: "a \n b"})
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(&out)
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil || len(rows) != 1+len(texts) {
		t.Fatalf("%v: %d rows", err, len(rows))
	}
	place := map[string]int{}
	for i, name := range rows[0] {
		place[name] = i
	}
	for i, text := range texts {
		row := rows[i+1]
		got := row[place["message"]]
		if got != text && got != "'"+text || strings.ContainsAny(got[:min(1, len(got))], "=+-@\t\n") {
			t.Errorf("%q came as %q", text, got)
		}
		if row[place["userId"]] != "'=cmd()" || row[place["metadata"]] != `{"a":"b,\"c\""}` || row[place["timestamp"]] != "2023-11-14T22:13:20.123Z" || row[place["stream"]] != "stderr" {
			t.Errorf("%q", row)
		}
	}
}

func TestAnEmptyCSVHasItsHeading(t *testing.T) {
	var out bytes.Buffer
	if err := logexport.NewWriter(&out, logexport.CSV).Flush(); err != nil || !strings.HasPrefix(out.String(), "id,timestamp,level") {
		t.Errorf("%v %q", err, out.String())
	}
}

// sizes notes how much is written at a time, and fails after a while.
type sizes struct{ largest, left int }

func (s *sizes) Write(p []byte) (int, error) {
	s.largest = max(s.largest, len(p))
	if s.left -= len(p); s.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestMemoryIsBoundedAndAWritersErrorComesBack(t *testing.T) {
	for _, f := range []logexport.Format{logexport.NDJSON, logexport.CSV} {
		s := &sizes{left: 4 << 20}
		w := logexport.NewWriter(s, f)
		var err error
		for err == nil {
			err = w.Entry(entry(strings.Repeat("x", 1000)))
		}
		if !errors.Is(err, io.ErrClosedPipe) || s.largest > logexport.BufferSize+4<<10 {
			t.Errorf("%v, %d bytes at a time", err, s.largest)
		}
	}
}

func TestFormatsAreNamed(t *testing.T) {
	for name, want := range map[string]logexport.Format{"ndjson": logexport.NDJSON, "csv": logexport.CSV} {
		if f, err := logexport.ParseFormat(name); err != nil || f != want || f.ContentType() == "" {
			t.Errorf("%s: %v %v", name, f, err)
		}
	}
	if _, err := logexport.ParseFormat("xlsx"); err == nil {
		t.Error("xlsx is taken")
	}
}
