package agentd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/theazo/observability/agentd/guest"
	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/agentd/uplink"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/telemetry"
)

// Status is how a running agent is: what `agentd status` shows.
type Status struct {
	Version   string        `json:"version"`
	NodeName  string        `json:"nodeName"`
	StartedAt time.Time     `json:"startedAt"`
	Uplink    uplink.Status `json:"uplink"`
	Buffer    spool.Stats   `json:"buffer"`
	Sources   []string      `json:"sources"`
	// Ledger are the sequences of which something may still be in flight.
	Ledger    []spool.Sequence `json:"ledger"`
	Guest     guest.Status     `json:"guest"`
	CanaryLag time.Duration    `json:"canaryLagNanos,omitempty"`
}

// socketPath is the only door of a running agent: a unix socket that only its
// own user can open. There is no TCP port.
func socketPath(stateDir string) string { return filepath.Join(stateDir, "agentd.sock") }

// serveStatus answers /status and /metrics on the socket until ctx ends.
func serveStatus(ctx context.Context, stateDir string, reg prometheus.Gatherer, status func() Status) error {
	path := socketPath(stateDir)
	// The spool's lock is ours, so a socket that is there has no owner.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("status socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("status socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("status socket: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status()) // the reader has gone: nothing to do
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("status socket: %w", err)
	}
	return nil
}

// FetchStatus asks the agent that runs on a state directory for /status or
// /metrics.
func FetchStatus(ctx context.Context, stateDir, page string) ([]byte, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socketPath(stateDir))
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agentd/"+page, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no agentd answers on %s: is it running with this state_dir, and are you its user or root? (%w)", socketPath(stateDir), errors.Unwrap(err))
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, fmt.Errorf("answer of agentd: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("agentd answered %s", resp.Status)
	}
	return b, nil
}

// shownSkew is how far a clock is off before people are told.
const shownSkew = 5 * time.Second

// Text is the status for people.
func (s *Status) Text() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s "+format+"\n", append([]any{name}, args...)...)
	}
	line("agentd", "%s on %s, up %s", s.Version, s.NodeName, time.Since(s.StartedAt).Round(time.Second))
	s.identityText(line)
	s.uplinkText(line)
	s.bufferText(line)
	ledgerText(line, ledgerTotals(s.Ledger))
	if s.CanaryLag > 0 {
		line("canary", "a line takes %s from here until it is committed", s.CanaryLag.Round(100*time.Microsecond))
	}
	line("memory", "%s of the %s it may take%s", config.Size(s.Guest.Resident), config.Size(s.Guest.Budget), pressureText(s.Guest.Pressure))
	line("sources", "%s", strings.Join(s.Sources, ", "))
	return b.String()
}

func pressureText(pressure float64) string {
	if pressure < 0.5 {
		return ""
	}
	return fmt.Sprintf("; the host is pressed (%.0f %%), debug lines wait", 100*pressure)
}

func (s *Status) identityText(line func(name, format string, args ...any)) {
	u := &s.Uplink
	switch {
	case u.Node == "":
		line("node", "not enrolled yet")
	case u.Platform:
		line("node", "%s (platform), certificate until %s", u.Node, u.CertificateExpires.UTC().Format(time.RFC3339))
	default:
		line("node", "%s of %s, certificate until %s", u.Node, u.Organisation, u.CertificateExpires.UTC().Format(time.RFC3339))
	}
}

func (s *Status) uplinkText(line func(name, format string, args ...any)) {
	u := &s.Uplink
	switch {
	case u.Connected:
		line("aggregator", "%s, connected for %s", u.Aggregator, time.Since(u.ConnectedSince).Round(time.Second))
	case u.LastError != "":
		line("aggregator", "not connected: %s", u.LastError)
	default:
		line("aggregator", "not connected yet")
	}
	if !u.LastAckAt.IsZero() {
		line("last ack", "%s ago", time.Since(u.LastAckAt).Round(time.Millisecond))
	}
	for _, t := range u.Throttled {
		line("throttled", "%s until %s: %s", t.Organisation, t.Until.UTC().Format(time.TimeOnly), t.Reason)
	}
	switch {
	case u.ClockSkew >= shownSkew:
		line("clock", "%s ahead of the aggregator's: set this machine's time", u.ClockSkew)
	case u.ClockSkew <= -shownSkew:
		line("clock", "%s behind the aggregator's: set this machine's time", -u.ClockSkew)
	}
}

func (s *Status) bufferText(line func(name, format string, args ...any)) {
	b := &s.Buffer
	for i, lane := range b.Lane {
		text := fmt.Sprintf("%d frames wait, %s", lane.Frames, config.Size(lane.Bytes))
		if !lane.Oldest.IsZero() && lane.Frames > 0 {
			text += fmt.Sprintf(", the oldest for up to %s", time.Since(lane.Oldest).Round(time.Second))
		}
		line(telemetry.Lane(i).String(), "%s", text)
	}
	line("buffer", "%s of %s on disk", config.Size(b.Disk), config.Size(b.Budget))
	if b.Low {
		line("disk", "nearly full: the buffer may use %s now", config.Size(b.Ceiling))
	}
	var evicted uint64
	for lane := range b.Evicted {
		for class := range b.Evicted[lane] {
			evicted += b.Evicted[lane][class].Records
		}
	}
	if evicted > 0 {
		line("gave way", "%d records were given up for others because the buffer was full; gaps tell of them", evicted)
	}
	if b.Corrupt > 0 {
		line("damage", "%d places were found damaged on disk; gaps tell what was lost", b.Corrupt)
	}
}
