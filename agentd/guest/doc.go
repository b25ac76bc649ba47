// Package guest makes agentd a good guest of its host: it keeps within the
// memory and the processors that it was given, steps behind the host's own
// work, and tells the other parts when the host is short of something.
//
// What it promises:
//
//   - The Go runtime knows a limit of memory that is below the configured budget
//     and below the limit of every cgroup around it, so that agentd collects
//     garbage sooner rather than being killed.
//
//   - At most MaxProcs processors work for agentd at a time: one, unless told
//     otherwise. Go wakes a second thread for work that the first could have done
//     before the second is awake, which costs a backlog 7 % of its CPU and a
//     trickle of lines an eighth.
//
//   - The kernel may wake agentd's threads up to TimerSlack late, where it lets us
//     say so. Timers of one millisecond or more do not mind. Go's own monitor would
//     otherwise look around every 75 µs while anything runs.
//
//   - Pressure is a number from 0 (nothing is short) to 1. It comes from the
//     kernel's pressure stall information (PSI). Processors and disks raise it
//     to 0.8 at most, at which debug lines wait longer; only memory, the host's
//     or agentd's own, raises it further, to where lines may be sampled: a host
//     that is busy loses nothing by it.
//
//   - Pressure rises at once, and falls only when it has been lower for a while:
//
//     raw      ▁▂▇▇▂▁▂▇▂▁▁▁▁▁▁▁
//     Pressure ▁▂▇▇▇▇▇▇▇▇▇▇▁▁▁▁
//
//   - A kernel without PSI, or one that hides it, means a pressure of 0.
//
// One goroutine reads some small files every few seconds; Wait waits for it.
package guest
