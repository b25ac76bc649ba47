package test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/theazo/observability/test/pty"
	"github.com/theazo/observability/test/stack"
)

// session is a coding agent's session as its terminal saw it: colours, progress
// bars, the alternate screen, a picture, and no newline at its end.
const session = "testdata/session.tty"

// execNode is a node that collects nothing but what comes by its local endpoint.
type execNode struct {
	*stack.Agent
	client   *stack.Client
	endpoint string
}

// newExecNode starts both daemons, and makes the endpoint of one sandbox.
func newExecNode(t *testing.T, agentID string) *execNode {
	t.Helper()
	dir := directory(t)
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "exec"))(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t) //nolint:noctx // returns at once
	address := l.Addr().String()
	_ = l.Close()
	g := agent(t, dir, "node", tenant.Org, []string{"AGENTD_DOCKER_ENABLED=false", "AGENTD_SANDBOX_LISTEN=" + address}, a)
	awaitConnected(t, dir)
	token := exec.CommandContext(t.Context(), filepath.Join(bin, "agentd"), "sandbox-token", "-state_dir", g.Dir, "-agent", agentID, "-address", address) //nolint:gosec // our own program
	return &execNode{Agent: g, client: a.Client(tenant), endpoint: strings.TrimSpace(string(must(token.Output())(t)))}
}

// command is one that agentd-exec runs and reports to the node.
func (n *execNode) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "agentd-exec"), append([]string{"--"}, args...)...) //nolint:gosec // our own program
	cmd.Env = append(os.Environ(), "THEAZO_ENDPOINT="+n.endpoint, "THEAZO_EXEC_LINGER=2m")
	return cmd
}

// found is the bytes of one session as /v1/logs has them, by stream.
func (n *execNode) found(ctx context.Context, agentID string) (streams map[string][]byte, err error) {
	streams = map[string][]byte{}
	params := url.Values{"agentId": {agentID}, "limit": {"1000"}, "order": {"asc"}}
	for {
		var page struct {
			Data []struct {
				Stream, Message string
				Metadata        struct {
					ExecID string `json:"execId"`
					Raw    string `json:"raw"`
				}
			}
			HasMore bool
			Cursor  string
		}
		if err := n.client.Get(ctx, "/v1/logs?"+params.Encode(), &page); err != nil {
			return nil, err
		}
		for _, e := range page.Data {
			line := []byte(e.Message + "\n")
			if e.Metadata.Raw != "" {
				if line, err = base64.StdEncoding.DecodeString(e.Metadata.Raw); err != nil {
					return nil, err
				}
			}
			streams[e.Stream] = append(streams[e.Stream], line...)
		}
		if !page.HasMore {
			return streams, nil
		}
		params.Set("cursor", page.Cursor)
	}
}

// await waits until all bytes are there and returns how many are the same.
func (n *execNode) await(t *testing.T, agentID string, want map[string][]byte) (same, all int) {
	t.Helper()
	limit := time.After(stack.Patience)
	for {
		got, err := n.found(t.Context(), agentID)
		same, all = 0, 0
		for stream, b := range want {
			all += len(b)
			same += common(got[stream], b)
			if extra := len(got[stream]) - len(b); extra > 0 {
				t.Errorf("%s: %d bytes more than were written", stream, extra)
			}
		}
		if same == all && err == nil || t.Failed() {
			return same, all
		}
		select {
		case <-limit:
			t.Logf("the last query: %v", err)
			return same, all
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// common is how long two texts are the same.
func common(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func (n *execNode) figure(t *testing.T, agentID string, want map[string][]byte) {
	t.Helper()
	same, all := n.await(t, agentID, want)
	percent, verdict := 100*float64(same)/float64(all), "ok"
	if same != all {
		verdict = "short"
		t.Errorf("%d of %d bytes are found again", same, all)
	}
	t.Logf("FIGURE exec_bytes_found %.4g %% goal >=100 %s", percent, verdict)
}

// What a coding agent's session shows in its terminal is found again, byte for
// byte.
func TestATerminalSessionIsFoundAgain(t *testing.T) {
	n := newExecNode(t, "agt_terminal")
	cmd := n.command(t.Context(), "cat", session)
	master, slave, err := pty.Open(40, 120)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = master.Close() }()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	var seen bytes.Buffer
	_, _ = io.Copy(&seen, master) // a terminal ends with an error
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if written := must(os.ReadFile(session))(t); seen.Len() < len(written) {
		t.Fatalf("the terminal saw %d bytes of %d", seen.Len(), len(written))
	}
	n.figure(t, "agt_terminal", map[string][]byte{"stdout": seen.Bytes()})
}

// A command's two streams are found again, although agentd is killed twice while
// it runs.
func TestAnExecSessionIsFoundAgainWhenAgentdIsKilled(t *testing.T) {
	n := newExecNode(t, "agt_pipes")
	const script = `i=0; while read line; do dd if="$0" bs=20000 skip=$i count=1 status=none; dd if="$0" bs=5000 skip=$i count=1 status=none >&2; i=$((i+1)); done; exit 3`
	cmd := n.command(t.Context(), "sh", "-c", script, session)
	in := must(cmd.StdinPipe())(t)
	out, errOut := &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := io.WriteString(in, "next\n"); err != nil {
			t.Fatal(err)
		}
		if i%4 == 2 { // most of it is on its way
			<-time.After(50 * time.Millisecond)
			n.Kill()
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = in.Close()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d", code)
	}
	n.figure(t, "agt_pipes", map[string][]byte{"stdout": out.Bytes(), "stderr": errOut.Bytes()})
}

// What the published sandbox client sends is taken, and found in the API.
func TestWhatASandboxReportsIsThere(t *testing.T) {
	n := newExecNode(t, "agt_client")
	for path, body := range map[string]map[string]any{
		"log":      {"level": "error", "message": "it failed", "metadata": map[string]any{"step": 3}, "timestamp": time.Now()},
		"progress": {"percentage": 50, "message": "half"},
		"complete": {"output": map[string]any{"answer": 42}, "artifacts": []any{}},
		"model":    {"model": "m-1", "inputTokens": 10, "outputTokens": 2, "cost": map[string]any{"amount": 0.25, "currency": "usd"}},
		"span":     {"name": "tool.exec", "startTime": time.Now().Add(-time.Second), "endTime": time.Now(), "durationMs": 1000, "status": "completed"},
	} {
		body["agentId"] = "agt_client"
		req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, n.endpoint+"/v1/sandbox/"+path, bytes.NewReader(must(json.Marshal(body))(t))))(t)
		req.Header.Set("Content-Type", "application/json")
		resp := must(http.DefaultClient.Do(req))(t)
		answer := must(io.ReadAll(resp.Body))(t)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted || strings.TrimSpace(string(answer)) != "{}" {
			t.Errorf("%s: %s %s", path, resp.Status, answer)
		}
	}
	awaitTotal(t, n.client, 1, "agentId", "agt_client", "level", "error")
}

// A single-container machine: agentd exec is its entrypoint. What its child
// starts reports by the child's own endpoint, and what comes in from outside,
// as a provider's exec does, by the socket.
func TestASingleContainerMachine(t *testing.T) {
	dir := directory(t)
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "machine"))(t)
	state, stop := filepath.Join(dir, "machine"), filepath.Join(dir, "stop")
	const script = `"$0" -- echo one from the child; "$0" -- sh -c 'echo two from the child >&2'; until [ -e "$1" ]; do sleep 0.05; done; echo the end`
	machine := exec.CommandContext(t.Context(), filepath.Join(bin, "agentd"), "exec", "--", "sh", "-c", script, filepath.Join(bin, "agentd-exec"), stop) //nolint:gosec // our own program
	machine.Env = append(os.Environ(), "AGENTD_STATE_DIR="+state, "AGENTD_AGGREGATOR_ADDRESSES="+a.Ingest, "AGENTD_AGGREGATOR_ENROLMENT="+a.Enrolment,
		"AGENTD_AGGREGATOR_JOIN_TOKEN="+must(a.Command(t.Context(), "node", "token", "-org", tenant.Org))(t), "THEAZO_AGENT_ID=agt_machine", "THEAZO_EXEC_LINGER=1m")
	var printed bytes.Buffer
	machine.Stdout, machine.Stderr = &printed, &printed
	if err := machine.Start(); err != nil {
		t.Fatal(err)
	}
	client := a.Client(tenant)
	awaitTotal(t, client, 4, "agentId", "agt_machine") // printed by the child, and each captured by itself
	n := &execNode{client: client, endpoint: "unix://" + filepath.Join(state, "sandbox", "agentd.sock")}
	out := must(n.command(t.Context(), "echo", "from outside").Output())(t)
	if string(out) != "from outside\n" {
		t.Errorf("%q", out)
	}
	awaitTotal(t, client, 5, "agentId", "agt_machine")
	if err := os.WriteFile(stop, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := machine.Wait(); err != nil {
		t.Fatalf("%v: %s", err, printed.String())
	}
	awaitTotal(t, client, 6, "agentId", "agt_machine")
}
