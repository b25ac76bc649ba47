// Package program is what the mains of both daemons have in common: commands,
// help, signals and exit codes.
//
//	0 done    1 it failed    2 the call was wrong    others: an Exit of the command's own
//
// The first SIGINT or SIGTERM ends the command's context, a second one the
// program.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/telemetry"
)

// Program is a program with commands.
type Program struct {
	Name, Version string
	Usage         string // what `help` prints
	Commands      map[string]func(ctx context.Context, c *Call) error
}

// Call is one call of a command.
type Call struct {
	Args     []string
	Out, Err io.Writer
}

// UsageError is a mistake in the call.
type UsageError struct{ error }

func (e UsageError) Unwrap() error { return e.error }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// Exit is an exit code of a command's own, about which nothing more is said.
type Exit int //nolint:errname // an exit code that travels as an error

func (e Exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// Main runs the program with the process's arguments and ends the process.
func (p *Program) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(p.Run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Run runs one call and returns the exit code.
func (p *Program) Run(ctx context.Context, args []string, out, errOut io.Writer) int {
	err := p.dispatch(ctx, args, out, errOut)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if exit, ok := errors.AsType[Exit](err); ok {
		return int(exit)
	}
	if _, mistake := errors.AsType[UsageError](err); mistake {
		_, _ = fmt.Fprintf(errOut, "%s: %v\nRun '%s help' for the commands.\n", p.Name, err, p.Name)
		return 2
	}
	_, _ = fmt.Fprintf(errOut, "%s: %s\n", p.Name, message(err))
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

func (p *Program) dispatch(ctx context.Context, args []string, out, errOut io.Writer) error {
	if len(args) == 0 {
		_, _ = io.WriteString(errOut, p.Usage)
		return Usagef("no command is given")
	}
	switch args[0] {
	case "version", "-version", "--version":
		_, err := fmt.Fprintln(out, p.Name, p.Version)
		return err
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(out, p.Usage)
		return err
	}
	command, known := p.Commands[args[0]]
	if !known {
		return Usagef("unknown command %q", args[0])
	}
	return command(ctx, &Call{Args: args[1:], Out: out, Err: errOut})
}

// Help prints what a command does, its own flags (own may be nil) and the
// settings of the program, which defaults lists.
func (c *Call) Help(usage, what string, own func(*flag.FlagSet), settings *config.Set, configVariable string) {
	_, _ = fmt.Fprintf(c.Out, "Usage: %s\n%s\n\n", usage, what)
	if own != nil {
		fs := flag.NewFlagSet(usage, flag.ContinueOnError)
		fs.SetOutput(c.Out)
		own(fs)
		fs.PrintDefaults()
	}
	_, _ = fmt.Fprintf(c.Out, "Settings (a YAML file is given by -config or %s):\n", configVariable)
	settings.Help(c.Out)
}

// PrintConfig prints a configuration as it will be used, secrets left out.
func (c *Call) PrintConfig(cfg any) error {
	b, err := config.YAML(cfg)
	if err != nil {
		return err
	}
	_, err = c.Out.Write(b)
	return err
}
