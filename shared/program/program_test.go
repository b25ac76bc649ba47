package program_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/theazo/observability/shared/program"
	"github.com/theazo/observability/shared/telemetry"
)

func TestExitCodesAndWords(t *testing.T) {
	p := &program.Program{Name: "prog", Version: "v1", Usage: "how to use it\n", Commands: map[string]func(context.Context, *program.Call) error{
		"work": func(_ context.Context, c *program.Call) error { _, err := fmt.Fprint(c.Out, c.Args); return err },
		"fail": func(context.Context, *program.Call) error { return errors.New("the reason") },
		"refuse": func(context.Context, *program.Call) error {
			return fmt.Errorf("deep: %w", &telemetry.Failure{Code: telemetry.NotFound, Message: "There is no such key.", Cause: errors.New("sql")})
		},
		"child":   func(context.Context, *program.Call) error { return program.Exit(7) },
		"mistake": func(context.Context, *program.Call) error { return program.Usagef("give -org") },
		"ask":     func(context.Context, *program.Call) error { return flag.ErrHelp },
	}}
	for _, tc := range []struct {
		args     string
		code     int
		out, err string
	}{
		{"work a b", 0, "[a b]", ""},
		{"version", 0, "prog v1", ""},
		{"--help", 0, "how to use it", ""},
		{"", 2, "", "no command is given"},
		{"nonsense", 2, "", `unknown command "nonsense"`},
		{"mistake", 2, "", "give -org\nRun 'prog help'"},
		{"fail", 1, "", "prog: the reason"},
		{"refuse", 1, "", "prog: There is no such key.\n"},
		{"child", 7, "", ""},
		{"ask", 0, "", ""},
	} {
		var out, errOut strings.Builder
		code := p.Run(t.Context(), strings.Fields(tc.args), &out, &errOut)
		if code != tc.code || !strings.Contains(out.String(), tc.out) || !strings.Contains(errOut.String(), tc.err) || (tc.err == "" && errOut.Len() > 0) {
			t.Errorf("%q: code %d, out %q, err %q", tc.args, code, out.String(), errOut.String())
		}
	}
}
