package guest

import (
	"fmt"
	"strings"

	"github.com/theazo/observability/shared/health"
)

// leastMemory is what an agentd with few containers needs.
const leastMemory = 48 << 20

// Doctor says whether the host gives what the configuration asks for.
func Doctor(cfg Config) []health.Finding {
	return doctor(cfg, host{proc: "/proc", cgroup: "/sys/fs/cgroup"})
}

func doctor(cfg Config, h host) []health.Finding {
	findings := []health.Finding{memoryFinding(cfg, h), pressureFinding(cfg, h)}
	for i := range findings {
		findings[i].Detail = strings.TrimSuffix(findings[i].Detail, ".") + "."
	}
	return findings
}

func memoryFinding(cfg Config, h host) health.Finding {
	budget := cfg.Memory
	if budget <= 0 {
		budget = DefaultMemory
	}
	f := health.Finding{Level: health.OK, Check: "memory", Detail: fmt.Sprintf("A budget of %d MiB", budget>>20)}
	limit, where := h.memoryLimit()
	if limit > 0 {
		f.Detail += fmt.Sprintf(", below the limit of %d MiB of the cgroup %s", limit>>20, where)
	}
	switch {
	case limit > 0 && limit < leastMemory:
		f.Level = health.Warn
		f.Detail = fmt.Sprintf("The cgroup %s gives %d MiB: agentd may be killed when many containers write at once", where, limit>>20)
		f.Mend = fmt.Sprintf("Raise its limit to %d MiB or more.", leastMemory>>20)
	case limit > 0 && limit < budget:
		f.Level = health.Note
		f.Detail = fmt.Sprintf("The budget is %d MiB, but the cgroup %s gives %d MiB, which agentd will keep to", budget>>20, where, limit>>20)
		f.Mend = "Raise the cgroup's limit, or lower guest.memory."
	case budget < leastMemory:
		f.Level = health.Warn
		f.Detail = fmt.Sprintf("The budget of %d MiB is little: debug lines may be sampled when many containers write at once", budget>>20)
		f.Mend = fmt.Sprintf("Set guest.memory to %d MiB or more.", leastMemory>>20)
	}
	return f
}

func pressureFinding(cfg Config, h host) health.Finding {
	f := health.Finding{Level: health.OK, Check: "host pressure"}
	s, ok := h.stalls()
	switch {
	case cfg.IgnorePressure:
		f.Level, f.Detail = health.Note, "It is left out by the configuration."
	case !ok:
		f.Level = health.Note
		f.Detail = "The kernel does not tell (PSI): agentd cannot step back when the host is short of something"
		f.Mend = "Boot with psi=1 where the kernel has it (4.20 or newer)."
	default:
		f.Detail = fmt.Sprintf("Work waits for processors %.0f %%, for disks %.0f %%, for memory %.0f %% of the time", s.CPU, s.IO, s.Memory)
		if s.pressure() > 0 {
			f.Level = health.Note
			f.Detail += ": debug lines are delayed"
		}
	}
	return f
}
