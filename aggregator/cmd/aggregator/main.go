// Command aggregator stores what agentd sends, and serves the API and the
// dashboard. See `aggregator help`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/theazo/observability/aggregator"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/logging"
	"github.com/theazo/observability/shared/telemetry"
)

// version is set by the Makefile.
var version = "dev"

const usage = `aggregator stores what agentd sends, and serves the API and the dashboard.

  aggregator serve           run it; without a DSN it keeps a private PostgreSQL in data_dir
  aggregator migrate         bring the database's schema up to date and stop
  aggregator org create|list            organisations (tenants)
  aggregator key create|list|revoke     API keys
  aggregator node token|list|revoke     hosts with agentd: tokens to enrol, certificates
  aggregator check-config    read the configuration, say what is wrong with it or what it is
  aggregator version

Start here:
  aggregator serve -data_dir /var/lib/aggregator
  aggregator org create -name "My company"                  # prints org_…
  aggregator key create -org org_… -name first              # prints th_live_…, once
  aggregator node token -org org_…                          # prints thj_…, for agentd enroll

Every setting can stand in the file given by -config, in the environment or in a flag;
'aggregator COMMAND -help' lists them.
`

// cli is one call of the program.
type cli struct {
	args        []string
	out, errOut io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	c := cli{args: os.Args[1:], out: os.Stdout, errOut: os.Stderr}
	os.Exit(c.run(ctx)) //nolint:gocritic // nothing is left to clean up: run has returned
}

// usageError is a mistake in the call, which exits with 2.
type usageError struct{ error }

func (c *cli) run(ctx context.Context) int {
	err := c.dispatch(ctx)
	var mistake usageError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &mistake):
		_, _ = fmt.Fprintf(c.errOut, "aggregator: %v\nRun 'aggregator help' for the commands.\n", err)
		return 2
	}
	_, _ = fmt.Fprintf(c.errOut, "aggregator: %s\n", message(err))
	return 1
}

// message is what a person should read of an error: a Failure's own sentence
// rather than its code and cause.
func message(err error) string {
	if f, ok := errors.AsType[*telemetry.Failure](err); ok {
		return f.Message
	}
	return err.Error()
}

func (c *cli) dispatch(ctx context.Context) error {
	if len(c.args) == 0 {
		_, _ = io.WriteString(c.errOut, usage)
		return usageError{errors.New("no command is given")}
	}
	command := c.args[0]
	c.args = c.args[1:]
	switch command {
	case "serve":
		return c.serve(ctx)
	case "migrate":
		return c.migrate(ctx)
	case "org", "key", "node":
		return c.admin(ctx, command)
	case "check-config":
		return c.checkConfig()
	case "version", "-version", "--version":
		_, err := fmt.Fprintln(c.out, "aggregator", version)
		return err
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(c.out, usage)
		return err
	}
	return usageError{fmt.Errorf("unknown command %q", command)}
}

// load parses the flags of a command and reads the configuration. more adds
// flags of the command's own.
func (c *cli) load(name, what string, more func(*flag.FlagSet)) (aggregator.Config, error) {
	cfg := aggregator.Default()
	set := config.New("aggregator", &cfg)
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	set.Flags(fs)
	own := flag.NewFlagSet(name, flag.ContinueOnError)
	if more != nil {
		more(fs)
		more(own)
	}
	if err := fs.Parse(c.args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			_, _ = fmt.Fprintf(c.out, "Usage: aggregator %s [flags]\n%s\n\n", name, what)
			own.SetOutput(c.out)
			own.PrintDefaults()
			_, _ = fmt.Fprint(c.out, "Settings (a YAML file is given by -config or AGGREGATOR_CONFIG):\n")
			defaults := aggregator.Default()
			config.New("aggregator", &defaults).Help(c.out)
			return cfg, err
		}
		return cfg, usageError{err}
	}
	c.args = fs.Args()
	if err := set.Load(&cfg); err != nil {
		return cfg, err
	}
	if err := cfg.Validate(); err != nil {
		return cfg, fmt.Errorf("the configuration is not usable:\n%w", err)
	}
	return cfg, nil
}

func (c *cli) serve(ctx context.Context) error {
	cfg, err := c.load("serve", "Runs the aggregator until SIGINT or SIGTERM; a second one ends it at once.", nil)
	if err != nil {
		return err
	}
	return aggregator.Run(ctx, cfg, version, logging.New("aggregator", cfg.Log, c.errOut))
}

func (c *cli) migrate(ctx context.Context) error {
	cfg, err := c.load("migrate", "Brings the database's schema up to date, beside running aggregators of the previous release.", nil)
	if err != nil {
		return err
	}
	return aggregator.Migrate(ctx, cfg, logging.New("aggregator", cfg.Log, c.errOut))
}

func (c *cli) checkConfig() error {
	cfg, err := c.load("check-config", "Reads the configuration and prints it as it will be used.", nil)
	if err != nil {
		return err
	}
	b, err := config.YAML(&cfg)
	if err != nil {
		return err
	}
	_, err = c.out.Write(b)
	return err
}
