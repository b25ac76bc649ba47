package test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/aggregator/localpg"
	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/stack"
)

// postgresTool finds a program of PostgreSQL's.
func postgresTool(t *testing.T, name string) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) > 0 {
		return found[len(found)-1]
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is missing: %v", name, err)
	}
	return path
}

// tool runs a program of PostgreSQL's as docs/operations.md says.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), postgresTool(t, name), args...) //nolint:gosec // fixed arguments
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

func startPostgres(t *testing.T, dir string) *localpg.Server {
	t.Helper()
	pg := must(localpg.Start(t.Context(), localpg.Options{Dir: dir, Log: hclog.NewNullLogger()}))(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := pg.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return pg
}

// The backup of docs/operations.md is restored into another cluster while nodes
// are on the way: what was in the backup and what comes later is there once,
// what was stored in between is a counted gap, and cursors of the old history
// are told so.
func TestFaultADumpIsRestored(t *testing.T) {
	dir := directory(t)
	old := startPostgres(t, filepath.Join(dir, "old"))
	a := must(stack.NewAggregator(bin, filepath.Join(dir, "aggregator")))(t)
	a.DSN, a.AuthorityDir = old.DSN(), filepath.Join(dir, "authority")
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := newPressed(t, a)
	client := a.Client(p.tenant)
	p.send(t, 300)
	awaitTotal(t, client, 500, "agentId", "agt_numbers")

	dump := filepath.Join(dir, "backup.dump")
	roles := filepath.Join(dir, "roles.sql")
	tool(t, "pg_dumpall", "--roles-only", "--no-role-passwords", "--dbname", old.DSN(), "--file", roles)
	tool(t, "pg_dump", "--format=custom", "--file", dump, old.DSN())

	const forgotten = 400
	p.send(t, forgotten)
	awaitTotal(t, client, int64(p.sent), "agentId", "agt_numbers")
	page := must(client.Logs(t.Context(), "limit", "10"))(t)
	if err := a.Stop(time.Minute); err != nil {
		t.Fatal(err)
	}

	restored := startPostgres(t, filepath.Join(dir, "restored"))
	// Roles that the new cluster has already are no error here.
	statements := strings.Split(string(must(os.ReadFile(roles))(t)), "\n") //nolint:gosec // the test's own directory
	statements = slices.DeleteFunc(statements, func(s string) bool { return !strings.Contains(s, " agg_") })
	tool(t, "psql", restored.DSN(), "--set", "ON_ERROR_STOP=1", "--command", strings.Join(statements, "\n"))
	tool(t, "pg_restore", "--exit-on-error", "--dbname", restored.DSN(), dump)
	admin := must(store.OpenAdmin(t.Context(), restored.DSN()))(t)
	epoch, err := admin.Restored(t.Context())
	admin.Close()
	if err != nil {
		t.Fatal(err)
	}

	a.DSN = restored.DSN()
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(time.Minute); err != nil {
			t.Error(err)
		}
	})
	t.Run("cursors of the old history", func(t *testing.T) { oldCursors(t, client, page, epoch) })
	before := p.sent - forgotten
	p.send(t, 200)
	awaitTotal(t, client, int64(before+200), "agentId", "agt_numbers")
	entries := must(client.AllLogs(t.Context(), "agentId", "agt_numbers"))(t)
	seen := map[int]int{}
	for _, e := range entries {
		seen[number(e.Message)]++
	}
	for n := 1; n <= p.sent; n++ {
		want := 1
		if n > before && n <= before+forgotten {
			want = 0
		}
		if seen[n] != want {
			t.Fatalf("line %d is there %d times, should be %d", n, seen[n], want)
		}
	}
	missing := 0.0
	for _, g := range must(client.Logs(t.Context(), "limit", "1"))(t).Gaps {
		if count, ok := g["count"].(float64); ok {
			missing += count
		}
	}
	if missing != forgotten || p.node.Rewinds() == 0 {
		t.Errorf("gaps count %.0f lines, %d were stored after the backup; %d rewinds", missing, forgotten, p.node.Rewinds())
	}
}

// oldCursors uses cursors of before the restore.
func oldCursors(t *testing.T, c *stack.Client, page stack.Page, epoch int64) {
	t.Helper()
	_, err := c.Logs(t.Context(), "limit", "10", "cursor", page.Cursor)
	var status *stack.StatusError
	if !errors.As(err, &status) || status.Status != http.StatusGone {
		t.Errorf("a page's cursor of before the restore gives %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), stack.Patience)
	defer cancel()
	last, reason := page.StreamCursor, ""
	err = c.Stream(ctx, "/v1/logs/stream", &last, func(e stack.Event) bool {
		if e.Name != "gap" {
			return true
		}
		var g telemetry.Gap
		if err := json.Unmarshal([]byte(e.Data), &g); err != nil {
			t.Error(err)
		}
		reason = string(g.Reason)
		return false
	})
	if err != nil || reason != "restored" {
		t.Errorf("a stream that goes on after a cursor of before the restore says %q: %v", reason, err)
	}
	if now := must(c.Logs(t.Context(), "limit", "1"))(t).StreamCursor; !strings.HasPrefix(now, jsonNumber(epoch)+"-") {
		t.Errorf("cursors are %s, the new history is %d", now, epoch)
	}
}

func jsonNumber(n int64) string {
	b, _ := json.Marshal(n) // a number always has a form
	return string(b)
}
