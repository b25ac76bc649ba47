package guest

import (
	"context"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says what agentd may take of its host.
type Config struct {
	// Memory is the budget in bytes of agentd's resident memory. 0: DefaultMemory.
	Memory int64
	// MaxProcs is how many processors work for it at a time. 0: one. The
	// environment's GOMAXPROCS goes before it.
	MaxProcs int
	// Nice is the niceness of agentd's threads, 0 to 19, and lowers their
	// priority for disks too. 0 leaves both as they are, which is right below
	// systemd, whose unit sets them, and for `agentd exec`, whose child would
	// inherit them.
	Nice int
	// TimerSlack is how much later than asked for the kernel may wake agentd's
	// threads. Children inherit it, as above.
	TimerSlack time.Duration
	// IgnorePressure leaves the host's pressure out: Pressure tells of agentd's
	// own memory only.
	IgnorePressure bool
}

// DefaultMemory is the budget where none is configured.
const DefaultMemory = 128 << 20

// readEvery is how often pressure and memory are looked at. PSI's averages are
// over ten seconds, so that more would tell nothing new.
const readEvery = 3 * time.Second

// Guest watches over what agentd takes. Its methods may be called by any
// goroutine.
type Guest struct {
	cfg  Config
	log  hclog.Logger
	host host
	done sync.WaitGroup

	level    hysteresis
	pressure atomic.Uint64 // bits of a float64
	status   atomic.Pointer[Status]
	over     bool // memory was above the budget at the last look
	freed    time.Time
}

// Status is what was seen at the last look.
type Status struct {
	Pressure float64 `json:"pressure"`
	// Stalled is the share of time, in per cent over ten seconds, that work on
	// the host waited for processors, disks and memory; nil without PSI.
	Stalled *Stalls `json:"stalled,omitempty"`
	// Resident is agentd's own memory, and Budget what it may have, in bytes.
	Resident int64 `json:"resident"`
	Budget   int64 `json:"budget"`
	Limit    int64 `json:"limit"` // the Go runtime's
}

// Start sets the limits and begins to watch, until ctx ends. reg may be nil.
func Start(ctx context.Context, cfg Config, log hclog.Logger, reg prometheus.Registerer) *Guest {
	g := &Guest{cfg: cfg, log: log, host: host{proc: "/proc", cgroup: "/sys/fs/cgroup"}}
	g.start(ctx, reg)
	return g
}

func (g *Guest) start(ctx context.Context, reg prometheus.Registerer) {
	if g.cfg.Memory <= 0 {
		g.cfg.Memory = DefaultMemory
	}
	g.limitMemory()
	g.limitProcs()
	if g.cfg.Nice > 0 {
		if err := stepBack(g.host.proc, g.cfg.Nice); err != nil {
			g.log.Warn("the priority could not be lowered; a systemd unit does it by Nice= and IOSchedulingPriority=", "nice", g.cfg.Nice, "error", err)
		}
	}
	if g.cfg.TimerSlack > 0 {
		if err := beLax(g.host.proc, g.cfg.TimerSlack); err != nil {
			g.log.Debug("the kernel may not wake us a little later; a systemd unit allows it by TimerSlackNSec=", "error", err)
		}
	}
	g.look(time.Now())
	if reg != nil {
		g.register(reg)
	}
	g.done.Go(func() {
		tick := time.NewTicker(readEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				g.look(now)
			}
		}
	})
}

// Wait waits until the watching has ended, which it does with Start's context.
func (g *Guest) Wait() { g.done.Wait() }

// Pressure is how short the host, or agentd itself, is of something: 0 to 1.
func (g *Guest) Pressure() float64 { return math.Float64frombits(g.pressure.Load()) }

// Status is what was seen at the last look.
func (g *Guest) Status() Status { return *g.status.Load() }

// runtimeShare is the part of the budget that the Go runtime may have. The
// rest is for the binary's own pages and what the kernel keeps for us.
const runtimeShare = 0.85

// garbagePercent is how much garbage may lie beside what is used. A heap of
// 10 MiB is collected in no time: half of Go's default cost a backlog no CPU that
// showed in the noise, and took 6 MiB off its peak, 1 to 3 MiB off an idle node.
const garbagePercent = 50

// limitMemory tells the Go runtime its limit.
func (g *Guest) limitMemory() {
	budget := g.cfg.Memory
	if limit, where := g.host.memoryLimit(); limit > 0 && limit < budget {
		g.log.Info("the memory budget is lowered to the limit of a cgroup", "budget", budget, "limit", limit, "cgroup", where)
		budget = limit
	}
	g.cfg.Memory = budget
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(float64(budget) * runtimeShare))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

func (g *Guest) limitProcs() {
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	n := g.cfg.MaxProcs
	runtime.GOMAXPROCS(min(max(n, 1), runtime.NumCPU()))
}

// look reads pressure and memory.
func (g *Guest) look(now time.Time) {
	s := Status{Resident: g.host.resident(), Budget: g.cfg.Memory, Limit: debug.SetMemoryLimit(-1)}
	raw := 0.0
	if !g.cfg.IgnorePressure {
		if stalls, ok := g.host.stalls(); ok {
			s.Stalled = &stalls
			raw = stalls.pressure()
		}
	}
	s.Pressure = max(g.level.next(raw), ownPressure(s.Resident, s.Budget))
	g.pressure.Store(math.Float64bits(s.Pressure))
	g.status.Store(&s)
	g.checkMemory(s, now)
}

// ownPressure is 0 up to the budget and 1 from a tenth above it.
func ownPressure(resident, budget int64) float64 {
	return min(1, max(0, (float64(resident)/float64(budget)-1)*10))
}

// freeEvery bounds how often memory is given back by force, which costs a
// whole collection.
const freeEvery = time.Minute

// checkMemory says when the budget is exceeded, and gives memory back.
func (g *Guest) checkMemory(s Status, now time.Time) {
	over := s.Resident > s.Budget
	if over && now.Sub(g.freed) >= freeEvery {
		g.freed = now
		debug.FreeOSMemory()
	}
	switch {
	case over && !g.over:
		g.log.Warn("agentd takes more memory than its budget: debug lines may be sampled until it does not; many containers that write at once need a larger guest.memory",
			"resident", s.Resident, "budget", s.Budget)
	case !over && g.over:
		g.log.Info("memory is within the budget again", "resident", s.Resident, "budget", s.Budget)
	}
	g.over = over
}

// register shows the last look at each scrape.
func (g *Guest) register(reg prometheus.Registerer) {
	gauge := func(name, help string, labels prometheus.Labels, value func(Status) float64) {
		c := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return value(g.Status()) })
		if err := reg.Register(c); err != nil {
			g.log.Warn("a metric is not shown", "metric", name, "error", err)
		}
	}
	gauge("agentd_pressure", "How short the host or agentd itself is of something, 0 to 1. Debug lines wait longer above 0; from 0.9 on they may be sampled.", nil,
		func(s Status) float64 { return s.Pressure })
	gauge("agentd_memory_budget_bytes", "Resident memory that agentd may have.", nil, func(s Status) float64 { return float64(s.Budget) })
	for resource, of := range map[string]func(*Stalls) float64{
		"cpu": func(s *Stalls) float64 { return s.CPU }, "io": func(s *Stalls) float64 { return s.IO }, "memory": func(s *Stalls) float64 { return s.Memory },
	} {
		gauge("agentd_host_stalled_ratio", "Share of the last ten seconds that work on this host waited for a resource (PSI); 0 where the kernel does not tell.",
			prometheus.Labels{"resource": resource}, func(s Status) float64 {
				if s.Stalled == nil {
					return 0
				}
				return of(s.Stalled) / 100
			})
	}
}
