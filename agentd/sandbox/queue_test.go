package sandbox

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// whileQuiet is a sink that does something while it is told who has fallen
// quiet.
type whileQuiet struct {
	*keeper
	do func() error
}

func (w *whileQuiet) Emit(ctx context.Context, b *source.Batch) error {
	if len(b.Entries) == 0 {
		if err := w.do(); err != nil {
			return err
		}
	}
	return w.keeper.Emit(ctx, b)
}

func quietQueues(t *testing.T, to source.Sink) (q *queues, offer func()) {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	q = newQueues(t.Context(), to, nil, Quota{}.withDefaults(), m)
	return q, func() {
		if err := q.offer(target("agt_1", ""), &source.Batch{Entries: []telemetry.LogEntry{{Message: "m"}}}); err != nil {
			t.Error(err)
		}
	}
}

// A sandbox that speaks while it is noted as quiet is not forgotten: a kill of
// agentd would hide what it lost.
func TestWhoSpeaksAgainIsNotNotedAsQuiet(t *testing.T) {
	to := &whileQuiet{keeper: newKeeper()}
	q, offer := quietQueues(t, to)
	key := openKey(target("agt_1", ""))
	offer()
	q.workers.Wait()
	to.do = func() error {
		offer()
		q.workers.Wait() // nobody works on it yet: what it says comes behind
		return nil
	}
	q.tidyOnce(t.Context(), time.Now().Add(time.Minute))
	q.workers.Wait()
	if all := to.all(); len(all.Entries) != 2 || string(to.durable(key)) == "" {
		t.Errorf("%d entries, the position is %s", len(all.Entries), to.durable(key))
	}
	to.do = func() error { return nil }
	q.tidyOnce(t.Context(), time.Now().Add(time.Minute))
	if p := to.durable(key); p != nil {
		t.Errorf("who is quiet is noted as %s", p)
	}
}

// Who could not be noted as quiet, because the endpoint is stopping, is noted
// when it stops: the next start would tell of a kill that was none.
func TestWhoFellQuietAtTheEndIsNotedByDrain(t *testing.T) {
	to := &whileQuiet{keeper: newKeeper(), do: func() error { return errors.New("stopping") }}
	q, offer := quietQueues(t, to)
	offer()
	q.workers.Wait()
	q.tidyOnce(t.Context(), time.Now().Add(time.Minute))
	to.do = func() error { return nil }
	if err := q.drain(); err != nil {
		t.Fatal(err)
	}
	if p := to.durable(openKey(target("agt_1", ""))); p != nil {
		t.Errorf("noted as %s", p)
	}
}
