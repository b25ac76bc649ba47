package uplink

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/telemetry"
)

// Queue holds the frames that are to be sent, durably. Next and Reset are
// called by one goroutine at a time, the others by any.
type Queue interface {
	// Next returns the next frame that is not sent yet, of an organisation
	// that skip does not name; it waits until there is one.
	Next(ctx context.Context, skip func(telemetry.OrgID) bool) (frame.Frame, error)
	// Wake makes a waiting Next ask skip again.
	Wake()
	// Ack gives up every frame of the organisation, epoch and lane up to last.
	Ack(org telemetry.OrgID, epoch uint64, lane telemetry.Lane, last uint64) error
	// Rewind makes Next return frames again from the one that holds next on.
	// What was acknowledged before is told as missing by a tombstone.
	Rewind(org telemetry.OrgID, epoch uint64, lane telemetry.Lane, next uint64)
	// Reset makes Next return every frame again that is not acknowledged.
	Reset()
}

// Config of an Uplink.
type Config struct {
	Addresses []string // of the aggregators' ingest ports, host:port; tried in turn
	StateDir  string   // where the identity is
	NodeName  string   // name that people know the host by
	Version   string   // of agentd
	Window    int64    // bytes on their way at most; 0: 16 MiB, and never more than the aggregator says
	// Report says how the node is doing, to aggregators that ask for it; the
	// uplink adds the clock's skew. nil: they are told nothing.
	Report func() telemetry.NodeReport
}

// How long attempts and silences may last.
const (
	welcomeTimeout = 15 * time.Second
	drainTimeout   = time.Second
	ackTimeout     = 2 * time.Minute // without any acknowledgement for what is on its way
	steadyAfter    = 30 * time.Second
)

// Uplink sends what a queue holds to an aggregator.
type Uplink struct {
	config  Config
	queue   Queue
	log     hclog.Logger
	metrics *metrics
	window  *window

	mu       sync.Mutex
	identity Identity
	renewAt  time.Time
	status   Status
}

// Status is how the uplink is.
type Status struct {
	Node               telemetry.NodeID `json:"nodeId"`
	Organisation       telemetry.OrgID  `json:"organisationId,omitempty"`
	Platform           bool             `json:"platform,omitempty"`
	CertificateExpires time.Time        `json:"certificateExpiresAt"`
	Connected          bool             `json:"connected"`
	ConnectedSince     time.Time        `json:"connectedSince,omitzero"`
	Aggregator         string           `json:"aggregator,omitempty"` // connected to, or tried last
	LastAckAt          time.Time        `json:"lastAckAt,omitzero"`
	InFlightFrames     int              `json:"inFlightFrames"`
	InFlightBytes      int64            `json:"inFlightBytes"`
	Throttled          []Throttled      `json:"throttled,omitempty"`
	ClockSkew          time.Duration    `json:"clockSkewNanos"` // our clock minus the aggregator's, at the last connection
	LastError          string           `json:"lastError,omitempty"`
	LastErrorAt        time.Time        `json:"lastErrorAt,omitzero"`
}

// Throttled is an organisation whose frames have to wait.
type Throttled struct {
	Organisation telemetry.OrgID `json:"organisationId"`
	Until        time.Time       `json:"until"`
	Reason       string          `json:"reason"`
}

// New makes an uplink for the node whose identity is in the state directory.
func New(c Config, q Queue, log hclog.Logger, r prometheus.Registerer) (*Uplink, error) {
	if len(c.Addresses) == 0 {
		return nil, errors.New("uplink: no address of an aggregator is given")
	}
	id, err := LoadIdentity(c.StateDir)
	if err != nil {
		return nil, err
	}
	c.Window = cmp.Or(c.Window, 16<<20)
	u := &Uplink{config: c, queue: q, log: log, window: newWindow()}
	u.metrics = newMetrics(r, u)
	u.setIdentity(id)
	return u, nil
}

// Run connects and sends until ctx ends, and never gives up before. It waits
// a moment for acknowledgements of what is on its way when ctx ends.
func (u *Uplink) Run(ctx context.Context) error {
	pause := retry.Backoff{Min: 100 * time.Millisecond, Max: 30 * time.Second}
	next := rand.IntN(len(u.config.Addresses)) //nolint:gosec // spreads nodes over aggregators; nothing secret hangs on it
	logged := ""
	for ctx.Err() == nil {
		address := u.config.Addresses[next]
		end := u.connect(ctx, address)
		if end.steady {
			pause.Reset()
			logged = ""
		}
		if !errors.Is(end.err, errRenewed) && ctx.Err() == nil {
			next = (next + 1) % len(u.config.Addresses)
			u.failed(end.err)
			if text := end.err.Error(); text != logged {
				u.log.Warn("connection to the aggregator failed, trying on", "aggregator", address, "error", end.err)
				logged = text
			}
		}
		_ = retry.Sleep(ctx, pause.Next()) // the loop ends with ctx
	}
	return nil
}

// Status returns how the uplink is now.
func (u *Uplink) Status() Status {
	u.mu.Lock()
	s := u.status
	s.Node, s.Organisation, s.Platform, s.CertificateExpires = u.identity.Node, u.identity.Org, u.identity.Platform, u.identity.NotAfter
	u.mu.Unlock()
	s.InFlightFrames, s.InFlightBytes, s.Throttled = u.window.describe()
	slices.SortFunc(s.Throttled, func(a, b Throttled) int { return cmp.Compare(a.Organisation, b.Organisation) })
	return s
}

func (u *Uplink) update(change func(s *Status)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change(&u.status)
}

func (u *Uplink) failed(err error) {
	u.metrics.failures.Inc()
	u.update(func(s *Status) { s.LastError, s.LastErrorAt = err.Error(), time.Now().UTC() })
}

// setIdentity takes over an identity and decides when to renew it: at about
// two thirds of its life. The exact time is drawn, so that a copy of this
// node renews at another one and is found out (see the aggregator's admit).
func (u *Uplink) setIdentity(id Identity) {
	life := id.NotAfter.Sub(id.NotBefore)
	share := 0.62 + 0.08*rand.Float64() //nolint:gosec // nothing secret hangs on it
	u.mu.Lock()
	defer u.mu.Unlock()
	u.identity = id
	u.renewAt = id.NotBefore.Add(time.Duration(float64(life) * share))
}

func (u *Uplink) currentIdentity() (id Identity, renewAt time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.identity, u.renewAt
}
