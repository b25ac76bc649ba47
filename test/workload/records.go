package workload

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// The store's workload: Sessions of Agents in Organisations, all of them busy
// all the time. The figures of other stores in docs/benchmarks.md were taken on
// the same texts and the same distribution.
const (
	Organisations = 20
	Sessions      = 2000
	Agents        = 500
)

// Absent is a word in no record.
const Absent = "zzabsentzz"

// SessionID of a session by its number.
func SessionID(i int) telemetry.SessionID {
	return telemetry.SessionID(fmt.Sprintf("ses_%06x", i*7919))
}

// AgentID of an agent by its number.
func AgentID(i int) telemetry.AgentID { return telemetry.AgentID(fmt.Sprintf("agt_%03d", i)) }

var templates = []string{
	"GET /api/v1/orders/%d completed status=200 in %dms request_id=%016x bytes=%d",
	"POST /api/v1/users/%d/sessions status=201 in %dms request_id=%016x size=%d",
	"cache miss for key user:%d after %d lookups trace_id=%016x shard=%d, reading from primary replica",
	"worker picked job id=%d attempt=%d run=%016x queue depth %d, dispatching to executor pool",
	"checkpoint written offset=%d segments=%d checksum=%016x duration_us=%d on local volume",
	"tool call finished name=read_file call=%d exit=%d id=%016x output truncated to %d bytes",
	"connection from 10.0.%d.%d accepted conn_id=%016x streams=%d, negotiating protocol features",
}

var timeouts = []string{
	"upstream timeout while calling payments order=%d after %dms request_id=%016x retry=%d",
	"context deadline exceeded: timeout waiting for lock id=%d held %dms owner=%016x waiters=%d",
}

var levels = []telemetry.Level{telemetry.Info, telemetry.Debug, telemetry.Warn, telemetry.Error}

// Records is a set of log records: N of them, spread evenly over Span up to
// End. Each depends on the seed and its number alone, so they can be made in
// parallel, and made again by whoever checks an answer.
type Records struct {
	Seed uint64
	N    int64
	End  time.Time
	Span time.Duration

	sessions []telemetry.SessionID
	agents   []telemetry.AgentID
}

// NewRecords describes a set.
func NewRecords(seed uint64, n int64, end time.Time, span time.Duration) *Records {
	r := &Records{Seed: seed, N: n, End: end.UTC().Truncate(time.Microsecond), Span: span}
	for i := range Sessions {
		r.sessions = append(r.sessions, SessionID(i))
	}
	for i := range Agents {
		r.agents = append(r.agents, AgentID(i))
	}
	return r
}

// At fills e with record i and returns the number of its organisation. The
// message is appended to buf, which is returned too, and not set in e.
func (r *Records) At(i int64, e *telemetry.LogEntry, buf []byte) (org int, message []byte) {
	p := rand.NewPCG(r.Seed, uint64(i)*0x9E3779B97F4A7C15+1) //nolint:gosec // seeded on purpose
	x := p.Uint64()
	session := int(x % Sessions)
	x /= Sessions
	org = session % Organisations
	agent := (org + Organisations*((session/Organisations+int(x%3)*31)%(Agents/Organisations))) % Agents
	x /= 3
	level := 0
	switch l := x % 100; {
	case l < 80:
	case l < 95:
		level = 1
	case l < 99:
		level = 2
	default:
		level = 3
	}
	x /= 100
	y := p.Uint64()
	template := templates[x%uint64(len(templates))]
	if level >= 2 && y&3 == 0 || y%1000 == 7 { // "timeout" in about 1.35 % of the records
		template = timeouts[x%2]
	}
	z := p.Uint64()
	*e = telemetry.LogEntry{
		Timestamp: r.End.Add(-r.Span + time.Duration(float64(r.Span)*(float64(i)/float64(r.N)))).Truncate(time.Microsecond),
		Level:     levels[level],
		Origin:    telemetry.Origin{Session: r.sessions[session], Agent: r.agents[agent]},
	}
	buf = fmt.Appendf(buf, template, z%1_000_000, (z>>20)%3000, y, (z>>40)%100_000)
	buf = append(buf, " host=node-"...)
	return org, strconv.AppendUint(buf, (z>>32)%200, 10)
}
