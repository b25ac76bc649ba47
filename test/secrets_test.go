package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Secrets that a container prints reach neither the node's disk nor the
// database: what is there is what was sent, and what the API reads back.
func TestSecretsStayOnTheNode(t *testing.T) {
	const canary = "Xq7Rt2Lm9Zc4Vb8Np3"
	secrets := []string{
		"using key sk-ant-api03-" + strings.Repeat(canary, 5),
		"postgres://app:" + canary + "@db.internal:5432/app",
		"Authorization: Bearer " + canary + canary,
		"password=" + canary,
		`{"level":"info","msg":"login","token":"ghp_` + canary + canary + `"}`,
		"-----BEGIN PRIVATE KEY-----", canary + canary + canary, "-----END PRIVATE KEY-----",
	}
	dir := directory(t)
	var log strings.Builder
	for i, line := range append(secrets, "the end") {
		fmt.Fprintf(&log, `{"log":%s,"stream":"stdout","time":"%s"}`+"\n", strconv.Quote(line+"\n"), time.Now().Add(time.Duration(i)*time.Millisecond).UTC().Format(time.RFC3339Nano))
	}
	file := filepath.Join(dir, "agt_secret-json.log")
	if err := os.WriteFile(file, []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	a := aggregator(t, dir)
	tenant := must(a.NewTenant(t.Context(), "secrets"))(t)
	agent(t, dir, "node", tenant.Org, []string{"AGENTD_DOCKER_ENABLED=false", "AGENTD_FILES=" + file}, a)
	c := a.Client(tenant)
	awaitTotal(t, c, 1, "agentId", "agt_secret", "search", "the end")
	entries := must(c.AllLogs(t.Context(), "agentId", "agt_secret"))(t)
	if len(entries) < len(secrets)-2 { // the key is one message
		t.Fatalf("%d entries of %d lines", len(entries), len(secrets)+1)
	}
	redacted := 0
	for _, e := range entries {
		if strings.Contains(e.Message, canary) {
			t.Errorf("a secret came through: %s", e.Message)
		}
		redacted += strings.Count(e.Message, "[redacted:")
	}
	page := must(c.Logs(t.Context(), "agentId", "agt_secret", "search", canary))(t)
	if page.Total != 0 || redacted < 4 {
		t.Errorf("a search finds %d secrets; %d were replaced in messages", page.Total, redacted)
	}
}
