package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const ours = "github.com/theazo/observability/"

// It is put into other people's images, scratch ones included.
func TestItIsSmallAndNeedsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agentd-exec")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	verdict := "ok"
	if info.Size() >= 3<<20 {
		verdict = "short"
		t.Errorf("it has %d bytes", info.Size())
	}
	t.Logf("FIGURE agentd_exec_size %.2f MiB goal <3 %s", float64(info.Size())/(1<<20), verdict)
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if f.Section(".interp") != nil || f.Section(".dynamic") != nil {
		t.Error("it is not static")
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", ".")
	list.Env = build.Env
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		first, _, _ := strings.Cut(strings.TrimPrefix(dep, "vendor/"), "/")
		standard := !strings.Contains(first, ".") || strings.HasPrefix(dep, "vendor/")
		if !standard && !strings.HasPrefix(dep, ours) || dep == "net/http" {
			t.Errorf("it needs %s", dep)
		}
	}
}
