// Command testsummary reads `go test -json` on standard input and prints what a
// person wants of it: one line per package, the whole output of whatever failed,
// every skip with its reason, and figures that tests report. It ends with
//
//	N passed, N failed, N skipped
//
// and exits 1 when something failed, a package that did not build or that died
// without a failing test included. With -record it also appends its counts and
// skips to a file, from which tools/test makes the closing summary of all stages.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// maxKept bounds the lines kept of one test: a failing test that printed a
// million lines is read by its end.
const maxKept = 400

// event is one line of test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

// key names a test; an empty test is the package itself.
type key struct{ pkg, test string }

// summary is what has been read so far.
type summary struct {
	out     io.Writer
	passed  int
	failed  int
	skips   []string
	figures []string
	output  map[key][]string
	running map[key]bool
	broken  map[string]bool // Packages with a failing test, printed already.
	perPkg  map[string]*counts
}

type counts struct{ passed, failed, skipped int }

func main() {
	stage := flag.String("stage", "go", "name of the stage in the record")
	record := flag.String("record", "", "file to append counts, skips and figures to")
	flag.Parse()

	s := newSummary(os.Stdout)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintf(os.Stderr, "testsummary: read the events of go test: %v\n", err)
		os.Exit(2)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skips))
	if *record != "" {
		if err := s.append(*record, *stage); err != nil {
			fmt.Fprintf(os.Stderr, "testsummary: record the counts: %v\n", err)
			os.Exit(2)
		}
	}
	if s.failed > 0 {
		os.Exit(1)
	}
}

func newSummary(out io.Writer) *summary {
	return &summary{
		out:     out,
		output:  map[key][]string{},
		running: map[key]bool{},
		broken:  map[string]bool{},
		perPkg:  map[string]*counts{},
	}
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			s.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// line takes one line of input; what is not an event (go vet, a panic of the go
// command) is passed on as it is.
func (s *summary) line(line string) {
	var e event
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
		fmt.Fprint(s.out, line)
		return
	}
	k := key{e.Package, e.Test}
	switch e.Action {
	case "run":
		s.running[k] = true
	case "output":
		s.keep(k, e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
		} else {
			s.endTest(k, e.Action)
		}
	}
}

func (s *summary) keep(k key, text string) {
	if at := strings.Index(text, "FIGURE "); at >= 0 {
		s.figures = append(s.figures, strings.TrimSpace(text[at:]))
	}
	kept := append(s.output[k], text)
	if len(kept) > 2*maxKept {
		kept = slices.Clone(kept[maxKept:])
	}
	s.output[k] = kept
}

func (s *summary) pkg(name string) *counts {
	c := s.perPkg[name]
	if c == nil {
		c = &counts{}
		s.perPkg[name] = c
	}
	return c
}

func (s *summary) endTest(k key, action string) {
	delete(s.running, k)
	c := s.pkg(k.pkg)
	switch action {
	case "pass":
		s.passed++
		c.passed++
	case "skip":
		c.skipped++
		s.skips = append(s.skips, short(k.pkg)+" "+k.test+": "+reason(s.output[k]))
	case "fail":
		s.failed++
		c.failed++
		s.broken[k.pkg] = true
		s.print(k)
	}
	delete(s.output, k)
}

// endPackage closes a package. A package can fail with no failing test: it did
// not build, TestMain refused, it panicked or ran out of time.
func (s *summary) endPackage(e event) {
	c := s.pkg(e.Package)
	for k := range s.running {
		if k.pkg != e.Package {
			continue
		}
		delete(s.running, k)
		if e.Action == "fail" {
			s.failed++
			c.failed++
			s.broken[e.Package] = true
			s.print(k)
		}
	}
	k := key{e.Package, ""}
	if e.Action == "fail" && !s.broken[e.Package] {
		s.failed++
		c.failed++
		s.print(k)
	}
	delete(s.output, k)
	if e.Action == "skip" && *c == (counts{}) {
		return // No test files.
	}
	word := "ok  "
	if e.Action == "fail" {
		word = "FAIL"
	}
	fmt.Fprintf(s.out, "%s %-34s %6.1f s  %d passed", word, short(e.Package), e.Elapsed, c.passed)
	if c.failed > 0 {
		fmt.Fprintf(s.out, ", %d failed", c.failed)
	}
	if c.skipped > 0 {
		fmt.Fprintf(s.out, ", %d skipped", c.skipped)
	}
	fmt.Fprintln(s.out)
}

func (s *summary) print(k key) {
	name := k.test
	if name == "" {
		name = "(package)"
	}
	fmt.Fprintf(s.out, "---- FAIL %s %s\n", short(k.pkg), name)
	kept := s.output[k]
	if len(kept) > maxKept {
		fmt.Fprintf(s.out, "(the last %d lines)\n", maxKept)
		kept = kept[len(kept)-maxKept:]
	}
	fmt.Fprint(s.out, strings.Join(kept, ""))
	fmt.Fprintln(s.out, "----")
}

func (s *summary) append(path, stage string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	fmt.Fprintf(f, "counts %s %d %d %d\n", stage, s.passed, s.failed, len(s.skips))
	for _, skip := range s.skips {
		fmt.Fprintf(f, "skip %s\n", skip)
	}
	for _, figure := range s.figures {
		fmt.Fprintf(f, "%s\n", figure)
	}
	return f.Close()
}

// reason finds what the test said when it skipped: its last line that is not
// test2json's own framing.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		text := strings.TrimSpace(line)
		if text != "" && !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- ") {
			return text
		}
	}
	return "no reason given"
}

// short cuts the module's path off a package's.
func short(pkg string) string {
	return strings.TrimPrefix(pkg, "github.com/theazo/observability/")
}
