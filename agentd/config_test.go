package agentd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryBadSettingIsNamed(t *testing.T) {
	c := Default()
	c.StateDir, c.Aggregator.Addresses = "relative", []string{"no-port"}
	c.Aggregator.JoinToken, c.Aggregator.TokenFile = "a", "b"
	c.Defaults.Organisation, c.Defaults.Environment = "a b", "prod"
	c.Docker.From, c.Files, c.Docker.Include = "yesterday", []string{"[", "/a*/b"}, []string{"nonsense"}
	c.Buffer.Segment, c.Buffer.Budget = 1, 1
	c.Intake.MaxDelay = -1
	c.Log.Level = "loud"
	err := c.Validate()
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"state_dir", `aggregator.addresses: "no-port"`, "join_token", "defaults.organisation", "defaults.environment", "from: \"yesterday\"", "files: pattern", "only its last part", "nonsense", "buffer.segment", "buffer.budget", "intake.max_delay", "log.level"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in:\n%v", want, err)
		}
	}
	good := Default()
	good.Aggregator.Addresses = []string{"localhost:7444"}
	if err := good.Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

func TestAChangedFileIsReadAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agentd.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil { // as editors do
			t.Fatal(err)
		}
	}
	const base = "aggregator:\n  addresses: [localhost:7444]\n"
	write(base)
	l, rest, err := NewLoader("run", []string{"-config", path, "-log.format", "json", "left"}, nil)
	if err != nil || len(rest) != 1 || rest[0] != "left" {
		t.Fatal(rest, err)
	}
	changes := l.Watch(t.Context(), hclog.NewNullLogger())
	write(base + "log:\n  level: nonsense\n") // never arrives
	timer := time.NewTimer(500 * time.Millisecond)
	select {
	case c := <-changes:
		t.Fatalf("a configuration that is not usable came: %+v", c)
	case <-timer.C:
	}
	write(base + "log:\n  level: debug\n")
	select {
	case c := <-changes:
		if c.Log.Level != "debug" || c.Log.Format != "json" {
			t.Fatalf("%+v", c.Log)
		}
	case <-t.Context().Done():
	}
}
