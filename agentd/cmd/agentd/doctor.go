package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/agentd"
	"github.com/theazo/observability/shared/health"
	"github.com/theazo/observability/shared/program"
)

const doctorHelp = `Looks at everything between this host's containers and the aggregator: the configuration, the state
directory and its disk, the certificate, the way to each aggregator, clock, limits, and the Docker
engine with each container's log driver and rotation. Says what is wrong, what would be lost because
of it, and how to mend it.

  ok    as it should be
  note  worth knowing, nothing is at risk
  warn  something can be lost, or will fail later
  fail  it does not work, or loses something now: the exit code is 1

It may run beside a running agentd, which it asks how it is. Run it as agentd's own user, so that it has
the same rights: runuser -u agentd -- agentd doctor -config /etc/agentd/agentd.yaml`

// doctor says what is wrong on this host.
func (c *cli) doctor(ctx context.Context) error {
	output := "table"
	loader, err := c.loader("doctor [flags]", doctorHelp, func(fs *flag.FlagSet) {
		fs.StringVar(&output, "o", "table", "`form` of the output: table for people, json for programs")
	})
	if err != nil {
		return err
	}
	if len(c.Args) > 0 {
		return program.Usagef("doctor takes no arguments, found %q", c.Args[0])
	}
	if output != "table" && output != "json" {
		return program.Usagef("-o: %q is neither table nor json", output)
	}
	findings, err := loader.Doctor(ctx)
	if err != nil {
		return err
	}
	if output == "json" {
		e := json.NewEncoder(c.Out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		err = e.Encode(struct {
			Version  string           `json:"version"`
			Findings []health.Finding `json:"findings"`
		}{version, findings})
	} else {
		width, terminal := terminalWidth(c.Out)
		_, err = io.WriteString(c.Out, agentd.Table(findings, width, terminal && os.Getenv("NO_COLOR") == ""))
	}
	if err == nil && agentd.Failed(findings) {
		err = program.Exit(1)
	}
	return err
}

// terminalWidth returns the width of the terminal that is written to, or a
// good one for a file.
func terminalWidth(w io.Writer) (width int, terminal bool) {
	const without, most = 110, 140
	f, ok := w.(*os.File)
	if !ok {
		return without, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return without, false
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil {
		return min(n, most), true
	}
	return min(int(size.Col), most), size.Col > 0
}
