package sandbox

import (
	"net/http"
	"os"
	"os/exec"
	"testing"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// TestThePublishedSandboxClient runs what the published package does inside a
// sandbox, in the runtime that it has there.
func TestThePublishedSandboxClient(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("SKIPPED: the published clients need Node 20 or newer, which is not in PATH")
	}
	if _, err := os.Stat("../../dashboard/node_modules/.bin/tsc"); err != nil {
		t.Skip("SKIPPED: the published clients need the dashboard's TypeScript compiler: make build installs it")
	}
	e := bound(t, target("agt_1", "ses_1"))
	cmd := exec.CommandContext(t.Context(), "../../test/clients/run", "--test-reporter=spec")
	cmd.Env = append(os.Environ(), "CLIENT=sandbox-client", "THEAZO_ENDPOINT="+e.url, "THEAZO_AGENT_ID=agt_1", "THEAZO_SESSION_ID=ses_1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	http.DefaultClient.CloseIdleConnections()
	all := e.sink.await(t, "what the client sent", func(b source.Batch) bool {
		return len(b.Entries) > 1 && len(b.ModelCalls) == 1 && len(b.Spans) == 2 && len(b.Events) == 2
	})
	if l := all.Entries[0]; l.Level != telemetry.Warn || l.Message != "from the client" || string(l.Metadata) != `{"step":1,"nested":{"deep":[true,null]}}` {
		t.Errorf("%+v", l)
	}
	if c := all.ModelCalls[0].Cost; c == nil || c.Nanos != 4_200_000 {
		t.Errorf("cost %+v", c)
	}
	if string(all.Spans[0].Attributes) != `{"tool":"search"}` || all.Spans[1].Error != "no such file" || all.Spans[1].Status != telemetry.SpanError {
		t.Errorf("spans %+v", all.Spans)
	}
}
