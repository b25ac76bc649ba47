package aggregator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/telemetry"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// A command that made a database where there is none would answer a mistyped
// directory with an empty list, or with keys that nobody accepts.
func TestCommandsMakeNoDatabase(t *testing.T) {
	cfg := Default()
	cfg.DataDir = filepath.Join(t.TempDir(), "mistyped")
	_, err := OpenAdmin(t.Context(), cfg, hclog.NewNullLogger())
	if err == nil || !strings.Contains(err.Error(), cfg.DataDir) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(cfg.DataDir); err == nil {
		t.Error("the directory was made")
	}
}

// Nodes know their aggregator by the authority that their token names.
func TestJoinTokensNameTheAuthorityInForce(t *testing.T) {
	db := storetest.New(t)
	org := db.Organisation(t)
	open := func(dir string) *Admin {
		t.Helper()
		cfg := Default()
		cfg.DataDir, cfg.Database.DSN = dir, db.DSN
		a, err := OpenAdmin(t.Context(), cfg, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		return a
	}
	first := t.TempDir()
	if _, err := open(first).CreateJoinToken(t.Context(), org, time.Minute, 1, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t.TempDir()).CreateJoinToken(t.Context(), org, time.Minute, 1, ""); telemetry.CodeOf(err) != telemetry.Conflict {
		t.Errorf("a token for another authority: %v", err)
	}
	if _, err := open(first).CreateJoinToken(t.Context(), org, time.Minute, 1, ""); err != nil {
		t.Error(err)
	}
}
