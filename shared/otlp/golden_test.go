package otlp

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/theazo/observability/shared/telemetry"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The requests in testdata are EMITTER.SIGNAL.pb or .json. Recorded from the
// emitter itself are go-sdk (test/emitters), vercel-ai-6 and all -js; the others
// have the attributes that their emitters' documentation shows. What is content
// in them says CANARY or secret.
func TestRequestsOfEmitters(t *testing.T) {
	requests, err := filepath.Glob("testdata/*.*.*")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, path := range requests {
		name := strings.Split(filepath.Base(path), ".")
		format, ok := map[string]Format{"json": JSON, "pb": Protobuf}[name[2]]
		if !ok {
			continue
		}
		count++
		t.Run(filepath.Base(path), func(t *testing.T) {
			signal := map[string]Signal{"logs": Logs, "traces": Traces, "metrics": Metrics}[name[1]]
			body, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Decode(signal, format, body, options())
			if err != nil {
				t.Fatal(err)
			}
			check(t, r)
			got := golden(t, r)
			if bytes.Contains(got, []byte("CANARY")) || bytes.Contains(got, []byte("secret")) {
				t.Errorf("content was kept:\n%s", got)
			}
			compareFile(t, strings.TrimSuffix(path, filepath.Ext(path))+".golden", got)
			o := options()
			o.Content = true
			if r, err := Decode(signal, format, body, o); err != nil || r.Dropped[Content] != 0 {
				t.Errorf("with content: %v, %v", r, err)
			}
		})
	}
	if count < 17 {
		t.Errorf("only %d requests", count)
	}
}

func golden(t *testing.T, r *Result) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(struct {
		Entries []telemetry.LogEntry    `json:"entries,omitempty"`
		Spans   []telemetry.Span        `json:"spans,omitempty"`
		Metrics []telemetry.MetricPoint `json:"metrics,omitempty"`
		Refused map[Reason]int          `json:"refused,omitempty"`
		Dropped map[Reason]int          `json:"dropped,omitempty"`
	}{r.Entries, r.Spans, r.Metrics, r.Refused, r.Dropped}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compareFile(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}
