package live

import (
	"context"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// epochEvery is after how many polls the epoch is asked for.
const epochEvery = 20

// poller looks for what other replicas committed: with one statement for all
// scopes that are watched, however many there are.
type poller struct {
	hub    *Hub
	polls  int
	failed bool // the last poll failed, and that was logged

	epoch   int64
	tailers []*tailer
	scopes  []telemetry.Scope
	known   []int64 // where each tailer was before the heads were read
}

// poll runs until ctx ends.
func (h *Hub) poll(ctx context.Context) {
	tick := time.NewTicker(h.options.Poll)
	defer tick.Stop()
	for p := (poller{hub: h}); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.look(ctx)
		}
	}
}

func (p *poller) look(ctx context.Context) {
	if p.list(); len(p.tailers) == 0 {
		return
	}
	askEpoch := p.polls%epochEvery == 0
	p.polls++
	if askEpoch {
		epoch, err := p.hub.log.StreamEpoch(ctx)
		if !p.ok(ctx, err) {
			return
		}
		p.epoch = epoch
	}
	heads, err := p.hub.log.StreamHeads(ctx, p.scopes)
	if !p.ok(ctx, err) {
		return
	}
	p.hub.metrics.polls.Inc()
	for i, t := range p.tailers {
		restored := heads[i] < p.known[i] || askEpoch && t.epoch != p.epoch
		if restored || heads[i] > p.known[i] {
			t.tell(heads[i], restored)
		}
	}
}

// list notes the tailers that have started, and where they are.
func (p *poller) list() {
	p.tailers, p.scopes, p.known = p.tailers[:0], p.scopes[:0], p.known[:0]
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	for _, t := range p.hub.tailers {
		select {
		case <-t.started:
		default:
			continue
		}
		p.tailers, p.scopes, p.known = append(p.tailers, t), append(p.scopes, t.scope), append(p.known, t.position())
	}
}

// ok reports whether a poll succeeded, and logs the first failure and the
// recovery.
func (p *poller) ok(ctx context.Context, err error) bool {
	log := p.hub.options.Log
	switch {
	case ctx.Err() != nil:
	case err != nil && !p.failed:
		log.Warn("the stored streams cannot be looked at: live views see only what this replica commits", "error", err)
	case err == nil && p.failed:
		log.Info("the stored streams can be looked at again")
	}
	p.failed = err != nil
	return err == nil
}
