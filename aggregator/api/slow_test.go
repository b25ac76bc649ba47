package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/api"
	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/shared/telemetry"
)

// raw opens a stream on a bare connection with a small window, of which
// nothing is read until asked.
func (s *site) raw(t *testing.T, path string) net.Conn {
	t.Helper()
	return s.rawAccept(t, path, "*/*")
}

func (s *site) rawAccept(t *testing.T, path, accept string) net.Conn {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(256 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer %s\r\nAccept: %s\r\n\r\n", path, s.key, accept); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestASlowReaderLosesOnlyItsOwnLinesAndCanFetchThem(t *testing.T) {
	s := newSite(t, func(c *api.Config, o *live.Options) { o.Patience, c.WriteTimeout = -1, time.Minute })
	quick := s.open(t, "/v1/logs/stream")
	quick.want("ready")
	slow := s.raw(t, "/v1/logs/stream?agentId=agt_a")
	es := &eventSource{t: t, lines: bufio.NewReader(slow)}
	skipHeader(t, es.lines)
	es.want("ready")
	text := strings.Repeat("x", 100<<10)
	const total = 150
	for i := range total {
		e := line("agt_a", fmt.Sprintf("%d %s", i, text))
		e.Timestamp = base.Add(time.Duration(i) * time.Second)
		s.publish(ours, []telemetry.LogEntry{e})
		if got := message(t, quick.want("log")); !strings.HasPrefix(got, fmt.Sprintf("%d ", i)) {
			t.Fatalf("the quick reader got %.20s for %d", got, i)
		}
	}
	have := map[string]bool{}
	for {
		e, err := es.next()
		if err != nil {
			t.Fatal(err)
		}
		if e.kind == "log" {
			have[strings.Fields(message(t, e))[0]] = true
			continue
		}
		if e.kind != "gap" {
			continue
		}
		var gap struct {
			Count        int
			Reason, Href string
		}
		if err := json.Unmarshal([]byte(e.data), &gap); err != nil || gap.Reason != "slow_reader" || gap.Count != total-len(have) {
			t.Fatalf("%v %s, %d came", err, e.data, len(have))
		}
		for _, e := range readLogs(t, s.get(t, gap.Href)).Data {
			have[strings.Fields(e["message"].(string))[0]] = true
		}
		break
	}
	if len(have) != total {
		t.Errorf("with what the gap's link gave, %d of %d lines", len(have), total)
	}
}

func skipHeader(t *testing.T, r *bufio.Reader) {
	t.Helper()
	for {
		text, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(text) == "" {
			return
		}
	}
}

func TestAStalledClientIsDropped(t *testing.T) {
	s := newSite(t, func(c *api.Config, _ *live.Options) { c.WriteTimeout = 200 * time.Millisecond })
	s.raw(t, "/v1/logs/stream?after=0-0")
	text := strings.Repeat("x", 200<<10)
	for range 100 {
		s.publish(ours, messages("agt_a", text)) // more than the kernel's buffers hold
	}
	s.log.wait(t, "write a stream")
}
