package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// TestThePublishedClients runs test/clients against the API on the fake
// store; the test of both daemons runs the same against everything real.
func TestThePublishedClients(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("SKIPPED: the published clients need Node 20 or newer, which is not in PATH")
	}
	if _, err := os.Stat("../../dashboard/node_modules/.bin/tsc"); err != nil {
		t.Skip("SKIPPED: the published clients need the dashboard's TypeScript compiler: make build installs it")
	}
	s := newSite(t, nil)
	fill(s)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	published := make(chan struct{})
	go func() {
		defer close(published)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				e := line("agt_a", fmt.Sprintf("tick %d", n))
				e.Session, e.Timestamp = "ses_a", time.Now().UTC().Truncate(time.Microsecond)
				e.Metadata = json.RawMessage("{\n\"n\": 1\n}")
				s.publish(ours, []telemetry.LogEntry{e})
			}
		}
	}()
	c := exec.CommandContext(ctx, "../../test/clients/run", "--test-reporter=spec")
	c.Env = append(os.Environ(), "THEAZO_URL="+s.url, "THEAZO_API_KEY="+s.key, "THEAZO_AGENT_ID=agt_a", "THEAZO_SESSION_ID=ses_a")
	out, err := c.CombinedOutput()
	cancel()
	<-published
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
