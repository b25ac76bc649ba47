package store_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/telemetry"
)

func TestAnIdempotencyKeyStandsForOneRequestOfOneScope(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	key, body, other := sha256.Sum256([]byte("key")), sha256.Sum256([]byte("body")), sha256.Sum256([]byte("other"))
	a := telemetry.Scope{Org: "org_a"}
	claim := func(scope telemetry.Scope, epoch uint64, with [sha256.Size]byte) (uint64, [sha256.Size]byte) {
		t.Helper()
		got, first, err := s.ClaimKey(t.Context(), scope, key, epoch, with)
		if err != nil {
			t.Fatal(err)
		}
		return got, first
	}
	if epoch, first := claim(a, 1<<63+5, body); epoch != 1<<63+5 || first != body {
		t.Errorf("a new key: %d", epoch)
	}
	if epoch, first := claim(a, 6, other); epoch != 1<<63+5 || first != body {
		t.Errorf("the key again: %d", epoch)
	}
	for i, scope := range []telemetry.Scope{{Org: "org_a", Env: telemetry.Test}, {Org: "org_b"}} {
		if epoch, first := claim(scope, uint64(100+i), other); epoch != uint64(100+i) || first != other {
			t.Errorf("the same key of %s: %d", scope, epoch)
		}
	}
}

func TestKeysAreForgottenWithTheirMarksAndNothingElseIs(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	a := telemetry.Scope{Org: "org_a"}
	body := sha256.Sum256(nil)
	for i, name := range []string{"old", "new"} {
		epoch, _, err := s.ClaimKey(t.Context(), a, sha256.Sum256([]byte(name)), uint64(7+i), body)
		if err != nil {
			t.Fatal(err)
		}
		mustCommit(t, s, newSpool(a, "api", epoch).numbered(t, "agt_a", 0, 3, time.Now()))
	}
	mustCommit(t, s, newSpool(a, "nod_1", 99).numbered(t, "agt_a", 0, 3, time.Now())) // of a node
	conn := db.Connect(t)
	if _, err := conn.Exec(t.Context(), "update idempotency_key set at = now() - interval '8 days' where epoch = 7"); err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	var marks, keys string
	err := conn.QueryRow(t.Context(), `select (select string_agg(epoch::text, ' ' order by epoch) from ingest_mark),
  (select string_agg(epoch::text, ' ' order by epoch) from idempotency_key)`).Scan(&marks, &keys)
	if err != nil || marks != "8 99" || keys != "8" {
		t.Errorf("%v: marks %q, keys %q", err, marks, keys)
	}
	if got, _, err := s.ClaimKey(t.Context(), a, sha256.Sum256([]byte("old")), 50, body); err != nil || got != 50 {
		t.Errorf("a forgotten key: %d %v", got, err)
	}
	if _, page := queryAll(t, s, a, telemetry.LogQuery{Limit: 10}); page.Total != 9 {
		t.Errorf("%d lines", page.Total)
	}
}
