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
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED: the published clients need Node 20 or newer, which is not in PATH")
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
	c := exec.CommandContext(ctx, node, "--test", "--test-reporter=spec")
	c.Dir = "../../test/clients"
	c.Env = append(os.Environ(), "THEAZO_URL="+s.url, "THEAZO_API_KEY="+s.key, "THEAZO_AGENT_ID=agt_a", "THEAZO_SESSION_ID=ses_a")
	out, err := c.CombinedOutput()
	cancel()
	<-published
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
