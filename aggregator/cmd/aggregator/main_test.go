package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/program"
	"github.com/theazo/observability/shared/telemetry"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// command runs a command of the program in this process.
func command(t *testing.T, args ...string) (out, errOut string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	run := aggregatorProgram().Commands[args[0]]
	if run == nil {
		t.Fatalf("there is no command %s", args[0])
	}
	err = run(t.Context(), &program.Call{Args: args[1:], Out: &stdout, Err: &stderr})
	return stdout.String(), stderr.String(), err
}

func TestExportSaysWhatItNeeds(t *testing.T) {
	for args, want := range map[string]string{
		"":                                 "-org",
		"-org org_a -env prod":             "-env",
		"-org org_a -format xlsx":          "use ndjson or csv",
		"-org org_a -order up":             "-order",
		"-org org_a -q level:loud":         "at character 7",
		"-org org_a -q env:test":           "give it by -env",
		"-org org_a -since yesterday":      "is not a time",
		"-org org_a -since now -until -1h": "-since lies after -until",
		"-org org_a level:error":           "is left over",
	} {
		_, _, err := command(t, append([]string{"export"}, strings.Fields(args)...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	out, errOut, err := command(t, "export", "-help")
	if !errors.Is(err, flag.ErrHelp) || !strings.Contains(out+errOut, "-q 'level:>=warn") {
		t.Errorf("%v %s %s", err, out, errOut)
	}
}

func TestExportWritesAWholeFileOrNone(t *testing.T) {
	db := storetest.New(t)
	org := string(db.Organisation(t))
	dir := t.TempDir()
	file := filepath.Join(dir, "lines.csv")
	out, errOut, err := command(t, "export", "-database.dsn", db.DSN, "-org", org, "-format", "csv", "-o", file)
	b, errRead := os.ReadFile(file)
	if err != nil || errRead != nil || out != "" || !strings.HasPrefix(string(b), "id,timestamp") || !strings.Contains(errOut, "done: 0 lines and 0 gaps") {
		t.Errorf("%v %v: %q %q %q", err, errRead, b, out, errOut)
	}
	if out, _, err := command(t, "export", "-database.dsn", db.DSN, "-org", org); err != nil || out != "" {
		t.Errorf("%v %q", err, out)
	}
	if _, _, err := command(t, "export", "-database.dsn", db.DSN, "-org", "org_none", "-o", filepath.Join(dir, "none")); telemetry.CodeOf(err) != telemetry.NotFound {
		t.Errorf("%v", err)
	}
	err = wholeFile(filepath.Join(dir, "half"), func(w io.Writer) error {
		_, _ = fmt.Fprintln(w, "a line")
		return context.Canceled
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("%v: %v is left", err, left)
	}
}

func TestRetentionOfAnOrganisation(t *testing.T) {
	db := storetest.New(t)
	org := db.Organisation(t)
	args := []string{"org", "retention", "-database.dsn", db.DSN, "-org", string(org)}
	out, _, err := command(t, args...)
	if err != nil || !strings.Contains(out, "class 0") {
		t.Errorf("%v %s", err, out)
	}
	if _, _, err := command(t, append(args, "-class", "2", "-keep", "48h")...); err != nil {
		t.Error(err)
	}
	if class, keep, err := db.Admin(t).Retention(t.Context(), org); err != nil || class != 2 || keep != 48*time.Hour {
		t.Errorf("class %d, %s, %v", class, keep, err)
	}
	if out, _, err = command(t, args...); err != nil || !strings.Contains(out, "class 2") || !strings.Contains(out, "48h0m0s") {
		t.Errorf("%v %s", err, out)
	}
	for _, bad := range [][]string{{"-class", "100"}, {"-class", "1", "-keep", "1m"}, {"-keep", "48h"}} {
		if _, _, err := command(t, append(args, bad...)...); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestQuotaOfAnOrganisation(t *testing.T) {
	db := storetest.New(t)
	org := db.Organisation(t)
	args := []string{"org", "quota", "-database.dsn", db.DSN, "-org", string(org)}
	for _, step := range []struct {
		flags []string
		want  string
	}{
		{nil, "bytes: what everybody may, records: what everybody may"},
		{[]string{"-bytes", "10MiB"}, "bytes: 10MiB, records: what everybody may"},
		{[]string{"-records", "500"}, "bytes: 10MiB, records: 500"},
		{[]string{"-bytes", "0"}, "bytes: what everybody may, records: 500"},
	} {
		if out, _, err := command(t, append(args, step.flags...)...); err != nil || !strings.Contains(out, step.want) {
			t.Errorf("%v: %v %s, want %s", step.flags, err, out, step.want)
		}
	}
	for _, bad := range [][]string{{"-records", "-1"}, {"-bytes", "ten"}} {
		if _, _, err := command(t, append(args, bad...)...); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestRestored(t *testing.T) {
	db := storetest.New(t)
	before, err := db.Open(t).StreamEpoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := command(t, "restored", "-database.dsn", db.DSN)
	after, readErr := db.Open(t).StreamEpoch(t.Context())
	if errors.Join(err, readErr) != nil || after == before || !strings.Contains(out, strconv.FormatInt(after, 10)) {
		t.Errorf("%v, %v: %d before, %d after: %s", err, readErr, before, after, out)
	}
}
