package aggregator

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/theazo/observability/shared/telemetry"
)

// Examples that do not run are worse than none: those of docs/logs.md do, in
// their order, on a real aggregator.
func TestTheExamplesOfTheDocumentationRun(t *testing.T) {
	text, err := os.ReadFile("../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	r := startWhole(t, nil)
	key := r.key(r.org, telemetry.Live, telemetry.AllPermissions...)
	blocks := regexp.MustCompile("(?s)\n```sh\n(.*?)\n```\n").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 4 {
		t.Fatalf("only %d examples", len(blocks))
	}
	dir := t.TempDir()
	for _, b := range blocks {
		c := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", b[1])
		c.Dir, c.Env = dir, append(os.Environ(), "THEAZO_URL="+r.url, "THEAZO_API_KEY="+key)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v (bash and curl are needed)\n%s\n%s", err, b[1], out)
		}
	}
	if n := r.total(key, "sessionId=ses_build_7"); n != 2 {
		t.Errorf("the example sent %d lines", n)
	}
	if b, err := os.ReadFile(dir + "/errors.csv"); err != nil || !strings.HasPrefix(string(b), "id,timestamp") {
		t.Errorf("%v %q", err, b)
	}
}
