// Command aggregator stores what agentd sends, and serves the API and the
// dashboard. See `aggregator help`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/aggregator"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/logging"
	"github.com/theazo/observability/shared/program"
)

// version is set by the Makefile.
var version = "dev"

const usage = `aggregator stores what agentd sends, and serves the API and the dashboard.

  aggregator serve           run it; without a DSN it keeps a private PostgreSQL in data_dir
  aggregator migrate         bring the database's schema up to date and stop
  aggregator org create|list            organisations (tenants)
  aggregator org retention|quota        how long an organisation's lines are kept, and how much it may send
  aggregator key create|list|revoke     API keys
  aggregator node token|list|revoke     hosts with agentd: tokens to enrol, certificates
  aggregator export          write log lines to a file or standard output, as NDJSON or CSV
  aggregator erase           erase one user's, session's or agent's records for ever
  aggregator audit verify|list          who did what, and whether that log is as it was written
  aggregator restored        after restoring the database from a backup: begin a new history of streams
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

func main() { aggregatorProgram().Main() }

func aggregatorProgram() *program.Program {
	commands := map[string]func(*cli, context.Context) error{
		"serve": (*cli).serve, "migrate": (*cli).migrate, "check-config": (*cli).checkConfig,
		"org": (*cli).org, "key": (*cli).key, "node": (*cli).node, "export": (*cli).export, "erase": (*cli).erase, "audit": (*cli).audit,
		"restored": (*cli).restored,
	}
	p := &program.Program{Name: "aggregator", Version: version, Usage: usage, Commands: map[string]func(context.Context, *program.Call) error{}}
	for name, run := range commands {
		p.Commands[name] = func(ctx context.Context, c *program.Call) error { return run(&cli{c}, ctx) }
	}
	return p
}

// cli is one call of a command.
type cli struct{ *program.Call }

func (c *cli) org(ctx context.Context) error  { return c.admin(ctx, "org") }
func (c *cli) key(ctx context.Context) error  { return c.admin(ctx, "key") }
func (c *cli) node(ctx context.Context) error { return c.admin(ctx, "node") }

// load parses the flags of a command and reads the configuration. more adds
// flags of the command's own.
func (c *cli) load(name, what string, more func(*flag.FlagSet)) (aggregator.Config, error) {
	cfg := aggregator.Default()
	set := config.New("aggregator", &cfg)
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	set.Flags(fs)
	if more != nil {
		more(fs)
	}
	if err := fs.Parse(c.Args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			defaults := aggregator.Default()
			c.Help("aggregator "+name+" [flags]", what, more, config.New("aggregator", &defaults), "AGGREGATOR_CONFIG")
			return cfg, err
		}
		return cfg, program.Usagef("%w", err)
	}
	c.Args = fs.Args()
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
	return aggregator.Run(ctx, cfg, version, logging.New("aggregator", cfg.Log, c.Err))
}

func (c *cli) migrate(ctx context.Context) error {
	cfg, err := c.load("migrate", "Brings the database's schema up to date, beside running aggregators of the previous release.", nil)
	if err != nil {
		return err
	}
	return aggregator.Migrate(ctx, cfg, logging.New("aggregator", cfg.Log, c.Err))
}

func (c *cli) restored(ctx context.Context) (err error) {
	cfg, err := c.load("restored", "Run once after restoring the database from a backup, before serving it: clients with a cursor of the old history are then told, instead of skipping lines unseen.", nil)
	if err != nil {
		return err
	}
	a, err := aggregator.OpenAdmin(ctx, cfg, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	epoch, err := a.Restored(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.Out, "streams have a new history, %d: older cursors will be told that the database was restored\n", epoch)
	return err
}

func (c *cli) checkConfig(context.Context) error {
	cfg, err := c.load("check-config", "Reads the configuration and prints it as it will be used.", nil)
	if err != nil {
		return err
	}
	return c.PrintConfig(&cfg)
}
