package agentd

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/intake"
	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/shared/telemetry"
)

// A canary has arrived when it is acknowledged, and not when it is only on disk.
func TestTheCanaryTimesTheWholeWay(t *testing.T) {
	s, err := spool.Open(spool.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	in := intake.New(intake.Config{}, queue{s}, hclog.NewNullLogger(), reg)
	c := newCanary(time.Hour, source.Target{Origin: telemetry.Origin{Agent: "agt_agentd.nod_1", Source: telemetry.SourceSystem}}, s, reg)
	ctx, cancel := context.WithCancel(t.Context())
	intakeDone, canaryDone := make(chan error, 1), make(chan error, 1)
	go func() { intakeDone <- in.Run(ctx) }()
	go func() { canaryDone <- c.Run(ctx, source.Positions{canaryName: []byte("41")}, in.Sink(canaryName)) }()

	f, err := s.Next(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	held := time.Now()
	for time.Since(held) < 50*time.Millisecond { // it waits for us, however long that is
		if c.last.Load() != 0 {
			t.Fatal("a canary that is only on disk counts as arrived")
		}
		<-time.After(time.Millisecond)
	}
	if lag := c.Lag(); lag < 50*time.Millisecond {
		t.Errorf("a canary on its way for 50 ms has a lag of %s", lag)
	}
	if err := s.Ack(f.Org, f.Epoch, f.Lane, f.Last()); err != nil {
		t.Fatal(err)
	}
	for c.last.Load() == 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("it never arrived")
		}
	}
	if string(s.Positions()["canary/canary"]) != "42" {
		t.Errorf("positions %s", s.Positions())
	}
	cancel()
	for _, done := range []chan error{canaryDone, intakeDone} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
