// Command agentd collects what AI agents do on one host and sends it to the
// aggregator. See `agentd help`.
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

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/logging"
)

// version is set by the Makefile.
var version = "dev"

const usage = `agentd collects what AI agents do on this host and sends it to the aggregator.

  agentd run                 collect until stopped: container logs and events, kept on disk until acknowledged
  agentd exec -- CMD ARG…    run one process, collect its output, end with its exit code
  agentd enroll              trade a join token for this node's certificate, then stop
  agentd status              how the agentd that runs here is doing (-json, -metrics)
  agentd check-config        read the configuration, say what is wrong with it or what it is
  agentd version

Start here (the aggregator prints the addresses; 'aggregator node token -org org_…' makes the token):
  agentd run -aggregator.addresses HOST:7444 -aggregator.enrolment HOST:7443 -aggregator.join_token thj_…

Containers say whom their output belongs to by labels, all optional:
  theazo.agent_id  theazo.session_id  theazo.user_id  theazo.environment (live, test)
  theazo.org_id (only the platform's own nodes may use it)

Every setting can stand in the file given by -config, in the environment or in a flag;
'agentd COMMAND -help' lists them.
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

// exitError carries a child's exit code.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func (c *cli) run(ctx context.Context) int {
	err := c.dispatch(ctx)
	var mistake usageError
	var exit exitError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &mistake):
		_, _ = fmt.Fprintf(c.errOut, "agentd: %v\nRun 'agentd help' for the commands.\n", err)
		return 2
	}
	_, _ = fmt.Fprintf(c.errOut, "agentd: %v\n", err)
	return 1
}

func (c *cli) dispatch(ctx context.Context) error {
	if len(c.args) == 0 {
		_, _ = io.WriteString(c.errOut, usage)
		return usageError{errors.New("no command is given")}
	}
	command := c.args[0]
	c.args = c.args[1:]
	switch command {
	case "run":
		return c.collect(ctx)
	case "exec":
		return c.exec(ctx)
	case "enroll":
		return c.enroll(ctx)
	case "status":
		return c.status(ctx)
	case "check-config":
		return c.checkConfig()
	case "version", "-version", "--version":
		_, err := fmt.Fprintln(c.out, "agentd", version)
		return err
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(c.out, usage)
		return err
	}
	return usageError{fmt.Errorf("unknown command %q", command)}
}

// load parses the flags of a command and reads the configuration.
func (c *cli) load(name, what string) (agentd.Config, error) {
	loader, err := c.loader(name, what, nil)
	if err != nil {
		return agentd.Config{}, err
	}
	return loader.Load()
}

func (c *cli) loader(name, what string, more func(*flag.FlagSet)) (*agentd.Loader, error) {
	own := flag.NewFlagSet(name, flag.ContinueOnError)
	own.SetOutput(c.out)
	if more != nil {
		more(own)
	}
	loader, rest, err := agentd.NewLoader(name, c.args, more)
	if errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintf(c.out, "Usage: agentd %s\n%s\n\n", name, what)
		own.PrintDefaults()
		_, _ = fmt.Fprint(c.out, "Settings (a YAML file is given by -config or AGENTD_CONFIG):\n")
		defaults := agentd.Default()
		config.New("agentd", &defaults).Help(c.out)
	}
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			err = usageError{err}
		}
		return nil, err
	}
	c.args = rest
	return loader, nil
}

func (c *cli) collect(ctx context.Context) error {
	loader, err := c.loader("run [flags]", "Collects until SIGINT or SIGTERM; a second one ends it at once. A changed file is applied without a restart.", nil)
	if err != nil {
		return err
	}
	if len(c.args) > 0 {
		return usageError{fmt.Errorf("run takes no arguments, found %q (for a process: agentd exec -- %s)", c.args[0], c.args[0])}
	}
	cfg, err := loader.Load()
	if err != nil {
		return err
	}
	log := logging.New("agentd", cfg.Log, c.errOut)
	return agentd.Run(ctx, agentd.Options{Config: cfg, Version: version, Log: log, Reload: loader.Watch(ctx, log.Named("config"))})
}

func (c *cli) exec(ctx context.Context) error {
	// Whoever reads our output may leave; that must not end us before what the
	// child wrote is on disk. (Notify, not Ignore: a child would inherit that.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	loader, err := c.loader("exec [flags] -- CMD ARG…", "Runs CMD, passes its output and signals on, collects the output, ends with its exit code.\nTHEAZO_AGENT_ID, THEAZO_SESSION_ID, THEAZO_USER_ID, THEAZO_ORG_ID and THEAZO_ENVIRONMENT say whom it belongs to.", nil)
	if err != nil {
		return err
	}
	if len(c.args) == 0 {
		return usageError{errors.New("exec: give the command after --")}
	}
	cfg, err := loader.Load()
	if err != nil {
		return err
	}
	log := logging.New("agentd", cfg.Log, c.errOut)
	child := agentd.NewCommand(c.args, log.Named("exec"))
	err = agentd.Run(ctx, agentd.Options{Config: cfg, Version: version, Log: log, Command: child})
	if code := child.ExitCode(); code != 0 {
		if err != nil {
			log.Error("exec", "error", err)
		}
		return exitError(code)
	}
	return err
}

func (c *cli) enroll(ctx context.Context) error {
	cfg, err := c.load("enroll [flags]", "Trades the join token for this node's certificate. The key is made here and never leaves.")
	if err != nil {
		return err
	}
	id, err := agentd.Enroll(ctx, cfg, version, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	kind := "its organisation is set by the certificate"
	if id.Platform {
		kind = "a platform node: labels name the organisation"
	}
	_, err = fmt.Fprintf(c.out, "enrolled as %s (%s)\n", id.Node, kind)
	return err
}

func (c *cli) checkConfig() error {
	cfg, err := c.load("check-config [flags]", "Reads the configuration and prints it as it will be used.")
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
