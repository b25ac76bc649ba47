package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/theazo/observability/agentd"
)

// redact shows what the rules make of a text: try them before they run.
func (c *cli) redact(context.Context) error {
	var rules bool
	loader, err := c.loader("redact [flags] <FILE", "Copies stdin to stdout with secrets taken out, by the rules of the configuration, and says on stderr which rules matched.",
		func(fs *flag.FlagSet) { fs.BoolVar(&rules, "rules", false, "list the ids of the rules instead") })
	if err != nil {
		return err
	}
	cfg, err := loader.Read()
	if err != nil {
		return err
	}
	if rules {
		ids, err := agentd.RedactionRules(&cfg)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.Out, strings.Join(ids, "\n"))
		return err
	}
	taken, err := agentd.Redact(&cfg, os.Stdin, c.Out)
	for _, rule := range slices.Sorted(maps.Keys(taken)) {
		fmt.Fprintf(c.Err, "%-24s %d\n", rule, taken[rule])
	}
	return err
}
