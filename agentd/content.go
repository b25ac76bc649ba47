package agentd

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/guest"
	"github.com/theazo/observability/agentd/intake"
	"github.com/theazo/observability/agentd/redact"
)

// intakeConfig is what the settings below intake say.
func (c *Config) intakeConfig() (intake.Config, error) {
	raw, err := intake.ParseKeepRaw(c.Intake.Raw)
	if err != nil {
		return intake.Config{}, fmt.Errorf("raw: %w", err)
	}
	if c.Intake.ANSI != "strip" && c.Intake.ANSI != "keep" {
		return intake.Config{}, fmt.Errorf("ansi: %q is neither strip nor keep", c.Intake.ANSI)
	}
	return intake.Config{
		MaxDelay: c.Intake.MaxDelay, NoStructure: !c.Intake.Structure, NoMultiline: !c.Intake.Multiline, KeepANSI: c.Intake.ANSI == "keep", KeepRaw: raw,
	}, nil
}

// timerSlack is nothing to who waits for a line. Go's own monitor, which sleeps
// for 20 µs at a time while anything runs, costs a sixth of a busy node's CPU
// without it.
const timerSlack = time.Millisecond

// guestConfig is what the settings below guest say. A command's agentd leaves
// its threads alone: its child would inherit what is set for them.
func (c *Config) guestConfig(command bool) guest.Config {
	cfg := guest.Config{Memory: int64(c.Guest.Memory), MaxProcs: c.Guest.CPUs, Nice: c.Guest.Nice, TimerSlack: timerSlack}
	if command {
		cfg.Nice, cfg.TimerSlack = 0, 0
	}
	return cfg
}

// redactor makes what takes secrets out, or nil where nothing does.
func (c *Config) redactor(reg prometheus.Registerer) (intake.Redactor, error) {
	r, err := redact.New(c.redactConfig(), reg)
	if err != nil {
		return nil, err
	}
	if !c.Redact.Enabled {
		return nil, nil //nolint:nilnil // not wanted
	}
	return r, nil
}

func (c *Config) redactConfig() redact.Config {
	cfg := redact.Config{Off: c.Redact.Off, Personal: c.Redact.Personal}
	for _, r := range c.Redact.Rules {
		name, pattern, _ := strings.Cut(r, "=")
		cfg.Rules = append(cfg.Rules, redact.Rule{Name: strings.TrimSpace(name), Pattern: pattern})
	}
	return cfg
}

// RedactionRules are the ids of the rules that are in force.
func RedactionRules(c *Config) ([]string, error) {
	r, err := redact.New(c.redactConfig(), nil)
	if err != nil {
		return nil, err
	}
	return r.Rules(), nil
}

// longestRedacted bounds a line of Redact.
const longestRedacted = 1 << 20

// Redact copies lines with their secrets taken out, as they would be sent, and
// counts what was taken out by rule.
func Redact(c *Config, in io.Reader, out io.Writer) (taken map[string]int, err error) {
	r, err := redact.New(c.redactConfig(), nil)
	if err != nil {
		return nil, err
	}
	taken = map[string]int{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, longestRedacted)
	w, within := bufio.NewWriter(out), uint32(0)
	for lines.Scan() {
		_, _ = w.Write(r.RedactNext(&within, nil, lines.Bytes(), func(rule string) { taken[rule]++ })) // Flush says what failed
		_ = w.WriteByte('\n')
	}
	if err := w.Flush(); err != nil {
		return taken, fmt.Errorf("write: %w", err)
	}
	if err := lines.Err(); err != nil {
		return taken, fmt.Errorf("read: %w (a line may have %d bytes)", err, longestRedacted)
	}
	return taken, nil
}
