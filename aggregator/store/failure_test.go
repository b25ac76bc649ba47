package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// A table that is locked for ever stands for a database that is frozen: every
// call comes back by itself, says Unavailable, and the next one works.
func TestEveryCallHasADeadline(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	mustCommit(t, s, sp.numbered(t, "agt_a", 0, 3, time.Now()))
	next := sp.numbered(t, "agt_a", 3, 3, time.Now())
	tx, err := db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "lock table log_hot, agent, stream_counter, api_key, node, organisation, web_session, stream_token, setting in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	for name, call := range map[string]func(context.Context) error{
		"Commit":     func(ctx context.Context) error { _, _, err := s.Commit(ctx, []*frame.Received{next}); return err },
		"ReadStream": func(ctx context.Context) error { _, err := s.ReadStream(ctx, scope, 0, 1); return err },
		"StreamHead": func(ctx context.Context) error { _, err := s.StreamHead(ctx, scope); return err },
		"QueryLogs": func(ctx context.Context) error {
			_, err := s.QueryLogs(ctx, scope, &telemetry.LogQuery{Limit: 1})
			return err
		},
		"Agent":        func(ctx context.Context) error { _, err := s.Agent(ctx, scope, "agt_a"); return err },
		"Authenticate": func(ctx context.Context) error { _, err := s.Authenticate(ctx, "x", ids.Hash{}); return err },
		"WebSession":   func(ctx context.Context) error { _, err := s.WebSession(ctx, ids.Hash{}); return err },
		"StreamToken":  func(ctx context.Context) error { _, err := s.StreamToken(ctx, ids.Hash{}); return err },
		"Organisation": func(ctx context.Context) error { _, err := s.Organisation(ctx, scope); return err },
		"Node":         func(ctx context.Context) error { _, err := s.Node(ctx, "nod_1"); return err },
		"Revoked":      func(ctx context.Context) error { _, err := s.Revoked(ctx, []telemetry.NodeID{"nod_1"}); return err },
	} {
		g.Go(func() error {
			if err := call(t.Context()); telemetry.CodeOf(err) != telemetry.Unavailable {
				t.Errorf("%s: want Unavailable, got %v", name, err)
			}
			return nil
		})
	}
	_ = g.Wait() // they return nil
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, next)
	checkStream(t.Context(), t, s, scope, 1, 6)
}

func TestACancelledQueryEndsAndFreesItsPlace(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	leave := s.FillScans()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.QueryLogs(ctx, telemetry.Scope{Org: "org_a"}, &telemetry.LogQuery{Limit: 1})
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// Nobody leaves: who waits is told so, and look-ups still go through.
	_, err := s.QueryLogs(t.Context(), telemetry.Scope{Org: "org_a"}, &telemetry.LogQuery{Limit: 1})
	code(t, err, telemetry.Unavailable)
	_, err = s.Authenticate(t.Context(), "x", ids.Hash{})
	code(t, err, telemetry.Unauthorized)
	leave()
	_, err = s.QueryLogs(t.Context(), telemetry.Scope{Org: "org_a"}, &telemetry.LogQuery{Limit: 1})
	code(t, err, "")
	for _, q := range []telemetry.LogQuery{{}, {Limit: telemetry.MaxLimit + 1}, {Limit: 1, Offset: -1}, {Limit: 1, Offset: telemetry.MaxOffset + 1}, {Limit: 1, LogFilter: telemetry.LogFilter{Search: string(make([]byte, telemetry.MaxSearch+1))}}} {
		_, err = s.QueryLogs(t.Context(), telemetry.Scope{Org: "org_a"}, &q)
		code(t, err, telemetry.InvalidRequest)
	}
}

func TestPingSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Open(t)
	code(t, s.Ping(t.Context()), "")
	s.Close()
	code(t, s.Ping(t.Context()), telemetry.Unavailable)
}

func TestMetricsAreRegisteredOnceAndGoWithTheStore(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	reg := prometheus.NewRegistry()
	for range 2 {
		s, err := store.Open(t.Context(), store.Options{DSN: db.DSN, Registerer: reg})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(t.Context(), store.Options{DSN: db.DSN, Registerer: reg}); err == nil {
			t.Fatal("two stores on one registerer")
		}
		mustCommit(t, s, newSpool(telemetry.Scope{Org: telemetry.OrgID(ids.New("org"))}, "nod_1", 1).numbered(t, "agt_a", 0, 3, time.Now()))
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		lines := 0.0
		for _, f := range families {
			if f.GetName() == "aggregator_store_lines_committed_total" {
				lines = f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		if lines != 3 {
			t.Errorf("%v lines are counted", lines)
		}
		s.Close()
	}
}
