package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"

	"github.com/theazo/observability/agentd"
)

// status shows how the agentd that runs on this state directory is doing.
func (c *cli) status(ctx context.Context) error {
	var asJSON, metrics bool
	loader, err := c.loader("status [flags]", "Asks the running agentd over its unix socket.", func(fs *flag.FlagSet) {
		fs.BoolVar(&asJSON, "json", false, "print JSON")
		fs.BoolVar(&metrics, "metrics", false, "print metrics in Prometheus' text format")
	})
	if err != nil {
		return err
	}
	stateDir, err := loader.StateDir()
	if err != nil {
		return err
	}
	page := "status"
	if metrics {
		page = "metrics"
	}
	b, err := agentd.FetchStatus(ctx, stateDir, page)
	if err != nil {
		return err
	}
	if asJSON || metrics {
		_, err = c.Out.Write(b)
		return err
	}
	var s agentd.Status
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("answer of agentd: %w", err)
	}
	_, err = fmt.Fprint(c.Out, s.Text())
	return err
}
