package intake

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// What a crash could lose of a pipe is bounded (promise P2); a file, which can
// be read again, may have more on its way.
func TestLessOfAPipeIsHeldThanOfAFile(t *testing.T) {
	for name, c := range map[string]struct {
		once bool
		most int
	}{"pipe": {true, heldUnread}, "file": {false, heldBytes}} {
		synctest.Test(t, func(t *testing.T) {
			q := &memory{gate: make(chan struct{})} // nothing becomes durable
			in := New(Config{NoStructure: true}, q, hclog.NewNullLogger(), prometheus.NewRegistry())
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- in.Run(ctx) }()
			held := 0
			b := &source.Batch{
				Target: source.Target{Origin: telemetry.Origin{Agent: "agt_a"}}, Once: c.once,
				Lines:     []source.Line{{Text: bytes.Repeat([]byte("x"), 16<<10)}},
				Positions: source.Positions{"a": []byte("1")}, // a note beside it changes nothing
			}
			emitCtx, stop := context.WithCancel(ctx)
			go func() {
				synctest.Wait() // until Emit blocks
				stop()
			}()
			for in.Sink("s").Emit(emitCtx, b) == nil {
				held += len(b.Lines[0].Text)
			}
			if held < c.most/2 || held > c.most+len(b.Lines[0].Text) {
				t.Errorf("%s: %d bytes are held, at most %d may be", name, held, c.most)
			}
			close(q.gate)
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}
