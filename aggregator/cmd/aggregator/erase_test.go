package main

import (
	"strings"
	"testing"

	"github.com/theazo/observability/aggregator/store/storetest"
)

func TestEraseSaysWhatItNeeds(t *testing.T) {
	for args, want := range map[string]string{
		"erase":                                   "-org",
		"erase -org org_a":                        "one of -user",
		"erase -org org_a -user u -agent agt_a":   "one of -user",
		"erase -org org_a -user u -list":          "one of -user",
		"erase -org org_a -user u -until tuesday": "is not a time",
		"erase -org org_a -user u more":           "is left over",
		"erase -org org_a -user u -environment x": "or use both",
		"audit":                           "verify, list",
		"audit verify":                    "-org",
		"audit verify -org org_a -seen 7": "NUMBER:HASH",
	} {
		_, _, err := command(t, strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestEraseIsRecordedListedAndAudited(t *testing.T) {
	db := storetest.New(t)
	org := string(db.Organisation(t))
	run := func(args ...string) string {
		t.Helper()
		out, _, err := command(t, append(args, "-org", org, "-database.dsn", db.DSN)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := run("erase", "-user", "usr_7", "-reason", "ticket 1"); strings.Count(out, "era_") != 2 || !strings.Contains(out, "test") {
		t.Errorf("both environments: %s", out)
	}
	if out := run("erase", "-session", "ses_1", "-environment", "live"); strings.Count(out, "era_") != 1 {
		t.Errorf("one environment: %s", out)
	}
	if out := run("erase", "-list"); strings.Count(out, "requested") != 3 || !strings.Contains(out, "user usr_7") {
		t.Errorf("list: %s", out)
	}
	if out := run("audit", "list"); strings.Count(out, "erasure.requested") != 3 || strings.Contains(out, "usr_7") {
		t.Errorf("the audit log: %s", out)
	}
	head := strings.TrimSpace(run("audit", "verify"))
	if !strings.HasPrefix(head, "3:") {
		t.Fatalf("verify: %s", head)
	}
	run("erase", "-agent", "agt_1", "-environment", "test")
	if out := run("audit", "verify", "-seen", head); !strings.HasPrefix(out, "4:") {
		t.Errorf("verify: %s", out)
	}
	if _, err := db.Connect(t).Exec(t.Context(), "update audit set target = 'era_other' where seq = 2"); err != nil {
		t.Fatal(err)
	}
	_, _, err := command(t, "audit", "verify", "-org", org, "-database.dsn", db.DSN)
	if err == nil || !strings.Contains(err.Error(), "entry 2 was changed") {
		t.Errorf("a changed entry: %v", err)
	}
}
