package store_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
)

// forbidden is SQL that a database distributed by organisation refuses, or
// that costs too much here.
var forbidden = map[string]string{
	`(?i)for update skip locked`:               "leases are taken per organisation",
	`(?i)\bctid\b`:                             "delete by key range",
	`(?i)create (constraint )?trigger`:         "no triggers on tables of records",
	`(?i)with recursive`:                       "recursion needs an organisation, and nothing here needs recursion",
	`(?i)detach partition`:                     "drop the partition",
	`(?i)pg_current_xact_id|pg_snapshot|txid_`: "transaction ids are no order between servers",
	`(?i)nextval|generated (always|by default) as identity|\bserial\b`:         "sequences are no order between servers",
	`(?i)\blisten\b|\bnotify\b|pg_notify`:                                      "NOTIFY takes a lock over all commits",
	`(?i)\breferences (agent|session|event|gap|span|log_\w+|stream_counter)\b`: "foreign keys between tables of records need the organisation, and nothing here needs them",
	`(?i)\bcreate (unlogged|temp\w*) table\b`:                                  "a table that is not distributed cannot be joined with those that are",
	`(?i)on conflict[^;]*do update set[^;]*\b(now|clock_timestamp|random)\(`:   "pass times as parameters",
}

// statements collects all SQL of the package: migrations, and Go string
// literals that hold some.
func statements(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(store.Migrations(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := store.Migrations().ReadFile(path)
		all[path] = regexp.MustCompile(`--[^\n]*`).ReplaceAllString(string(b), "")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil && regexp.MustCompile(`(?i)\b(select|insert|update|delete|declare|create)\b`).MatchString(text) {
					all[set.Position(lit.Pos()).String()] = text
				}
			}
			return true
		})
	}
	return all
}

func TestNoSQLThatADistributedDatabaseRefuses(t *testing.T) {
	t.Parallel()
	all := statements(t)
	if len(all) < 30 {
		t.Fatalf("only %d statements were found", len(all))
	}
	for pattern, why := range forbidden {
		re := regexp.MustCompile(pattern)
		for at, text := range all {
			if m := re.FindString(text); m != "" {
				t.Errorf("%s: %q: %s", at, m, why)
			}
		}
	}
}

func TestEveryKeyOfRecordsLeadsWithItsOrganisation(t *testing.T) {
	t.Parallel()
	conn := storetest.New(t).Connect(t)
	rows, err := conn.Query(t.Context(), `select c.relname || ': ' || pg_get_indexdef(i.indexrelid)
from pg_index i join pg_class c on c.oid = i.indrelid join pg_class x on x.oid = i.indexrelid join pg_am am on am.oid = x.relam
where c.relnamespace = 'theazo'::regnamespace and c.relname = any ($1)
  and ((am.amname <> 'brin' or i.indisunique) and pg_get_indexdef(i.indexrelid, 1, true) <> 'org')`, tenantTables)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(wrong) > 0 {
		t.Fatalf("%s %v", strings.Join(wrong, "\n"), err)
	}
	rows, err = conn.Query(t.Context(), `select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
where (c.relname like 'log\_hot%' or c.relname like 'log\_chunk%') and c.relkind in ('r', 'p') and a.atttypid = 'bytea'::regtype and a.attstorage <> case when a.attname in ('counts', 'owners') then 'm' else 'e' end::"char"`)
	if err != nil {
		t.Fatal(err)
	}
	if wrong, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(wrong) > 0 {
		t.Fatalf("columns that a query could not leave alone: %v %v", wrong, err)
	}
}
