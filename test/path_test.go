package test

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/test/dockertest"
	"github.com/theazo/observability/test/stack"
)

// What containers print arrives as it was printed, whatever it was.
func TestOddContainers(t *testing.T) {
	e := dockertest.NewEngine(t)
	dir := directory(t)
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "odd"))(t)
	agent(t, dir, "node", tenant.Org, []string{"DOCKER_HOST=" + e.Host()}, a)
	client := a.Client(tenant)
	awaitConnected(t, dir)
	label := func(agent string) []string { return []string{"--label", "theazo.agent_id=" + agent} }

	image(t, e, "linegen")
	for range 10 { // they live some 50 ms and take their log with them
		docker(t, e, append(append([]string{"run", "--rm", "--network", "none"}, label("agt_short")...), "theazo/linegen", "-n", "3")...)
	}
	container(t, e, "linegen", label("agt_end"), "-n", "2", "-no-newline")
	container(t, e, "linegen", label("agt_long"), "-one-mib-line")
	container(t, e, "linegen", label("agt_nul"), "-n", "1", "-nul")
	container(t, e, "linegen", label("agt_utf8"), "-n", "1", "-invalid-utf8")
	container(t, e, "linegen", append(label("agt_tty"), "-t"), "-n", "3")

	for agent, n := range map[string]int64{"agt_short": 30, "agt_end": 2, "agt_long": 1, "agt_nul": 1, "agt_utf8": 1, "agt_tty": 3} {
		awaitTotal(t, client, n, "agentId", agent)
	}
	one := func(agent string) stack.Entry { return must(client.Logs(t.Context(), "agentId", agent))(t).Data[0] }
	if long := one("agt_long"); len(long.Message) > 256<<10 || len(long.Message) < 255<<10 || !long.Truncated {
		t.Errorf("1 MiB in one line: %d bytes, truncated %v", len(long.Message), long.Truncated)
	}
	if m := one("agt_tty").Message; strings.ContainsAny(m, "\r\n") {
		t.Errorf("a terminal's line is %q", m)
	}
	if m := one("agt_nul").Message; strings.Contains(m, "\x00") || !strings.Contains(m, "n=1") {
		t.Errorf("a line with NUL is %q", m)
	}
	if m := one("agt_utf8").Message; !strings.Contains(m, "\uFFFD") || !strings.Contains(m, "n=1") {
		t.Errorf("a line that is not UTF-8 is %q", m)
	}
}

func awaitConnected(t *testing.T, dir string) {
	t.Helper()
	limit := time.After(stack.Patience)
	for {
		var s struct {
			Uplink struct {
				ConnectedSince time.Time `json:"connectedSince"`
			} `json:"uplink"`
		}
		if stack.UnixGet(t.Context(), filepath.Join(dir, "node", "agentd.sock"), "/status", &s) == nil && !s.Uplink.ConnectedSince.IsZero() {
			return
		}
		select {
		case <-limit:
			t.Fatal("agentd did not connect")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Keys, certificates and ids of others open nothing.
func TestCredentials(t *testing.T) {
	e := dockertest.NewEngine(t)
	dir := directory(t)
	a := aggregator(t, dir)
	mine, other := must(a.NewTenant(t.Context(), "mine"))(t), must(a.NewTenant(t.Context(), "other"))(t)
	g := agent(t, dir, "node", mine.Org, []string{"DOCKER_HOST=" + e.Host()}, a)
	container(t, e, "linegen", []string{"--label", "theazo.agent_id=agt_mine", "--label", "theazo.session_id=ses_mine", "--label", "theazo.org_id=" + other.Org}, "-n", "100000", "-rate", "20")
	awaitSome(t, a.Client(mine))

	status := func(c *stack.Client, path string) int {
		t.Helper()
		err := c.Get(t.Context(), path, nil)
		var answer *stack.StatusError
		switch {
		case err == nil:
			return http.StatusOK
		case errors.As(err, &answer):
			return answer.Status
		}
		t.Fatal(err)
		return 0
	}
	for _, path := range []string{"/v1/agents/agt_mine", "/v1/sessions/ses_mine", "/v1/agents/agt_mine/logs/stream", "/v1/sessions/ses_mine/logs/stream"} {
		if got := status(a.Client(other), path); got != http.StatusNotFound {
			t.Errorf("another organisation's key gets %d for %s", got, path)
		}
		if got := status(&stack.Client{URL: a.URL, Key: mine.Key[:len(mine.Key)-1] + "x"}, path); got != http.StatusUnauthorized {
			t.Errorf("a wrong key gets %d for %s", got, path)
		}
		if got := status(&stack.Client{URL: a.URL}, path); got != http.StatusUnauthorized {
			t.Errorf("no key gets %d for %s", got, path)
		}
	}
	if page := must(a.Client(other).Logs(t.Context(), "agentId", "agt_mine"))(t); page.Total != 0 {
		t.Errorf("a BYOI node's label put %d lines into another organisation", page.Total)
	}

	keys := must(a.Command(t.Context(), "key", "list", "-org", mine.Org))(t)
	id := strings.Fields(strings.Split(keys, "\n")[1])[0]
	must(a.Command(t.Context(), "key", "revoke", id))(t)
	if got := status(a.Client(mine), "/v1/me"); got != http.StatusUnauthorized {
		t.Errorf("a revoked key gets %d", got)
	}

	key := must(a.Command(t.Context(), "key", "create", "-org", mine.Org, "-name", "second"))(t)
	client := a.Client(stack.Tenant{Org: mine.Org, Key: key})
	nodes := must(a.Command(t.Context(), "node", "list"))(t)
	must(a.Command(t.Context(), "node", "revoke", strings.Fields(strings.Split(nodes, "\n")[1])[0]))(t)
	awaitQuiet(t, client)
	select {
	case <-g.Done():
		t.Errorf("a revoked agentd ended: %v", g.Err())
	default: // it goes on collecting to its disk, and says why nothing leaves
	}
}

// awaitQuiet waits until no line has come for three seconds.
func awaitQuiet(t *testing.T, c *stack.Client) {
	t.Helper()
	last, since := int64(-1), time.Now()
	for began := time.Now(); time.Since(since) < 3*time.Second; {
		page, err := c.Logs(t.Context(), "limit", "1")
		if err != nil {
			t.Fatal(err)
		}
		if page.Total != last {
			last, since = page.Total, time.Now()
		}
		if time.Since(began) > stack.Patience {
			t.Fatal("a revoked node's lines still come")
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

// The sample agent, whose lines hold a script and colours, is read in a real
// Chromium, and by a client that speaks as the published package does.
func TestBrowserAndPublishedClient(t *testing.T) {
	e := dockertest.NewEngine(t)
	dir := directory(t)
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "browser"))(t)
	agent(t, dir, "node", tenant.Org, []string{"DOCKER_HOST=" + e.Host()}, a)
	container(t, e, "sampleagent", []string{"--label", "theazo.agent_id=agt_sample", "--label", "theazo.session_id=ses_sample", "--label", "theazo.user_id=user_sample"})
	awaitSome(t, a.Client(tenant))
	env := append(os.Environ(), "THEAZO_URL="+a.URL, "THEAZO_API_KEY="+tenant.Key, "E2E_AGENT_ID=agt_sample", "THEAZO_AGENT_ID=agt_sample", "THEAZO_SESSION_ID=ses_sample", "CI=true")

	t.Run("published client", func(t *testing.T) {
		run(t, ".", env, "clients/run")
	})
	t.Run("browser", func(t *testing.T) {
		run(t, "../dashboard", env, "npm", "run", "--silent", "e2e", "--", "--output", filepath.Join(dir, "playwright"))
	})
}

func run(t *testing.T, dir string, env []string, argv ...string) {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("%s is missing: %v", argv[0], err)
	}
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...) //nolint:gosec // fixed arguments
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
