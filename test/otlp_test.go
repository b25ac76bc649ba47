package test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/theazo/observability/test/stack"
)

// What any OpenTelemetry SDK sends to the node's local endpoint is in /v1/logs,
// as the sender's, with its level, attributes and trace; what claims to be
// another agent is not.
func TestOpenTelemetryLogsAreCollected(t *testing.T) {
	n := newExecNode(t, "agt_otel")
	const records = 500
	if answer := export(t, n.endpoint+"/v1/logs", otlpLogs("agt_otel", records)); answer != `{}` {
		t.Errorf("the answer is %s", answer)
	}
	foreign := `{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"3 log records were refused: 3 are of a resource whose theazo.agent.id is \"agt_other\", which is not the sender's"}}`
	if answer := export(t, n.endpoint+"/v1/logs", otlpLogs("agt_other", 3)); answer != foreign {
		t.Errorf("the answer is %s", answer)
	}
	const span = `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"chat","startTimeUnixNano":"1763805600000000000"}]}]}]}`
	const point = `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"tokens","gauge":{"dataPoints":[{"asInt":"5"}]}}]}]}]}`
	if a, b := export(t, n.endpoint+"/v1/traces", span), export(t, n.endpoint+"/v1/metrics", point); a != `{}` || b != `{}` {
		t.Errorf("the answers are %s and %s", a, b)
	}

	awaitTotal(t, n.client, records, "agentId", "agt_otel")
	awaitTotal(t, n.client, 1, "agentId", "agt_otel", "level", "error", "traceId", "trc_5b8efff798038103d269b633813fc60c")
	seen := map[string]bool{}
	for _, e := range must(n.client.AllLogs(t.Context(), "agentId", "agt_otel"))(t) {
		seen[e.Message] = true
	}
	for i := range records {
		if !seen[fmt.Sprintf("step %d", i)] {
			t.Errorf("step %d is missing", i)
		}
	}
	if other := must(n.client.Logs(t.Context(), "agentId", "agt_other"))(t); other.Total != 0 {
		t.Errorf("%d lines of an agent that is not there", other.Total)
	}
	var page struct {
		Data []struct {
			stack.Entry
			Metadata map[string]any `json:"metadata"`
		} `json:"data"`
	}
	if err := n.client.Get(t.Context(), "/v1/logs?limit=1&level=error&agentId="+url.QueryEscape("agt_otel"), &page); err != nil {
		t.Fatal(err)
	}
	if m := page.Data[0].Metadata; m["attempt"] != 2.0 || m["otel.scope.name"] != "coder" || m["service.name"] != "svc" {
		t.Errorf("metadata %v", m)
	}
}

// otlpLogs is a request of so many records, the first of them an error in a trace.
func otlpLogs(agent string, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"svc"}},{"key":"theazo.agent.id","value":{"stringValue":%q}}]},"scopeLogs":[{"scope":{"name":"coder"},"logRecords":[`, agent)
	for i := range n {
		severity, trace := 9, ""
		if i == 0 {
			severity, trace = 17, `"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",`
		} else {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"severityNumber":%d,%s"body":{"stringValue":"step %d"},"attributes":[{"key":"attempt","value":{"intValue":"2"}}]}`, severity, trace, i)
	}
	return b.String() + `]}]}]}`
}

// export sends a request as an SDK does, compressed, and returns the answer.
func export(t *testing.T, to, body string) string {
	t.Helper()
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err := io.WriteString(w, body)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, to, &compressed))(t)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Content-Encoding", "gzip")
	resp := must(http.DefaultClient.Do(req))(t)
	defer func() { _ = resp.Body.Close() }()
	answer := must(io.ReadAll(resp.Body))(t)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", resp.StatusCode, answer)
	}
	return string(answer)
}
