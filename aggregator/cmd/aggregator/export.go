package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/aggregator"
	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/shared/logexport"
	"github.com/theazo/observability/shared/logquery"
	"github.com/theazo/observability/shared/program"
	"github.com/theazo/observability/shared/telemetry"
)

const exportHelp = `Writes all log lines of an organisation that match, straight from the database:
beside a running aggregator, or without one. What is known to be missing is told
behind the lines: {"gap":{…}} in NDJSON, "# gap: …" in CSV.

  aggregator export -org org_… -since -24h > day.ndjson
  aggregator export -org org_… -q 'level:>=warn agent:agt_1 "timed out"' -o warnings.ndjson
  aggregator export -org org_… -since 2026-09-01 -until 2026-10-01 -format csv -o september.csv

A file given by -o is there when the export is whole, and not before. docs/queries.md
has the grammar of -q. Times are RFC 3339, a date, "now", or ago: -15m, -24h, -7d.`

type exportOptions struct {
	org, env, query, since, until, format, order, file string
}

func (o *exportOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.org, "org", "", "organisation whose lines are written, org_…")
	fs.StringVar(&o.env, "env", "live", "environment: live or test")
	fs.StringVar(&o.query, "q", "", "what to write, in the grammar of queries (default: everything)")
	fs.StringVar(&o.since, "since", "", "first time that is written (default: no bound)")
	fs.StringVar(&o.until, "until", "", "first time that is not written (default: no bound; with -order asc: now)")
	fs.StringVar(&o.order, "order", "asc", "asc: the oldest first; desc: the newest first")
	fs.StringVar(&o.format, "format", "ndjson", "ndjson or csv")
	fs.StringVar(&o.file, "o", "", "`file` to write to (default: standard output)")
}

// parse makes the export that the flags ask for.
func (o *exportOptions) parse(now time.Time) (*aggregator.Export, error) {
	if o.org == "" {
		return nil, program.Usagef("export: give -org; 'aggregator org list' shows them")
	}
	x := &aggregator.Export{Scope: telemetry.Scope{Org: telemetry.OrgID(o.org)}}
	var err error
	if x.Scope.Env, err = telemetry.ParseEnvironment(o.env); err != nil {
		return nil, program.Usagef("export: -env: %w", err)
	}
	if x.Format, err = logexport.ParseFormat(o.format); err != nil {
		return nil, program.Usagef("export: -format: %w", err)
	}
	if x.Query.Order, err = telemetry.ParseOrder(o.order); err != nil {
		return nil, program.Usagef("export: -order: %w", err)
	}
	if err := logquery.Parse(o.query, &x.Query.LogFilter); err != nil {
		return nil, program.Usagef("export: -q: %w", err)
	}
	for _, e := range x.Query.Envs {
		if e != x.Scope.Env {
			return nil, program.Usagef("export: -q asks for environment %s: give it by -env", e)
		}
	}
	x.Query.Envs = nil
	for _, t := range []struct {
		name, text string
		to         *time.Time
	}{{"since", o.since, &x.Query.Since}, {"until", o.until, &x.Query.Until}} {
		if t.text == "" {
			continue
		}
		if *t.to, err = api.ParseTime(t.text, now); err != nil {
			return nil, program.Usagef("export: -%s: %q %w", t.name, t.text, err)
		}
	}
	if x.Query.Until.IsZero() && x.Query.Order == telemetry.OldestFirst {
		x.Query.Until = now.UTC().Truncate(time.Microsecond) // it would never catch up with what is being written
	}
	if x.Query.Since.After(x.Query.Until) && !x.Query.Until.IsZero() {
		return nil, program.Usagef("export: -since lies after -until")
	}
	return x, nil
}

func (c *cli) export(ctx context.Context) (err error) {
	var o exportOptions
	cfg, err := c.load("export", exportHelp, o.flags)
	if err != nil {
		return err
	}
	if len(c.Args) > 0 {
		return program.Usagef("export: %q is left over: a query is given by -q", c.Args[0])
	}
	began := time.Now()
	x, err := o.parse(began)
	if err != nil {
		return err
	}
	last := aggregator.ExportProgress{}
	x.Progress = func(p aggregator.ExportProgress) {
		last = p
		at := ""
		if !p.At.IsZero() {
			at = ", at " + p.At.UTC().Format(time.RFC3339)
		}
		_, _ = fmt.Fprintf(c.Err, "%d lines, %.1f MiB%s\n", p.Lines, float64(p.Bytes)/(1<<20), at)
	}
	write := func(w io.Writer) error {
		buffered := bufio.NewWriterSize(w, 1<<20)
		return errors.Join(x.Run(ctx, cfg, buffered, hclog.NewNullLogger()), buffered.Flush())
	}
	if o.file == "" {
		err = write(c.Out)
	} else {
		err = wholeFile(o.file, write)
	}
	if err != nil {
		return fmt.Errorf("the export is not whole: %w", err)
	}
	_, _ = fmt.Fprintf(c.Err, "done: %d lines and %d gaps in %s\n", last.Lines, last.Gaps, time.Since(began).Round(time.Millisecond))
	return nil
}

// wholeFile writes a file that is there under its name only when all of it is.
func wholeFile(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // a part of an export is worth nothing
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
