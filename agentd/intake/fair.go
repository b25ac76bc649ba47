package intake

import (
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// What a sandbox's fair share is, and what becomes of more.
const (
	rateWindow = 10 * time.Second // that a rate is averaged over
	rateTick   = time.Second
	shareFloor = 16 << 10 // bytes a second that nobody is above a share with
	shareSlack = 1.25     // times the share until somebody is above it
	maxShares  = 16 << 10 // sandboxes; others are never above

	sampleFrom = 0.9 // pressure from which lines above a share are sampled
	sampleOne  = 10  // of how many is kept
	sampleGap  = 10 * time.Second
)

// fairness measures what each sandbox writes. A fair share is what the node
// takes in, divided evenly between the organisations that write, and for each
// of those between its sandboxes that do.
type fairness struct {
	by      map[shareKey]*share
	orgs    map[telemetry.Scope]*orgRate
	ticked  time.Time
	pending map[shareKey]*share // with sampled lines that no gap tells of yet
}

type shareKey struct {
	scope   telemetry.Scope
	agent   telemetry.AgentID
	sandbox telemetry.SandboxID
}

type orgRate struct {
	rate      float64
	sandboxes int
}

// share is what one sandbox writes.
type share struct {
	key   shareKey
	bytes int     // since the last tick
	rate  float64 // bytes a second
	above bool    // as of the last tick
	bulk  bool    // above, as of the cut: it does not change within one
	cut   uint64
	seen  uint // debug and info lines while it was sampled
	sampled
	told time.Time // when the last gap was
}

// sampled counts lines that were left out. It lies in the positions until a gap
// tells of it, so that a crash between the two hides nothing.
type sampled struct {
	Org     telemetry.OrgID       `json:"org,omitempty"`
	Env     telemetry.Environment `json:"env"`
	Agent   telemetry.AgentID     `json:"agent,omitempty"`
	Session telemetry.SessionID   `json:"session,omitempty"`
	Sandbox telemetry.SandboxID   `json:"sandbox,omitempty"`
	Count   int64                 `json:"count"`
	Bytes   int64                 `json:"bytes"`
	Since   time.Time             `json:"since"`
	Until   time.Time             `json:"until"`
}

func newFairness() fairness {
	return fairness{by: map[shareKey]*share{}, orgs: map[telemetry.Scope]*orgRate{}, pending: map[shareKey]*share{}}
}

// of returns the share of a sandbox, with so many bytes more; cut is the number
// of the cut that they go into.
func (f *fairness) of(scope telemetry.Scope, o *telemetry.Origin, bytes int, cut uint64) *share {
	now := time.Now()
	if now.Sub(f.ticked) >= rateTick {
		f.tick(now)
	}
	key := shareKey{scope: scope, sandbox: o.Sandbox}
	if o.Sandbox == "" {
		key.agent = o.Agent
	}
	s := f.by[key]
	if s == nil {
		if len(f.by) >= maxShares {
			return &share{key: key}
		}
		s = &share{key: key}
		f.by[key] = s
	}
	s.bytes += bytes
	if s.cut != cut {
		s.cut, s.bulk = cut, s.above
	}
	return s
}

// tick brings the rates up to date.
func (f *fairness) tick(now time.Time) {
	passed := now.Sub(f.ticked)
	f.ticked = now
	weight := 1 - math.Exp(-passed.Seconds()/rateWindow.Seconds())
	clear(f.orgs)
	total := 0.0
	for key, s := range f.by {
		s.rate += weight * (float64(s.bytes)/passed.Seconds() - s.rate)
		s.bytes = 0
		if s.rate < 1 {
			if s.Count == 0 {
				delete(f.by, key)
			}
			s.above = false
			continue
		}
		o := f.orgs[key.scope]
		if o == nil {
			o = &orgRate{}
			f.orgs[key.scope] = o
		}
		o.sandboxes++
		o.rate += s.rate
		total += s.rate
	}
	for key, s := range f.by {
		o := f.orgs[key.scope]
		if o == nil || s.rate < 1 {
			continue
		}
		fair := total / float64(len(f.orgs)) / float64(o.sandboxes)
		if s.above {
			s.above = s.rate > fair && s.rate > shareFloor
		} else {
			s.above = s.rate > shareSlack*fair && s.rate > shareFloor
		}
	}
}

// pressureNow is what Config.Pressure says, asked for a few times a second.
func (in *Intake) pressureNow() float64 {
	if in.cfg.Pressure == nil {
		return 0
	}
	const every = 100 * time.Millisecond
	if now := time.Now(); now.Sub(in.asked) >= every {
		in.asked, in.pressure = now, in.cfg.Pressure()
	}
	return in.pressure
}

// delay is how long a cut of lines waits for more. Under pressure fewer, larger
// cuts spare the host, and those who read debug lines wait first.
func (in *Intake) delay() time.Duration {
	p, d := in.pressureNow(), in.cfg.MaxDelay
	switch top := in.logs.collecting.top; {
	case top == telemetry.Debug && p >= 0.5:
		return 8 * d
	case top <= telemetry.Info && p >= 0.75:
		return 4 * d
	}
	return d
}

// sample reports whether a line of a sandbox above its share is left out.
func (in *Intake) sample(s *share, e *telemetry.LogEntry, size int) bool {
	if e.Level >= telemetry.Warn {
		return false
	}
	if s.seen++; s.seen%sampleOne == 1 {
		return false
	}
	if s.Count == 0 {
		s.Org, s.Env, s.Agent, s.Session, s.Sandbox = s.key.scope.Org, s.key.scope.Env, e.Agent, e.Session, e.Sandbox
		s.Since, s.Until = e.Timestamp, e.Timestamp
	}
	if e.Timestamp.Before(s.Since) {
		s.Since = e.Timestamp
	}
	if e.Timestamp.After(s.Until) {
		s.Until = e.Timestamp
	}
	s.Count++
	s.Bytes += int64(size)
	return true
}

// samplePrefix parts our own positions from those of sources.
const samplePrefix = "intake/sampled/"

func (k *shareKey) position() string {
	return samplePrefix + k.scope.String() + "/" + string(k.agent) + "/" + string(k.sandbox)
}

// tellSampled puts what was left out of a sandbox into a gap record, at most
// one in sampleGap, and notes the rest where it is durable with the cut.
func (in *Intake) tellSampled(s *share, all bool) {
	if s.Count == 0 {
		return
	}
	to, key := in.logs.collecting, s.key.position()
	if !all && time.Since(s.told) < sampleGap {
		note, err := json.Marshal(&s.sampled)
		if err == nil {
			in.takePosition(to, key, note)
			in.fair.pending[s.key] = s
		}
		return
	}
	in.takeSampled(to, &s.sampled)
	in.takePosition(to, key, nil)
	delete(in.fair.pending, s.key)
	s.sampled, s.told = sampled{}, time.Now()
}

func (in *Intake) takeSampled(to *batch, s *sampled) {
	scope := to.scope(telemetry.Scope{Org: s.Org, Env: s.Env})
	before := scope.bytes
	var done marks
	in.takeGap(scope, telemetry.Origin{}, telemetry.Gap{
		Reason: telemetry.GapSampled, Count: s.Count, Bytes: s.Bytes, Since: s.Since, Until: s.Until,
		Agent: s.Agent, Session: s.Session, Sandbox: s.Sandbox,
		Detail: "This sandbox wrote more than its fair share while its node was under pressure: one in 10 of its debug and info lines was kept.",
	}, &done)
	in.metrics.count(&done)
	to.account(scope, before)
}

// tellDue tells of what was left out long enough ago, or of all.
func (in *Intake) tellDue(all bool) {
	for _, s := range in.fair.pending {
		if all || time.Since(s.told) >= sampleGap {
			in.tellSampled(s, true)
		}
	}
}

// sampledDue is when the next gap is to be told.
func (f *fairness) sampledDue() (at time.Time, some bool) {
	for _, s := range f.pending {
		if due := s.told.Add(sampleGap); !some || due.Before(at) {
			at, some = due, true
		}
	}
	return at, some
}

// Restore tells of what an earlier process left out and did not come to tell
// of: durable are all positions, as they were when agentd started. Call it once,
// before sources start.
func (in *Intake) Restore(durable map[string][]byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for key, note := range durable {
		var s sampled
		if !strings.HasPrefix(key, samplePrefix) {
			continue
		}
		if err := json.Unmarshal(note, &s); err != nil {
			in.log.Warn("a note of lines that were left out cannot be read", "key", key, "error", err)
		} else {
			in.takeSampled(in.logs.collecting, &s)
		}
		in.takePosition(in.logs.collecting, key, nil)
	}
	in.notify()
}
