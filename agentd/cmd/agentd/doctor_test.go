package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/theazo/observability/shared/health"
)

func TestTheDoctorsCall(t *testing.T) {
	dir := t.TempDir()
	call := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := agentdProgram().Run(t.Context(), append([]string{"doctor"}, args...), &out, io.Discard)
		return code, out.String()
	}
	sick := []string{"-state_dir", dir, "-docker.enabled=false", "-aggregator.addresses", "127.0.0.1:1"}
	code, text := call(sick...)
	if code != 1 || !strings.Contains(text, "fail  aggregator") || strings.Contains(text, "\x1b") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
	code, text = call(append(sick, "-o", "json")...)
	var answer struct {
		Version  string
		Findings []health.Finding
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || code != 1 || len(answer.Findings) < 10 || answer.Version != version {
		t.Errorf("exit code %d, %v:\n%s", code, err, text)
	}
	for _, args := range [][]string{{"-o", "xml"}, {"extra"}, {"-nonsense"}} {
		if code, _ := call(args...); code != 2 {
			t.Errorf("doctor %q ends with %d, not 2", args, code)
		}
	}
	if code, text := call("-help"); code != 0 || !strings.Contains(text, "runuser -u agentd") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
}
