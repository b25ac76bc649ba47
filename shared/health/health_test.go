package health_test

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/shared/health"
)

func TestReadyzNamesWhatIsNotReady(t *testing.T) {
	var c health.Checks
	c.Add("database", func(context.Context) error { return errors.New("password of db.internal refused") })
	c.Add("frozen", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	c.Add("hub", func(context.Context) error { return nil })
	w := httptest.NewRecorder()
	c.Readyz(w, httptest.NewRequestWithContext(t.Context(), "GET", "/readyz", nil))
	if body := w.Body.String(); w.Code != 503 || !strings.Contains(body, `["database","frozen"]`) || strings.Contains(body, "password") {
		t.Fatalf("%d %s", w.Code, body)
	}
	var ready health.Checks
	w = httptest.NewRecorder()
	ready.Readyz(w, httptest.NewRequestWithContext(t.Context(), "GET", "/readyz", nil))
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

func TestWatchdogSpeaksWhileAlive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "2000")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		health.Watchdog(ctx, func(context.Context) error { return nil })
	}()
	b := make([]byte, 64)
	n, err := l.Read(b)
	if err != nil || string(b[:n]) != "WATCHDOG=1" {
		t.Fatalf("%q %v", b[:n], err)
	}
	cancel()
	<-done
}
