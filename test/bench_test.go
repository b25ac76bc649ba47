package test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The benchmark of the store in its smallest form: not how fast, but that every
// answer over chunks and hot rows is the naive filter's.
func TestEveryAnswerOfBenchStoreIsRight(t *testing.T) {
	program := filepath.Join(t.TempDir(), "benchstore")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "./cmd/benchstore").CombinedOutput(); err != nil { //nolint:gosec // fixed arguments
		t.Fatalf("go build: %v: %s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), program, "-bin", bin, "-lines", "30000", "-runs", "1", "-orgs", "20", "-seconds", "2", "-env", "AGGREGATOR_COMPACTION_MAX_AGE=1s") //nolint:gosec // fixed arguments
	out, err := cmd.CombinedOutput()
	// Figures of such a small run say nothing: they are not for the summary.
	t.Log(strings.ReplaceAll(string(out), "FIGURE ", ""))
	if err != nil {
		t.Fatal(err)
	}
}
