// Package health tells others how a program is: /healthz (the process lives),
// /readyz (each part can do its work), and systemd's notifications.
package health

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// checkTimeout bounds one readiness check: a frozen database must not freeze
// the answer.
const checkTimeout = 2 * time.Second

// Checks is a set of readiness checks. The zero value has none and is ready.
type Checks struct {
	mu     sync.Mutex
	checks map[string]func(context.Context) error
}

// Add names a check; nil from it means ready.
func (c *Checks) Add(name string, check func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.checks == nil {
		c.checks = make(map[string]func(context.Context) error)
	}
	c.checks[name] = check
}

// Run runs all checks side by side and returns an error text for each that fails.
func (c *Checks) Run(ctx context.Context) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c.mu.Lock()
	checks := make(map[string]func(context.Context) error, len(c.checks))
	maps.Copy(checks, c.checks)
	c.mu.Unlock()
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed := make(map[string]string)
	for name, check := range checks {
		wg.Go(func() {
			if err := check(ctx); err != nil {
				mu.Lock()
				failed[name] = err.Error()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

// Healthz answers that the process lives.
func Healthz(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, nil) }

// Readyz answers 200 when every check passes, else 503 and the names of the
// parts that are not ready. What is wrong with them is for our own log: this
// page may be read by anyone.
func (c *Checks) Readyz(w http.ResponseWriter, r *http.Request) {
	failed := c.Run(r.Context())
	if len(failed) == 0 {
		answer(w, http.StatusOK, nil)
		return
	}
	names := make([]string, 0, len(failed))
	for name := range failed {
		names = append(names, name)
	}
	slices.Sort(names)
	w.Header().Set("Retry-After", "1")
	answer(w, http.StatusServiceUnavailable, names)
}

func answer(w http.ResponseWriter, status int, notReady []string) {
	body := map[string]any{"status": "ok"}
	if len(notReady) > 0 {
		body = map[string]any{"status": "not ready", "waitingFor": notReady}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone: nothing to do
}

// Text lists failed checks in one line.
func Text(failed map[string]string) string {
	parts := make([]string, 0, len(failed))
	for name, err := range failed {
		parts = append(parts, name+": "+err)
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}
