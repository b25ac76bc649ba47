package agentd

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/agentd/uplink"
	"github.com/theazo/observability/shared/telemetry"
)

// canary is a source of one numbered line now and then, whose way is timed: from
// when it is handed to intake until the aggregator has acknowledged it as
// committed. It goes the way of every other line, behind the same backlog, so
// that its lag is what a reader sees. One that is not acknowledged when the next
// is due keeps its turn: the lag grows and is shown while it does.
//
//	write ──▶ durable (its position is) ──▶ acknowledged (the sequence it can have had at most is)
type canary struct {
	every     time.Duration
	target    source.Target
	positions func() map[string][]byte
	ledger    func() []spool.Sequence

	since atomic.Int64 // when the line on its way was written, in ns; 0: none is
	last  atomic.Int64 // lag of the last that arrived, in ns

	lag       prometheus.Histogram
	sent, got prometheus.Counter
}

// canaryName is the source's name and its position's key.
const canaryName = "canary"

func newCanary(every time.Duration, target source.Target, s *spool.Spool, reg prometheus.Registerer) *canary {
	c := &canary{
		every: every, target: target, positions: s.Positions, ledger: s.Ledger,
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "agentd_canary_lag_seconds", Help: "From when a canary line was written until it was acknowledged as committed.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{Name: "agentd_canary_lines_total", Help: "Canary lines written."}),
		got:  prometheus.NewCounter(prometheus.CounterOpts{Name: "agentd_canary_acknowledged_total", Help: "Canary lines acknowledged as committed."}),
	}
	reg.MustRegister(c.lag, c.sent, c.got)
	return c
}

// makeCanary makes the canary of a node that can have one: its lines need an
// organisation.
func (a *agent) makeCanary(id *uplink.Identity) {
	org := telemetry.OrgID(a.Config.Defaults.Organisation)
	if a.Command != nil || id == nil || a.Config.Canary.Interval == 0 || id.Platform && org == "" {
		return
	}
	if !id.Platform {
		org = ""
	}
	env, err := telemetry.ParseEnvironment(a.Config.Defaults.Environment)
	if err != nil {
		return // Validate has said so
	}
	a.canary = newCanary(a.Config.Canary.Interval, source.Target{
		Org: org, Env: env, Origin: telemetry.Origin{Agent: telemetry.AgentID("agt_agentd." + string(id.Node)), Source: telemetry.SourceSystem},
	}, a.spool, a.registry)
}

// Lag is that of the line on its way, where that is longer than the last
// one's was; 0: none was written yet.
func (c *canary) Lag() time.Duration {
	lag := time.Duration(c.last.Load())
	if since := c.since.Load(); since != 0 {
		lag = max(lag, time.Duration(time.Now().UnixNano()-since))
	}
	return lag
}

// Name implements source.Source.
func (c *canary) Name() string { return canaryName }

// Run implements source.Source.
func (c *canary) Run(ctx context.Context, resume source.Positions, to source.Sink) error {
	n := 0
	if b, ok := resume[canaryName]; ok {
		n, _ = strconv.Atoi(string(b)) // what is no number begins anew
	}
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for {
		n++
		if err := c.fly(ctx, n, to); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// fly writes line n and waits until it has arrived.
func (c *canary) fly(ctx context.Context, n int, to source.Sink) error {
	began := time.Now()
	c.since.Store(began.UnixNano())
	defer c.since.Store(0)
	e := telemetry.LogEntry{
		Timestamp: began.UTC(), Level: telemetry.Debug, Origin: c.target.Origin, Message: fmt.Sprintf("canary %d: the last one took %s to be committed", n, time.Duration(c.last.Load()).Round(100*time.Microsecond)),
		Metadata: json.RawMessage(`{"canary":` + strconv.Itoa(n) + `}`),
	}
	batch := &source.Batch{Target: c.target, Entries: []telemetry.LogEntry{e}, Positions: source.Positions{canaryName: json.RawMessage(strconv.Itoa(n))}}
	if err := to.Emit(ctx, batch); err != nil {
		return fmt.Errorf("canary: %w", err)
	}
	c.sent.Inc()
	key, number := canaryName+"/"+canaryName, strconv.Itoa(n)
	if err := await(ctx, func() bool { return string(c.positions()[key]) == number }); err != nil {
		return err
	}
	within := c.assigned()
	if err := await(ctx, func() bool { return c.acknowledged(within) }); err != nil {
		return err
	}
	c.got.Inc()
	lag := time.Since(began)
	c.last.Store(int64(lag))
	c.lag.Observe(lag.Seconds())
	return nil
}

// assigned are the last sequences of the lines' lane: the canary is among what
// they count.
func (c *canary) assigned() []spool.Sequence {
	var list []spool.Sequence
	for _, s := range c.ledger() {
		if s.Lane == uint8(telemetry.LaneLogs) && (s.Org == string(c.target.Org) || s.Org == "") {
			list = append(list, s)
		}
	}
	return list
}

// acknowledged reports whether all of them are, or no longer known, which they
// are when nothing of them is left.
func (c *canary) acknowledged(within []spool.Sequence) bool {
	now := map[uint64]uint64{}
	for _, s := range c.assigned() {
		now[s.Epoch] = s.Acked
	}
	for _, s := range within {
		if acked, known := now[s.Epoch]; known && acked < s.Assigned {
			return false
		}
	}
	return true
}

// await asks until the answer is yes: often at first, and so that what it took
// is known to an eighth.
func await(ctx context.Context, done func() bool) error {
	began := time.Now()
	timer := time.NewTimer(time.Millisecond)
	defer timer.Stop()
	for !done() {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fmt.Errorf("canary: %w", ctx.Err())
		}
		timer.Reset(min(max(time.Since(began)/8, time.Millisecond), time.Second))
	}
	return nil
}
