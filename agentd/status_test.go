package agentd

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/agentd/uplink"
)

func TestStatusIsForTheOwnUserAndSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	stats := spool.Stats{Disk: 1 << 20, Budget: 1 << 30, Lost: 7, Corrupt: 2}
	stats.Lane[0] = spool.LaneStats{Frames: 3, Bytes: 4 << 10, Oldest: time.Now().Add(-time.Minute)}
	want := Status{
		Version: "v1", NodeName: "host", StartedAt: time.Now(), Sources: []string{"docker"}, Buffer: stats,
		Uplink: uplink.Status{Node: "nod_1", Organisation: "org_1", LastError: "certificate revoked"},
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(newBufferMetrics(func() spool.Stats { return stats }))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveStatus(ctx, dir, reg, func() Status { return want }) }()

	var b []byte
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); {
		var err error
		if b, err = FetchStatus(ctx, dir, "status"); err == nil {
			break
		}
	}
	info, err := os.Stat(socketPath(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v (%v)", info.Mode(), err)
	}
	var got Status
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	text := got.Text()
	for _, part := range []string{"nod_1 of org_1", "not connected: certificate revoked", "3 frames wait, 4KiB", "the oldest for up to 1m0s", "1MiB of 1GiB", "2 places were found damaged"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
	metrics, err := FetchStatus(ctx, dir, "metrics")
	if err != nil || !strings.Contains(string(metrics), `agentd_buffer_frames{lane="logs"} 3`) {
		t.Errorf("metrics: %v\n%s", err, metrics)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := FetchStatus(t.Context(), dir, "status"); err == nil || !strings.Contains(err.Error(), "is it running") {
		t.Errorf("without an agent the error is %v", err)
	}
}
