// Package logging makes the one logger of a program. Everything else is given
// a named child of it; nothing logs through a global. Keys are fixed words in
// snake_case, so that a log can be searched by them.
package logging

import (
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"
)

// Config of a program's own log.
type Config struct {
	Level  string `yaml:"level" help:"least level that is written: trace, debug, info, warn or error"`
	Format string `yaml:"format" help:"text for people, json for machines, auto for text on a terminal and json elsewhere"`
}

// Default is info and auto.
var Default = Config{Level: "info", Format: "auto"}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	if hclog.LevelFromString(c.Level) == hclog.NoLevel {
		return fmt.Errorf("log.level: %q is not trace, debug, info, warn or error", c.Level)
	}
	switch c.Format {
	case "text", "json", "auto":
		return nil
	}
	return fmt.Errorf("log.format: %q is not text, json or auto", c.Format)
}

// New makes the logger of a program. The level can be changed later by SetLevel.
func New(program string, c Config, to io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: program, Level: hclog.LevelFromString(c.Level), Output: to,
		JSONFormat: c.Format == "json" || c.Format == "auto" && !isTerminal(to),
		TimeFormat: "2006-01-02T15:04:05.000Z07:00",
	})
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Level reads a level word; an unknown one is info.
func Level(word string) hclog.Level {
	if l := hclog.LevelFromString(word); l != hclog.NoLevel {
		return l
	}
	return hclog.Info
}
