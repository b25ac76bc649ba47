package proc_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/test/proc"
)

func TestAProcessShowsItsEndAndItsCost(t *testing.T) {
	p, err := proc.Start(proc.Options{Name: "sh", Dir: t.TempDir(), Argv: []string{"sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo working; exec sleep 600"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if err := p.Await(t.Context(), time.Minute, func() error {
		if b, _ := os.ReadFile(p.Log); strings.Contains(string(b), "working") {
			return nil
		}
		return errors.New("silent")
	}); err != nil {
		t.Fatal(err)
	}
	c, err := proc.CostOf(p.PID())
	if err != nil || c.CPU <= 0 || c.PeakRSS <= 0 {
		t.Fatalf("%+v %v", c, err)
	}
}

func TestAFailureShowsTheLog(t *testing.T) {
	p, err := proc.Start(proc.Options{Name: "sh", Dir: t.TempDir(), Argv: []string{"sh", "-c", "echo the reason; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Await(t.Context(), time.Minute, func() error { return errors.New("never") })
	if err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Fatal(err)
	}
	if err := p.Stop(time.Second); err == nil {
		t.Fatal("exit code 3 was taken for success")
	}
}
