package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"github.com/theazo/observability/a"}
{"Action":"run","Package":"github.com/theazo/observability/a","Test":"TestGood"}
{"Action":"output","Package":"github.com/theazo/observability/a","Test":"TestGood","Output":"    a_test.go:9: FIGURE speed 7 ms goal <=9 ok\n"}
{"Action":"pass","Package":"github.com/theazo/observability/a","Test":"TestGood","Elapsed":0.1}
{"Action":"run","Package":"github.com/theazo/observability/a","Test":"TestSkip"}
{"Action":"output","Package":"github.com/theazo/observability/a","Test":"TestSkip","Output":"    a_test.go:12: no Docker engine answers\n"}
{"Action":"output","Package":"github.com/theazo/observability/a","Test":"TestSkip","Output":"--- SKIP: TestSkip (0.00s)\n"}
{"Action":"skip","Package":"github.com/theazo/observability/a","Test":"TestSkip","Elapsed":0}
{"Action":"pass","Package":"github.com/theazo/observability/a","Elapsed":0.2}
`

func TestCountsSkipsWithReasonAndFigures(t *testing.T) {
	var out bytes.Buffer
	s := newSummary(&out)
	if err := s.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if s.passed != 1 || s.failed != 0 || len(s.skips) != 1 {
		t.Errorf("passed %d, failed %d, skips %q; want 1, 0 and one", s.passed, s.failed, s.skips)
	}
	record := filepath.Join(t.TempDir(), "record")
	if err := s.append(record, "unit"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	want := "counts unit 1 0 1\nskip a TestSkip: a_test.go:12: no Docker engine answers\nFIGURE speed 7 ms goal <=9 ok\n"
	if string(got) != want {
		t.Errorf("record:\n%s\nwant:\n%s", got, want)
	}
}

func TestFailures(t *testing.T) {
	for name, test := range map[string]struct {
		events, prints string
	}{
		"a failing test prints its output": {
			`{"Action":"run","Package":"p","Test":"T"}
{"Action":"output","Package":"p","Test":"T","Output":"why\n"}
{"Action":"fail","Package":"p","Test":"T"}
{"Action":"fail","Package":"p"}`, "why",
		},
		"a package that dies in the middle of a test": {
			`{"Action":"run","Package":"p","Test":"T"}
{"Action":"output","Package":"p","Test":"T","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"p"}`, "panic: test timed out",
		},
		"a package that fails beside its tests": {
			`{"Action":"output","Package":"p","Output":"leaked goroutine\n"}
{"Action":"fail","Package":"p"}`, "leaked goroutine",
		},
		"a package that does not build": {
			`{"Action":"build-output","ImportPath":"p","Output":"undefined: x\n"}
{"Action":"fail","Package":"p"}`, "undefined: x",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			s := newSummary(&out)
			if err := s.read(strings.NewReader(test.events)); err != nil {
				t.Fatal(err)
			}
			if s.failed != 1 {
				t.Errorf("counted %d failures, want 1", s.failed)
			}
			if !strings.Contains(out.String(), test.prints) {
				t.Errorf("%q is missing in:\n%s", test.prints, out.String())
			}
		})
	}
}
